"""Where images come from: one function a kind of source, all of the same form.

Every image is reached by its position, so that an order can be drawn over all of them, shared out among processes
before anything is read, and taken up anywhere. Images stay uint8 until the model.
"""

import dataclasses
import functools
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.predictions import read_class_index
from keras_resnet.preprocessing import Preprocessing
from train import records

SPLITS = ("train", "validation", "test")
DEFAULT_PREPROCESSING = Preprocessing(256, 224)  # He 2015, section 3.4, testing
ARRAY_BYTES = 2**30  # images of one size up to this much are decoded once and stay in memory


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
        return fitted(decode_whole(encoded, self.image_shape[-1]), self.image_shape, self.preprocessing)


def _from_arrays(images, labels, name):
    return _from_reader(
        lambda positions: {"image": tf.gather(images, positions), "label": tf.gather(labels, positions)},
        len(labels),
        lambda position: f"{name} image {position}",
    )


def _from_reader(read, num_images, names):
    return Split(np.arange(num_images), lambda: read, names)


def _digits(name, image_size):
    """1,797 handwritten digits of 8 x 8 grey pixels (Alpaydin and Kaynak 1998), carried by scikit-learn.

    A fifth, drawn once and for all, is the test split.
    """
    from sklearn.datasets import load_digits  # a second of import that only this source needs

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"test": order[: len(order) // 5], "train": order[len(order) // 5 :]}
    return _small_source("digits", {name: (images[part], labels[part]) for name, part in parts.items()}, image_size)


def _synthetic(name, image_size):
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
        resized = np.stack([fitted(tf.constant(image), shape, DEFAULT_PREPROCESSING) for image in images])
        splits[split] = _from_arrays(resized, labels.astype("int64"), f"{name} {split}")
    classes = tuple(map(str, range(10)))
    return Source(name, classes, shape, splits, classes, DEFAULT_PREPROCESSING.for_size(shape[0]))


def _tfds(name, image_size, preprocessing, data_dir, download):
    """A prepared TensorFlow Datasets data set with images and labels."""
    import tensorflow_datasets as tfds  # seconds of import that only this source needs

    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]  # the rest lists all that there are
        raise ValueError(f"TensorFlow Datasets has no such data set. Received: tfds:{name} ({reason}).") from error
    if not builder.info.splits.total_num_examples:
        if not download:
            raise ValueError(
                f"The data set is not prepared. Expected it in {builder.data_dir}. Received: --data=tfds:{name}. "
                "Pass its --data_dir, or --download to let TFDS fetch it."
            )
        builder.download_and_prepare()
    features = builder.info.features
    if not {"image", "label"} <= {*features}:
        raise ValueError(f"Expected a data set with features image and label. Received: tfds:{name}.")
    if builder.info.file_format is not tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"Expected a data set stored as tfrecord. Received: tfds:{name} as {builder.info.file_format.value}. "
            "Prepare it with file_format='tfrecord'."
        )
    native, channels = features["image"].shape, features["image"].shape[-1] or 3
    size = image_size or (preprocessing.crop if None in native else 0)
    shape = (size, size, channels) if size else native
    num_images = sum(builder.info.splits[split].num_examples for split in SPLITS if split in builder.info.splits)
    in_memory = tuple(shape) == tuple(native) and num_images * np.prod(shape) <= ARRAY_BYTES
    skip = {"image": tfds.decode.SkipDecoding()}

    def parse(serialized):
        row = features.deserialize_example(serialized, decoders=skip)
        return {"image": row["image"], "label": tf.cast(row["label"], tf.int64)}

    def split_of(name):
        info = builder.info.splits[name]
        paths = [os.fspath(path) for path in info.filepaths]
        reader = _array_reader(paths, parse, shape) if in_memory else _record_reader(paths, parse)
        return Split(np.arange(info.num_examples), reader, functools.partial(_record_name, paths, features, name))

    splits = {split: split_of(split) for split in SPLITS if split in builder.info.splits}
    classes, preprocessing = tuple(features["label"].names), preprocessing.for_size(shape[0])
    return Source(f"tfds:{name}", classes, shape, splits, classes, preprocessing, encoded=not in_memory)


def _record_name(paths, features, split, position):
    """The file name or id that a TFDS record carries, or its place."""
    name = next((name for name in ("file_name", "id") if name in features), None)
    if name is None:
        return f"{split} image {position}"
    serialized = _indexed(tuple(paths)).read(tf.constant(position))
    return features.deserialize_example(serialized)[name].numpy().decode()


