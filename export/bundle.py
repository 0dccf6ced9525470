"""The folder for the app developer: files that show probabilities, labels, golden outputs, code that runs them.

bundle/  NAME_FORMAT.tflite  labels.txt  bundle.json  golden/  classify.py  classify.cc  Classify.kt  README.md
"""

import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np

from export import convert, metadata, probabilities, templates
from export.formats import FORMATS
from train import predictor

FOLDER = "bundle"
MANIFEST = "bundle.json"
GOLDEN_IMAGES = 5
ENLARGED = 8  # times that an image without an original is blown up for the golden photograph
MOST_SIDE = 2048  # pixels of the golden photograph: above, the preprocessing is what takes the time
# Tolerances, of probability: twice the difference between LiteRT's own kernels and XNNPACK's, at least this, by what
# the file computes with. Other processors sum in another order; integers round in another place.
FLOORS = {"float32": 1e-3, "int8": 0.05, "int16": 0.05}
KERNEL_FACTOR = 2.0


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a bundle tells of, beside its files.

    Attributes:
        name: of the model.
        labels: sequence of str, by class.
        images: uint8 (n, h, w, c), real ones.
        photo: bytes of a JPEG.
        photo_pixels: uint8 (h, w, c): what the net should see of it.
        resize: length in pixels that the shorter side of a photograph is resized to.
        interpolation: "bilinear" or "bicubic".
        data: where the images come from.
    """

    name: str
    labels: tuple
    images: np.ndarray
    photo: bytes
    photo_pixels: np.ndarray
    resize: int
    interpolation: str
    data: str


def choose(name, source, examination):
    """The `Subject` of a model: images of different classes, the first of them also as a photograph.

    Args:
        name: of the model.
        source: `train.data.Source`.
        examination: `pipeline.Examination`.
    Returns:
        `Subject`.
    Raises:
        ValueError: if the labels are not the model's classes.
    """
    metadata.check_labels(source.titles, examination.expected.shape[1])
    # Of each class the one that the net is least sure of and right about: its probabilities move with every fault.
    sure = np.ptp(np.sort(examination.expected, axis=1)[:, -2:], axis=1)
    rows = np.argsort(sure, kind="stable")
    right = rows[examination.expected.argmax(axis=1)[rows] == examination.labels[rows]]
    rows = right if len(right) else rows
    _, first = np.unique(examination.labels[rows], return_index=True)
    spread = np.linspace(0, len(first) - 1, min(GOLDEN_IMAGES, len(first))).astype("int64")
    chosen = rows[first[spread]]
    photo = _photo(source, examination.images[chosen[0]], examination.indices[chosen[0]])
    steps, height = source.preprocessing, source.image_shape[0]
    return Subject(
        name=name,
        labels=tuple(source.titles),
        images=examination.images[chosen],
        photo=photo,
        photo_pixels=source.decode(photo).numpy(),
        resize=round(height * steps.resize / steps.crop),
        interpolation=steps.interpolation,
        data=source.name,
    )


def _photo(source, image, index):
    """A JPEG: the image's own file where it is one, else the image itself, enlarged."""
    import tensorflow as tf  # seconds of import, done by then

    if source.encoded:
        encoded = source.splits["test"].open()(tf.constant(index))["image"]
        whole = tf.io.decode_image(encoded, source.image_shape[-1], expand_animations=False)
        if tf.io.is_jpeg(encoded) and max(whole.shape[:2]) <= MOST_SIDE:
            return encoded.numpy()
        scale = min(1.0, MOST_SIDE / max(whole.shape[:2]))
        sides = [round(scale * side) for side in whole.shape[:2]]
        image = tf.cast(tf.round(tf.image.resize(whole, sides, "area")), tf.uint8)
    else:
        image = np.repeat(np.repeat(image, ENLARGED, axis=0), ENLARGED, axis=1)
    return tf.io.encode_jpeg(image, quality=95).numpy()


def fastest_first(results):
    """The `.tflite` files that kept their promises, the fastest first: dict from format to path.

    Args:
        results: dict from format to `pipeline.Result`.
    """
    kept = {name: one for name, one in results.items() if FORMATS[name].scheme and not one.failures}
    order = sorted(kept, key=lambda name: kept[name].evidence.latency_ms["1"]["median"])
    return {name: kept[name].path for name in order}


