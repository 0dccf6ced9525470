"""Sources and batches: every image once, the same from run to run, whatever the batch."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.preprocessing import Preprocessing
from train import data, sources


def columns(batches, key):
    return np.concatenate([batch[key] for batch in batches.as_numpy_iterator()])


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture
def photographs(tmp_path):
    """Two classes of three photographs a split: JPEG and PNG, grey and colour, wide and high."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number, shape in enumerate([(90, 120, 3), (120, 90, 1), (64, 64, 3)]):
                image = tf.constant(np.full(shape, 60 + 100 * label) + rng.integers(-9, 9, shape), tf.uint8)
                encoded = tf.io.encode_png(image) if number == 1 else tf.io.encode_jpeg(image)
                (folder / f"{number}.{'png' if number == 1 else 'JPEG'}").write_bytes(encoded.numpy())
            (folder / "notes.txt").write_text("not an image")
    return tmp_path


@pytest.mark.unit
def test_files_of_published_weights_are_scored_on_images_resized_as_their_card_says(photographs, tmp_path):
    steps = Preprocessing(60, 48, "bicubic")
    (tmp_path / "net.tflite").write_bytes(b"")
    (tmp_path / "card.json").write_text(json.dumps({"data": {"preprocessing": dataclasses.asdict(steps)}}))
    source = data.load_for_model(str(tmp_path / "net.tflite"), (48, 48, 3), f"folder:{photographs}")
    expected = data.load(f"folder:{photographs}", preprocessing=steps)
    other = data.load(f"folder:{photographs}", image_size=48)
    found, same, different = (data.arrays(each, "validation")[0] for each in (source, expected, other))
    assert np.array_equal(found, same)
    assert not np.array_equal(found, different)


@pytest.mark.unit
def test_splits_share_no_image_and_lose_none(digits):
    train, validation, test = (data.arrays(digits, split) for split in ("train", "validation", "test"))
    assert (len(train[0]), len(validation[0]), len(test[0])) == (1294, 144, 359)
    assert {*train[2]} | {*validation[2]} == {*range(1438)}
    every = np.concatenate([train[0], validation[0], test[0]]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    original = np.round(load_digits().data * (255 / 16)).astype("uint8")
    assert sorted(map(bytes, every)) == sorted(map(bytes, original))


@pytest.mark.unit
def test_validation_split_follows_the_seed(digits):
    again, other = data.load("digits"), data.load("digits", seed=1)
    indices = [{*data.arrays(source, "validation")[2]} for source in (digits, again, other)]
    assert indices[0] == indices[1] != indices[2]


@pytest.mark.unit
@pytest.mark.parametrize("batch_size", [1, 7, 64, 359, 1000])
def test_evaluation_counts_every_image_once(digits, batch_size):
    batches = data.evaluation_batches(digits, "test", batch_size)
    weights, images = columns(batches, "weight"), columns(batches, "image")
    assert len(weights) % batch_size == 0
    assert weights.sum() == 359
    assert np.array_equal(images[weights == 1], data.arrays(digits, "test")[0])


@pytest.mark.unit
def test_training_batches_follow_seed_and_epoch(digits):
    def batches(seed, epoch):
        return data.training_batches(digits, 64, seed=seed, epoch=epoch, crop_padding=1, flip=True)

    first = columns(batches(0, 0), "image")
    assert first.dtype == np.uint8
    assert first.shape == (20 * 64, 8, 8, 1)
    assert np.array_equal(first, columns(batches(0, 0), "image"))
    order = columns(batches(0, 0), "label")
    assert not np.array_equal(order, columns(batches(0, 1), "label"))
    assert not np.array_equal(order, columns(batches(1, 0), "label"))


@pytest.mark.unit
def test_augmentation_follows_seed_and_epoch_whatever_the_order(digits):
    """The same image, found by its sum, which a flip alone keeps, is mirrored in one epoch and not in another."""
    one = dataclasses.replace(digits, splits={"train": dataclasses.replace(
        digits.splits["train"], elements=digits.splits["train"].elements.take(1).repeat(64), num_images=64
    )})  # fmt: skip

    def mirrored(seed, epoch):
        (image,) = np.unique(data.arrays(digits, "train", 1)[0], axis=0)
        found = columns(data.training_batches(one, 64, seed=seed, epoch=epoch, flip=True), "image")
        return np.array_equal(found[0], image)

    seen = np.array([[mirrored(seed, epoch) for epoch in range(8)] for seed in range(8)])
    assert all(len({*row}) == 2 for row in seen)  # epochs differ under one seed
    assert all(len({*row}) == 2 for row in seen.T)  # seeds differ in one epoch


@pytest.mark.unit
def test_an_epoch_shows_every_image_once(digits):
    images = columns(data.training_batches(digits, 1, seed=0, epoch=0), "image")
    assert sorted(map(bytes, images)) == sorted(map(bytes, data.arrays(digits, "train")[0]))


@pytest.mark.unit
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_is_the_crop_of_the_padded_image(flip):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 5, 3)).astype("uint8")
    draws = rng.random((40, 3), dtype="float32")
    cropped = data.crop_and_flip(tf.constant(images), tf.constant(draws), 2, flip).numpy()
    mirrored = 0
    for image, (down, right, mirror), result in zip(images, draws, cropped, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=data.FILL_BYTE)
        expected = padded[int(down * 5) :, int(right * 5) :][:6, :5]
        if flip and mirror < 0.5:
            expected, mirrored = expected[:, ::-1], mirrored + 1
        assert np.array_equal(result, expected)
    assert not flip or 10 < mirrored < 30