_indexed = functools.cache(records.index)


def _array_reader(paths, parse, shape):
    """Reads and decodes all images of TFRecord files at the first use."""

    @functools.cache
    def open_arrays():
        def decode(serialized):
            row = parse(serialized)
            return row | {"image": tf.ensure_shape(decode_whole(row["image"], shape[-1]), shape)}

        rows = tf.data.TFRecordDataset(paths).map(decode, tf.data.AUTOTUNE, deterministic=True).batch(1024)
        batches = [*rows.as_numpy_iterator()]
        images, labels = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label"))
        return _from_arrays(tf.constant(images), tf.constant(labels), "").open()

    return open_arrays


def _record_reader(paths, parse):
    """Reads records by position, encoded."""

    @functools.cache
    def open_records():
        found = _indexed(tuple(paths))
        return lambda position: parse(found.read(position))

    return open_records


def _folder(path, image_size, preprocessing, class_index):
    """PATH/train/CLASS/*.jpg and the same for validation and test; a class is a folder's name.

    With a class index all its classes are there, in its order, and folders are named by wnid.
    """
    splits = {split: os.path.join(path, split) for split in SPLITS}
    splits = {split: folder for split, folder in splits.items() if os.path.isdir(folder)}
    if not splits:
        raise ValueError(
            f"Expected folders {path}/train/CLASS and {path}/validation/CLASS with images in them. "
            f"Received: --data=folder:{path}, which has neither."
        )
    class_names = sorted(
        {
            entry.name
            for folder in splits.values()
            for entry in os.scandir(folder)
            if entry.is_dir() and entry.name[0] != "."
        }
    )
    titles = class_names
    if class_index:
        wnids, titles = zip(*read_class_index(class_index), strict=True)
        unknown = sorted({*class_names} - {*wnids})
        if unknown:
            raise ValueError(
                f"Expected folders named by the wnids of {class_index}. Received: {', '.join(unknown[:5])}, "
                f"{len(unknown)} unknown folders in {path}."
            )
        class_names = wnids
    size = image_size or preprocessing.crop
    splits = {split: _files(folder, class_names) for split, folder in splits.items()}
    shape, steps = (size, size, 3), preprocessing.for_size(size)
    return Source(f"folder:{path}", tuple(class_names), shape, splits, tuple(titles), steps, encoded=True, files=True)


def _files(folder, class_names):
    """Every file of the class folders but hidden ones; those that are no images are found by `train.damage`."""
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(os.listdir(os.path.join(folder, name))) if os.path.isdir(os.path.join(folder, name)) else []
        found = [os.path.join(folder, name, file) for file in found if file[0] != "."]
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(f"Expected images in {folder}/CLASS. Received: no files.")
    paths, labels = tf.constant(files), tf.constant(labels, tf.int64)

    def read(position):
        return {"image": tf.io.read_file(paths[position]), "label": labels[position]}

    return _from_reader(read, len(files), lambda position: files[position])


def decode_whole(encoded, channels):
    """Decodes a JPEG, PNG, BMP, WebP or GIF (its first frame): scalar string tensor -> uint8 (h, w, channels)."""
    # TensorFlow's own choice for JPEG is a faster transform, up to ten levels off what Pillow decodes.
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
    )
    image.set_shape((None, None, channels))
    return image


def fitted(image, shape, preprocessing):
    """Resizes the shorter side and crops the centre where the image has another size: uint8 `shape`.

    As `keras_resnet.preprocessor` does with Pillow, to one level in 255.
    """
    if image.shape.is_fully_defined() and tuple(image.shape) == tuple(shape):
        return image
    fits = tf.reduce_all(tf.shape(image)[:2] == shape[:2])
    shorter = round(shape[0] * preprocessing.resize / preprocessing.crop)

    def resize():
        size = tf.shape(image)[:2]
        sides = size * shorter // tf.reduce_min(size)
        resized = image
        for step in ((size[0], sides[1]), sides):  # rows first and whole pixels in between, as Pillow does
            resized = tf.image.resize(resized, step, preprocessing.interpolation, antialias=True)
            resized = tf.clip_by_value(tf.round(resized), 0, 255)
        top, left = tf.unstack(tf.cast(tf.round((sides - shape[:2]) / 2), tf.int32))
        return tf.cast(resized[top : top + shape[0], left : left + shape[1]], tf.uint8)

    return tf.ensure_shape(tf.cond(fits, lambda: image, resize), shape)


SOURCES = {"digits": _digits, "synthetic": _synthetic, "tfds": _tfds, "folder": _folder}
