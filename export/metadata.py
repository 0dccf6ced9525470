"""TFLite Model Metadata: what a file takes and gives, inside it, for MediaPipe Tasks and Android Studio.

The tables and the numbers of their fields are facts of `metadata_schema.fbs` (identifier M001), in
github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata. They are written with `flatbuffers` alone. The labels
follow the flatbuffer as a zip, where readers of the metadata look for associated files: the file stays a `.tflite`.
"""

import io
import zipfile

import flatbuffers
import numpy as np

from export import flatbuffer

LABELS = "labels.txt"
NAME = b"TFLITE_METADATA"  # of the entry in the model's table that holds the metadata
IDENTIFIER = b"M001"
PARSER = "1.0.0"  # oldest parser that knows the fields below: comment at the head of the schema

# Table -> field -> (number, kind). A kind is "string", "table", "tables" (a vector), "byte", "floats" or "uint32".
# A union's type is the field before its value.
_MODEL = {
    "name": (0, "string"),
    "description": (1, "string"),
    "subgraph_metadata": (3, "tables"),
    "min_parser_version": (7, "string"),
}
_SUBGRAPH = {"input_tensor_metadata": (2, "tables"), "output_tensor_metadata": (3, "tables")}
_TENSOR = {
    "name": (0, "string"),
    "description": (1, "string"),
    "content": (3, "table"),
    "process_units": (4, "tables"),
    "stats": (5, "table"),
    "associated_files": (6, "tables"),
}
_FILE = {"name": (0, "string"), "description": (1, "string"), "type": (2, "byte")}
_CONTENT = {"content_properties_type": (0, "byte"), "content_properties": (1, "table")}
_IMAGE = {"color_space": (0, "byte")}
_PROCESS_UNIT = {"options_type": (0, "byte"), "options": (1, "table")}
_NORMALIZATION = {"mean": (0, "floats"), "std": (1, "floats")}
_STATS = {"max": (0, "floats"), "min": (1, "floats")}

AXIS_LABELS = 2  # AssociatedFileType: one label a line, of the indices along the last axis
FEATURE, IMAGE = 1, 2  # ContentProperties
NORMALIZATION = 1  # ProcessUnitOptions
COLOUR_SPACES = {3: 1, 1: 2}  # ColorSpaceType by channels: RGB, GRAYSCALE


def check_labels(labels, num_classes):
    """Refuses labels that would name the wrong classes.

    Args:
        labels: sequence of str, by class.
        num_classes: scores of the model.
    Raises:
        ValueError: if there are not as many as scores, or one is empty or of several lines.
    """
    if len(labels) != num_classes:
        raise ValueError(
            f"Expected a label for each of the model's {num_classes} scores. Received: {len(labels)} labels. "
            "Pass the data, the class index or the --labels of the classes that the model was trained on."
        )
    for number, label in enumerate(labels):
        if not label.strip() or len(label.splitlines()) != 1:
            raise ValueError(
                f"Expected every label to be one line of text. Received: {label!r} for class {number}. "
                "Name the class, in the class index or by its folder."
            )


