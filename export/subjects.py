"""What a bundle tells of: golden images of different classes, one of them as a photograph, and the classes' names."""

import dataclasses
import sys

import numpy as np

from export import metadata

GOLDEN_IMAGES = 5
ENLARGED = 8  # times that an image without an original is blown up for the golden photograph
MOST_SIDE = 2048  # pixels of the golden photograph: above, the preprocessing is what takes the time
EXIF = b"Exif\0\0"  # what its segment of a JPEG begins with
# Logits from the best class to the next that golden images should have: in no kernels the other one wins.
MARGIN = 1.0
# Data whose classes are numbers indeed.
NUMBERS = ("digits", "tfds:mnist", "tfds:svhn_cropped")


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
    if source.name not in NUMBERS and all(title.isdecimal() for title in source.titles):
        text = f"the labels are mere numbers: {source.name} names no classes. Pass --labels=FILE, a line a class"
        print(f"Warning: {text}.", file=sys.stderr)
    # Of each class the one that the net is least sure of, by a margin, and right about: its probabilities move with
    # every fault, its class with none that is allowed.
    sure = np.ptp(np.sort(examination.expected, axis=1)[:, -2:], axis=1)
    rows = np.lexsort((sure, sure < MARGIN))
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
    """A JPEG: the image's own file where it is one, else the image itself, enlarged.

    Not with EXIF, which may say where a photograph was taken, and hold a rotation that apps apply and training did not.
    """
    import tensorflow as tf  # seconds of import, done by then

    if source.encoded:
        encoded = source.splits["test"].open()(tf.constant(index))["image"].numpy()
        whole = tf.io.decode_image(encoded, source.image_shape[-1], expand_animations=False)
        if tf.io.is_jpeg(encoded) and EXIF not in encoded and max(whole.shape[:2]) <= MOST_SIDE:
            return encoded
        scale = min(1.0, MOST_SIDE / max(whole.shape[:2]))
        sides = [round(scale * side) for side in whole.shape[:2]]
        image = tf.cast(tf.round(tf.image.resize(whole, sides, "area")), tf.uint8)
    else:
        image = np.repeat(np.repeat(image, ENLARGED, axis=0), ENLARGED, axis=1)
    return tf.io.encode_jpeg(image, quality=95).numpy()
