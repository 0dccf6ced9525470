"""Augmentation as functions of images and of numbers drawn outside, so that order and replicas change nothing.

Every function takes `draws`, float32 in [0, 1), as many as the constant beside it says. Images are uint8 of
static shape and keep both, with 1 or 3 channels; what concerns colours leaves grey images as they are.
"""

import functools
import itertools
import math

import numpy as np
import tensorflow as tf

from train.operations import FILL_BYTE, OPERATIONS, brightness, contrast, saturation, to_bytes

COLOUR_JITTER_DRAWS = 4  # brightness, contrast, saturation, their order
PCA_COLOUR_DRAWS = 3  # one a principal component
TRIVIAL_AUGMENT_DRAWS = 3  # operation, magnitude, sign
RAND_AUGMENT_DRAWS = 4  # an operation: which, whether, noise of its magnitude, sign
RANDOM_ERASING_DRAWS = 5  # whether, area, aspect ratio, top, left
MIX_PAIRS_DRAWS = 4  # mixup or cutmix, lambda, vertical and horizontal centre of the box

TRIVIAL_AUGMENT_BINS = 31  # magnitudes from the weakest to the strongest (arXiv 2103.10158)
RAND_AUGMENT_LEVELS = 10  # the strongest magnitude of timm's scale (timm/data/auto_augment.py, _LEVEL_DENOM)

# Principal components of ImageNet's RGB pixels in 0..1, a component a column, and their variances: computed for
# AlexNet's colours (Krizhevsky 2012, section 4.1), published with fb.resnet.torch (datasets/imagenet.lua).
PCA_COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
PCA_VARIANCES = (0.2175, 0.0188, 0.0045)


def _unstacked(draws, num_draws):
    """The draws one by one: float32 (..., num_draws) -> num_draws of (...)."""
    if draws.shape[-1] != num_draws:
        raise ValueError(f"Expected {num_draws} draws in the last axis. Received: shape {tuple(draws.shape)}.")
    return tf.unstack(draws, axis=-1)


def _normal(draws):
    """Uniform to normal draws; 0, which would be minus infinity, counts as half of the smallest other (-5.4)."""
    return tf.math.ndtri(tf.maximum(draws, 2**-25))


def _one_of(policy, image, choice, strength, sign):
    """Applies one of a policy's operations; `choice` and `sign` are draws, `strength` goes from 0 to 1."""
    rows = [row for row in OPERATIONS if getattr(row, policy)]
    index = tf.cast(choice * len(rows), tf.int32)
    weakest, strongest = tf.unstack(tf.gather([getattr(row, policy) for row in rows], index))
    magnitude = weakest + (strongest - weakest) * strength
    negated = tf.gather([row.signed for row in rows], index) & (sign < 0.5)
    magnitude = tf.where(negated, -magnitude, magnitude)
    return tf.switch_case(index, [functools.partial(row.function, image, magnitude) for row in rows])


def trivial_augment(image, draws):
    """One operation at one of 31 magnitudes: TrivialAugmentWide (Mueller & Hutter 2021, arXiv 2103.10158).

    Args:
        image: uint8 (h, w, c).
        draws: float32 (3,).
    Returns:
        uint8 (h, w, c).
    """
    choice, strength, sign = _unstacked(draws, TRIVIAL_AUGMENT_DRAWS)
    strength = tf.floor(strength * TRIVIAL_AUGMENT_BINS) / (TRIVIAL_AUGMENT_BINS - 1)
    return _one_of("trivial", image, choice, strength, sign)


