"""Batches of images for training and for scoring, the same from run to run and on any number of replicas."""

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from keras_resnet import weights as published
from keras_resnet.preprocessing import Preprocessing
from train import config as configs
from train.sources import DEFAULT_PREPROCESSING, SOURCES

CACHE_BYTES = 2**30  # decoded images of a source up to this size stay in memory after the first epoch
FILL_BYTE = 116  # the ImageNet mean 0.449 as a pixel: what a crop shows beyond the image's edge


def load(
    spec,
    *,
    data_dir="",
    image_size=0,
    preprocessing=DEFAULT_PREPROCESSING,
    class_index="",
    validation_fraction=0.1,
    seed=0,
    download=False,
):
    """Opens a data source; no image is decoded yet.

    Where the source has no validation split, that share of the training images is held out, drawn by seed.

    Args:
        spec: "digits", "synthetic", "tfds:NAME" or "folder:PATH".
        data_dir: folder of prepared TFDS data sets.
        image_size: side in pixels to resize and crop to; 0: the source's own, or `preprocessing`'s if that varies.
        preprocessing: `keras_resnet.preprocessing.Preprocessing`: how images of other sizes are resized.
        class_index: file with ImageNet's classes, whose order a folder's classes then take.
        validation_fraction: share from 0 to 1.
        seed: whole number.
        download: whether TFDS may download.
    Returns:
        `Source`.
    Raises:
        ValueError: if the source is unknown, absent, empty or has no labels.
    """
    kind, _, name = spec.partition(":")
    if kind not in SOURCES:
        raise ValueError(f"Expected data to be one of {', '.join(SOURCES)}. Received: {spec!r}.")
    options = {
        "tfds": {"preprocessing": preprocessing, "data_dir": data_dir, "download": download},
        "folder": {"preprocessing": preprocessing, "class_index": class_index},
    }
    source = SOURCES[kind](name, image_size, **options.get(kind, {}))
    splits = dict(source.splits)
    if "validation" not in splits and "train" in splits:
        splits |= _held_out(splits["train"], validation_fraction, seed)
    decode = source.decode
    if math.prod(source.image_shape) * sum(split.num_images for split in splits.values()) <= CACHE_BYTES:
        splits = {name: _cached(split, decode) for name, split in splits.items()}
        decode = _same
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits["validation"]  # ImageNet: published scores are those of its validation split
    return dataclasses.replace(source, splits=splits, decode=decode)


def load_for_run(config):
    """Opens the data of a run, resized as the evaluation of the weights that it starts from.

    Args:
        config: `train.config.Config`.
    Returns:
        `Source`.
    Raises:
        ValueError: as `load`.
    """
    return load(config.data, download=config.download, image_size=config.image_size, **_options_of(config))


def _options_of(config):
    row = published.find(config.model, config.weights)
    return {
        "data_dir": config.data_dir,
        "class_index": config.class_index,
        "preprocessing": published.preprocessing_of(config.model, row),
        "validation_fraction": config.validation_fraction,
        "seed": config.seed,
    }


def load_for_model(model_path, image_shape, spec=None, **options):
    """Opens the data that a model is scored or calibrated on.

    Without a spec it is what the run that wrote the model was trained on, split as it was then: the
    `config.json` beside the model says so.

    Args:
        model_path: path of the model file.
        image_shape: (h, w, c) that the model takes; h and w may be None.
        spec: as `--data`, or None.
        **options: data_dir, class_index, preprocessing of `load`; None stands for the run's.
    Returns:
        `Source`.
    Raises:
        ValueError: if there is neither a spec nor a run's configuration, or the source cannot be opened.
    """
    path = os.path.join(os.path.dirname(model_path), "config.json")
    run = None
    if os.path.isfile(model_path) and os.path.exists(path):
        try:
            run = configs.make(configs.read(path))
        except ValueError:
            if spec is None:  # otherwise it may be another program's, and is not needed
                raise
    if spec is None and run is None:
        raise ValueError(
            "Which images? Expected --data (of the exporter: --eval_data and --calibration_data), such as digits or "
            "tfds:cifar10, or a config.json beside the model. "
            f"Received: neither, with {model_path}."
        )
    given = {name: value for name, value in options.items() if value is not None}
    options = (_options_of(run) if run else _options_of_card(model_path)) | given
    return load(spec or run.data, image_size=image_shape[0] or 0, **options)


