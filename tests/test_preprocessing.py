"""From photographs to inputs: every kind of image, Pillow's own result, tf.data's, names of classes, the command."""

import csv
import io
import json
import warnings

import keras
import numpy as np
import PIL.Image
import pytest
from conftest import run

import keras_resnet
from keras_resnet import __main__ as command
from keras_resnet.preprocessing import CAFFE, Preprocessing, Preprocessor, open_image
from train import data, input_pipeline

SMALL = Preprocessor(Preprocessing(40, 32))


@pytest.fixture
def picture():
    """A smooth RGB image, warm, as pixels (48, 64, 3)."""
    rows, columns = np.mgrid[0:48, 0:64]
    return np.stack([rows + 150, columns + 90, rows + columns], axis=-1).astype("uint8")


def encoded(image, kind="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_crops_are_pillows(picture):
    """The steps that torchvision documents, written out with Pillow."""
    image = PIL.Image.fromarray(picture)
    resized = np.asarray(image.resize((53, 40), PIL.Image.Resampling.BILINEAR))  # 40 * 64 // 48
    expected = resized[4:36, 10:42]  # round(10.5) = 10
    assert np.array_equal(SMALL.crops(picture)[0], expected)
    normalized = (expected / 255 - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))
    assert np.abs(SMALL(picture)[0] - normalized).max() < 1e-6


def test_every_holder_of_an_image_gives_the_same(picture, tmp_path):
    image = PIL.Image.fromarray(picture)
    image.save(tmp_path / "image.png")
    expected = SMALL(picture)
    assert expected.shape == (1, 32, 32, 3)
    assert expected.dtype == np.float32
    for other in (image, encoded(image), tmp_path / "image.png", str(tmp_path / "image.png"), picture.astype("int64")):
        assert np.array_equal(SMALL(other), expected)
    assert np.array_equal(SMALL([picture, image]), np.concatenate([expected] * 2))
    assert np.array_equal(SMALL(np.stack([picture] * 2)), np.concatenate([expected] * 2))


def test_unusual_images_become_rgb(picture):
    grey = picture[..., 0]
    colour = np.stack([grey] * 3, axis=-1)
    for other in (
        grey,
        grey[..., None],
        PIL.Image.fromarray(grey),
        encoded(PIL.Image.fromarray(grey), "JPEG", quality=100),
    ):
        assert np.abs(np.asarray(open_image(other)).astype(int) - colour).max() <= 2
    deep = grey.astype("uint16") * 257
    for other in (deep, encoded(PIL.Image.fromarray(deep))):
        assert np.array_equal(np.asarray(open_image(other)), colour)
    for mode in ("I", "F"):
        wide = PIL.Image.fromarray(grey).convert(mode)
        assert np.array_equal(np.asarray(open_image(wide)), colour)
    palette = PIL.Image.fromarray(picture).convert("P")
    assert np.array_equal(np.asarray(open_image(palette)), np.asarray(palette.convert("RGB")))
    alpha = np.dstack([picture, np.full(grey.shape, 255, "uint8")])
    alpha[:10, :, 3] = 0
    laid = np.asarray(open_image(alpha))
    assert np.all(laid[:10] == 255)
    assert np.array_equal(laid[10:], picture[10:])


def test_rotated_photographs_stand_upright(picture):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it
    turned = encoded(PIL.Image.fromarray(picture), exif=exif)
    assert np.array_equal(np.asarray(open_image(turned)), np.rot90(picture, -1))


def test_suspicious_images_are_warned_of(picture):
    with pytest.warns(UserWarning, match="looks like floats from 0 to 1"):
        scaled = SMALL.crops((picture / 255).astype("float32"))
    assert np.abs(scaled.astype(int) - SMALL.crops(picture)).max() <= 1
    with pytest.warns(UserWarning, match=r"look like BGR: blue exceeds red by \d+%"):
        SMALL(np.ascontiguousarray(picture[..., ::-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SMALL(picture)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"not an image", "Expected an image file. Received: 12 bytes"),
        ("no/such/file.jpg", "Expected an image file. Received: 'no/such/file.jpg'"),
        (np.zeros((4, 4, 7), "uint8"), r"Expected pixels of shape .* Received: shape \(4, 4, 7\)"),
        (np.full((4, 4, 3), -1.5), "not yet normalized. Received: floats from -1.5 to -1.5"),
        (np.full((4, 4, 3), 999), "Expected pixels from 0 to 255. Received: 999 to 999"),
        (np.zeros((0, 4, 3), "uint8"), r"Received: shape \(0, 4, 3\)"),
        (np.zeros((1, 60_000_000), "uint8"), "usual proportions. Received: 60000000 x 1 pixels"),
        (3.5, "a path, bytes, a PIL image or an array of pixels. Received: float"),
        ([], "at least one image"),
    ],
)
def test_what_is_no_image_is_named(image, message):
    with pytest.raises(ValueError, match=message):
        SMALL(image)