def rand_augment(image, draws, num_operations, magnitude):
    """Operations in a row, each left out half of the time: RandAugment (Cubuk 2019, arXiv 1909.13719).

    As timm's "rand-m7-mstd0.5-inc1": operations drawn with repetition, normal noise of deviation 0.5 on the
    magnitude. arXiv 2110.00476 has two operations, and magnitude 7 in A1 and A2, 6 in A3.

    Args:
        image: uint8 (h, w, c).
        draws: float32 (4 * num_operations,).
        num_operations: whole number.
        magnitude: from 0 to 10.
    Returns:
        uint8 (h, w, c).
    Raises:
        ValueError: if the magnitude is none of the scale's.
    """
    if not 0 <= magnitude <= RAND_AUGMENT_LEVELS:
        raise ValueError(f"Expected magnitude to be from 0 to {RAND_AUGMENT_LEVELS}. Received: magnitude={magnitude}.")
    draws = _unstacked(draws, num_operations * RAND_AUGMENT_DRAWS)
    for start in range(0, len(draws), RAND_AUGMENT_DRAWS):
        choice, whether, noise, sign = draws[start : start + RAND_AUGMENT_DRAWS]
        level = tf.clip_by_value(magnitude + 0.5 * _normal(noise), 0, RAND_AUGMENT_LEVELS)
        change = functools.partial(_one_of, "rand", image, choice, level / RAND_AUGMENT_LEVELS, sign)
        image = tf.cond(whether < 0.5, change, functools.partial(tf.identity, image))
    return image


