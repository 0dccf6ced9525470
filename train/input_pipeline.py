"""Batches of images for training and for scoring, the same from run to run and on any number of replicas.

Which images a step takes follows from (seed, epoch, step), how one is augmented from (seed, epoch, image). A process
draws the order of all, keeps its share of every global batch, and only then reads.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from train import augment, decoding, preparation
from train.data import find_split


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
    """Images and labels of a split as arrays; with a limit so many, evenly spread over all, from the first.

    Args:
        source: `Source`.
        split: "train", "validation" or "test".
        limit: most images wanted, or None for all.
    Returns:
        uint8 (n, h, w, c), int64 (n,) and the images' indices in the source, int64 (n,).
    """
    part = find_split(source, split)
    count = min(limit or part.num_images, part.num_images)
    part = dataclasses.replace(part, positions=part.positions[np.arange(count) * part.num_images // count])
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
        image = decoding.decode_whole(row["image"], source.image_shape[-1]) if source.encoded else row["image"]
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
