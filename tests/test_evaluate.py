"""Scoring: views of photographs, scores on them, the report, and the command itself."""

import csv
import json
import shutil

import keras
import numpy as np
import PIL.Image
import pytest
from conftest import DATA, ROOT, run
from test_weights import randomize

import keras_resnet
from keras_resnet.preprocessing import TORCHVISION, Preprocessing, Preprocessor
from train import data, input_pipeline, network, pictures, predictor, real_labels, report, scoring, views

SAMPLE = DATA / "imagenet_sample" / "validation"
INDEX = DATA / "imagenet_class_index.json"


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Eight photographs in ImageNet's folders, under the names of its validation split, and their numbers."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set KERAS_RESNET_TEST_DATA")
    folder = tmp_path_factory.mktemp("few")
    paths = sorted(SAMPLE.glob("*/*"))[::13]
    for number, path in enumerate(paths, start=1):
        copy = folder / "validation" / path.parent.name / f"ILSVRC2012_val_{100 * number:08d}.JPEG"
        copy.parent.mkdir(parents=True)
        shutil.copyfile(path, copy)
    return folder


@pytest.fixture(scope="module")
def resnet18(trained):
    """The real ImageNet ResNet-18, from pixels to logits."""
    return network.published("ResNet18", trained / "imagenet_resnet18.safetensors")


def positions_picture(height, width):
    """An image whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], axis=-1).astype("uint8")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ((256, 256), [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]),
        ((256, 341), [(0, 0), (0, 117), (32, 0), (32, 117), (16, 58)]),  # round(58.5), as Python and torchvision do
        ((300, 256), [(0, 0), (0, 32), (76, 0), (76, 32), (38, 16)]),
    ],
)
def test_ten_crops_are_corners_centre_and_mirror_images(shape, offsets):
    image = positions_picture(*shape)
    crops = views.ten_crops(image, (224, 224), TORCHVISION)
    expected = [image[top : top + 224, left : left + 224] for top, left in offsets]
    assert len(crops) == 10
    for crop, whole in zip(crops[:5], expected, strict=True):
        assert np.array_equal(crop, whole)
    for crop, whole in zip(crops[5:], expected, strict=True):
        assert np.array_equal(crop, np.fliplr(whole))


@pytest.mark.unit
@pytest.mark.parametrize("steps", [TORCHVISION, Preprocessing(232, 200, "bicubic"), Preprocessing(0, 96)])
def test_the_centre_crop_is_the_preprocessors(steps, shared_data):
    for path in sorted(SAMPLE.glob("*/*"))[:8]:
        image = np.asarray(PIL.Image.open(path).convert("RGB"))
        crops = views.ten_crops(image, (steps.crop, steps.crop), steps)
        assert np.array_equal(crops[4], Preprocessor(steps).crops(image)[0])


@pytest.mark.unit
def test_scaled_images_are_whole_and_pillows(shared_data):
    image = PIL.Image.open(next(SAMPLE.glob("n02107908/*"))).convert("RGB")
    width, height = image.size
    assert width != height
    found = views.scaled(np.asarray(image), (224, 480), "bilinear")
    for view, scale in zip(found, (224, 480), strict=True):
        sides = (scale, scale * height // width) if width < height else (scale * width // height, scale)
        assert np.array_equal(view, np.asarray(image.resize(sides, PIL.Image.Resampling.BILINEAR)))
    grey = np.asarray(image)[..., :1]
    assert np.array_equal(views.scaled(grey, (224,), "bilinear")[0], found[0][..., :1])


@pytest.mark.unit
def test_photographs_smaller_than_a_crop_are_refused():
    with pytest.raises(ValueError, match=r"Expected at least 32 x 64 pixels. Received: 36 x 36 after"):
        views.ten_crops(positions_picture(40, 40), (32, 64), Preprocessing(36, 32))


def linear_predictor(activation):
    """Scores that follow from each view's mean colours."""

    def predict(images):
        means = images.reshape(len(images), -1, 3).mean(axis=1) / 16
        return activation(means.astype("float32"))

    return predictor.Predictor(predict, (None, None, 3), 3)


