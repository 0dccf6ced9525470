"""Training crops of encoded images: the window, its distribution, the scale it is decoded at, every kind of image."""

import io
import math

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from train import crops

pytestmark = pytest.mark.unit

SIZE = 32
LAST = np.float32(0.99999994)  # the largest float32 below 1
POSITIONS = ((0.0, 0.0), (0.25, 0.75), (LAST, LAST))
NUM_DRAWS = {
    crops.random_resized_crop: crops.RANDOM_RESIZED_DRAWS,
    crops.scale_jittered_crop: crops.SCALE_JITTERED_DRAWS,
}
EVERY_CROP = pytest.mark.parametrize("crop", NUM_DRAWS, ids=lambda crop: crop.__name__)


def picture(height, width):
    """Smooth, and different everywhere: red rises to the right, green downwards, blue waves."""
    rows, columns = np.mgrid[0:height, 0:width].astype("float64")
    down, right = rows / max(height - 1, 1), columns / max(width - 1, 1)
    return np.stack([255 * right, 255 * down, 127 + 100 * np.sin(5 * (right + down))], -1).round().astype("uint8")


def encoded(pixels, kind="JPEG", mode="RGB"):
    """Bytes of a file, without subsampled colours where it is a JPEG, so that colours can be compared."""
    stream = io.BytesIO()
    options = {"quality": 95} | ({"subsampling": 0} if mode != "L" else {}) if kind == "JPEG" else {}
    PIL.Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def draws_of(areas, ratio, top, left):
    """Draws whose trials have these areas and all the same ratio."""
    return np.array([*areas, *[ratio] * crops.NUM_TRIALS, top, left], "float32")


def difference(crop, pixels, position, height, width, ratio=1):
    """Mean difference in levels from that window of the decoded image, resized by Pillow.

    The window begins and ends on whole pixels of the image at 1 / ratio of its size.
    """
    top, left = (
        int(draw * (whole - side + 1))
        for draw, whole, side in zip(position, pixels.shape[:2], (height, width), strict=True)
    )
    top, left, height, width = (length // ratio * ratio for length in (top, left, height, width))
    part = PIL.Image.fromarray(pixels).resize(crop.shape[:2], 2, (left, top, left + width, top + height))
    return np.abs(crop.numpy().astype("float64") - np.asarray(part)).mean()


def square(side, position, height=300, width=400):
    """Random resized crop of a picture in which every trial is a square of that side."""
    area = side**2 / (height * width)
    draws = draws_of([0.0] * crops.NUM_TRIALS, 0.5, *position)
    return crops.random_resized_crop(encoded(picture(height, width)), draws, SIZE, area_range=(area, 1.0))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("ratio", "height", "width"), [(0.5, 50, 50), (0.0, 58, 43), (LAST, 43, 58)])
def test_window_has_the_drawn_area_ratio_and_position(ratio, height, width, position):
    pixels = picture(150, 200)
    draws = draws_of([0.25] * crops.NUM_TRIALS, ratio, *position)
    area_range = (1000 / 30_000, 7000 / 30_000)  # a quarter of the way: 2,500 pixels
    crop = crops.random_resized_crop(encoded(pixels), draws, SIZE, area_range=area_range)
    assert difference(crop, pixels, position, height, width) < 0.6
    for wrong in ((height + 3, width), (height, width - 3)):
        assert difference(crop, pixels, position, *wrong) > 0.6
    for wrong in ((abs(position[0] - 0.03), position[1]), (position[0], abs(position[1] - 0.03))):
        assert difference(crop, pixels, wrong, height, width) > 0.8


def test_extreme_draws_of_area_are_the_ends_of_the_range():
    pixels = picture(60, 60)
    for draw, side in ((0.0, 30), (LAST, 60)):
        draws = draws_of([draw] * crops.NUM_TRIALS, 0.5, 0.0, 0.0)
        crop = crops.random_resized_crop(encoded(pixels), draws, SIZE, area_range=(0.25, 1.0))
        assert difference(crop, pixels, (0, 0), side, side) < 0.6


def test_first_trial_that_fits_is_taken_and_one_that_never_does_is_shrunk():
    file, pixels = encoded(picture(60, 240)), picture(60, 240)
    small, middle, large = 40**2 / 60 / 240, 50**2 / 60 / 240, 1.0  # squares of 40, 50 and 120 pixels
    for areas, side in (
        ((large, small, middle, large), 40),
        ((large, large, middle, small), 50),
        ((large, large, large, large), 60),
    ):
        crop = crops.random_resized_crop(file, draws_of(areas, 0.5, 0.0, 0.0), SIZE, area_range=(0.0, 1.0))
        assert difference(crop, pixels, (0, 0), side, side) < 0.8