def colour_jitter(image, draws, strength):
    """Brightness, contrast and saturation by factors in [1 - strength, 1 + strength], in any order.

    torchvision's ColorJitter: a blend with black, with the mean grey, and with the grey image.

    Args:
        image: uint8 (h, w, c).
        draws: float32 (4,).
        strength: from 0 to 1.
    Returns:
        uint8 (h, w, c).
    Raises:
        ValueError: if `strength` is outside.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"Expected strength to be from 0 to 1. Received: strength={strength}.")
    *magnitudes, order = _unstacked(draws, COLOUR_JITTER_DRAWS)
    magnitudes = [strength * (2 * draw - 1) for draw in magnitudes]
    steps = [*zip((brightness, contrast, saturation), magnitudes, strict=True)]
    order = tf.gather([*itertools.permutations(range(3))], tf.cast(order * 6, tf.int32))
    for place in range(3):
        step = [functools.partial(function, image, magnitude) for function, magnitude in steps]
        image = tf.switch_case(order[place], step)
    return image


def pca_colour(image, draws):
    """Adds normal shares, of deviation 0.1, of the principal components of ImageNet's colours; grey images stay.

    Krizhevsky 2012, section 4.1: "the standard color augmentation" of He et al. 2015, section 3.4.

    Args:
        image: uint8 (h, w, c).
        draws: float32 (3,).
    Returns:
        uint8 (h, w, c).
    """
    if image.shape[-1] == 1:
        return image
    shares = 0.1 * _normal(tf.stack(_unstacked(draws, PCA_COLOUR_DRAWS)))
    shift = tf.linalg.matvec(PCA_COMPONENTS, shares * PCA_VARIANCES)
    return to_bytes(tf.cast(image, tf.float32) + 255 * shift)


def random_erasing(image, draws, probability):
    """Fills a box of 0.02 to 1/3 of the area and of aspect ratio 0.3 to 1/0.3 (Zhong 2017, arXiv 1708.04896).

    The colour is `FILL_BYTE`: timm and torchvision erase the normalised image with 0, which as a pixel is the mean.
    The ratio is drawn log-uniform, as by both. They draw again where a box is too long; here it ends at the edge
    (of a square image 0.5 % of the boxes).

    Args:
        image: uint8 (h, w, c).
        draws: float32 (5,).
        probability: share of the images.
    Returns:
        uint8 (h, w, c).
    """
    height, width = image.shape[:2]
    whether, area, ratio, top, left = _unstacked(draws, RANDOM_ERASING_DRAWS)
    area = (0.02 + (1 / 3 - 0.02) * area) * height * width
    ratio = tf.exp((2 * ratio - 1) * math.log(1 / 0.3))
    rows = _drawn_range(height, tf.sqrt(area * ratio), top)
    columns = _drawn_range(width, tf.sqrt(area / ratio), left)
    erased = rows[:, None] & columns & (whether < probability)
    return tf.where(erased[..., None], tf.constant(FILL_BYTE, tf.uint8), image)


def _drawn_range(size, length, draw):
    """Positions of a range that lies anywhere in the side, drawn evenly: bool (size,)."""
    length = tf.round(length)
    start = tf.floor(draw * (size - length + 1))  # at most 0 where the range is longer than the side
    return _between(size, start, start + length)


def _between(size, start, end):
    """Which positions lie in a range: float (...) -> bool (..., size)."""
    positions = tf.range(size, dtype=tf.float32)
    return (positions >= start[..., None]) & (positions < end[..., None])


def mix_pairs(batch, draws, mixup_alpha, cutmix_alpha):
    """Mixes each image with its neighbour, 2j with 2j + 1; where both alphas are set, half of the pairs by each.

    Mixup: arXiv 1710.09412; cutmix: arXiv 1905.04899. Neighbours rather than any two images: a replica then needs
    no other's, and the number of replicas changes nothing. The draws of the pair's first image count for both.

    Args:
        batch: {"image": uint8 (n, h, w, c), "label": int64 (n,), ...}, n even.
        draws: float32 (n, 4).
        mixup_alpha: lambda's distribution is Beta(alpha, alpha); 0: no mixup.
        cutmix_alpha: the same of cutmix, whose lambda is then corrected to the pixels that stay.
    Returns:
        The batch with images mixed, "other_label" int64 (n,) and "share" float32 (n,), which is that of "label".
    Raises:
        ValueError: if n is odd, an alpha negative, or both 0.
    """
    images = batch["image"]
    if images.shape[0] % 2:
        raise ValueError(f"Expected pairs of images. Received: a batch of {images.shape[0]}. Use an even batch.")
    if min(mixup_alpha, cutmix_alpha) < 0 or not (mixup_alpha or cutmix_alpha):
        raise ValueError(
            "Expected mixup_alpha and cutmix_alpha to be 0 or more, one of them more. "
            f"Received: mixup_alpha={mixup_alpha}, cutmix_alpha={cutmix_alpha}."
        )
    kind, quantile, row, column = _unstacked(draws[::2], MIX_PAIRS_DRAWS)
    is_cutmix = kind >= (0.5 if mixup_alpha and cutmix_alpha else float(not cutmix_alpha))  # all of [0, 1), or none
    share = tf.where(is_cutmix, _beta_quantile(cutmix_alpha, quantile), _beta_quantile(mixup_alpha, quantile))
    kept = ~_box(images.shape[1:3], tf.sqrt(1 - share), row, column)
    kept = tf.where(is_cutmix[:, None, None], tf.cast(kept, tf.float32), share[:, None, None])
    share = tf.where(is_cutmix, tf.reduce_mean(kept, axis=(1, 2)), share)
    return batch | {
        "image": _blended_pairs(images, kept),
        "other_label": tf.reshape(tf.reshape(batch["label"], (-1, 2))[:, ::-1], (-1,)),
        "share": tf.repeat(share, 2),
    }


def _blended_pairs(images, kept):
    """Keeps so much of each pixel and takes the rest from the neighbour: uint8 (n, h, w, c), float32 (n/2, h, w).

    Rows are flattened, for TensorFlow is slow at broadcasting over three channels: with it a batch of 128 of 224
    pixels took 0.44 s, so 0.12 s (2 shared cores, TensorFlow 2.21, three runs).
    """
    _, height, width, channels = images.shape
    rows = tf.cast(tf.reshape(images, (-1, 2, height, width * channels)), tf.float32)
    first, second = tf.unstack(rows, axis=1)
    difference = tf.repeat(kept, channels, axis=2) * (first - second)
    return tf.reshape(to_bytes(tf.stack([second + difference, first - difference], axis=1)), images.shape)


def _box(sizes, side, *centres):
    """Pixels of a box, which the image's edge cuts off: `side`, a share, and centres (n,) -> bool (n, h, w)."""
    spans = []
    for size, centre in zip(sizes, centres, strict=True):
        length = tf.floor(side * size)
        start = tf.floor(centre * size) - tf.floor(length / 2)
        spans.append(_between(size, start, start + length))
    return spans[0][:, :, None] & spans[1][:, None, :]


def _beta_quantile(alpha, draws):
    """Beta(alpha, alpha) from uniform draws; a table of 1,025 quantiles, as TensorFlow has no inverse of betainc."""
    if alpha in (0, 1):  # unused, or uniform
        return draws
    from scipy import stats  # here: takes a second, and most runs do without

    table = tf.constant(stats.beta.ppf(np.linspace(0, 1, 1025), alpha, alpha), tf.float32)
    place = draws * 1024
    below = tf.cast(place, tf.int32)
    low, high = tf.gather(table, below), tf.gather(table, below + 1)
    return low + (high - low) * (place - tf.cast(below, tf.float32))