@pytest.mark.unit
@pytest.mark.parametrize("activation", [scoring.softmax, np.asarray])
def test_views_average_their_probabilities(activation, monkeypatch):
    source = data.load("synthetic")
    source = data.dataclasses.replace(source, class_names=("r", "g", "b"))
    model = linear_predictor(activation)
    expected = []
    for image, _, _ in input_pipeline.photographs(source, "test"):
        crops = views.ten_crops(image, (32, 32), source.preprocessing)
        expected.append(scoring.softmax(linear_predictor(np.asarray).predict(np.stack(crops))).mean(axis=0))
    monkeypatch.setattr(views, "PIXELS_AT_A_TIME", 7 * 32 * 32)  # a batch need not end where an image does
    monkeypatch.setattr(views, "CHUNK", 50)
    outputs, labels = views.predict(model, source, "test", crops=10)
    assert np.allclose(outputs, expected, atol=1e-6)
    assert np.array_equal(labels, [label for _, label, _ in input_pipeline.photographs(source, "test")])
    apart, _ = views.predict(model, source, "test", scales=(20, 32, 41))
    assert np.abs(apart - outputs).max() > 1e-3


@pytest.mark.unit
def test_photographs_come_in_the_order_of_the_evaluation(few):
    options = {"class_index": INDEX, "preprocessing": TORCHVISION}
    for source in (data.load(f"folder:{few}", **options), data.load("digits")):
        (batch,) = input_pipeline.evaluation_batches(source, "validation", 8).take(1).as_numpy_iterator()
        rows = list(input_pipeline.photographs(source, "validation"))
        assert [label for _, label, _ in rows[:8]] == batch["label"].tolist()
        assert [name for _, _, name in rows] == input_pipeline.names(source, "validation")
        some = [name for _, _, name in input_pipeline.photographs(source, "validation", [6, 1])]
        assert some == [rows[1][2], rows[6][2]]
    assert np.array_equal(rows[3][0], batch["image"][3])
    assert data.load(f"folder:{few}", **options).titles[0] == "tench"
    assert data.load(f"folder:{few}").titles == tuple(sorted(path.name for path in (few / "validation").iterdir()))
    names = input_pipeline.names(data.load(f"folder:{few}", **options), "test")
    assert names[0].endswith("validation/n01440764/ILSVRC2012_val_00000100.JPEG")
    image, _, _ = next(input_pipeline.photographs(data.load(f"folder:{few}", **options), "test"))
    with PIL.Image.open(few / "validation" / names[0]) as original:
        assert image.shape == (original.height, original.width, 3)