def read_labels(path):
    """Names of the classes from a text file, by class.

    Args:
        path: UTF-8, a line a class.
    Returns:
        tuple of str.
    Raises:
        ValueError: if it cannot be read, or has an empty line or one twice.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            labels = tuple(line.strip() for line in file.read().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Expected --labels to be a text file, a line a class. Received: {path} ({error}).") from error
    for number, label in enumerate(labels):
        if not label or label in labels[:number]:
            what = f"{label!r} again, as line {labels.index(label) + 1}" if label else "an empty line"
            raise ValueError(
                f"Expected --labels to name every class once, a line each. Received: {what}, in line {number + 1} of "
                f"{path}. Correct that line."
            )
    return labels


def attach(content, name, labels):
    """A `.tflite` file with metadata inside and its labels behind.

    The net takes pixels 0 to 255 as they are, so that the normalization says mean 0 and standard deviation 1; MediaPipe
    wants one for float inputs and leaves uint8 alone. No score threshold is set: how sure is sure enough is the
    app's to say.

    Args:
        content: bytes of an image classifier's file, (n, h, w, c) -> (n, classes).
        name: of the model.
        labels: sequence of str, by class.
    Returns:
        bytes.
    Raises:
        ValueError: if the labels are not the classes', or the images have neither 1 nor 3 channels.
    """
    model = flatbuffer.unpack(content)
    (subgraph,) = model.subgraphs
    (image,), (scores,) = (
        [subgraph.tensors[number] for number in side] for side in (subgraph.inputs, subgraph.outputs)
    )
    check_labels(labels, int(scores.shape[-1]))
    if image.shape[-1] not in COLOUR_SPACES:
        raise ValueError(
            "Expected images of 1 or 3 channels: metadata knows grey and RGB. "
            f"Received: {image.shape[-1]} channels. Leave out --bundle."
        )
    flatbuffer.add_metadata(model, NAME, describe(name, int(image.shape[-1])))
    return _with_files(flatbuffer.pack(model), {LABELS: labels_text(labels)})


def labels_text(labels):
    """Content of `labels.txt`: one label a line, by class."""
    return "".join(f"{label.strip()}\n" for label in labels)


def describe(name, channels):
    """The metadata itself.

    Args:
        name: of the model.
        channels: of the image: 1 or 3.
    Returns:
        bytes of a flatbuffer of the schema's root table, ModelMetadata.
    """
    image = {
        "name": "image",
        "description": "Pixels 0 to 255 as they are, RGB or grey.",
        "content": _union(_CONTENT, "content_properties", IMAGE, (_IMAGE, {"color_space": COLOUR_SPACES[channels]})),
        "process_units": [
            _union(_PROCESS_UNIT, "options", NORMALIZATION, (_NORMALIZATION, {"mean": [0.0], "std": [1.0]}))
        ],
        "stats": (_STATS, {"max": [255.0] * channels, "min": [0.0] * channels}),
    }
    file = {"name": LABELS, "description": "Names of the classes, one a line.", "type": AXIS_LABELS}
    scores = {
        "name": "probability",
        "description": "Probabilities of the classes.",
        "content": _union(_CONTENT, "content_properties", FEATURE, ({}, {})),
        "stats": (_STATS, {"max": [1.0], "min": [0.0]}),
        "associated_files": [(_FILE, file)],
    }
    subgraph = {"input_tensor_metadata": [(_TENSOR, image)], "output_tensor_metadata": [(_TENSOR, scores)]}
    root = {
        "name": name,
        "description": f"Image classifier {name}, exported by keras_resnet.",
        "subgraph_metadata": [(_SUBGRAPH, subgraph)],
        "min_parser_version": PARSER,
    }
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, _MODEL, root), IDENTIFIER)
    return bytes(builder.Output())


def _union(fields, name, kind, value):
    return fields, {f"{name}_type": kind, name: value}


def _table(builder, fields, values):
    """Writes a table whose values are given by field name; returns its place."""
    places = {name: _WRITE[fields[name][1]](builder, value) for name, value in values.items()}
    builder.StartObject(max((number for number, _ in fields.values()), default=-1) + 1)
    for name, place in places.items():
        number, kind = fields[name]
        if kind == "byte":
            builder.PrependInt8Slot(number, place, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, place, 0)
    return builder.EndObject()


def _tables(builder, tables):
    places = [_table(builder, *one) for one in tables]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


_WRITE = {
    "string": flatbuffers.Builder.CreateString,
    "table": lambda builder, table: _table(builder, *table),
    "tables": _tables,
    "byte": lambda builder, value: value,
    "floats": lambda builder, values: builder.CreateNumpyVector(np.array(values, "float32")),
}


def _with_files(content, texts):
    """The content and a zip behind it, stored: MediaPipe reads no compressed one, the same labels give the same bytes.

    Offsets count from the beginning of the file, as in Android's own archives.
    """
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name), text.encode("utf-8"))
    return file.getvalue()