def _options_of_card(model_path):
    """How images were resized for an exported file of published weights: its card.json says so."""
    path = os.path.join(os.path.dirname(model_path), "card.json")
    if not (os.path.isfile(model_path) and os.path.exists(path)):
        return {}
    resized = configs.read(path).get("data", {}).get("preprocessing")
    return {"preprocessing": Preprocessing(**resized)} if resized else {}


def find_split(source, name):
    """The `Split` of that name.

    Raises:
        ValueError: if the source has none; those that it has are given.
    """
    if name not in source.splits:
        raise ValueError(
            f"{source.name} has no {name} split. Expected one of {', '.join(source.splits)}. Received: {name}."
        )
    return source.splits[name]


def num_training_batches(source, batch_size):
    """Whole batches in the training split, at least one.

    Raises:
        ValueError: if there are fewer images than one batch.
    """
    num_images = find_split(source, "train").num_images
    if num_images < batch_size:
        raise ValueError(
            f"Expected at least one batch of training images. Received: batch_size={batch_size}, and "
            f"{num_images} images in {source.name}. Use a smaller --batch_size."
        )
    return num_images // batch_size


def training_batches(source, batch_size, *, seed, epoch, crop_padding=0, flip=False):
    """Batches of one epoch, shuffled and augmented; the last images that fill no batch are left out.

    Order follows from (seed, epoch), each image's augmentation from (seed, epoch, index).

    Args:
        source: `Source`.
        batch_size: images a batch, over all replicas.
        seed: whole number.
        epoch: whole number.
        crop_padding: pixels around the image before a random crop of its size.
        flip: whether half of the images are mirrored.
    Returns:
        `tf.data.Dataset` of {"image": uint8 (batch_size, h, w, c), "label": int64 (batch_size,)}.
    Raises:
        ValueError: if there are fewer images than one batch.
    """
    num_training_batches(source, batch_size)
    split = find_split(source, "train")
    order_seed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    draws = np.random.default_rng([seed, epoch, 1]).random((split.num_indices, 3), dtype="float32")
    draws = tf.constant(draws)

    def augment(batch):
        image = batch["image"]
        if crop_padding or flip:
            image = crop_and_flip(image, tf.gather(draws, batch["index"]), crop_padding, flip)
        return {"image": image, "label": batch["label"]}

    elements = split.elements.shuffle(split.shuffle_images, seed=order_seed, reshuffle_each_iteration=False)
    elements = _decoded(elements, source.decode)
    return _prefetched(elements.batch(batch_size, drop_remainder=True).map(augment, tf.data.AUTOTUNE))


def evaluation_batches(source, split, batch_size):
    """Batches in order, the last one filled up with images of weight 0, so that each counts once.

    Args:
        source: `Source`.
        split: "train", "validation" or "test".
        batch_size: images a batch, over all replicas.
    Returns:
        `tf.data.Dataset` of {"image": uint8 (batch_size, h, w, c), "label": int64 (batch_size,),
        "weight": float32 (batch_size,), 1 or 0}.
    """
    part = find_split(source, split)
    missing = -part.num_images % batch_size

    def weigh(element):
        return {"image": element["image"], "label": element["label"], "weight": tf.constant(1.0)}

    elements = _decoded(part.elements, source.decode).map(weigh, tf.data.AUTOTUNE)
    filler = {
        "image": tf.zeros((1, *source.image_shape), tf.uint8),
        "label": tf.zeros((1,), tf.int64),
        "weight": tf.zeros((1,)),
    }
    elements = elements.concatenate(tf.data.Dataset.from_tensor_slices(filler).repeat(missing))
    return _prefetched(elements.batch(batch_size, drop_remainder=True))


