"""What augmentation can do to one image: the operations of TrivialAugment and RandAugment, a row each.

Images are uint8 (h, w, c) of static shape, c 1 or 3, and keep both; `tests/test_augment.py` holds each operation
against Pillow, in which the papers' own code is written.
"""

import dataclasses
import math
from collections.abc import Callable

import tensorflow as tf

FILL_BYTE = 116  # the ImageNet mean 0.449 as a pixel: what is shown from beyond the image's edge


def to_bytes(pixels):
    """Rounds to uint8: float, any shape. Cutting off, as Pillow does, darkens by half a level each time."""
    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def _grey(pixels):
    return pixels if pixels.shape[-1] == 1 else tf.image.rgb_to_grayscale(pixels)


def _away_from(degenerate_of, image, magnitude):
    """Blends with factor 1 + magnitude between a degenerate image, at -1, and the image, at 0 (Pillow, ImageEnhance).

    `tf.image.adjust_*` define brightness as a sum, contrast by channel and saturation in HSV: other operations.
    """
    pixels = tf.cast(image, tf.float32)
    return to_bytes(pixels + magnitude * (pixels - degenerate_of(pixels)))


def brightness(image, magnitude):
    """Towards and away from black; magnitudes from -1, 0 is the image."""
    return _away_from(tf.zeros_like, image, magnitude)


def saturation(image, magnitude):
    """Towards and away from the grey image; grey images stay."""
    return image if image.shape[-1] == 1 else _away_from(_grey, image, magnitude)


def contrast(image, magnitude):
    """Towards and away from the mean grey."""
    return _away_from(lambda pixels: tf.reduce_mean(_grey(pixels)), image, magnitude)


def _sharpness(image, magnitude):
    return _away_from(_smooth, image, magnitude)


def _smooth(pixels):
    """Weights 5 in the middle and 1 around it, over 13; the border stays (Pillow, ImageFilter.SMOOTH)."""
    difference = tf.nn.avg_pool2d(pixels[None], 3, 1, "VALID")[0] - pixels[1:-1, 1:-1]
    return pixels + tf.pad(difference, [[1, 1], [1, 1], [0, 0]]) * (9 / 13)


def _identity(image, magnitude):
    return image


def _invert(image, magnitude):
    return tf.bitwise.invert(image)


def _posterize(image, bits):
    mask = tf.bitwise.bitwise_and(tf.bitwise.left_shift(255, 8 - tf.cast(tf.round(bits), tf.int32)), 255)
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def _solarize(image, threshold):
    return tf.where(tf.cast(image, tf.float32) < threshold, image, tf.bitwise.invert(image))


def _solarize_add(image, amount):
    return tf.where(image < 128, image + tf.cast(amount, tf.uint8), image)


def _auto_contrast(image, magnitude):
    pixels = tf.cast(image, tf.float32)
    lowest, highest = (reduce(pixels, axis=(0, 1)) for reduce in (tf.reduce_min, tf.reduce_max))
    stretched = (pixels - lowest) * tf.math.divide_no_nan(255.0, highest - lowest)
    return tf.where(highest > lowest, to_bytes(stretched), image)


def _equalize(image, magnitude):
    """Pillow's ImageOps.equalize to the bit; keras.layers.Equalization rounds otherwise, and wants floats."""
    channels = image.shape[-1]
    bins = tf.cast(image, tf.int32) + 256 * tf.range(channels)
    counts = tf.reshape(tf.math.bincount(tf.reshape(bins, [-1]), minlength=256 * channels), (channels, 256))
    below = tf.cumsum(counts, axis=1, exclusive=True)
    highest = tf.cast(tf.reduce_max(image, axis=(0, 1)), tf.int32)
    step = tf.gather(below, highest[:, None], batch_dims=1) // 255  # pixels a level, without those of the highest
    spread = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    table = tf.cast(tf.where(step > 0, spread, tf.range(256)), tf.uint8)
    return tf.gather(tf.reshape(table, [-1]), bins)


