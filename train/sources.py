"""Where images come from: one function a kind of source, all of the same form.

Every source yields elements {"image", "label", "index", "name"}: an image, its class, its position in the
source, from which its augmentation follows, and what the source calls it. Images stay uint8 until the model.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.predictions import read_class_index
from keras_resnet.preprocessing import Preprocessing

SPLITS = ("train", "validation", "test")
DEFAULT_PREPROCESSING = Preprocessing(256, 224)  # He 2015, section 3.4, testing
STREAM_SHUFFLE_IMAGES = 10_000  # encoded images held for shuffling where order comes from files
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")


@dataclasses.dataclass(frozen=True)
class Split:
    """Elements of one split in a fixed order.

    Attributes:
        elements: `tf.data.Dataset` of {"image", "label", "index", "name"}, image as `decode` expects it.
        num_images: how many there are.
        num_indices: all indices are below this.
        shuffle_images: elements to hold for shuffling.
        originals: the same elements, image as `read` expects it, where `elements` are decoded already.
    """

    elements: tf.data.Dataset
    num_images: int
    num_indices: int
    shuffle_images: int
    originals: tf.data.Dataset | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of labelled images.

    Attributes:
        name: as in `--data`.
        class_names: tuple of str, by label.
        image_shape: (h, w, c) of the decoded images.
        splits: dict from "train", "validation", "test" to `Split`.
        decode: function from an element's image to uint8 (h, w, c).
        read: function from an original's image to uint8 at its own height and width.
        titles: tuple of str, by label: the class names for people, where `class_names` are wnids.
        preprocessing: `Preprocessing` that resizes photographs to `image_shape`.
    """

    name: str
    class_names: tuple
    image_shape: tuple
    splits: dict
    decode: Callable
    read: Callable
    titles: tuple
    preprocessing: Preprocessing


def _from_arrays(images, labels, names=None):
    index = np.arange(len(labels))
    names = index.astype("S") if names is None else names
    columns = {"image": images, "label": labels.astype("int64"), "index": index, "name": names}
    return Split(tf.data.Dataset.from_tensor_slices(columns), len(labels), len(labels), len(labels))


