"""From a recipe to one training image: which steps it goes through, in which order, by which draws.

An image has one row of draws, float32 in [0, 1), an epoch. Every step takes its own columns of it, so that switching
one on leaves the others as they were.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from train import augment, crops, decoding
from train.operations import FILL_BYTE, to_bytes

CROP_DRAWS = max(crops.RANDOM_RESIZED_DRAWS, crops.SCALE_JITTERED_DRAWS, 2)
MIRROR = CROP_DRAWS  # the column that decides whether an image is mirrored


@dataclasses.dataclass(frozen=True)
class Step:
    """A change of one image.

    Attributes:
        field: the recipe's field that switches it on.
        num_draws: columns of draws that it takes.
        change: function of (uint8 (h, w, c), float32 (num_draws,), `Config`) to uint8 (h, w, c).
        off: the field's value that leaves it out.
    """

    field: str
    num_draws: int
    change: Callable
    off: object = 0

    def is_on(self, config):
        """Whether the recipe has it."""
        return getattr(config, self.field) != self.off


def _auto_augment(image, draws, config):
    if config.auto_augment == "trivial":
        return augment.trivial_augment(image, draws[: augment.TRIVIAL_AUGMENT_DRAWS])
    return augment.rand_augment(image, draws, 2, config.rand_magnitude)  # two operations: arXiv 2110.00476


STEPS = (
    Step("pca_colour", augment.PCA_COLOUR_DRAWS, lambda image, draws, _: augment.pca_colour(image, draws), off=False),
    Step("colour_jitter", augment.COLOUR_JITTER_DRAWS,
         lambda image, draws, config: augment.colour_jitter(image, draws, config.colour_jitter)),
    Step("auto_augment", 2 * augment.RAND_AUGMENT_DRAWS, _auto_augment, off="none"),
    Step("erasing", augment.RANDOM_ERASING_DRAWS,
         lambda image, draws, config: augment.random_erasing(image, draws, config.erasing)),
)  # fmt: skip
NUM_DRAWS = MIRROR + 1 + sum(step.num_draws for step in STEPS) + augment.MIX_PAIRS_DRAWS


def mixing_draws(draws):
    """The columns for `augment.mix_pairs`: float32 (n, NUM_DRAWS) -> (n, 4)."""
    return draws[:, -augment.MIX_PAIRS_DRAWS :]


def changes(config):
    """Whether the recipe changes images one by one, beyond cropping and mirroring."""
    return any(step.is_on(config) for step in STEPS)


def change(image, draws, config):
    """All steps of the recipe in order: uint8 (h, w, c), float32 (NUM_DRAWS,) -> uint8 (h, w, c)."""
    first = MIRROR + 1
    for step in STEPS:
        if step.is_on(config):
            image = step.change(image, draws[first : first + step.num_draws], config)
        first += step.num_draws
    return image


def crop_encoded(encoded, draws, config, shape, preprocessing):
    """Decodes what the recipe's crop shows of an image.

    Args:
        encoded: scalar string tensor.
        draws: float32 (NUM_DRAWS,).
        config: `train.config.Config`.
        shape: (h, w, c) of the result.
        preprocessing: how a whole image is resized, where the recipe takes it whole.
    Returns:
        uint8 `shape`, mirrored where the draws say so.
    """
    if config.crop == "resized":
        own = draws[: crops.RANDOM_RESIZED_DRAWS]
        image = crops.random_resized_crop(encoded, own, shape[0], shape[-1], (config.min_area, 1.0))
    elif config.crop == "scale_jitter":
        image = crops.scale_jittered_crop(encoded, draws[: crops.SCALE_JITTERED_DRAWS], shape[0], shape[-1])
    else:
        image = decoding.fitted(decoding.decode_whole(encoded, shape[-1]), shape, preprocessing)
        return crop_batch(image[None], draws[None], config, shape)[0]
    return tf.cond(config.flip & (draws[MIRROR] < 0.5), lambda: image[:, ::-1], lambda: image)


def crop_batch(images, draws, config, shape):
    """The recipe's crops of images in memory, a whole batch at once.

    Args:
        images: uint8 (n, h, w, c).
        draws: float32 (n, NUM_DRAWS).
        config: `train.config.Config`.
        shape: (h, w, c) of each result.
    Returns:
        uint8 (n, *shape), mirrored where the draws say so.
    """
    sides = tf.constant(tuple(images.shape[1:3]), tf.float32)
    if config.crop == "resized":
        own = draws[:, : crops.RANDOM_RESIZED_DRAWS]
        boxes = tf.vectorized_map(lambda row: crops.resized_window(sides, row, (config.min_area, 1.0)), own)
        return _boxed(images, boxes, draws, config, shape)
    if config.crop == "scale_jitter":
        own = draws[:, : crops.SCALE_JITTERED_DRAWS]
        boxes = tf.vectorized_map(lambda row: crops.jittered_window(sides, row, shape[0]), own)
        return _boxed(images, boxes, draws, config, shape)
    if tuple(images.shape[1:3]) != tuple(shape[:2]):
        whole = tf.constant([0.0, 0.0, *images.shape[1:3]]) * tf.ones((tf.shape(images)[0], 1))
        images = _boxed(images, whole, draws, dataclasses.replace(config, flip=False), shape)
    padding = config.crop_padding
    if not (padding or config.flip):
        return images
    return crop_and_flip(images, tf.gather(draws, [0, 1, MIRROR], axis=1), padding, config.flip)


def _boxed(images, boxes, draws, config, shape):
    """Cuts a box (top, left, height, width in pixels) out of each image and resizes it."""
    top, left, height, width = tf.unstack(boxes, axis=1)
    low, high = left, left + width - 1
    if config.flip:
        mirrored = draws[:, MIRROR] < 0.5
        low, high = tf.where(mirrored, high, low), tf.where(mirrored, low, high)
    corners = tf.stack([top, low, top + height - 1, high], axis=1)
    rows, columns = (float(max(side - 1, 1)) for side in images.shape[1:3])
    corners /= (rows, columns, rows, columns)
    resized = tf.image.crop_and_resize(images, corners, tf.range(tf.shape(images)[0]), shape[:2])
    return tf.ensure_shape(to_bytes(resized), (images.shape[0], *shape))


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
