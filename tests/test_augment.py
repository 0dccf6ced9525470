"""Augmentation: every operation is Pillow's, every policy its paper's, and the draws decide everything."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from sklearn.datasets import load_sample_image

from train import augment, operations

OPERATIONS = {row.name: row for row in operations.OPERATIONS}
HIGHEST = np.float32(1 - 2**-24)  # the largest draw that there is
MARGIN = 300  # pixels of FILL_BYTE around the photographs that Pillow moves


@pytest.fixture(scope="module")
def photograph():
    """143 x 214 pixels: a flower, with every third row and column."""
    return np.ascontiguousarray(load_sample_image("flower.jpg")[::3, ::3])


def picture_of(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def draws_of(*numbers):
    return tf.constant(numbers, tf.float32)


def difference(found, expected):
    found, expected = (np.asarray(each).astype(int) for each in (found, expected))
    return abs(found.reshape(expected.shape) - expected).max()


def framed(picture):
    return ImageOps.expand(picture, MARGIN, fill=(operations.FILL_BYTE,) * len(picture.getbands()))


def moved(picture, a, b, c, d, e, f):
    """Pillow alone would repeat the edge half a pixel outwards, where ours fades into FILL_BYTE."""
    matrix = (a, b, c + MARGIN, d, e, f + MARGIN)
    return framed(picture).transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def rotated(picture, degrees):
    turned = framed(picture).rotate(degrees, Image.Resampling.BILINEAR)
    return turned.crop((MARGIN, MARGIN, MARGIN + picture.width, MARGIN + picture.height))


def lighter(picture, amount):
    return picture.point(
        [value + int(amount) if value < 128 else value for value in range(256)] * len(picture.getbands())
    )


# Pillow's own function, and by how many levels we may differ: it cuts fractions off where we round.
REFERENCES = {
    "Identity": (lambda picture, _: picture, 0),
    "AutoContrast": (lambda picture, _: ImageOps.autocontrast(picture), 1),
    "Equalize": (lambda picture, _: ImageOps.equalize(picture), 0),
    "Invert": (lambda picture, _: ImageOps.invert(picture), 0),
    "Rotate": (rotated, 1),
    "Posterize": (lambda picture, bits: picture.point(lambda value: value >> 8 - round(bits) << 8 - round(bits)), 0),
    "Solarize": (ImageOps.solarize, 0),
    "SolarizeAdd": (lighter, 0),
    "Color": (lambda picture, magnitude: ImageEnhance.Color(picture).enhance(1 + magnitude), 1),
    "Contrast": (lambda picture, magnitude: ImageEnhance.Contrast(picture).enhance(1 + magnitude), 1),
    "Brightness": (lambda picture, magnitude: ImageEnhance.Brightness(picture).enhance(1 + magnitude), 1),
    "Sharpness": (lambda picture, magnitude: ImageEnhance.Sharpness(picture).enhance(1 + magnitude), 1),
    "ShearX": (lambda picture, slope: moved(picture, 1, slope, 0, 0, 1, 0), 1),
    "ShearY": (lambda picture, slope: moved(picture, 1, 0, 0, slope, 1, 0), 1),
    "TranslateX": (lambda picture, pixels: moved(picture, 1, 0, int(pixels), 0, 1, 0), 0),
    "TranslateY": (lambda picture, pixels: moved(picture, 1, 0, 0, 0, 1, int(pixels)), 0),
    "TranslateXRel": (lambda picture, share: moved(picture, 1, 0, share * picture.width, 0, 1, 0), 1),
    "TranslateYRel": (lambda picture, share: moved(picture, 1, 0, 0, 0, 1, share * picture.height), 1),
}


@pytest.mark.unit
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_pillows(photograph, name, channels):
    row, (reference, levels) = OPERATIONS[name], REFERENCES[name]
    image = photograph[..., :channels] // 2 + 30  # leaves AutoContrast something to do
    for low, high in filter(None, (row.trivial, row.rand)):
        magnitudes = [low, low + 0.3 * (high - low), high]
        for magnitude in [*magnitudes, *(-each for each in magnitudes if row.signed)]:
            found = row.function(tf.constant(image), tf.constant(magnitude))
            assert difference(found, reference(picture_of(image), magnitude)) <= levels, magnitude


@pytest.mark.unit
@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast", "Sharpness"])
def test_images_of_one_colour_stay(name):
    for value in (0, 77, 255):
        image = np.full((9, 7, 3), value, "uint8")
        assert np.array_equal(OPERATIONS[name].function(tf.constant(image), tf.constant(0.5)), image)


@pytest.mark.unit
def test_equalize_of_few_pixels_is_pillows():
    """Too few pixels for a step of one a level: as they are; just enough: the table ends beyond 255."""
    rng = np.random.default_rng(0)
    for side in (8, 16, 17, 20):
        image = rng.integers(0, 256, (side, side, 3)).astype("uint8")
        assert (
            difference(OPERATIONS["Equalize"].function(tf.constant(image), 0.0), ImageOps.equalize(picture_of(image)))
            == 0
        )


NO_CHANGE = {name: 0.0 for name, row in OPERATIONS.items() if row.signed} | {
    "Identity": 0.0, "Posterize": 8.0, "Solarize": 256.0, "SolarizeAdd": 0.0
}  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize("name", NO_CHANGE)
def test_no_magnitude_is_no_change(photograph, name):
    found = OPERATIONS[name].function(tf.constant(photograph), tf.constant(NO_CHANGE[name]))
    assert np.array_equal(found, photograph)


# torchvision's TrivialAugmentWide at its strongest, with the larger sign; timm's RandAugment at levels 7 and 6.
TRIVIAL = {
    "Identity": 0, "AutoContrast": 0, "Equalize": 0, "Rotate": 135, "Posterize": 2, "Solarize": 0, "Color": 0.99,
    "Contrast": 0.99, "Brightness": 0.99, "Sharpness": 0.99, "ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32,
    "TranslateY": 32,
}  # fmt: skip
RAND = {
    "AutoContrast": (0, 0), "Equalize": (0, 0), "Invert": (0, 0), "Rotate": (21, 18), "Posterize": (2, 2),
    "Solarize": (77, 103), "SolarizeAdd": (77, 66), "Color": (0.63, 0.54), "Contrast": (0.63, 0.54),
    "Brightness": (0.63, 0.54), "Sharpness": (0.63, 0.54), "ShearX": (0.21, 0.18), "ShearY": (0.21, 0.18),
    "TranslateXRel": (0.315, 0.27), "TranslateYRel": (0.315, 0.27),
}  # fmt: skip


def same(found, name, image, magnitude):
    """Whether that is the operation; a magnitude that differs in its last bit may turn a rounding."""
    return difference(found, OPERATIONS[name].function(tf.constant(image), tf.constant(magnitude, tf.float32))) <= 1


@pytest.mark.unit
@pytest.mark.parametrize("name", TRIVIAL)
def test_trivial_augment_draws_every_operation_and_sign(photograph, name):
    choice = ([*TRIVIAL].index(name) + 0.5) / len(TRIVIAL)
    for sign, draw in ((-1, 0.49), (1, 0.5)):
        found = augment.trivial_augment(tf.constant(photograph), draws_of(choice, HIGHEST, draw))
        assert same(found, name, photograph, TRIVIAL[name] * (sign if OPERATIONS[name].signed else 1))


@pytest.mark.unit
@pytest.mark.parametrize("magnitude", [7, 6])
@pytest.mark.parametrize("name", RAND)
def test_rand_augment_draws_every_operation_and_sign(photograph, name, magnitude):
    choice = ([*RAND].index(name) + 0.5) / len(RAND)
    for sign, draw in ((-1, 0.49), (1, 0.5)):
        found = augment.rand_augment(tf.constant(photograph), draws_of(choice, 0.49, 0.5, draw), 1, magnitude)
        expected = RAND[name][7 - magnitude] * (sign if OPERATIONS[name].signed else 1)
        assert same(found, name, photograph, expected)
    left = augment.rand_augment(tf.constant(photograph), draws_of(choice, 0.5, 0.5, 0), 1, magnitude)
    assert np.array_equal(left, photograph)


@pytest.mark.unit
def test_magnitudes_of_trivial_augment_are_31():
    """On a ramp, posterize shows its bits and solarize its threshold."""
    ramp = tf.constant(np.arange(256, dtype="uint8").reshape(16, 16, 1))
    names = [*TRIVIAL]

    def shown(name, draw):
        return augment.trivial_augment(ramp, draws_of((names.index(name) + 0.5) / len(names), draw, 0)).numpy().ravel()

    bins = [(step + 0.5) / 31 for step in range(31)]
    bits = [int(np.log2(len(np.unique(shown("Posterize", each))))) for each in bins]
    assert bits == [8 - round(step / 5) for step in range(31)]
    unchanged = [(shown("Solarize", each) == np.arange(256)).sum() for each in bins]
    assert unchanged == [int(np.ceil(255 - 8.5 * step)) for step in range(31)]


@pytest.mark.unit
def test_rand_augment_posterizes_as_timm_at_every_level():
    ramp = tf.constant(np.arange(256, dtype="uint8").reshape(16, 16, 1))
    choice = ([*RAND].index("Posterize") + 0.5) / len(RAND)
    found = [augment.rand_augment(ramp, draws_of(choice, 0, 0.5, 0), 1, level).numpy() for level in range(11)]
    bits = [int(np.log2(len(np.unique(each)))) for each in found]
    assert bits == [4 - int(level / 10 * 4) for level in range(11)]


@pytest.mark.unit
def test_rand_augment_is_a_chain_with_noise_of_half_a_level(photograph):
    names = [*RAND]
    one, other = ((names.index(name) + 0.5) / len(names) for name in ("Brightness", "Rotate"))
    noise = stats.norm.cdf([1, -2])  # levels 7.5 and 6
    draws = draws_of(one, 0, noise[0], 0, other, 0, noise[1], 0.9)
    found = augment.rand_augment(tf.constant(photograph), draws, 2, 7)
    picture = rotated(ImageEnhance.Brightness(picture_of(photograph)).enhance(1 - 0.9 * 0.75), 18)
    assert difference(found, picture) <= 2
    capped = augment.rand_augment(tf.constant(photograph), draws_of(one, 0, HIGHEST, 0.9), 1, 10)
    assert same(capped, "Brightness", photograph, 0.9)


@pytest.mark.unit
@pytest.mark.parametrize("draws", [(0.9, 0.05, 0.8), (HIGHEST, 0.95, 0.95)])  # together they tell all orders apart
@pytest.mark.parametrize("number", range(6))
def test_colour_jitter_is_pillows_in_every_order(photograph, number, draws):
    found = augment.colour_jitter(tf.constant(photograph), draws_of(*draws, (number + 0.5) / 6), 0.4)
    picture = picture_of(photograph)
    steps = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for place in [*itertools.permutations(range(3))][number]:
        picture = steps[place](picture).enhance(0.6 + 0.8 * draws[place])
    assert difference(found, picture) <= 4  # Pillow's cut-off fractions, as the next steps enlarge them


@pytest.mark.unit
def test_colour_jitter_reaches_its_strength_and_no_further(photograph):
    white = np.full((4, 4, 3), 200, "uint8")
    for draw, value in ((0, 100), (0.5, 200), (HIGHEST, 255)):
        assert (augment.colour_jitter(tf.constant(white), draws_of(draw, 0.5, 0.5, 0), 0.5).numpy() == value).all()
    unchanged = augment.colour_jitter(tf.constant(photograph), draws_of(0, HIGHEST, 0.3, 0.6), 0)
    assert np.array_equal(unchanged, photograph)


@pytest.mark.unit
def test_pca_colour_moves_every_pixel_along_the_components(photograph):
    draws = np.random.default_rng(0).random((200, 3), dtype="float32")
    draws[0] = 0
    components = np.array(augment.PCA_COMPONENTS)
    assert np.allclose(components.T @ components, np.eye(3), atol=2e-4)
    assert np.allclose(components[:, 0], components[0, 0], atol=0.02)  # the first one is brightness
    shifts = stats.norm.ppf(np.maximum(draws, 2**-25)) * 0.1 * augment.PCA_VARIANCES @ components.T * 255
    grey = tf.fill((1, 1, 3), tf.constant(128, tf.uint8))
    found = np.stack([augment.pca_colour(grey, tf.constant(each)).numpy()[0, 0] for each in draws])
    assert difference(found, np.round(128 + shifts)) == 0
    whole = augment.pca_colour(tf.constant(photograph), tf.constant(draws[0]))
    assert difference(whole, np.clip(np.round(photograph + shifts[0]), 0, 255)) == 0


@pytest.mark.unit
def test_random_erasing_fills_boxes_of_the_papers_sizes():
    rng = np.random.default_rng(0)
    side, number = 64, 600
    image = tf.fill((side, side, 1), tf.constant(7, tf.uint8))
    draws = rng.random((number, augment.RANDOM_ERASING_DRAWS), dtype="float32")
    erase = tf.function(lambda each: augment.random_erasing(image, each, 0.25))
    erased = np.stack([erase(each).numpy()[..., 0] == augment.FILL_BYTE for each in tf.constant(draws)])
    touched = erased.any((1, 2))
    assert np.array_equal(touched, draws[:, 0] < 0.25)
    height, width = (erased[touched].any(axis).sum(1) for axis in (2, 1))
    assert np.array_equal(erased[touched].sum((1, 2)), height * width)  # a box, and whole
    area, ratio = height * width / side**2, height / width
    assert np.allclose(area, 0.02 + (1 / 3 - 0.02) * draws[touched, 1], atol=0.02)
    assert np.allclose(np.log(ratio), np.log(0.3) * (1 - 2 * draws[touched, 2]), atol=0.15)
    assert (erased.any((0, 1)) & erased.any((0, 2))).all()  # up to every edge


@pytest.mark.unit
def test_random_erasing_at_the_edges_of_its_draws():
    image = tf.zeros((6, 40, 3), tf.uint8)
    for draws in itertools.product((0, HIGHEST), repeat=4):
        erased = augment.random_erasing(image, draws_of(0, *draws), 1.0).numpy() == augment.FILL_BYTE
        assert erased.any()
        assert not augment.random_erasing(image, draws_of(0, *draws), 0.0).numpy().any()
        corner = erased[-1 if draws[2] else 0, -1 if draws[3] else 0]
        assert corner.all()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 12, 9, 3)).astype("uint8")
    return {"image": tf.constant(images), "label": tf.range(64, dtype=tf.int64)}


def mixed(batch, draws, *alphas):
    found = augment.mix_pairs(batch, tf.constant(draws), *alphas)
    return {name: column.numpy() for name, column in found.items()}


NEIGHBOURS = np.arange(64) ^ 1


@pytest.fixture
def mix_draws():
    return np.random.default_rng(1).random((64, augment.MIX_PAIRS_DRAWS), dtype="float32")


@pytest.mark.unit
def test_mixup_is_the_weighted_mean_of_neighbours(batch, mix_draws):
    found = mixed(batch, mix_draws, 1.0, 0.0)
    assert np.array_equal(found["label"], np.arange(64))
    assert np.array_equal(found["other_label"], NEIGHBOURS)
    assert np.array_equal(found["share"], mix_draws[::2, 1].repeat(2))
    images, share = batch["image"].numpy().astype("float64"), found["share"].astype("float64")[:, None, None, None]
    expected = share * images + (1 - share) * images[NEIGHBOURS]
    assert abs(found["image"] - expected).max() < 0.501  # rounded, not cut off


@pytest.mark.unit
def test_cutmix_pastes_a_box_and_counts_its_pixels(batch, mix_draws):
    number = np.broadcast_to(np.arange(64, dtype="uint8")[:, None, None, None], (64, 12, 9, 3))
    batch["image"] = tf.constant(number)
    found = mixed(batch, mix_draws, 0.0, 1.0)
    kept = found["image"][..., 0] == number[..., 0]
    assert np.array_equal(found["image"], np.where(kept[..., None], number, number[NEIGHBOURS]))
    assert np.array_equal(found["other_label"], NEIGHBOURS)
    assert np.allclose(found["share"], kept.mean((1, 2)), atol=1e-7)
    assert np.array_equal(kept[::2], kept[1::2])
    for pasted, (_, drawn, down, right) in zip(~kept[::2], mix_draws[::2], strict=True):
        height, width = (int(np.sqrt(1 - drawn) * side) for side in (12, 9))
        top, left = int(down * 12) - height // 2, int(right * 9) - width // 2
        box = np.zeros((12, 9), bool)
        box[max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
        assert np.array_equal(pasted, box)


@pytest.mark.unit
@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 4.0])
def test_lambda_is_beta_distributed(alpha):
    """Between the table's quantiles lambda is off by less than one of its steps, in probability."""
    levels = ((np.arange(3000) + 0.5) / 3000).astype("float32")
    draws = np.full((6000, augment.MIX_PAIRS_DRAWS), 0.5, "float32")
    draws[::2, 1] = levels
    images = {"image": tf.zeros((6000, 1, 1, 1), tf.uint8), "label": tf.zeros(6000, tf.int64)}
    found = mixed(images, draws, alpha, 0.0)["share"][::2]
    lowest, highest = (stats.beta.ppf(np.clip(levels + step, 0, 1), alpha, alpha) for step in (-1 / 1024, 1 / 1024))
    assert ((lowest - 1e-6 < found) & (found < highest + 1e-6)).all()
    middle = abs(levels - 0.5) < 0.4
    assert abs(found - stats.beta.ppf(levels, alpha, alpha))[middle].max() < 1e-4
    assert abs(found.mean() - 0.5) < 1e-3
    assert abs(found.var() - 1 / (4 * (2 * alpha + 1))) < 1e-3