@pytest.mark.slow
def test_one_scale_of_the_nets_own_size_is_the_one_crop_and_torchs(resnet18, shared_data, tmp_path):
    wnids = (shared_data / "imagenet_synsets.txt").read_text().split()
    with np.load(shared_data / "imagenet_reference_16.npz") as reference:
        crops, labels, expected = (reference[key] for key in ("crops", "label", "logits_resnet18"))
    for number, (crop, label) in enumerate(zip(crops, labels, strict=True)):
        path = tmp_path / "test" / wnids[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(crop).save(path)
    source = data.load(f"folder:{tmp_path}", class_index=INDEX, preprocessing=resnet18.preprocessing)
    order = [int(name[-6:-4]) for name in input_pipeline.names(source, "test")]
    logits, found = views.predict(predictor.from_keras(resnet18), source, "test")
    anywhere = predictor.from_keras(predictor.for_any_size(resnet18))
    whole, _ = views.predict(anywhere, source, "test", scales=(224,))
    assert np.array_equal(found, labels[order])
    assert np.abs(logits - expected[order]).max() < 2e-3
    assert np.abs(whole - scoring.softmax(expected[order])).max() < 1e-4


@pytest.mark.slow
def test_our_resnet8_scores_what_we_say(shared_data):
    """README.md and BUILD_NOTES.md: 88.18 % on 5,000 test images; as a file of weights it is the same net."""
    path = ROOT / "docs/cifar10_resnet8.keras"
    source = data.load("tfds:cifar10", data_dir=str(shared_data / "tfds"))
    images, labels, _ = input_pipeline.arrays(source, "test")
    scores = predictor.from_keras(predictor.load_keras(str(path))).predict(images)
    assert abs(np.mean(scores.argmax(1) == labels) - 0.8818) < 0.0005
    net = keras_resnet.ResNet8(weights=path, classifier_activation=None)
    assert np.abs(net(keras_resnet.preprocessor(net).normalize(images[:8]), training=False) - scores[:8]).max() < 1e-3


@pytest.mark.slow
def test_scales_average_nets_built_for_each_rectangle(resnet18, trained, few):
    """An independent build for every size, and Pillow's own resizing."""
    source = data.load(f"folder:{few}", class_index=INDEX, preprocessing=resnet18.preprocessing)
    outputs, _ = views.predict(
        predictor.from_keras(predictor.for_any_size(resnet18)), source, "test", scales=(160, 288)
    )
    for position, name in enumerate(input_pipeline.names(source, "test")[:2]):
        expected = []
        for scale in (160, 288):
            image = PIL.Image.open(few / "validation" / name)
            sides = [scale * side // min(image.size) for side in image.size]
            pixels = np.asarray(image.resize(sides, PIL.Image.Resampling.BILINEAR), "float32")[None]
            net = keras_resnet.ResNet18(weights=trained / "imagenet_resnet18.safetensors", input_shape=pixels.shape[1:])
            expected.append(np.asarray(net(keras_resnet.preprocessor(net).normalize(pixels), training=False))[0])
        assert np.abs(outputs[position] - np.mean(expected, axis=0)).max() < 1e-4
        assert np.abs(outputs[position] - expected[0]).max() > 1e-3


# One net of each stem, block and shortcut; the others repeat their layers.
KINDS = ("ResNet20", "PlainNet20", "ResNet8", "ResNet18", "ResNet26", "ResNet50D", "SEResNet50", "ResNet50V2")
KINDS += ("ResNeXt50_32x4d",)


@pytest.mark.contract
@pytest.mark.parametrize("name", KINDS)
def test_nets_are_rebuilt_for_any_size(name, tmp_path):
    model = keras_resnet.build(
        name, weights=None, classes=7, input_shape=(64, 64, 3), classifier_activation=None, include_preprocessing=True
    )
    randomize(model)
    model.save(tmp_path / "model.keras")
    anywhere = predictor.for_any_size(predictor.load_keras(str(tmp_path / "model.keras")))
    assert anywhere.input_shape == (None, None, None, 3)
    wide = keras_resnet.build(
        name, weights=None, classes=7, input_shape=(50, 87, 3), classifier_activation=None, include_preprocessing=True
    )
    wide.set_weights(model.get_weights())
    for net, shape in ((model, (1, 64, 64, 3)), (wide, (1, 50, 87, 3))):
        images = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
        expected = np.asarray(net(images, training=False))
        assert np.abs(np.asarray(anywhere(images, training=False)) - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.unit
def test_a_net_tied_to_its_size_is_named(tmp_path):
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    keras.Sequential(layers).save(tmp_path / "flat.keras")
    with pytest.raises(ValueError, match=r"tied to one size of image. .* 8 x 8 pixels. Leave out --scales"):
        predictor.load(str(tmp_path / "flat.keras"), any_size=True)


@pytest.mark.unit
def test_images_of_other_classes_are_refused(photographs):
    judge = predictor.Predictor(None, (None, None, 3), 1000)
    received = rf"Expected: 1000. Received: 2 in folder:{photographs}. Name all of them .* --class_index=FILE."
    with pytest.raises(ValueError, match=received):
        scoring.check_fits(judge, data.load(f"folder:{photographs}"))


@pytest.mark.unit
def test_confusion_and_the_worst_mistakes_are_counted_as_defined():
    outputs = np.array([[3, 1, 2.0], [1, 3, 2], [2, 2, 2], [9, 1, 2], [0, 4, 9], [np.nan, 0, 9]])
    labels = np.array([0, 2, 1, 1, 2, 0])
    assert scoring.answers(outputs).tolist() == [0, 1, 0, 0, 2, -1]
    assert scoring.confusion(outputs, labels).tolist() == [[1, 0, 0], [2, 0, 0], [0, 1, 1]]  # row: what it is
    assert scoring.worst(outputs, labels, 5).tolist() == [3, 1, 2]
    assert scoring.worst(outputs, labels, 2).tolist() == [3, 1]


@pytest.mark.unit
@pytest.mark.parametrize(("num_classes", "is_named"), [(10, True), (30, True), (31, False), (200, False)])
def test_the_confusion_picture_names_few_classes(num_classes, is_named, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: figures.append(figure))
    counts = 7 * np.eye(num_classes + 2, dtype=int)
    counts[1, 2], counts[-1, -1] = 3, 0  # the last class does not occur
    counts[-2, -2] = 0
    counts[-2, 0] = 5
    pictures.draw_confusion("", counts, [f"a_class_{number}" for number in range(num_classes + 2)])
    (axes, _) = figures[0].axes
    shares = axes.images[0].get_array()
    assert shares.shape == (num_classes + 1,) * 2
    assert (shares[1, 2], shares[1, 1], shares[-1, 0]) == (0.3, 0.7, 1.0)
    names = [text.get_text() for text in axes.get_xticklabels()]
    written = sorted(text.get_text() for text in axes.texts)
    if num_classes + 1 <= 30:
        assert names == [f"a class {number}" for number in range(num_classes + 1)]
        assert written == ["3", "5"] + ["7"] * num_classes
    else:
        assert names == written == []
    pictures.plt.close("all")


@pytest.mark.unit
@pytest.mark.parametrize("num_mistakes", [0, 1, 25])
def test_the_contact_sheet_shows_every_mistake(num_mistakes, monkeypatch):
    figures = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: figures.append(figure))
    shapes = [(9, 20, 3), (20, 9, 1)]
    mistakes = [
        (np.zeros(shapes[number % 2], "uint8"), "great_white_shark", 0.987, f"class_{number}_{'x' * 40}")
        for number in range(num_mistakes)
    ]
    pictures.draw_worst("", mistakes, "heading")
    titles = [axes.get_title(loc="left") for axes in figures[0].axes if axes.images]
    labels = [f"class {number} {'x' * 40}"[:29] + "…" for number in range(num_mistakes)]
    assert titles == [f"great white shark? 99%\nis: {label}" for label in labels]
    pictures.plt.close("all")


@pytest.mark.unit
def test_the_worst_mistakes_come_with_their_own_pictures():
    source = data.load("digits")
    images, labels, _ = input_pipeline.arrays(source, "test")
    outputs = np.zeros((len(labels), 10), "float32")
    outputs[np.arange(len(labels)), labels] = 20
    for position, logit in ((50, 40), (7, 30), (300, 25)):
        outputs[position, (labels[position] + 1) % 10] = logit
    mistakes = report._mistakes(outputs, labels, source, "test")
    assert len(mistakes) == 3
    for (image, answer, confidence, label), position in zip(mistakes, (50, 7, 300), strict=True):
        assert np.array_equal(image, images[position])
        assert (answer, label) == (str((labels[position] + 1) % 10), str(labels[position]))
        assert confidence == pytest.approx(1 / (1 + np.exp(20 - outputs[position].max())), rel=1e-3)


REAL = [[number % 1000] for number in range(50_000)]


@pytest.mark.unit
def test_real_labels_are_those_of_the_images_numbers(tmp_path):
    (tmp_path / "real.json").write_text(json.dumps([[], [3, 5], *REAL[2:]]))
    names = [
        "n01440764/ILSVRC2012_val_00000002.JPEG",
        "ILSVRC2012_val_00050000.JPEG",
        "a/ILSVRC2012_val_00000001_x.png",
    ]
    acceptable = real_labels.read(tmp_path / "real.json", names, 1000)
    assert acceptable == [[3, 5], [999], []]
    assert real_labels.score(np.array([5, 2, 7]), acceptable) == (0.5, 2)
    assert real_labels.score(np.array([3, 999, 7]), acceptable) == (1.0, 2)
    with pytest.raises(ValueError, match="Received: 1 images, all without"):
        real_labels.read(tmp_path / "real.json", names[2:], 1000)


BAD_REAL_LABELS = {
    "absent": (None, "ILSVRC2012_val_00000001.JPEG", 1000, "do not load"),
    "no json": ("cats", "ILSVRC2012_val_00000001.JPEG", 1000, "do not load"),
    "short": (REAL[1:], "ILSVRC2012_val_00000001.JPEG", 1000, "Received: 49,999 entries"),
    "mapping": ({"1": [2]}, "ILSVRC2012_val_00000001.JPEG", 1000, "Received: a dict"),
    "flat": ([*range(50_000)], "ILSVRC2012_val_00000001.JPEG", 1000, "entry 0 is 0"),
    "range": ([*REAL[1:], [1000]], "ILSVRC2012_val_00000001.JPEG", 1000, r"entry 49999 is \[1000\]"),
    "text": ([*REAL[1:], ["3"]], "ILSVRC2012_val_00000001.JPEG", 1000, r"entry 49999 is \['3'\]"),
    "name": (REAL, "n01440764/tench.JPEG", 1000, "Received: 'n01440764/tench.JPEG'"),
    "number": (REAL, "ILSVRC2012_val_00050001.JPEG", 1000, "ILSVRC2012_val_00050001"),
    "classes": (REAL, "ILSVRC2012_val_00000001.JPEG", 10, "Expected a model of 1000 classes. Received: 10"),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", BAD_REAL_LABELS)
def test_wrong_real_labels_are_named(case, tmp_path):
    content, name, num_classes, text = BAD_REAL_LABELS[case]
    if content is not None:
        (tmp_path / "real.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=text) as error:
        real_labels.read(str(tmp_path / "real.json"), [name], num_classes)
    assert "\n" not in str(error.value)
    assert "Expected" in str(error.value)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_published_net_is_scored_and_reported(few, trained, tmp_path):
    """Ten crops, with real labels that take another class for one image and none for a second."""
    real = [list(row) for row in REAL]
    wnids = (DATA / "imagenet_synsets.txt").read_text().split()
    labels = [wnids.index(path.name) for path in sorted((few / "validation").iterdir())]
    for number, label in enumerate(labels, start=1):
        real[100 * number - 1] = [label]
    real[99], real[199] = [], [(labels[1] + 1) % 1000]
    (tmp_path / "real.json").write_text(json.dumps(real))
    done = run(
        "train/evaluate.py",
        "--model=ResNet18",
        f"--weights={trained}/imagenet_resnet18.safetensors",
        f"--data=folder:{few}",
        f"--class_index={INDEX}",
        f"--real_labels={tmp_path}/real.json",
        f"--output_dir={tmp_path}/report",
        "--crops=10",
        "--per_class",
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "test split, 10 crops: top-1" in lines[0]
    assert len(lines) == 2 + len(labels)
    assert lines[2].split() == ["tench", "1", "images", "top-1", "100.00%"]
    scores = json.loads((tmp_path / "report" / report.SCORES).read_text())
    rows = table(tmp_path / "report" / report.PER_CLASS)
    assert [row["class"] for row in rows] == [wnids[label] for label in labels]
    hits = [float(row["top1"]) for row in rows]  # one image a class
    assert scores["top1"] == sum(hits) / len(hits) >= 0.5
    assert hits[0] == hits[1] == 1  # so that the real labels make a difference
    assert (scores["real_top1"], scores["real_num_images"]) == ((sum(hits) - 2) / (len(hits) - 1), len(hits) - 1)
    expected = {"views": "10 crops", "num_views": 10, "num_images": len(hits), "resize": 256, "crop": [224, 224]}
    assert expected.items() <= scores.items()
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(
        (report.SCORES, report.PER_CLASS, report.CONFUSION, report.WORST)
    )
    for name in (report.CONFUSION, report.WORST):
        PIL.Image.open(tmp_path / "report" / name).verify()


@pytest.mark.smoke
def test_a_report_of_a_run_agrees_with_what_is_printed(digits_run, tmp_path):
    model = f"--model={digits_run}/model.keras"
    done = run("train/evaluate.py", model, "--per_class", f"--output_dir={tmp_path}")
    scores, rows = json.loads((tmp_path / report.SCORES).read_text()), table(tmp_path / report.PER_CLASS)
    assert f"1 crop: top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%}, loss {scores['loss']:.4f}" in done.stdout
    printed = [line.split() for line in done.stdout.splitlines()[1:]]
    assert [(row["class"], row["num_images"], f"{float(row['top1']):.2%}") for row in rows] == [
        (name, count, top1) for name, count, _, _, top1 in printed
    ]
    hits = sum(int(row["num_images"]) * float(row["top1"]) for row in rows)
    assert round(hits) == round(scores["top1"] * 359)
    whole = run("train/evaluate.py", model, "--scales=8").stdout  # the digits' own size: the same pixels
    assert f"top-1 {scores['top1']:.2%}, top-5 {scores['top5']:.2%}, loss {scores['loss']:.4f}" in whole
    assert "scales 8:" in whole


@pytest.mark.slow
def test_a_tflite_file_is_scored_on_ten_crops_and_not_on_scales(shared_data):
    file = shared_data / "weights" / "mlperf_tiny_resnet8_int8.tflite"
    model, source = predictor.load(str(file)), data.load("synthetic")
    outputs, _ = views.predict(model, source, "test", crops=10)
    for image, found in zip(
        (image for image, _, _ in input_pipeline.photographs(source, "test")), outputs[:5], strict=False
    ):
        crops = np.stack(views.ten_crops(image, (32, 32), source.preprocessing))
        assert np.allclose(model.predict(crops).mean(axis=0), found, atol=1e-6)
    done = run("train/evaluate.py", f"--model={file}", "--data=synthetic", "--scales=32,48", code=2)
    assert done.stderr.startswith("Error: A .tflite file takes images of one size.")
    assert done.stderr.count("\n") == 1


BAD_FLAGS = {
    "both": (["--crops=1", "--scales=224"], "Received: --crops=1 and --scales=224. Leave one out."),
    "text": (["--scales=224,large"], "Received: --scales=224,large."),
    "zero": (["--scales=0"], "Expected --scales in whole pixels"),
    "output": (["--output_dir=setup.py"], "Received: a file, setup.py"),
    "folder": (["--model=train"], "The model is a folder."),
    "misspelt": (["--model=ResNet51"], "or one of keras_resnet.list_models(). Received: 'ResNet51'"),
    "weights": (["--model=ResNet18", "--weights=nowhere.h5", "--data=digits"], "The weights do not exist"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", BAD_FLAGS)
def test_a_users_mistake_gets_one_line(case):
    flags, text = BAD_FLAGS[case]
    done = run("train/evaluate.py", "--model=model.keras", *flags, code=2)
    assert text in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.unit
def test_a_saved_model_is_told_from_a_missing_file(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"A SavedModel is not scored.* Score the .keras file"):
        predictor.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"The model file does not exist"):
        predictor.load(str(tmp_path / "model.keras"))
    (tmp_path / "saved_model.pb").rename(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"The model is a folder.* Pass .*model.keras"):
        predictor.load(str(tmp_path))
