"""Batches of images for training and for scoring, the same from run to run and on any number of replicas.

Which images a step takes follows from (seed, epoch, step), how one is augmented from (seed, epoch, image). A process
draws the order of all, keeps its share of every global batch, and only then reads.
"""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from keras_resnet import weights as published
from keras_resnet.preprocessing import Preprocessing
from train import augment, damage, preparation, sources
from train import config as configs
from train.sources import DEFAULT_PREPROCESSING, SOURCES


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process prepares of each global batch.

    A batch is cut into `accumulation` parts, each part into a piece a replica, in the order of the processes.

    Attributes:
        process: its number, from 0.
        num_processes: how many there are.
        replicas: replicas of each process.
        accumulation: parts of a batch that are worked through one after the other.
    """

    process: int = 0
    num_processes: int = 1
    replicas: int = 1
    accumulation: int = 1

    @property
    def num_pieces(self):
        """Pieces of a global batch over all processes."""
        return self.num_processes * self.replicas * self.accumulation

    def pieces(self, batches):
        """The own part of global batches: array (steps, batch_size, ...) -> (pieces, images, ...)."""
        steps, batch_size, *rest = batches.shape
        cut = (steps, self.accumulation, self.num_processes, self.replicas, batch_size // self.num_pieces, *rest)
        return batches.reshape(cut)[:, :, self.process].reshape(-1, *cut[4:])


WHOLE = Share()  # everything in one piece


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
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits["validation"]  # ImageNet: published scores are those of its validation split
    return dataclasses.replace(source, splits=splits)


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
    source = load(spec or run.data, image_size=image_shape[0] or 0, **options)
    return damage.leave_out(source, damage.look(source))


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


def num_training_batches(source, config):
    """Batches in an epoch, at least one.

    Args:
        source: `Source`.
        config: `train.config.Config`, of which batch_size and fill_last_batch apply.
    Raises:
        ValueError: if there are fewer images than one batch.
    """
    num_images, batch_size = find_split(source, "train").num_images, config.batch_size
    if num_images < batch_size:
        raise ValueError(
            f"Expected at least one batch of training images. Received: batch_size={batch_size}, and "
            f"{num_images} images in {source.name}. Use a smaller --batch_size."
        )
    return -(-num_images // batch_size) if config.fill_last_batch else num_images // batch_size


def training_order(source, config, epoch):
    """Which images the steps of an epoch take: rows of the split, and which drawing of each it is.

    Args:
        source: `Source`.
        config: `train.config.Config`, of which seed, batch_size, repeats and fill_last_batch apply.
        epoch: whole number, from 0.
    Returns:
        int64 (steps, batch_size) twice. Images that fill no batch are left out, or else the last batch is filled from
        the beginning.
    """
    steps = num_training_batches(source, config)
    split = find_split(source, "train")
    order = np.random.default_rng([config.seed, epoch]).permutation(split.num_images)
    order = np.repeat(order, config.repeats)
    times = np.arange(len(order)) % config.repeats
    chosen = np.arange(steps * config.batch_size) % (split.num_images if config.fill_last_batch else len(order))
    order, times = (column[chosen].reshape(steps, config.batch_size) for column in (order, times))
    # Within a batch all first drawings, then all second ones: what is mixed with its neighbour is another image.
    apart = np.argsort(times, axis=1, kind="stable")
    return np.take_along_axis(order, apart, axis=1), np.take_along_axis(times, apart, axis=1)


def training_batches(source, config, *, epoch, first_step=0, share=WHOLE):
    """Pieces of the batches of one epoch, shuffled and augmented.

    Args:
        source: `Source`.
        config: `train.config.Config`.
        epoch: whole number, from 0.
        first_step: steps of the epoch to leave out.
        share: `Share` of this process.
    Returns:
        `tf.data.Dataset` of {"image": uint8 (n, h, w, c), "label": int64 (n,)}, n the batch size over the pieces of a
        batch; mixed images have "other_label" int64 (n,) and "share" float32 (n,) of the label besides.
    Raises:
        ValueError: if there are fewer images than one batch, or they do not split into the pieces.
    """
    rows, times = training_order(source, config, epoch)
    split = find_split(source, "train")
    own, times = share.pieces(rows[first_step:]), share.pieces(times[first_step:])
    # A table row an image and drawing, so that nothing depends on who draws it; positions, not rows, so that another
    # split of the same images changes nothing for those that stay.
    size = (int(split.positions.max()) + 1) * config.repeats
    table = np.random.default_rng([config.seed, epoch, 1]).random((size, preparation.NUM_DRAWS), dtype="float32")
    positions = split.positions[own]
    elements = {"position": positions, "draws": table[positions * config.repeats + times]}
    side = config.training_size
    shape = (side, side, source.image_shape[-1]) if side else source.image_shape
    read = split.open()
    if source.encoded:
        return _prefetched(_from_files(elements, read, source, config, shape))
    return _prefetched(_from_memory(elements, read, config, shape))


def _from_files(elements, read, source, config, shape):
    """Batches of images that are read, decoded and augmented one by one, on all cores."""
    batch_size = elements["position"].shape[1]
    elements = {name: column.reshape(-1, *column.shape[2:]) for name, column in elements.items()}

    def prepare(element):
        row = read(element["position"])
        image = preparation.crop_encoded(row["image"], element["draws"], config, shape, source.preprocessing)
        return {"image": preparation.change(image, element["draws"], config), "label": row["label"]} | {
            "draws": element["draws"]
        }

    dataset = tf.data.Dataset.from_tensor_slices(elements).map(prepare, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True).map(_mixed(config), tf.data.AUTOTUNE, deterministic=True)


def _from_memory(elements, read, config, shape):
    """Batches of images in memory, augmented a batch at a time where that is possible."""
    batch_size = elements["position"].shape[1]

    def prepare(element):
        row = read(element["position"])
        return {
            "image": preparation.crop_batch(row["image"], element["draws"], config, shape),
            "label": row["label"],
            "draws": element["draws"],
        }

    def change(element):
        return element | {"image": preparation.change(element["image"], element["draws"], config)}

    dataset = tf.data.Dataset.from_tensor_slices(elements).map(prepare, tf.data.AUTOTUNE, deterministic=True)
    if preparation.changes(config):
        dataset = dataset.unbatch().map(change, tf.data.AUTOTUNE, deterministic=True)
        dataset = dataset.batch(batch_size, drop_remainder=True)
    return dataset.map(_mixed(config), tf.data.AUTOTUNE, deterministic=True)


def _mixed(config):
    """Function that ends the preparation of a batch: mixes neighbours where the recipe says so."""

    def mix(batch):
        draws = batch.pop("draws")
        if not (config.mixup or config.cutmix):
            return batch
        return augment.mix_pairs(batch, preparation.mixing_draws(draws), config.mixup, config.cutmix)

    return mix


def evaluation_batches(source, split, batch_size, share=WHOLE):
    """Pieces of batches in order, the last one filled up with images of weight 0, so that each counts once.

    Args:
        source: `Source`.
        split: "train", "validation" or "test".
        batch_size: images a batch, over all replicas.
        share: `Share` of this process.
    Returns:
        `tf.data.Dataset` of {"image": uint8 (n, h, w, c), "label": int64 (n,), "weight": float32 (n,), 1 or 0}.
    """
    part = find_split(source, split)
    rows = np.arange(part.num_images + -part.num_images % batch_size)
    columns = {
        "position": part.positions[np.minimum(rows, part.num_images - 1)],
        "weight": (rows < part.num_images).astype("float32"),
    }
    elements = {name: share.pieces(column.reshape(-1, batch_size)) for name, column in columns.items()}
    return _prefetched(_whole_images(elements, part.open(), source))


def _whole_images(elements, read, source):
    """Batches of unchanged images."""

    def prepare(element):
        row = read(element["position"])
        image = source.decode(row["image"]) if source.encoded else row["image"]
        return {"image": image, "label": row["label"], "weight": element["weight"]}

    dataset, batch_size = tf.data.Dataset.from_tensor_slices(elements), elements["position"].shape[1]
    if not source.encoded:
        return dataset.map(prepare, tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.unbatch().map(prepare, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size, drop_remainder=True)


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
    part = dataclasses.replace(part, positions=part.positions[::step][:limit])
    source = dataclasses.replace(source, splits={split: part})
    batches = evaluation_batches(source, split, min(part.num_images, 128)).as_numpy_iterator()
    columns = [np.concatenate(column) for column in zip(*((b["image"], b["label"]) for b in batches), strict=True)]
    return *(column[: part.num_images] for column in columns), part.positions


def photographs(source, split, positions=None):
    """Images of a split at their own sizes, in the order of `evaluation_batches`.

    Args:
        source: `Source`.
        split: "train", "validation" or "test".
        positions: whole numbers, of the images wanted, counted in that order; None: all.
    Returns:
        Iterator of (uint8 (h, w, c), int label, str name), in the order of the split.
    """
    part = find_split(source, split)
    wanted = part.positions if positions is None else part.positions[np.sort(positions)]
    read = part.open()

    def whole(position):
        row = read(position)
        image = sources.decode_whole(row["image"], source.image_shape[-1]) if source.encoded else row["image"]
        return row | {"image": image}

    rows = tf.data.Dataset.from_tensor_slices(wanted).map(whole, tf.data.AUTOTUNE, deterministic=True)
    for row, position in zip(_prefetched(rows).as_numpy_iterator(), wanted, strict=True):
        yield row["image"], int(row["label"]), part.names(position)


def names(source, split):
    """What the source calls the images of a split, in the order of `evaluation_batches`: list of str."""
    part = find_split(source, split)
    return [part.names(position) for position in part.positions]


def _prefetched(batches):
    """Prepares batches ahead, on all cores, without tf.data's autotuner.

    The autotuner's thread kept the end of an epoch waiting for up to 25 s (BUILD_NOTES.md, "Traps").
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


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
    return {
        "train": dataclasses.replace(split, positions=split.positions[~held_out]),
        "validation": dataclasses.replace(split, positions=split.positions[held_out]),
    }