@pytest.mark.unit
def test_half_of_the_pairs_are_mixup_where_both_are_on(batch, mix_draws):
    both = mixed(batch, mix_draws, 0.2, 1.0)
    mixup, cutmix = mixed(batch, mix_draws, 0.2, 0.0), mixed(batch, mix_draws, 0.0, 1.0)
    first = (mix_draws[::2, 0] < 0.5).repeat(2)
    assert 20 < first.sum() < 44
    for name in ("image", "share"):
        assert np.array_equal(both[name][first], mixup[name][first])
        assert np.array_equal(both[name][~first], cutmix[name][~first])


@pytest.mark.unit
def test_mixing_a_replicas_part_is_the_part_of_the_mixed_batch(batch, mix_draws):
    whole = mixed(batch, mix_draws, 0.2, 1.0)
    for part in (slice(0, 32), slice(32, 64), slice(6, 8)):
        found = mixed({name: column[part] for name, column in batch.items()}, mix_draws[part], 0.2, 1.0)
        assert all(np.array_equal(found[name], whole[name][part]) for name in whole)


PER_IMAGE = {
    "colour_jitter": (lambda image, draws: augment.colour_jitter(image, draws, 0.4), augment.COLOUR_JITTER_DRAWS),
    "pca_colour": (augment.pca_colour, augment.PCA_COLOUR_DRAWS),
    "trivial_augment": (augment.trivial_augment, augment.TRIVIAL_AUGMENT_DRAWS),
    "rand_augment": (lambda image, draws: augment.rand_augment(image, draws, 2, 7), 2 * augment.RAND_AUGMENT_DRAWS),
    "random_erasing": (lambda image, draws: augment.random_erasing(image, draws, 0.5), augment.RANDOM_ERASING_DRAWS),
}


