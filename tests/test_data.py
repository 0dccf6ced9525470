"""Sources and batches: every image once, the same from run to run, whatever the batch."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from keras_resnet.preprocessing import Preprocessing
from train import config, damage, data, input_pipeline, preparation, tfds_source
from train.operations import FILL_BYTE


def columns(batches, key):
    return np.concatenate([batch[key] for batch in batches.as_numpy_iterator()])


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def recipe(**fields):
    """A configuration that changes nothing of the images but what is asked for."""
    return config.make({"data": "digits", "crop": "center", "crop_padding": 0} | fields)


@pytest.mark.unit
def test_files_of_published_weights_are_scored_on_images_resized_as_their_card_says(photographs, tmp_path):
    steps = Preprocessing(60, 48, "bicubic")
    (tmp_path / "net.tflite").write_bytes(b"")
    (tmp_path / "card.json").write_text(json.dumps({"data": {"preprocessing": dataclasses.asdict(steps)}}))
    source = data.load_for_model(str(tmp_path / "net.tflite"), (48, 48, 3), f"folder:{photographs}")
    expected = data.load(f"folder:{photographs}", preprocessing=steps)
    other = data.load(f"folder:{photographs}", image_size=48)
    found, same, different = (input_pipeline.arrays(each, "validation")[0] for each in (source, expected, other))
    assert np.array_equal(found, same)
    assert not np.array_equal(found, different)


@pytest.mark.unit
def test_splits_share_no_image_and_lose_none(digits):
    train, validation, test = (input_pipeline.arrays(digits, split) for split in ("train", "validation", "test"))
    assert (len(train[0]), len(validation[0]), len(test[0])) == (1294, 144, 359)
    assert {*train[2]} | {*validation[2]} == {*range(1438)}
    every = np.concatenate([train[0], validation[0], test[0]]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    original = np.round(load_digits().data * (255 / 16)).astype("uint8")
    assert sorted(map(bytes, every)) == sorted(map(bytes, original))


@pytest.mark.unit
def test_validation_split_follows_the_seed(digits):
    again, other = data.load("digits"), data.load("digits", seed=1)
    indices = [{*input_pipeline.arrays(source, "validation")[2]} for source in (digits, again, other)]
    assert indices[0] == indices[1] != indices[2]


@pytest.mark.unit
@pytest.mark.parametrize("batch_size", [1, 7, 64, 359, 1000])
def test_evaluation_counts_every_image_once(digits, batch_size):
    batches = input_pipeline.evaluation_batches(digits, "test", batch_size)
    weights, images = columns(batches, "weight"), columns(batches, "image")
    assert len(weights) % batch_size == 0
    assert weights.sum() == 359
    assert np.array_equal(images[weights == 1], input_pipeline.arrays(digits, "test")[0])


@pytest.mark.unit
def test_training_batches_follow_seed_and_epoch(digits):
    def batches(seed, epoch):
        return input_pipeline.training_batches(
            digits, recipe(seed=seed, crop="padded", crop_padding=1, flip=True), epoch=epoch
        )

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
    train = digits.splits["train"]
    train = dataclasses.replace(train, positions=np.repeat(train.positions[:1], 64))
    one = dataclasses.replace(digits, splits={"train": train})
    (image,) = np.unique(input_pipeline.arrays(one, "train")[0], axis=0)

    def mirrored(seed, epoch):
        found = columns(input_pipeline.training_batches(one, recipe(seed=seed, flip=True), epoch=epoch), "image")
        return np.array_equal(found[0], image)

    seen = np.array([[mirrored(seed, epoch) for epoch in range(12)] for seed in range(12)])
    assert all(len({*row}) == 2 for row in seen)  # epochs differ under one seed
    assert all(len({*row}) == 2 for row in seen.T)  # seeds differ in one epoch


@pytest.mark.unit
def test_an_epoch_shows_every_image_once(digits):
    images = columns(input_pipeline.training_batches(digits, recipe(batch_size=1), epoch=0), "image")
    assert sorted(map(bytes, images)) == sorted(map(bytes, input_pipeline.arrays(digits, "train")[0]))


@pytest.mark.unit
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_is_the_crop_of_the_padded_image(flip):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 6, 5, 3)).astype("uint8")
    draws = rng.random((40, 3), dtype="float32")
    cropped = preparation.crop_and_flip(tf.constant(images), tf.constant(draws), 2, flip).numpy()
    mirrored = 0
    for image, (down, right, mirror), result in zip(images, draws, cropped, strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=FILL_BYTE)
        expected = padded[int(down * 5) :, int(right * 5) :][:6, :5]
        if flip and mirror < 0.5:
            expected, mirrored = expected[:, ::-1], mirrored + 1
        assert np.array_equal(result, expected)
    assert not flip or 10 < mirrored < 30


@pytest.mark.unit
def test_a_folder_of_photographs(photographs):
    source = data.load(f"folder:{photographs}", image_size=48)
    assert source.class_names == ("cat", "dog")
    images, labels, _ = input_pipeline.arrays(source, "train")
    assert images.shape == (6, 48, 48, 3)
    assert images.dtype == np.uint8
    assert np.allclose(images.mean(axis=(1, 2, 3)), 60 + 100 * labels, atol=3)
    assert np.array_equal(input_pipeline.arrays(source, "test")[0], input_pipeline.arrays(source, "validation")[0])


@pytest.mark.unit
def test_photographs_are_resized_by_their_shorter_side_and_cropped_in_the_middle(photographs):
    stripes = np.zeros((100, 200, 3), "uint8")
    stripes[:, 50:150] = 255  # the centre square of a wide photograph
    path = photographs / "validation" / "cat" / "0.JPEG"
    path.write_bytes(tf.io.encode_png(stripes).numpy())
    images, _, _ = input_pipeline.arrays(data.load(f"folder:{photographs}", image_size=50), "validation")
    assert images[0].min() > 250


@pytest.mark.unit
def test_real_photographs_decode(shared_data):
    source = data.load(f"folder:{shared_data / 'imagenet_sample'}")
    images, labels, _ = input_pipeline.arrays(source, "test")
    assert images.shape == (100, 224, 224, 3)
    assert sorted(labels) == [*range(100)]
    with pytest.raises(ValueError, match="has no train split"):
        input_pipeline.training_batches(source, recipe(batch_size=10), epoch=0)


@pytest.mark.smoke
def test_cifar10_is_the_published_one(shared_data):
    source = data.load("tfds:cifar10", data_dir=shared_data / "tfds")
    assert {name: split.num_images for name, split in source.splits.items()} == {
        "train": 45_000, "validation": 5_000, "test": 5_000
    }  # fmt: skip
    images, labels, _ = input_pipeline.arrays(source, "train")
    # Mean of the 50,000 training images as everyone quotes it; these are 45,000 of them.
    assert np.allclose(images.mean(axis=(0, 1, 2)) / 255, (0.4914, 0.4822, 0.4465), atol=1e-3)
    assert min(np.bincount(labels)) > 4300


BAD_SOURCES = {
    "kind": ("mnist", {}, "digits, synthetic, tfds, folder"),
    "no folder": ("folder:/nowhere", {}, "/nowhere/train/CLASS"),
    "no tfds": ("tfds:no_such_set", {}, "no such data set"),
    "not prepared": ("tfds:mnist", {"data_dir": "/nowhere"}, "train/main.py --download lets TFDS"),
    "fraction": (
        "digits",
        {"validation_fraction": 0.0},
        r"leave images on both sides.*Give more images, or a validation split",
    ),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", BAD_SOURCES)
def test_a_source_that_is_not_there_is_refused(case):
    spec, options, text = BAD_SOURCES[case]
    with pytest.raises(ValueError, match=text) as caught:
        data.load(spec, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="Received: no files"):
        data.load(f"folder:{tmp_path}")


@pytest.mark.unit
def test_a_batch_larger_than_the_data_is_refused(digits):
    with pytest.raises(ValueError, match="smaller --batch_size"):
        input_pipeline.training_batches(digits, recipe(batch_size=2000), epoch=0)


@pytest.mark.contract
@pytest.mark.parametrize("kind", ["digits", "synthetic"])
def test_embedded_sources_resize(kind):
    assert kind in data.SOURCES
    source = data.load(kind, image_size=16)
    assert input_pipeline.arrays(source, "test", limit=5)[0].shape == (5, 16, 16, source.image_shape[-1])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("num_processes", "replicas", "accumulation"), [(1, 2, 1), (2, 1, 1), (2, 2, 1), (1, 2, 2), (2, 2, 2)]
)
@pytest.mark.parametrize("fields", [{}, {"repeats": 3}, {"fill_last_batch": True}, {"mixup": 0.2, "cutmix": 1.0}])
def test_the_global_batch_is_the_same_whoever_prepares_it(num_processes, replicas, accumulation, fields, digits):
    """The pieces of all processes, put together, are the batches of one; augmentation too."""
    options = recipe(crop="padded", crop_padding=1, flip=True, auto_augment="rand", erasing=0.5, **fields)
    whole = [*input_pipeline.training_batches(digits, options, epoch=3).as_numpy_iterator()]
    for process in range(num_processes):
        share = input_pipeline.Share(process, num_processes, replicas, accumulation)
        pieces = [*input_pipeline.training_batches(digits, options, epoch=3, share=share).as_numpy_iterator()]
        assert len(pieces) == len(whole) * replicas * accumulation
        for key in whole[0]:
            batches = np.stack([batch[key] for batch in whole])
            assert np.array_equal(np.stack([piece[key] for piece in pieces]), share.pieces(batches)), key


@pytest.mark.unit
@pytest.mark.parametrize("fields", [{}, {"repeats": 3, "mixup": 0.2}])
def test_an_epoch_goes_on_in_its_middle(fields, digits):
    options = recipe(crop="padded", crop_padding=1, flip=True, auto_augment="trivial", **fields)
    whole = [*input_pipeline.training_batches(digits, options, epoch=1).as_numpy_iterator()]
    rest = [*input_pipeline.training_batches(digits, options, epoch=1, first_step=13).as_numpy_iterator()]
    assert len(rest) == 7
    for one, other in zip(rest, whole[13:], strict=True):
        assert all(np.array_equal(one[key], other[key]) for key in whole[0])


@pytest.mark.unit
def test_the_last_batch_is_left_out_or_filled_from_the_beginning(digits):
    left_out, _ = input_pipeline.training_order(digits, recipe(), 0)
    filled, _ = input_pipeline.training_order(digits, recipe(fill_last_batch=True), 0)
    assert (left_out.shape, filled.shape) == ((20, 64), (21, 64))
    assert np.array_equal(filled[:20], left_out)
    assert {*filled.ravel()} == {*range(1294)}
    assert np.array_equal(filled.ravel()[1294:], filled.ravel()[: 21 * 64 - 1294])


@pytest.mark.unit
def test_repeated_augmentation_draws_an_image_several_times_each_anew(digits):
    rows, times = input_pipeline.training_order(digits, recipe(repeats=4), 0)
    assert rows.shape == (20, 64)
    assert np.array_equal(rows[:, :16], rows[:, 48:])  # all first drawings, then the second, third and fourth
    assert np.array_equal(times, np.tile(np.repeat(range(4), 16), (20, 1)))
    assert np.all(rows[:, ::2] != rows[:, 1::2])  # what mixup mixes are two images
    assert len({*rows.ravel()}) == 320  # a quarter of the images
    options = recipe(repeats=4, crop="padded", crop_padding=2)
    images = columns(input_pipeline.training_batches(digits, options, epoch=0).take(1), "image")
    same = [np.array_equal(*pair) for pair in zip(images[:16], images[16:32], strict=True)]
    assert np.mean(same) < 0.2  # 1 of 25 offsets is drawn twice


@pytest.mark.unit
def test_every_step_of_augmentation_has_its_own_draws(monkeypatch):
    """Which do not move when another step is switched on."""

    def taken(**fields):
        found = {}

        def spy(step):
            return lambda image, draws, _: (found.update({step.field: [*draws.numpy()]}), image)[1]

        steps = [dataclasses.replace(step, change=spy(step)) for step in every]
        monkeypatch.setattr(preparation, "STEPS", tuple(steps))
        numbers = tf.range(preparation.NUM_DRAWS, dtype=tf.float32)
        preparation.change(tf.zeros((8, 8, 3), tf.uint8), numbers, recipe(**fields))
        return found | {"mixing": [*preparation.mixing_draws(numbers[None])[0].numpy()]}

    every = preparation.STEPS
    switched_on = {"pca_colour": True, "colour_jitter": 0.1, "auto_augment": "rand", "erasing": 0.5}
    assert {step.field for step in every} == {*switched_on}
    together = taken(**switched_on)
    columns = [*range(preparation.MIRROR + 1), *(column for own in together.values() for column in own)]
    assert sorted(columns) == [*range(preparation.NUM_DRAWS)]
    for field, value in switched_on.items():
        assert taken(**{field: value})[field] == together[field]


@pytest.mark.unit
@pytest.mark.parametrize("crop", ["resized", "scale_jitter", "center"])
def test_files_and_arrays_of_one_size_take_the_same_crops_and_mirrors(crop, photographs):
    """An image of one colour left and another right shows in which half a crop lies, and whether it is mirrored."""
    options = recipe(crop=crop, flip=crop != "center", image_size=48, training_size=32)
    image = np.zeros((64, 64, 3), "uint8")
    image[:, 32:] = 200
    draws = tf.constant(np.random.default_rng(0).random((50, preparation.NUM_DRAWS)), tf.float32)
    batch = preparation.crop_batch(tf.constant(np.repeat(image[None], 50, 0)), draws, options, (32, 32, 3))
    encoded = tf.io.encode_png(image)
    source = data.load(f"folder:{photographs}", image_size=64)
    one = tf.stack([
        preparation.crop_encoded(encoded, row, options, (32, 32, 3), Preprocessing(64, 64)) for row in draws
    ])  # fmt: skip
    assert source.encoded
    assert batch.shape == one.shape == (50, 32, 32, 3)
    difference = np.abs(np.asarray(batch, "int32") - np.asarray(one, "int32")).mean(axis=(1, 2, 3))
    assert difference.max() < 12  # a pixel of 32 at the edge between the colours


def _damage(folder):
    """Four files that are no whole images, among good ones."""
    whole = (folder / "train" / "cat" / "0.JPEG").read_bytes()
    bad = {
        "train/cat/truncated.jpg": whole[: len(whole) // 2],
        "train/dog/text.jpg": b"not an image",
        "train/dog/empty.png": b"",
        "validation/cat/notes.txt": b"remember the milk",
    }
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    return sorted(str(folder / name) for name in bad)


@pytest.mark.unit
def test_damaged_files_are_counted_named_and_left_out(photographs):
    before = data.load(f"folder:{photographs}", image_size=48)
    assert damage.look(before)["damaged"] == []
    bad = _damage(photographs)
    source = data.load(f"folder:{photographs}", image_size=48)
    report = damage.look(source)
    assert report["damaged"] == bad
    with pytest.warns(UserWarning, match="4 of the files in .* are no whole images: .*truncated.jpg"):
        source = damage.leave_out(source, report)
    for split in ("train", "validation"):
        for one, other in zip(
            input_pipeline.arrays(source, split)[:2], input_pipeline.arrays(before, split)[:2], strict=True
        ):
            assert np.array_equal(one, other)
    with pytest.raises(ValueError, match=r"4 of the files .* leave out --strict"):
        damage.leave_out(source, report, strict=True)


@pytest.mark.unit
def test_files_are_looked_through_again_only_when_they_changed(photographs):
    source = data.load(f"folder:{photographs}", image_size=48)
    report = damage.look(source)
    known = report | {"damaged": ["as known"]}
    assert damage.look(source, known) == known
    path = photographs / "train" / "cat" / "0.JPEG"
    path.write_bytes(path.read_bytes()[:-40])
    assert damage.look(data.load(f"folder:{photographs}", image_size=48), known)["damaged"] == [str(path)]


@pytest.mark.smoke
def test_records_are_read_by_position(tmp_path):
    from train import records

    content = [[bytes([file] * (7 * file + number)) for number in range(5)] for file in range(3)]
    paths = [str(tmp_path / f"{file}.tfrecord") for file in range(3)]
    for path, rows in zip(paths, content, strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for row in rows:
                writer.write(row)
    found = records.index(paths)
    order = np.random.default_rng(0).permutation(15)
    read = tf.data.Dataset.from_tensor_slices(order).map(found.read, tf.data.AUTOTUNE)
    assert [*read.as_numpy_iterator()] == [content[position // 5][position % 5] for position in order]
    with open(paths[1], "rb+") as file:
        file.truncate(40)
    with pytest.raises(ValueError, match=r"Expected a whole TFRecord file. Received: .*1.tfrecord .*cut off"):
        records.index(paths)


@pytest.mark.unit
def test_as_many_files_may_be_open_as_a_data_set_has(tmp_path, monkeypatch):
    from train import records

    path = str(tmp_path / "one.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"row")
    asked = []
    monkeypatch.setattr(records.resource, "setrlimit", lambda kind, limits: asked.append(limits))
    monkeypatch.setattr(records.resource, "getrlimit", lambda kind: (1024, 4096))
    records.index([path] * 100)
    assert asked == []
    records.index([path] * 1024)
    assert asked == [(4096, 4096)]
    with pytest.raises(ValueError, match=r"Expected at least 4512, for 4000 TFRecord files.*a hard limit of 4096"):
        records.index([path] * 4000)


@pytest.mark.smoke
def test_data_sets_too_large_for_memory_give_the_same_images(shared_data, monkeypatch):
    """Read by position from their records, and decoded one by one."""
    options = {"data_dir": shared_data / "tfds"}
    in_memory = data.load("tfds:cifar10", **options)
    monkeypatch.setattr(tfds_source, "ARRAY_BYTES", 1000)
    from_files = data.load("tfds:cifar10", **options)
    assert (in_memory.encoded, from_files.encoded) == (False, True)
    chosen = config.make({"data": "tfds:cifar10", "batch_size": 500})
    for make in (
        lambda source: input_pipeline.evaluation_batches(source, "test", 500),
        lambda source: input_pipeline.training_batches(source, chosen, epoch=0),
    ):
        batches = [make(source).take(2).as_numpy_iterator() for source in (in_memory, from_files)]
        for one, other in zip(*batches, strict=True):
            assert all(np.array_equal(one[key], other[key]) for key in one)