def test_distribution_is_that_of_ten_trials():
    """Area and ratio of crops of 500 x 375 pixels against a plain implementation of torchvision's loop."""
    number, rng = 4000, np.random.default_rng(0)
    areas, ratios = rng.uniform(0.08, 1, (number, 10)), np.exp(rng.uniform(-1, 1, (number, 10)) * math.log(4 / 3))
    heights, widths = (np.sqrt(500 * 375 * area).round() for area in (areas / ratios, areas * ratios))
    first = ((heights <= 375) & (widths <= 500)).argmax(1)
    theirs = np.stack([heights, widths], -1)[np.arange(number), first]
    draws = tf.data.Dataset.from_tensor_slices(rng.random((number, 2, crops.NUM_TRIALS), "float32"))
    ours = draws.map(lambda row: crops.first_fitting(tf.constant([375.0, 500.0]), row[0], row[1], (0.08, 1.0)))
    ours = np.stack([*ours.as_numpy_iterator()]).round()
    for measure in (lambda sides: sides[:, 0] * sides[:, 1], lambda sides: sides[:, 1] / sides[:, 0]):
        values = np.sort(measure(ours)), np.sort(measure(theirs))
        points = np.concatenate(values)
        shares = [np.searchsorted(value, points, side="right") / number for value in values]
        assert np.abs(shares[0] - shares[1]).max() < 0.043  # Kolmogorov and Smirnov's 0.1 %; with one trial 0.18


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize(("draw", "side"), [(0.0, 60), (0.5, 40), (LAST, 30)])
def test_scale_jitter_is_a_window_of_the_original(draw, side, position):
    """Shorter sides of 32, 48 and 64 pixels: 60 of 60 pixels are under the crop, 40 and 30."""
    pixels = picture(60, 80)
    crop = crops.scale_jittered_crop(
        encoded(pixels), np.array([draw, *position], "float32"), SIZE, shorter_range=(32, 64)
    )
    assert difference(crop, pixels, position, side, side) < 0.8
    assert difference(crop, pixels, position, side - 3, side - 3) > 0.9


def test_scale_jitter_draws_whole_lengths_evenly():
    file, pixels = encoded(picture(60, 60)), picture(60, 60)
    for draw, side in ((0.0, 60), (0.33, 60), (0.34, 30), (0.66, 30), (0.67, 20), (LAST, 20)):
        crop = crops.scale_jittered_crop(file, np.array([draw, 0, 0], "float32"), 1, shorter_range=(1, 3))
        whole = crops.scale_jittered_crop(
            encoded(pixels[:side, :side]), np.zeros(3, "float32"), 1, shorter_range=(1, 1)
        )
        assert np.abs(crop.numpy().astype(int) - whole.numpy()).max() <= 4, draw


def test_scale_jitter_refuses_crops_larger_than_the_image():
    with pytest.raises(ValueError, match=r"Expected size <= shorter_range.*size=33, shorter_range=\(32, 48\)"):
        crops.scale_jittered_crop(b"", np.zeros(3, "float32"), 33, shorter_range=(32, 48))


@pytest.mark.parametrize(("side", "ratio"), [(31, 1), (63, 1), (64, 2), (127, 2), (128, 4), (256, 8), (290, 8)])
def test_large_crops_are_decoded_at_a_reduced_scale(side, ratio, monkeypatch):
    decode, used = tf.io.decode_and_crop_jpeg, []

    def seen(*arguments, **options):
        used.append(options["ratio"])
        return decode(*arguments, **options)

    monkeypatch.setattr(tf.io, "decode_and_crop_jpeg", seen)
    for position in POSITIONS:
        crop = square(side, position, 301, 403)
        assert difference(crop, picture(301, 403), position, side, side, ratio) < 0.8
    assert used == [ratio] * len(POSITIONS)


def test_scale_is_that_of_the_shorter_side(monkeypatch):
    """A crop of 56 x 75 pixels keeps all of them: half of 56 would be less than 32."""
    used = []
    monkeypatch.setattr(tf.io, "decode_and_crop_jpeg", lambda *_, ratio, **options: used.append(ratio) or [[[0] * 3]])
    draws = draws_of([0.0] * crops.NUM_TRIALS, LAST, 0.0, 0.0)
    crops.random_resized_crop(encoded(picture(150, 200)), draws, SIZE, area_range=(65**2 / 150 / 200, 1.0))
    assert used == [1]