@pytest.mark.unit
def test_a_folder_of_photographs(photographs):
    source = data.load(f"folder:{photographs}", image_size=48)
    assert source.class_names == ("cat", "dog")
    images, labels, _ = data.arrays(source, "train")
    assert images.shape == (6, 48, 48, 3)
    assert images.dtype == np.uint8
    assert np.allclose(images.mean(axis=(1, 2, 3)), 60 + 100 * labels, atol=3)
    assert np.array_equal(data.arrays(source, "test")[0], data.arrays(source, "validation")[0])


@pytest.mark.unit
def test_photographs_are_resized_by_their_shorter_side_and_cropped_in_the_middle(photographs):
    stripes = np.zeros((100, 200, 3), "uint8")
    stripes[:, 50:150] = 255  # the centre square of a wide photograph
    path = photographs / "validation" / "cat" / "0.JPEG"
    path.write_bytes(tf.io.encode_png(stripes).numpy())
    images, _, _ = data.arrays(data.load(f"folder:{photographs}", image_size=50), "validation")
    assert images[0].min() > 250


@pytest.mark.unit
def test_real_photographs_decode(shared_data):
    source = data.load(f"folder:{shared_data / 'imagenet_sample'}")
    images, labels, _ = data.arrays(source, "test")
    assert images.shape == (100, 224, 224, 3)
    assert sorted(labels) == [*range(100)]
    with pytest.raises(ValueError, match="has no train split"):
        data.training_batches(source, 10, seed=0, epoch=0)


@pytest.mark.smoke
def test_cifar10_is_the_published_one(shared_data):
    source = data.load("tfds:cifar10", data_dir=shared_data / "tfds")
    assert {name: split.num_images for name, split in source.splits.items()} == {
        "train": 45_000, "validation": 5_000, "test": 5_000
    }  # fmt: skip
    images, labels, _ = data.arrays(source, "train")
    # Mean of the 50,000 training images as everyone quotes it; these are 45,000 of them.
    assert np.allclose(images.mean(axis=(0, 1, 2)) / 255, (0.4914, 0.4822, 0.4465), atol=1e-3)
    assert min(np.bincount(labels)) > 4300


BAD_SOURCES = {
    "kind": ("mnist", {}, "digits, synthetic, tfds, folder"),
    "no folder": ("folder:/nowhere", {}, "/nowhere/train/CLASS"),
    "no tfds": ("tfds:no_such_set", {}, "no such data set"),
    "not prepared": ("tfds:mnist", {"data_dir": "/nowhere"}, "--download"),
    "fraction": ("digits", {"validation_fraction": 0.0}, "leave images on both sides"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", BAD_SOURCES)
def test_a_source_that_is_not_there_is_refused(case):
    spec, options, text = BAD_SOURCES[case]
    with pytest.raises(ValueError, match=text):
        data.load(spec, **options)


@pytest.mark.unit
def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="Received: none"):
        data.load(f"folder:{tmp_path}")


@pytest.mark.unit
def test_a_batch_larger_than_the_data_is_refused(digits):
    with pytest.raises(ValueError, match="smaller --batch_size"):
        data.training_batches(digits, 2000, seed=0, epoch=0)


@pytest.mark.contract
@pytest.mark.parametrize("kind", ["digits", "synthetic"])
def test_embedded_sources_resize(kind):
    assert kind in sources.SOURCES
    source = data.load(kind, image_size=16)
    assert data.arrays(source, "test", limit=5)[0].shape == (5, 16, 16, source.image_shape[-1])