def test_names_lead_to_preprocessors():
    assert keras_resnet.preprocessor("ResNet50").preprocessing.resize == 232  # of its best weights, tv2_in1k
    assert keras_resnet.preprocessor("ResNet50.a1_in1k").preprocessing.interpolation == "bicubic"
    assert keras_resnet.preprocessor("ResNet50.keras_in1k").preprocessing.channel_order == "bgr"
    assert keras_resnet.preprocessor("ResNet20").preprocessing == Preprocessing(32, 32)
    assert keras_resnet.preprocessor(keras_resnet.ResNet18(weights=None)).preprocessing == Preprocessing(256, 224)
    with pytest.raises(ValueError, match="Received: 'ResNet51'"):
        keras_resnet.preprocessor("ResNet51")


def test_inputs_have_the_size_of_the_net():
    small = keras_resnet.ResNet18(weights=None, input_shape=(160, 160, 3))
    assert keras_resnet.preprocessor(small).preprocessing == Preprocessing(183, 160)
    with pytest.raises(ValueError, match="Expected resize to be 0 or at least crop"):
        Preprocessing(20, 32)


def test_weights_files_bring_their_preprocessing(tmp_path):
    """A path says as much as a tag: keras.applications' nets take BGR, ours what they were trained on."""
    keras.applications.ResNet50(weights=None, include_top=False).save_weights(tmp_path / "theirs.weights.h5")
    ours = keras_resnet.ResNet50(weights=tmp_path / "theirs.weights.h5", include_top=False, input_shape=(64, 64, 3))
    assert keras_resnet.preprocessor(ours).preprocessing == CAFFE.for_size(64)
    turned = keras_resnet.ResNet50(
        weights=tmp_path / "theirs.weights.h5", include_top=False, input_shape=(64, 64, 3), include_preprocessing=True
    )
    turned.save(tmp_path / "turned.keras")
    again = keras_resnet.ResNet50(weights=tmp_path / "turned.keras", include_top=False, input_shape=(64, 64, 3))
    found = keras_resnet.preprocessor(again).preprocessing
    assert found.channel_order == "rgb"
    assert found.mean == pytest.approx(CAFFE.mean[::-1])
    assert found.std == pytest.approx(CAFFE.std)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("uint8")
    expected = ours(keras_resnet.preprocessor(ours).normalize(pixels)).numpy()
    scale = np.abs(expected).max()
    assert np.abs(again(keras_resnet.preprocessor(again).normalize(pixels)).numpy() - expected).max() < 1e-4 * scale
    loaded = keras.saving.load_model(tmp_path / "turned.keras", compile=False)
    assert np.abs(loaded(keras_resnet.preprocessor(loaded).normalize(pixels)).numpy() - expected).max() < 1e-4 * scale
    again.save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match="does not know its preprocessing"):
        keras_resnet.preprocessor(keras.saving.load_model(tmp_path / "plain.keras", compile=False))


def test_keras_applications_rows_give_its_own_input(picture):
    crop = np.asarray(PIL.Image.fromarray(picture).resize((224, 224)))[None]
    for name, module in (("ResNet50", keras.applications.resnet), ("ResNet50V2", keras.applications.resnet_v2)):
        ours = keras_resnet.preprocessor(f"{name}.keras_in1k").normalize(crop)
        assert np.abs(ours - module.preprocess_input(crop.astype("float32"))).max() < 1e-4


@pytest.mark.parametrize("tag", ["tv_in1k", "keras_in1k"])
def test_a_net_can_include_its_preprocessing(tag, picture, tmp_path, monkeypatch):
    """The same file, once after the preprocessor and once with pixels into the net; BGR rows too."""
    stored = keras_resnet.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
    stored.save_weights(tmp_path / "w.weights.h5")
    monkeypatch.setattr("keras_resnet.downloads.fetch", lambda row: str(tmp_path / "w.weights.h5"))
    options = {"include_top": False, "input_shape": (64, 64, 3), "stride_in": None}
    monkeypatch.setattr("keras_resnet.resnet._stride_in", lambda *arguments: "1x1")
    plain = keras_resnet.ResNet50(weights=tag, **options)
    whole = keras_resnet.ResNet50(weights=tag, include_preprocessing=True, **options)
    pixels = np.asarray(PIL.Image.fromarray(picture).resize((64, 64)))[None]
    expected = plain(keras_resnet.preprocessor(plain).normalize(pixels)).numpy()
    assert np.abs(whole(pixels.astype("float32")).numpy() - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.array_equal(keras_resnet.preprocessor(whole).normalize(pixels), pixels)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [Preprocessing(256, 224), Preprocessing(235, 224, "bicubic")])
def test_tf_data_resizes_as_pillow_does(steps, shared_data):
    folder = shared_data / "imagenet_sample"
    source = data.load(f"folder:{folder}", preprocessing=steps, class_index=shared_data / "imagenet_class_index.json")
    images, labels, _ = input_pipeline.arrays(source, "test")
    paths = sorted((folder / "validation").glob("*/*"))
    difference = np.abs(images.astype(int) - Preprocessor(steps).crops(paths))
    assert difference.max() <= 2  # Pillow counts in fixed point: two levels in one pixel of a million
    assert difference.mean() < 0.01
    order = (shared_data / "imagenet_synsets.txt").read_text().split()
    assert labels.tolist() == [order.index(path.parent.name) for path in paths]
    assert len(source.class_names) == 1000