@pytest.mark.unit
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PER_IMAGE)
def test_the_draws_alone_decide(photograph, name, channels):
    """Eager or in a pipeline, alone or among others, in any order: the same image; its type and shape are known."""
    function, num_draws = PER_IMAGE[name]
    image = photograph[:40, :50, :channels]
    draws = np.random.default_rng(0).random((60, num_draws), dtype="float32")
    draws[0], draws[1] = 0, HIGHEST
    pairs = tf.data.Dataset.from_tensor_slices(draws)
    pipeline = pairs.map(lambda each: function(tf.constant(image), each), tf.data.AUTOTUNE)
    assert pipeline.element_spec == tf.TensorSpec(image.shape, tf.uint8)
    found = np.stack([*pipeline.as_numpy_iterator()])
    backwards = np.stack([function(tf.constant(image), tf.constant(each)) for each in draws[::-1]])[::-1]
    assert np.array_equal(found, backwards)
    if (name, channels) != ("pca_colour", 1):
        assert len({each.tobytes() for each in found}) > 15


@pytest.mark.unit
def test_mixing_is_the_same_in_a_pipeline(batch, mix_draws):
    mix_draws[:2], mix_draws[2:4] = 0, HIGHEST
    dataset = tf.data.Dataset.from_tensor_slices(batch | {"draws": mix_draws}).batch(64, drop_remainder=True)
    dataset = dataset.map(lambda each: augment.mix_pairs(each, each.pop("draws"), 0.2, 1.0))
    assert dataset.element_spec == {
        "image": tf.TensorSpec((64, 12, 9, 3), tf.uint8), "label": tf.TensorSpec(64, tf.int64),
        "other_label": tf.TensorSpec(64, tf.int64), "share": tf.TensorSpec(64, tf.float32),
    }  # fmt: skip
    (found,) = dataset.as_numpy_iterator()
    expected = mixed(batch, mix_draws, 0.2, 1.0)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert np.isfinite(found["share"]).all()
    assert ((found["share"] >= 0) & (found["share"] <= 1)).all()