def test_windows_that_need_no_resizing_are_exactly_that_part_of_the_image():
    """With colours at half the resolution, where TensorFlow's default differs at the window's edges."""
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (100, 120, 3)).astype("uint8")
    PIL.Image.fromarray(noise).save(stream, "JPEG", quality=90, subsampling="4:2:0")
    whole = tf.io.decode_jpeg(stream.getvalue(), fancy_upscaling=False, dct_method="INTEGER_ACCURATE").numpy()
    for top, left in ((0, 0), (1, 1), (17, 34), (68, 88)):
        draws = draws_of([0.0] * crops.NUM_TRIALS, 0.5, (top + 0.5) / 69, (left + 0.5) / 89)
        crop = crops.random_resized_crop(stream.getvalue(), draws, SIZE, area_range=(SIZE**2 / 100 / 120, 1.0))
        assert np.array_equal(crop, whole[top : top + SIZE, left : left + SIZE])


@EVERY_CROP
@pytest.mark.parametrize("sides", [(1, 1), (10, 1000), (1000, 10), (3000, 4000)], ids=str)
@pytest.mark.parametrize("draw", [0.0, 0.5, LAST])
def test_images_of_every_size(crop, sides, draw):
    file = tf.constant(encoded(np.full((*sides, 3), (200, 100, 50), "uint8")))
    pixels = crop(file, tf.fill((NUM_DRAWS[crop],), draw), SIZE).numpy().astype(int)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert np.abs(pixels - (200, 100, 50)).max() <= 2


@EVERY_CROP
@pytest.mark.parametrize(
    ("kind", "mode", "colour"),
    [
        ("JPEG", "L", (124, 124, 124)),  # 0.299 red + 0.587 green + 0.114 blue
        ("JPEG", "CMYK", (200, 100, 50)),
        ("PNG", "RGB", (200, 100, 50)),
        ("PNG", "RGBA", (200, 100, 50)),
        ("PNG", "L", (124, 124, 124)),
        ("BMP", "RGB", (200, 100, 50)),
        ("GIF", "RGB", (200, 100, 50)),
    ],
)
def test_every_kind_of_image_becomes_rgb(crop, kind, mode, colour):
    file = encoded(np.full((40, 60, 3), (200, 100, 50), "uint8"), kind, mode)
    pixels = crop(file, np.full(NUM_DRAWS[crop], 0.5, "float32"), SIZE).numpy().astype(int)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert np.abs(pixels - colour).max() <= 3


def test_png_is_cropped_as_jpeg_and_shrunk_without_aliasing():
    pixels, draws = picture(75, 100), draws_of([0.1] * crops.NUM_TRIALS, 0.3, 0.4, 0.7)
    files = encoded(pixels), encoded(pixels, "PNG")
    ours = [crops.random_resized_crop(file, draws, SIZE).numpy().astype(int) for file in files]
    assert np.abs(ours[0] - ours[1]).mean() < 1.0
    stripes = np.zeros((256, 256, 3), "uint8")
    stripes[::8] = 240  # which interpolation without antialiasing never meets
    grey = crops.scale_jittered_crop(
        encoded(stripes, "PNG"), np.zeros(3, "float32"), SIZE, shorter_range=(SIZE, SIZE)
    ).numpy()
    assert np.abs(grey.astype(int) - 30).max() <= 15


@EVERY_CROP
def test_draws_decide_everything_in_graph_as_eagerly(crop):
    file = encoded(picture(150, 200))
    rows = np.random.default_rng(0).random((6, NUM_DRAWS[crop]), "float32")
    eager = [crop(file, row, SIZE).numpy() for row in rows]
    mapped = tf.data.Dataset.from_tensor_slices(rows).map(lambda row: crop(tf.constant(file), row, SIZE))
    assert mapped.element_spec == tf.TensorSpec((SIZE, SIZE, 3), tf.uint8)
    assert all(np.array_equal(*pair) for pair in zip(eager, mapped.as_numpy_iterator(), strict=True))
    assert len({pixels.tobytes() for pixels in eager}) == len(rows)


@EVERY_CROP
@pytest.mark.parametrize("damage", [lambda file: file[: len(file) // 3], lambda file: b"no image", lambda file: b""])
def test_damaged_files_raise(crop, damage):
    file = damage(encoded(picture(150, 200)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        crop(file, np.full(NUM_DRAWS[crop], 0.99, "float32"), SIZE)
