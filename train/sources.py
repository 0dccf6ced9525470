"""Where images come from: one function a kind of source, all of the same form.

Every image is reached by its position, so that an order can be drawn over all of them, shared out among processes
before anything is read, and taken up anywhere. Images stay uint8 until the model.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.preprocessing import Preprocessing
from train import decoding

SPLITS = ("train", "validation", "test")
DEFAULT_PREPROCESSING = Preprocessing(256, 224)  # He 2015, section 3.4, testing


@dataclasses.dataclass(frozen=True)
class Split:
    """Labelled images of one split in a fixed order.

    Attributes:
        positions: int64 (n,): of each image its place in what `open` reads.
        open: function that returns a function from a position, an int64 scalar, to {"image", "label"}: an encoded
            image if the source says so; else uint8 (h, w, c), and positions (k,) give (k, h, w, c) and (k,).
        names: function from a position to what the image is called.
    """

    positions: np.ndarray
    open: Callable
    names: Callable

    @property
    def num_images(self):
        """How many there are."""
        return len(self.positions)


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of labelled images.

    Attributes:
        name: as in `--data`.
        class_names: tuple of str, by label.
        image_shape: (h, w, c) of the images a model gets.
        splits: dict from "train", "validation", "test" to `Split`.
        titles: tuple of str, by label: the class names for people, where `class_names` are wnids.
        preprocessing: `keras_resnet.preprocessing.Preprocessing` that resizes photographs to `image_shape`.
        encoded: whether images are read as encoded strings.
        files: whether each encoded image is a file of its own, which `train.damage` looks through.
    """

    name: str
    class_names: tuple
    image_shape: tuple
    splits: dict
    titles: tuple
    preprocessing: Preprocessing
    encoded: bool = False
    files: bool = False

    def decode(self, encoded):
        """Encoded image (scalar string tensor) -> uint8 `image_shape`, its centre."""
        whole = decoding.decode_whole(encoded, self.image_shape[-1])
        return decoding.fitted(whole, self.image_shape, self.preprocessing)


def from_arrays(images, labels, name):
    """`Split` of tensors (n, h, w, c) and (n,), whose images are called by `name` and their place."""
    return from_reader(
        lambda positions: {"image": tf.gather(images, positions), "label": tf.gather(labels, positions)},
        len(labels),
        lambda position: f"{name} image {position}",
    )


def from_reader(read, num_images, names):
    """`Split` of all that a function reads by position; `names`: function from a position to what it is called."""
    return Split(np.arange(num_images), lambda: read, names)


def digits(name, image_size):
    """1,797 handwritten digits of 8 x 8 grey pixels (Alpaydin and Kaynak 1998), carried by scikit-learn.

    A fifth, drawn once and for all, is the test split.
    """
    from sklearn.datasets import load_digits  # a second of import that only this source needs

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"test": order[: len(order) // 5], "train": order[len(order) // 5 :]}
    return _small_source("digits", {name: (images[part], labels[part]) for name, part in parts.items()}, image_size)


def synthetic(name, image_size):
    """640 random images of 32 x 32 in 10 classes, told apart by their mean colour: for tests and speed."""
    rng = np.random.default_rng(0)
    labels = np.arange(640) % 10
    colours = rng.integers(64, 192, (10, 1, 1, 3))
    images = (colours[labels] + rng.integers(-64, 64, (640, 32, 32, 3))).astype("uint8")
    parts = {"train": (images[:512], labels[:512]), "test": (images[512:], labels[512:])}
    return _small_source("synthetic", parts, image_size)


def _small_source(name, parts, image_size):
    """A source of ten classes from arrays: parts is a dict from split to (images, labels)."""
    splits, size = {}, image_size
    for split, (images, labels) in parts.items():
        shape = (size or images.shape[1], size or images.shape[2], images.shape[3])
        resized = np.stack([decoding.fitted(tf.constant(image), shape, DEFAULT_PREPROCESSING) for image in images])
        splits[split] = from_arrays(resized, labels.astype("int64"), f"{name} {split}")
    classes = tuple(map(str, range(10)))
    return Source(name, classes, shape, splits, classes, DEFAULT_PREPROCESSING.for_size(shape[0]))