IMAGE, PAIR = tf.zeros((8, 8, 3), tf.uint8), {"image": tf.zeros((2, 8, 8, 3), tf.uint8)}
BAD_ARGUMENTS = {
    "strength": (lambda: augment.colour_jitter(IMAGE, tf.zeros(4), 1.5), "from 0 to 1. Received: strength=1.5"),
    "magnitude": (lambda: augment.rand_augment(IMAGE, tf.zeros(8), 2, 11), "from 0 to 10. Received: magnitude=11"),
    "draws": (lambda: augment.trivial_augment(IMAGE, tf.zeros(4)), r"Expected 3 draws .* Received: shape \(4,\)"),
    "draws of two": (lambda: augment.rand_augment(IMAGE, tf.zeros(4), 2, 7), "Expected 8 draws"),
    "odd": (lambda: augment.mix_pairs({"image": IMAGE[:3]}, tf.zeros((3, 4)), 1, 0), "a batch of 3. Use an even"),
    "no alpha": (lambda: augment.mix_pairs(PAIR, tf.zeros((2, 4)), 0, 0), "Received: mixup_alpha=0, cutmix_alpha=0"),
    "negative": (lambda: augment.mix_pairs(PAIR, tf.zeros((2, 4)), -1, 1), "Received: mixup_alpha=-1"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_arguments_that_mean_nothing_are_refused(case):
    call, text = BAD_ARGUMENTS[case]
    with pytest.raises(ValueError, match=text):
        call()