def test_the_reference_crops_are_ours(shared_data):
    """Two of the 16 crops that torch's logits belong to are of photographs that are here."""
    order = (shared_data / "imagenet_synsets.txt").read_text().split()
    with np.load(shared_data / "imagenet_reference_16.npz") as reference:
        crops, labels = reference["crops"], reference["label"]
    found = 0
    for crop, label in zip(crops, labels, strict=True):
        for path in (shared_data / "imagenet_sample" / "validation" / order[label]).glob("*"):
            ours = keras_resnet.preprocessor("ResNet18.tv_in1k").crops(path)[0]
            found += np.abs(ours.astype(int) - crop).max() <= 1
    assert found >= 1


@pytest.fixture
def class_index(tmp_path):
    """A class index of 1,000 invented names, as the real file has them."""
    path = tmp_path / "imagenet_class_index.json"
    path.write_text(json.dumps({str(i): [f"n{i:08}", f"class_{i}"] for i in range(1000)}))
    return path


def test_scores_become_names(class_index):
    logits = np.zeros((2, 1000), "float32")
    logits[0, 7], logits[1, [3, 5]] = 20, (30, 29)
    decoded = keras_resnet.decode_predictions(logits, top=2, class_index=class_index)
    assert decoded[0][0][:2] == ("n00000007", "class_7")
    assert [row[1] for row in decoded[1]] == ["class_3", "class_5"]
    assert decoded[1][0][2] == pytest.approx(1 / (1 + np.exp(-1)))
    mixed = np.stack([np.full(1000, 0.001), logits[0]])  # each row is taken for what it is
    assert keras_resnet.decode_predictions(mixed, class_index=class_index)[0][0][2] == pytest.approx(0.001)
    probabilities = np.full((1, 1000), 0.001)
    assert keras_resnet.decode_predictions(probabilities, class_index=class_index)[0][0][2] == pytest.approx(0.001)
    with pytest.raises(ValueError, match=r"scores of shape \(n, 1000\). Received: shape \(1, 10\)"):
        keras_resnet.decode_predictions(np.zeros((1, 10)), class_index=class_index)
    class_index.write_text("{}x")
    with pytest.raises(ValueError, match="Expected a class index"):
        keras_resnet.decode_predictions(logits, class_index=class_index)


def test_the_names_of_the_classes_are_found_where_keras_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras_resnet.predictions.CLASS_INDEX_URL", "http://127.0.0.1:9/imagenet_class_index.json")
    with pytest.raises(ValueError, match=f"put it here as {tmp_path}/models/imagenet_class_index.json, or pass"):
        keras_resnet.decode_predictions(np.zeros((1, 1000)))


@pytest.mark.smoke
def test_photographs_are_classified_by_one_command(picture, class_index, tmp_path):
    weights, folder, table = tmp_path / "w.keras", tmp_path / "photos", tmp_path / "table.csv"
    keras_resnet.ResNet18(weights=None).save(weights)
    folder.mkdir()
    for index in range(2):
        PIL.Image.fromarray(np.roll(picture, 9 * index, axis=0)).save(folder / f"{index}.jpg")
    (folder / "broken.jpg").write_bytes(b"no photograph")
    options = ["--model=ResNet18", f"--weights={weights}", f"--class_index={class_index}", "--top=3"]
    done = run("-m", "keras_resnet", "classify", folder, *options, f"--csv={table}", code=1)
    assert done.stdout.count("class_") == 6
    assert "Skipped: Expected an image file" in done.stderr
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3"] * 2
    assert sum(float(row["probability"]) for row in rows[:3]) < 1


def test_a_net_of_other_classes_is_not_asked_for_imagenets(class_index, tmp_path, capsys):
    keras_resnet.ResNet18(weights=None, classes=10).save(tmp_path / "ten.keras")
    options = ["--model=ResNet18", f"--weights={tmp_path}/ten.keras", f"--class_index={class_index}"]
    assert command.main(["classify", __file__, *options]) == 2
    assert "The file has 10 classes and the model 1000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg"], "Expected an image or a folder with images in it. Received: 'nowhere.jpg'"),
        ([__file__, "--model=ResNet51"], "There is no such model"),
        ([__file__, "--model=ResNet18", "--weights=none.h5"], "The weights do not exist. Expected None, a tag"),
        ([__file__, "--model=ResNet18", "--weights=a1_in1K"], "a tag of ResNet18 (tv_in1k, a1_in1k)"),
        ([__file__, "--top=0"], "Expected --top to be at least 1"),
    ],
)
def test_mistakes_in_the_command_are_one_line(arguments, message, class_index, capsys):
    assert command.main(["classify", *arguments, f"--class_index={class_index}"]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