def _affine(image, matrix):
    """Shows at (x, y) the image at (ax + by + c, dx + ey + f), bilinear: Pillow's Image.transform.

    Pillow has pixels' centres at halves, ImageProjectiveTransformV3 at whole numbers. Bilinear as in torchvision's
    training script (references/classification/presets.py); timm draws between bilinear and bicubic.
    """
    a, b, c, d, e, f = matrix
    transform = [a, b, c + (a + b - 1) / 2, d, e, f + (d + e - 1) / 2, 0, 0]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.cast(tf.stack([transform]), tf.float32),
        output_shape=image.shape[:2],
        fill_value=float(FILL_BYTE),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(to_bytes(moved[0]), image.shape)


def _rotate(image, degrees):
    """About the middle, counter-clockwise."""
    y, x = (side / 2 for side in image.shape[:2])
    angle = degrees * (math.pi / 180)
    sin, cos = tf.sin(angle), tf.cos(angle)
    return _affine(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def _shear_x(image, slope):
    """About the upper left corner, as AutoAugment (arXiv 1805.09501) and all that came after."""
    return _affine(image, (1.0, slope, 0.0, 0.0, 1.0, 0.0))


def _shear_y(image, slope):
    return _affine(image, (1.0, 0.0, 0.0, slope, 1.0, 0.0))


def _translate_x(image, pixels):
    """By whole pixels, the fraction cut off as in torchvision."""
    return _affine(image, (1.0, 0.0, _whole(pixels), 0.0, 1.0, 0.0))


def _translate_y(image, pixels):
    return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, _whole(pixels)))


def _whole(pixels):
    return tf.cast(tf.cast(pixels, tf.int32), tf.float32)


def _translate_x_relative(image, share):
    return _affine(image, (1.0, 0.0, share * image.shape[1], 0.0, 1.0, 0.0))


def _translate_y_relative(image, share):
    return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, share * image.shape[0]))


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a policy can do to an image, and how much of it: the weakest and the strongest magnitude."""

    name: str
    function: Callable  # of a uint8 image and a magnitude
    trivial: tuple | None  # in TrivialAugmentWide; None: not one of its operations
    rand: tuple | None  # in RandAugment, at levels 0 and 10
    signed: bool = False  # whether half of the magnitudes are negated


# `trivial`: Mueller & Hutter 2021 (arXiv 2103.10158) as in torchvision's TrivialAugmentWide. `rand`: timm's increasing
# RandAugment ("inc1"), by which arXiv 2110.00476 trained. Of its posterize, 4 bits less the whole part of 0.4 a level,
# 4.5 bits less 0.4 a level are the same once rounded.
OPERATIONS = (
    Operation("Identity", _identity, (0.0, 0.0), None),
    Operation("AutoContrast", _auto_contrast, (0.0, 0.0), (0.0, 0.0)),
    Operation("Equalize", _equalize, (0.0, 0.0), (0.0, 0.0)),
    Operation("Invert", _invert, None, (0.0, 0.0)),
    Operation("Rotate", _rotate, (0.0, 135.0), (0.0, 30.0), signed=True),  # degrees
    Operation("Posterize", _posterize, (8.0, 2.0), (4.5, 0.5)),  # bits
    Operation("Solarize", _solarize, (255.0, 0.0), (256.0, 0.0)),  # pixel from which values are inverted
    Operation("SolarizeAdd", _solarize_add, None, (0.0, 110.0)),  # added below 128
    Operation("Color", saturation, (0.0, 0.99), (0.0, 0.9), signed=True),  # 1 + magnitude is Pillow's factor
    Operation("Contrast", contrast, (0.0, 0.99), (0.0, 0.9), signed=True),
    Operation("Brightness", brightness, (0.0, 0.99), (0.0, 0.9), signed=True),
    Operation("Sharpness", _sharpness, (0.0, 0.99), (0.0, 0.9), signed=True),
    Operation("ShearX", _shear_x, (0.0, 0.99), (0.0, 0.3), signed=True),  # pixels a pixel
    Operation("ShearY", _shear_y, (0.0, 0.99), (0.0, 0.3), signed=True),
    Operation("TranslateX", _translate_x, (0.0, 32.0), None, signed=True),  # pixels
    Operation("TranslateY", _translate_y, (0.0, 32.0), None, signed=True),
    Operation("TranslateXRel", _translate_x_relative, None, (0.0, 0.45), signed=True),  # share of the side
    Operation("TranslateYRel", _translate_y_relative, None, (0.0, 0.45), signed=True),
)