def make(subject, paths, folder):
    """Writes the bundle and runs its own check in a child process.

    Args:
        subject: `Subject`.
        paths: dict from format to a verified `.tflite` file, at least one, of one image a call; the first is what
            `classify.py` and the snippets run.
        folder: where to write; new.
    Returns:
        dict: the content of `bundle.json`.
    Raises:
        ValueError: if the labels are not the classes', or a file does not rank the classes as before.
        RuntimeError: if the check fails.
    """
    os.makedirs(os.path.join(folder, "golden"))
    files = {os.path.basename(path): _file(subject, name, path, folder) for name, path in paths.items()}
    manifest = {
        "name": subject.name,
        "num_classes": len(subject.labels),
        "image_shape": list(subject.images.shape[1:]),
        "resize": subject.resize,
        "interpolation": subject.interpolation,
        "golden": {
            "images": [f"golden/{number}.png" for number in range(len(subject.images))],
            "photo": "golden/photo.jpg",
            "photo_pixels": "golden/photo.png",
            "data": subject.data,
        },
        "files": files,
    }
    _write_golden(subject, folder)
    _write(folder, metadata.LABELS, metadata.labels_text(subject.labels))
    _write(folder, MANIFEST, json.dumps(manifest, indent=1) + "\n")
    words = _words(manifest)
    for name in ("README.md", "classify.cc", "Classify.kt"):
        _write(folder, name, templates.filled(name, words))
    shutil.copyfile(templates.path("classify.py"), os.path.join(folder, "classify.py"))
    try:
        convert.run_child(os.path.join(folder, "classify.py"), "--check")
    except RuntimeError as error:
        raise RuntimeError(f"The bundle does not pass its own check, python classify.py --check. {error}") from error
    return manifest


def _file(subject, name, path, folder):
    """Writes one file with probabilities and metadata; returns its entry in the manifest."""
    with open(path, "rb") as file:
        content = metadata.attach(probabilities.append(file.read()), subject.name, subject.labels)
    bundled = os.path.join(folder, os.path.basename(path))
    with open(bundled, "wb") as file:
        file.write(content)
    before, scores = (predictor.from_tflite(one).predict(subject.images) for one in (path, bundled))
    if np.any(before.argmax(axis=1) != scores.argmax(axis=1)) or not np.all(np.isfinite(scores)):
        raise ValueError(
            f"{os.path.basename(path)} with probabilities ranks the classes of the golden images in another way. "
            f"Expected {before.argmax(axis=1)}. Received: {scores.argmax(axis=1)}. Leave out the format {name}."
        )
    image = predictor.open_tflite(bundled).get_input_details()[0]
    return {
        "format": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input": np.dtype(image["dtype"]).name,
        "output": "float32",
        "tolerance": _tolerance(FORMATS[name].scheme, bundled, subject.images, scores),
        "scores": [[round(float(score), 7) for score in row] for row in scores],
    }


def _tolerance(scheme, path, images, scores):
    computes = "int8" if scheme.weights in ("int8", "int4") and scheme.activations == "float32" else scheme.activations
    other = predictor.from_tflite(path, uses_xnnpack=False).predict(images)
    return float(max(FLOORS[computes], KERNEL_FACTOR * np.abs(other - scores).max()))


def _write_golden(subject, folder):
    import tensorflow as tf

    pictures = {f"{number}.png": image for number, image in enumerate(subject.images)}
    for name, image in (pictures | {"photo.png": subject.photo_pixels}).items():
        tf.io.write_file(os.path.join(folder, "golden", name), tf.io.encode_png(image))
    with open(os.path.join(folder, "golden", "photo.jpg"), "wb") as file:
        file.write(subject.photo)


def _write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


def _words(manifest):
    """What the templates name, for the first file."""
    height, width, channels = manifest["image_shape"]
    file, row = next(iter(manifest["files"].items()))
    is_grey, is_float = channels == 1, row["input"] == "float32"
    put = "putFloat({}.toFloat())" if is_float else "put({}.toByte())"
    values = ["((299 * red + 587 * green + 114 * blue) / 1000)"] if is_grey else ["red", "green", "blue"]
    lines = ["| file | format | bytes | input | for |", "| --- | --- | --- | --- | --- |"]
    for name, one in manifest["files"].items():
        suits = FORMATS[one["format"]].suits
        lines.append(f"| `{name}` | {one['format']} | {one['bytes']:,} | {one['input']} | {suits} |")
    return {
        "NAME": manifest["name"],
        "FILE": file,
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "CHANNEL_WORDS": "grey" if is_grey else "red, green, blue",
        "MAGICK": "gray" if is_grey else "rgb",
        "CLASSES": manifest["num_classes"],
        "PIXEL": row["input"],
        "PIXEL_CPP": "float" if is_float else "uint8_t",
        "PIXEL_BYTES": channels * (4 if is_float else 1),
        "PUT": "; ".join(f"image.{put.format(value)}" for value in values),
        "RESIZE": manifest["resize"],
        "INTERPOLATION": manifest["interpolation"],
        "GREY": "\n  It takes colour images only: this net is for grey ones, use the code above." if is_grey else "",
        "TABLE": "\n".join(lines),
        "DATA": manifest["golden"]["data"],
    }