def _digits(name, image_size):
    """1,797 handwritten digits of 8 x 8 grey pixels (Alpaydin and Kaynak 1998), carried by scikit-learn.

    A fifth, drawn once and for all, is the test split.
    """
    from sklearn.datasets import load_digits  # a second of import that only this source needs

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype("uint8").reshape(-1, 8, 8, 1)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"test": order[: len(order) // 5], "train": order[len(order) // 5 :]}
    splits = {name: _from_arrays(images[part], labels[part]) for name, part in parts.items()}
    return _small_source("digits", tuple(map(str, range(10))), (8, 8, 1), splits, image_size)


def _synthetic(name, image_size):
    """640 random images of 32 x 32 in 10 classes, told apart by their mean colour: for tests and speed."""
    rng = np.random.default_rng(0)
    labels = np.arange(640) % 10
    colours = rng.integers(64, 192, (10, 1, 1, 3))
    images = (colours[labels] + rng.integers(-64, 64, (640, 32, 32, 3))).astype("uint8")
    splits = {
        "train": _from_arrays(images[:512], labels[:512]),
        "test": _from_arrays(images[512:], labels[512:]),
    }
    return _small_source("synthetic", tuple(map(str, range(10))), (32, 32, 3), splits, image_size)


def _small_source(name, class_names, shape, splits, image_size):
    if image_size:
        shape = (image_size, image_size, shape[-1])
    steps = DEFAULT_PREPROCESSING.for_size(shape[0])
    return Source(
        name, class_names, shape, splits, lambda image: _fitted(image, shape, steps), tf.identity, class_names, steps
    )


def _tfds(name, image_size, preprocessing, data_dir, download):
    """A prepared TensorFlow Datasets data set with images and labels."""
    import tensorflow_datasets as tfds  # seconds of import that only this source needs

    try:
        builder = tfds.builder(name, data_dir=data_dir or None)
    except (tfds.core.registered.DatasetNotFoundError, ValueError) as error:
        raise ValueError(f"TensorFlow Datasets has no such data set. Received: tfds:{name} ({error}).") from error
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
    shape, channels = features["image"].shape, features["image"].shape[-1] or 3
    size = image_size or (preprocessing.crop if None in shape else 0)
    shape = (size, size, channels) if size else shape

    def elements(split):
        encoded = builder.as_dataset(split, decoders={"image": tfds.decode.SkipDecoding()})
        name = next((name for name in ("file_name", "id") if name in features), None)
        rows = encoded.enumerate().map(
            lambda index, row: {
                "image": row["image"],
                "label": row["label"],
                "index": index,
                "name": row[name] if name else tf.strings.as_string(index),
            }
        )
        num_images = builder.info.splits[split].num_examples
        return Split(rows, num_images, num_images, min(num_images, STREAM_SHUFFLE_IMAGES))

    splits = {split: elements(split) for split in SPLITS if split in builder.info.splits}
    names, steps, read = tuple(features["label"].names), preprocessing.for_size(shape[0]), _reader(channels)
    return Source(
        f"tfds:{name}", names, shape, splits, lambda image: _fitted(read(image), shape, steps), read, names, steps
    )


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
    shape, steps, decode = (size, size, 3), preprocessing.for_size(size), _reader(3)
    splits = {split: _files(folder, class_names) for split, folder in splits.items()}

    def read(file):
        return decode(tf.io.read_file(file))

    return Source(
        f"folder:{path}",
        tuple(class_names),
        shape,
        splits,
        lambda file: _fitted(read(file), shape, steps),
        read,
        tuple(titles),
        steps,
    )


def _files(folder, class_names):
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(os.listdir(os.path.join(folder, name))) if os.path.isdir(os.path.join(folder, name)) else []
        found = [os.path.join(folder, name, file) for file in found if file.lower().endswith(EXTENSIONS)]
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(f"Expected images ({', '.join(EXTENSIONS)}) in {folder}/CLASS. Received: none.")
    names = [os.path.relpath(file, folder) for file in files]
    return _from_arrays(np.array(files), np.array(labels), np.array(names))


def _reader(channels):
    """Function from an encoded JPEG, PNG, BMP or GIF to uint8 (h, w, channels) of the image's own size."""

    def read(encoded):
        # TensorFlow's own choice for JPEG is a faster transform, up to ten levels off what Pillow decodes.
        image = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
        )
        image.set_shape((None, None, channels))
        return image

    return read


def _fitted(image, shape, preprocessing):
    """Resizes the shorter side and crops the centre where the image has another size: uint8 `shape`.

    As `keras_resnet.preprocessor` does with Pillow, to one level in 255.
    """
    if image.shape.is_fully_defined() and tuple(image.shape) == tuple(shape):
        return image
    fits = tf.reduce_all(tf.shape(image)[:2] == shape[:2])

    def resize():
        size = tf.shape(image)[:2]
        sides = size * preprocessing.resize // tf.reduce_min(size)
        resized = image
        for step in ((size[0], sides[1]), sides):  # rows first and whole pixels in between, as Pillow does
            resized = tf.image.resize(resized, step, preprocessing.interpolation, antialias=True)
            resized = tf.clip_by_value(tf.round(resized), 0, 255)
        top, left = tf.unstack(tf.cast(tf.round((sides - shape[:2]) / 2), tf.int32))
        return tf.cast(resized[top : top + shape[0], left : left + shape[1]], tf.uint8)

    return tf.ensure_shape(tf.cond(fits, lambda: image, resize), shape)


SOURCES = {"digits": _digits, "synthetic": _synthetic, "tfds": _tfds, "folder": _folder}
