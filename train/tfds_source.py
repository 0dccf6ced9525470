"""Prepared TensorFlow Datasets data sets as a `sources.Source`."""

import functools
import os

import numpy as np
import tensorflow as tf

from train import decoding, records, sources

ARRAY_BYTES = 2**30  # images of one size up to this much are decoded once and stay in memory


def load(name, image_size, preprocessing, data_dir, download):
    """A prepared TensorFlow Datasets data set with images and labels.

    Args:
        name: as TFDS has it, "cifar10".
        image_size: side in pixels to resize and crop to; 0: the data's own, or `preprocessing`'s if that varies.
        preprocessing: `keras_resnet.preprocessing.Preprocessing`.
        data_dir: folder of prepared data sets; "": TFDS's own.
        download: whether TFDS may fetch it.
    Returns:
        `Source`.
    Raises:
        ValueError: if there is no such data set, it is not prepared, or has no images and labels in TFRecord files.
    """
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
                "Pass its --data_dir; train/main.py --download lets TFDS fetch it."
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
    infos = {split: builder.info.splits[split] for split in sources.SPLITS if split in builder.info.splits}
    num_images = sum(info.num_examples for info in infos.values())
    in_memory = tuple(shape) == tuple(native) and num_images * np.prod(shape) <= ARRAY_BYTES
    skip = {"image": tfds.decode.SkipDecoding()}

    def parse(serialized):
        row = features.deserialize_example(serialized, decoders=skip)
        return {"image": row["image"], "label": tf.cast(row["label"], tf.int64)}

    def split_of(name):
        paths = [os.fspath(path) for path in infos[name].filepaths]
        reader = _array_reader(paths, parse, shape) if in_memory else _record_reader(paths, parse)
        names = functools.partial(_record_name, paths, features, name)
        return sources.Split(np.arange(infos[name].num_examples), reader, names)

    splits = {split: split_of(split) for split in infos}
    classes, preprocessing = tuple(features["label"].names), preprocessing.for_size(shape[0])
    return sources.Source(f"tfds:{name}", classes, shape, splits, classes, preprocessing, encoded=not in_memory)


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
            return row | {"image": tf.ensure_shape(decoding.decode_whole(row["image"], shape[-1]), shape)}

        rows = tf.data.TFRecordDataset(paths).map(decode, tf.data.AUTOTUNE, deterministic=True).batch(1024)
        batches = [*rows.as_numpy_iterator()]
        images, labels = (np.concatenate([batch[key] for batch in batches]) for key in ("image", "label"))
        return sources.from_arrays(tf.constant(images), tf.constant(labels), "").open()

    return open_arrays


def _record_reader(paths, parse):
    """Reads records by position, encoded."""

    @functools.cache
    def open_records():
        found = _indexed(tuple(paths))
        return lambda position: parse(found.read(position))

    return open_records