def arrays(source, split, limit=None):
    """Images and labels of a split as arrays; with a limit every so-manieth, from the first.

    Args:
        source: `Source`.
        split: "train", "validation" or "test".
        limit: most images wanted, or None for all.
    Returns:
        uint8 (n, h, w, c), int64 (n,) and the images' indices in the source, int64 (n,).
    """
    part = find_split(source, split)
    step = 1 if limit is None else max(1, part.num_images // limit)
    elements = part.elements.shard(step, 0).take(limit if limit is not None else part.num_images)
    elements = list(_decoded(elements, source.decode).as_numpy_iterator())
    columns = [np.stack([element[key] for element in elements]) for key in ("image", "label", "index")]
    return tuple(columns)


def photographs(source, split, positions=None):
    """Images of a split at their own sizes, in the order of `evaluation_batches`.

    Args:
        source: `Source`.
        split: "train", "validation" or "test".
        positions: whole numbers, of the images wanted, counted in that order; None: all.
    Returns:
        Iterator of (uint8 (h, w, c), int label, str name).
    """
    elements = _originals(source, split, positions)
    for row in _prefetched(_decoded(elements, source.read)).as_numpy_iterator():
        yield row["image"], int(row["label"]), row["name"].decode()


def names(source, split):
    """What the source calls the images of a split, in the order of `evaluation_batches`: list of str."""
    rows = _originals(source, split).map(lambda element: element["name"])
    return [name.decode() for name in rows.as_numpy_iterator()]


def _originals(source, split, positions=None):
    part = find_split(source, split)
    elements = part.elements if part.originals is None else part.originals
    if positions is None:
        return elements
    wanted = np.zeros(part.num_images, bool)
    wanted[list(positions)] = True
    wanted = tf.constant(wanted)
    return elements.enumerate().filter(lambda position, _: wanted[position]).map(lambda _, element: element)


def crop_and_flip(images, draws, crop_padding, flip):
    """Random crops of the padded images, half of them mirrored: uint8 (n, h, w, c), same shape out.

    Rows and columns are gathered for the whole batch at once (He 2015, section 4.2).

    Args:
        images: uint8 (n, h, w, c).
        draws: float32 (n, 3) in [0, 1): vertical and horizontal offset, mirror.
        crop_padding: pixels on each side, of the colour `FILL_BYTE`.
        flip: whether to mirror.
    """
    height, width = images.shape[1:3]
    offsets = tf.cast(draws[:, :2] * (2 * crop_padding + 1), tf.int32)
    rows = offsets[:, :1] + tf.range(height)
    columns = offsets[:, 1:] + tf.range(width)
    if flip:
        columns = tf.where(draws[:, 2:] < 0.5, columns[:, ::-1], columns)
    if crop_padding:
        sides = [[0, 0], [crop_padding] * 2, [crop_padding] * 2, [0, 0]]
        images = tf.pad(images, sides, constant_values=tf.constant(FILL_BYTE, tf.uint8))
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    return tf.gather(images, columns, axis=2, batch_dims=1)


def _same(image):
    return image


def _decoded(elements, decode):
    return elements.map(
        lambda element: element | {"image": decode(element["image"])}, tf.data.AUTOTUNE, deterministic=True
    )


def _prefetched(batches):
    """Prepares batches ahead, on all cores, without tf.data's autotuner.

    The autotuner's thread kept the end of an epoch waiting for up to 25 s (BUILD_NOTES.md, "Traps").
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _cached(split, decode):
    elements = _decoded(split.elements, decode).cache()
    return dataclasses.replace(split, elements=elements, shuffle_images=split.num_images, originals=split.elements)


def _held_out(split, fraction, seed):
    """Splits a training split in two by a seeded draw."""
    num_held_out = round(split.num_images * fraction)
    if not 0 < num_held_out < split.num_images:
        raise ValueError(
            "Expected validation_fraction to leave images on both sides. Received: "
            f"validation_fraction={fraction}, {split.num_images} training images."
        )
    held_out = np.zeros(split.num_images, bool)
    held_out[np.random.default_rng(seed).permutation(split.num_images)[:num_held_out]] = True
    held_out = tf.constant(held_out)
    train = split.elements.filter(lambda element: not held_out[element["index"]])
    validation = split.elements.filter(lambda element: held_out[element["index"]])
    return {
        "train": dataclasses.replace(split, elements=train, num_images=split.num_images - num_held_out),
        "validation": dataclasses.replace(split, elements=validation, num_images=num_held_out),
    }
