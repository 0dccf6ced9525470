"""The folder for the app developer: opened by MediaPipe, run with three packages, tampering is caught."""

import dataclasses
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import types
import zipfile

import golden
import keras
import numpy as np
import PIL.Image
import pytest
from conftest import ROOT, run

from export import (
    bundle,
    calibration,
    flatbuffer,
    metadata,
    pipeline,
    probabilities,
    quantization,
    subjects,
    targets,
    templates,
    walk,
)
from export.formats import FORMATS
from keras_resnet.preprocessing import Preprocessing, Preprocessor
from train import data, input_pipeline, predictor

FLAGS = ("--formats=saved_model,float32,dynamic,int8,int8_float_io", "--bundle", "--max_top1_drop=5")
# What `pip install ai-edge-litert numpy pillow` brings; everything else is refused at import.
ONLY_THREE_PACKAGES = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"ai_edge_litert", "numpy", "PIL", "flatbuffers", "ml_dtypes"}:
            raise ModuleNotFoundError(f"refused: {name}")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def digits_bundle(digits_run, tmp_path_factory):
    """Folder of the digits net's bundle, by the real command."""
    output = tmp_path_factory.mktemp("exports") / "digits"
    done = run("export/main.py", f"--model={digits_run}/model.keras", f"--output_dir={output}", *FLAGS)
    assert done.stderr == ""
    return output / "bundle"


@pytest.fixture
def own_bundle(digits_bundle, tmp_path):
    """A copy to damage."""
    return shutil.copytree(digits_bundle, tmp_path / "bundle")


def classify(folder, *arguments, code=0):
    return run("-P", "-c", ONLY_THREE_PACKAGES, folder / "classify.py", *arguments, code=code)


def read(folder):
    return json.loads((folder / "bundle.json").read_text())


@pytest.mark.smoke
def test_a_bundle_is_whole(digits_bundle):
    manifest = read(digits_bundle)
    assert sorted(one["format"] for one in manifest["files"].values()) == [
        "dynamic",
        "float32",
        "int8",
        "int8_float_io",
    ]
    golden_files = [*manifest["golden"]["images"], "golden/photo.jpg", "golden/photo.png"]
    expected = {*manifest["files"], *golden_files, "bundle.json", "labels.txt", "README.md"}
    expected |= {"classify.py", "classify.cc", "Classify.kt"}
    assert {str(path.relative_to(digits_bundle)) for path in digits_bundle.rglob("*") if path.is_file()} == expected
    assert (digits_bundle / "labels.txt").read_text().split() == [*map(str, range(10))]
    for name in ("README.md", "classify.cc", "Classify.kt"):
        text = (digits_bundle / name).read_text()
        assert not re.findall(r"@[A-Z_]+@", text), name
        assert next(iter(manifest["files"])) in text
    card = json.loads((digits_bundle.parent / "card.json").read_text())
    assert {name: row["sha256"] for name, row in manifest["files"].items()} == {
        name: row["sha256"] for name, row in card["bundle"].items()
    }
    assert "bundle/" in (digits_bundle.parent / "card.md").read_text()


@pytest.mark.smoke
def test_golden_outputs_come_out_with_three_packages_alone(digits_bundle):
    done = classify(digits_bundle, "--check")
    assert "All golden outputs came out." in done.stdout
    assert done.stdout.count("ok  ") == 1 + len(read(digits_bundle)["files"])


@pytest.mark.smoke
def test_a_photograph_is_classified(digits_bundle):
    lines = classify(digits_bundle, digits_bundle / "golden" / "0.png").stdout.splitlines()
    assert len(lines) == 6
    scores = next(iter(read(digits_bundle)["files"].values()))["scores"][0]
    assert lines[1].split() == [f"{max(scores):.2%}", str(np.argmax(scores))]
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) < 100.1


@pytest.mark.smoke
def test_files_rank_classes_as_the_verified_ones(digits_bundle):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1)).astype("uint8")
    for name in read(digits_bundle)["files"]:
        before = predictor.from_tflite(str(digits_bundle.parent / name)).predict(images)
        after = predictor.from_tflite(str(digits_bundle / name)).predict(images)
        assert np.abs(after.sum(axis=1) - 1).max() < 1e-5
        exponentials = np.exp(before - before.max(axis=1, keepdims=True))
        assert np.abs(after - exponentials / exponentials.sum(axis=1, keepdims=True)).max() < 1e-6


def _change_manifest(change):
    def tamper(folder):
        manifest = read(folder)
        change(manifest["files"])
        (folder / "bundle.json").write_text(json.dumps(manifest))

    return tamper


def _shift_a_score(files):
    scores = files["resnet8_float32.tflite"]["scores"]
    scores[2][0] += 0.01


def _damage_weights(folder):
    """Another net under a hash that fits: the tenth part of a kernel's weights is lost."""
    path = folder / "resnet8_int8.tflite"
    model = flatbuffer.unpack(path.read_bytes())
    kernels = [buffer for buffer in model.buffers if buffer.data is not None and buffer.data.nbytes > 1000]
    kernels[0].data = kernels[0].data.copy()
    kernels[0].data[: kernels[0].data.nbytes // 10] = 0
    path.write_bytes(flatbuffer.pack(model))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    _change_manifest(lambda files: files[path.name].update(sha256=digest))(folder)


def _change_pixel(path):
    with PIL.Image.open(path) as image:
        pixels = np.array(image)
    pixels[3, 3] ^= 1
    PIL.Image.fromarray(pixels).save(path)


def _shift_a_logit(folder, steps):
    """As if the device's first logit were off by steps, for every golden image."""

    def shift(files):
        step = probabilities.logit_step((folder / "resnet8_int8.tflite").read_bytes())
        for row in files["resnet8_int8.tflite"]["scores"]:
            moved = [row[0] * np.exp(steps * step), *row[1:]]
            row[:] = [score / sum(moved) for score in moved]

    _change_manifest(shift)(folder)


TAMPERED = {
    "an expected score": (_change_manifest(_shift_a_score), 1, "FAILED  resnet8_float32.tflite: off by 0.01"),
    "a score that is no number": (
        _change_manifest(lambda files: files["resnet8_int8.tflite"]["scores"][0].__setitem__(0, float("nan"))),
        1,
        "FAILED  resnet8_int8.tflite: off by nan",
    ),
    "weights": (_damage_weights, 1, "FAILED  resnet8_int8.tflite: off by"),
    "a byte of a file": (
        lambda folder: (folder / "resnet8_int8.tflite").write_bytes(
            (folder / "resnet8_int8.tflite").read_bytes()[:-900] + b"x" * 900
        ),
        1,
        "FAILED  resnet8_int8.tflite: resnet8_int8.tflite is not the file that was exported",
    ),
    "a file away": (lambda folder: (folder / "resnet8_int8.tflite").unlink(), 1, "resnet8_int8.tflite is missing"),
    "a golden image": (
        lambda folder: shutil.copy(folder / "golden" / "1.png", folder / "golden" / "0.png"),
        1,
        "FAILED  resnet8_float32.tflite: off by",
    ),
    "a pixel of a golden image": (
        lambda folder: _change_pixel(folder / "golden" / "0.png"),
        1,
        "FAILED  golden/0.png: golden/0.png is not the file that was exported",
    ),
    "labels in another order": (
        lambda folder: (folder / "labels.txt").write_text("".join(f"{number}\n" for number in range(9, -1, -1))),
        1,
        "FAILED  labels.txt: labels.txt is not the file that was exported",
    ),
    "a golden image away": (lambda folder: (folder / "golden" / "0.png").unlink(), 2, "golden/0.png"),
    "four steps of a logit": (lambda folder: _shift_a_logit(folder, 4), 1, "FAILED  resnet8_int8.tflite: off by"),
    "the photograph": (
        lambda folder: PIL.Image.new("L", (64, 64), 99).save(folder / "golden" / "photo.jpg"),
        1,
        "FAILED  preprocessing: off by",
    ),
    "no labels": (lambda folder: (folder / "labels.txt").unlink(), 2, "labels.txt is missing"),
    "labels of others": (
        lambda folder: (folder / "labels.txt").write_text("cat\ndog\n"),
        2,
        "Expected 10 lines. Received: 2.",
    ),
    "no manifest": (lambda folder: (folder / "bundle.json").unlink(), 2, "bundle.json is missing"),
    "half a manifest": (lambda folder: (folder / "bundle.json").write_text("{"), 2, "Error: "),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", TAMPERED)
def test_tampering_is_caught(own_bundle, case):
    tamper, code, text = TAMPERED[case]
    tamper(own_bundle)
    done = classify(own_bundle, "--check", code=code)
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.smoke
def test_other_kernels_pass_the_check(digits_bundle, script, own_bundle):
    """LiteRT's own kernels, beside XNNPACK's; a tolerance is a few steps of the logits."""
    manifest = read(digits_bundle)
    images = np.stack([script.read_photo(digits_bundle / name, manifest) for name in manifest["golden"]["images"]])
    for name, row in manifest["files"].items():
        scores = predictor.from_tflite(str(digits_bundle / name), uses_xnnpack=False).predict(images)
        is_kept, text = script.compare(scores, row, list("0123456789"))
        assert is_kept, text
        assert row["tolerance"] < 0.5
    integer = manifest["files"]["resnet8_int8.tflite"]
    step = probabilities.logit_step((digits_bundle / "resnet8_int8.tflite").read_bytes())
    assert step > 0
    assert 2 * step <= integer["tolerance"] < 4 * step
    _shift_a_logit(own_bundle, 1)
    classify(own_bundle, "--check")


@pytest.mark.unit
@pytest.mark.parametrize("name", ["dynamic", "int4"])
def test_a_tolerance_covers_what_litert_s_own_kernels_move(script, name):
    """Beyond the floor, which these nets' noise passes."""
    files, images = files_of("ResNet20", [name])
    tolerance = bundle.tolerance(FORMATS[name].scheme, files[name], images)
    logits, others = (predictor.from_tflite(files[name], uses_xnnpack=uses).predict(images) for uses in (True, False))
    moved = max(
        others[n, a] - logits[n, a] - others[n, b] + logits[n, b] for n, a, b in np.ndindex(len(images), 10, 10)
    )
    assert moved > bundle.FLOORS["int8"]
    assert tolerance == pytest.approx(moved + bundle.ROUNDING, rel=1e-3)


@pytest.mark.unit
def test_a_bundle_is_of_the_files_that_kept_their_promises_the_fastest_first():
    def result(one_thread, two_threads, *failures):
        latency = {"1": {"median": one_thread}, "2": {"median": two_threads}}
        return pipeline.Result(f"after {one_thread} ms", types.SimpleNamespace(latency_ms=latency), [*failures])

    results = {
        "saved_model": result(1.0, 1.0),
        "float32": result(9.0, 2.0),
        "int8": result(2.0, 3.0, "agreement"),
        "int8_cpu": result(3.0, 4.0),
        "dynamic": pipeline.Result(None, None, ["did not convert"]),
    }
    kept = bundle.fastest_first(results)
    assert [*kept.items()] == [("int8_cpu", "after 3.0 ms"), ("float32", "after 9.0 ms")]


@pytest.mark.unit
def test_a_changed_answer_fails_unless_the_two_were_as_close(script):
    row = {"scores": [[0.5, 0.3, 0.2]], "tolerance": 0.6, "resolution": 1e-6}
    for scores, is_kept in (([0.41, 0.39, 0.2], True), ([0.39, 0.41, 0.2], True), ([0.36, 0.28, 0.36], False)):
        assert script.compare(np.array([scores]), row, ["cat", "dog", "cow"])[0] == is_kept
    row |= {"tolerance": 0.5}  # less than log(0.5 / 0.3): the best class must stay
    assert script.compare(np.array([[0.41, 0.39, 0.2]]), row, ["cat", "dog", "cow"])[0]
    is_kept, text = script.compare(np.array([[0.39, 0.41, 0.2]]), row, ["cat", "dog", "cow"])
    assert not is_kept
    assert text.endswith("golden image 0 is dog, expected cat")


@pytest.mark.smoke
def test_a_bundle_for_integers_alone_runs_on_its_target(digits_run, tmp_path):
    """int8 probabilities, in the files, the check, the snippets and the words; no advice to do what was done."""
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--bundle", "--max_top1_drop=9"]
    run("export/main.py", *flags, "--target=edgetpu")
    folder = tmp_path / "out" / "bundle"
    ((name, row),) = read(folder)["files"].items()
    assert targets.check((folder / name).read_bytes(), "edgetpu") == []
    assert (row["output"], row["resolution"]) == ("int8", 1 / 256)
    steps = np.array(row["scores"]) * 256
    assert np.abs(steps - np.round(steps)).max() < 1e-4
    classify(folder, "--check")
    best = classify(folder, folder / "golden" / "0.png").stdout.splitlines()[1].split()
    assert best == [f"{max(row['scores'][0]):.2%}", str(np.argmax(row["scores"][0]))]
    page = (folder / "README.md").read_text()
    assert "int8 where the table says so: (score + 128) / 256" in page
    assert "nothing to scale outside" not in page
    assert "FloatArray(10) { (scores[0][it] + 128) / 256f }" in (folder / "Classify.kt").read_text()
    check_cpp(folder / "classify.cc", tmp_path)


BAD_INPUT = {
    "nothing": ([], "Expected photographs, or --check"),
    "both": (["--check", "a.jpg"], "Expected photographs, or --check"),
    "no classes": (["a.jpg", "--top=0"], "--top of 1 or more"),
    "no such photograph": (["absent.jpg"], "Expected an image file. Received: absent.jpg"),
    "text": (["README.md"], "Expected an image file. Received: README.md"),
    "another model": (["README.md", "--model=x.tflite"], "Expected --model to be one of"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_refused_on_the_device(digits_bundle, case):
    arguments, text = BAD_INPUT[case]
    done = classify(digits_bundle, *arguments, code=2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def script():
    """classify.py as a module."""
    spec = importlib.util.spec_from_file_location("classify", templates.path("classify.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PHOTOS = {
    "wide": PIL.Image.effect_noise((400, 300), 60).convert("RGB"),
    "high": PIL.Image.effect_noise((200, 391), 60).convert("RGB"),
    "exact": PIL.Image.effect_noise((224, 224), 60).convert("RGB"),
    "small": PIL.Image.effect_noise((30, 40), 60).convert("RGB"),
    "grey": PIL.Image.effect_noise((300, 300), 60),
    "transparent": PIL.Image.merge("RGBA", [PIL.Image.effect_noise((300, 260), 60) for _ in range(4)]),
    "palette": PIL.Image.effect_noise((300, 260), 60).convert("P"),
    "16 bits": PIL.Image.fromarray(np.random.default_rng(0).integers(0, 65536, (260, 300)).astype("uint16")),
}


@pytest.mark.unit
@pytest.mark.parametrize("case", PHOTOS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_preprocessing_on_the_device_is_the_packages_own(script, tmp_path, case, interpolation):
    path = tmp_path / "photo.png"
    PHOTOS[case].save(path)
    facts = {"image_shape": [224, 224, 3], "resize": 256, "interpolation": interpolation}
    own = Preprocessor(Preprocessing(256, 224, interpolation)).crops(str(path))[0]
    if case == "exact":  # left as it is, as by `train.decoding.fitted`
        own = np.asarray(PHOTOS[case])
    assert np.array_equal(script.read_photo(path, facts), own)


@pytest.mark.unit
def test_rotation_is_applied(script, tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(12, dtype="uint8").reshape(3, 4) * 20
    PIL.Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    facts = {"image_shape": [4, 3, 1], "resize": 3, "interpolation": "bilinear"}
    assert np.array_equal(script.read_photo(tmp_path / "photo.png", facts)[..., 0], np.rot90(pixels, -1))


def files_of(name, formats):
    """`.tflite` files of a net with seeded weights: dict from format to bytes; and random images."""
    graph = walk.from_keras(golden.build(name), 1)
    images = np.random.default_rng(0).integers(0, 256, (8, *graph.image.shape[1:])).astype("uint8")
    ranges = calibration.observe(graph, images)
    schemes = {name: FORMATS[name].scheme for name in formats}
    return {
        name: flatbuffer.to_bytes(quantization.quantize(graph, scheme, ranges)) for name, scheme in schemes.items()
    }, images


@pytest.mark.unit
def test_metadata_and_labels_stand_in_the_file():
    files, images = files_of("ResNet20", ["float32"])
    labels = [f"class {number}" for number in range(10)]
    content = metadata.attach(files["float32"], "ResNet20", labels)
    (entry,) = flatbuffer.unpack(content).metadata
    assert entry.name == b"TFLITE_METADATA"
    described = flatbuffer.unpack(content).buffers[entry.buffer].data.tobytes()
    assert described == metadata.describe("ResNet20", 3)
    assert described[4:8] == b"M001"
    archive = zipfile.ZipFile(io.BytesIO(content))
    assert archive.read("labels.txt").decode().splitlines() == labels
    assert [one.compress_type for one in archive.infolist()] == [zipfile.ZIP_STORED]
    assert content == metadata.attach(files["float32"], "ResNet20", labels)  # the same bytes each time
    again = flatbuffer.unpack(metadata.attach(content, "another", labels))
    assert len(again.metadata) == 1
    interpreters = [predictor.open_interpreter(one) for one in (files["float32"], content)]
    for interpreter in interpreters:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
        interpreter.invoke()
    scores = [one.get_tensor(one.get_output_details()[0]["index"]) for one in interpreters]
    assert np.array_equal(*scores)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (["a"] * 9, "Received: 9 labels"),
        (["a"] * 11, "Received: 11 labels"),
        (["a"] * 9 + [" "], "for class 9"),
        (["a"] * 9 + ["b\nc"], "Expected every label to be one line"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, text):
    with pytest.raises(ValueError, match=text):
        metadata.check_labels(labels, 10)


@pytest.mark.smoke
def test_classes_are_named(digits_run, tmp_path):
    names = [f"number {digit}" for digit in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--bundle", "--formats=float32"]
    run("export/main.py", *flags, f"--labels={tmp_path}/names.txt", "--max_top1_drop=9")
    folder = tmp_path / "out" / "bundle"
    assert (folder / "labels.txt").read_text().splitlines() == names
    inside = zipfile.ZipFile(folder / "resnet8_float32.tflite").read("labels.txt").decode()
    assert inside.splitlines() == names
    assert json.loads((tmp_path / "out" / "card.json").read_text())["data"]["labels"] == names
    assert f"Classes, by score: {', '.join(names)}." in (tmp_path / "out" / "card.md").read_text()


LABELS = {
    "absent": (None, "Expected --labels to be a text file"),
    "too few": ("a\nb\n", "Expected a label for each of the model's 10 scores. Received: 2 labels"),
    "too many": ("\n".join("abcdefghijk"), "Received: 11 labels"),
    "an empty line": ("a\nb\n\n" + "\n".join("cdefghi"), "an empty line, in line 3 of"),
    "a class twice": ("\n".join("abcdefghib"), "'b' again, as line 2, in line 10 of"),
    "an image": (b"\xff\xd8\xff\xe0", "Expected --labels to be a text file"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", LABELS)
def test_names_that_do_not_fit_are_refused_before_any_work(digits_run, tmp_path, case):
    text, message = LABELS[case]
    if text is not None:
        (tmp_path / "names.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", f"--labels={tmp_path}/names.txt"]
    done = run("export/main.py", *flags, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.unit
def test_labels_that_are_mere_numbers_are_warned_of(capsys):
    source, examination = data.load("synthetic"), examination_of(10)
    subjects.choose("net", source, examination)
    assert "Warning: the labels are mere numbers: synthetic names no classes. Pass --labels=" in capsys.readouterr().err
    for other in (
        dataclasses.replace(source, titles=tuple("abcdefghij")),
        dataclasses.replace(source, name="digits"),  # whose classes are numbers
    ):
        subjects.choose("net", other, examination)
        assert capsys.readouterr().err == ""


@pytest.mark.unit
def test_golden_images_are_right_by_little_more_than_a_margin():
    """Of each class one: their probabilities move with every fault, their class with none that is allowed."""
    labels, scores = np.repeat([3, 7], 5), np.zeros((10, 10), "float32")
    sure = np.tile([-1.2, 0.5, 9.0, 1.5, 4.0], 2)  # by how much the right class is ahead
    scores[np.arange(10), labels] = np.maximum(sure, 0)
    scores[np.arange(10), 0] = np.maximum(-sure, 0)
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype("uint8")
    examination = pipeline.Examination(images, labels, scores, np.arange(10))
    chosen = subjects.choose("net", data.load("synthetic"), examination).images
    assert np.array_equal(chosen, images[[3, 8]])


def examination_of(num_classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 32, 32, 3)).astype("uint8")
    scores = rng.normal(size=(20, num_classes)).astype("float32")
    return pipeline.Examination(images, scores.argmax(axis=1), scores, np.arange(20))


@pytest.mark.unit
@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 50])
def test_what_is_no_file_is_refused(content):
    with pytest.raises(ValueError, match=r"\.tflite file"):
        probabilities.append(content)


@pytest.mark.unit
def test_a_net_that_ends_in_softmax_gets_no_second_one():
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    graph = walk.from_keras(keras.Model(image, keras.layers.Dense(4, activation="softmax")(x)), 1)
    content = flatbuffer.to_bytes(graph)
    assert probabilities.append(content) == flatbuffer.pack(flatbuffer.unpack(content))
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("uint8")
    integer = quantization.quantize(graph, FORMATS["int8"].scheme, calibration.observe(graph, images))
    model = flatbuffer.unpack(probabilities.append(flatbuffer.to_bytes(integer)))
    kinds = [flatbuffer.kind(model, operator) for operator in model.subgraphs[0].operators]
    assert kinds[-2:] == ["SOFTMAX", "DEQUANTIZE"]
    assert kinds.count("SOFTMAX") == 1


@pytest.mark.smoke
def test_files_of_the_converter_are_bundled_too(tmp_path):
    """litert-quantizer's buffers stand behind the tables."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=8, activation="relu")(keras.layers.Rescaling(1 / 16)(image))
    scores = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, scores, name="theirs").save(tmp_path / "theirs.keras")
    flags = [f"--model={tmp_path}/theirs.keras", f"--output_dir={tmp_path}/out", "--eval_images=60", "--bundle"]
    flags += ["--eval_data=digits", "--calibration_data=digits", "--max_top1_drop=20"]
    run("export/main.py", *flags, "--formats=float32,dynamic,int8")
    assert len(read(tmp_path / "out" / "bundle")["files"]) == 3
    classify(tmp_path / "out" / "bundle", "--check")


@pytest.mark.smoke
def test_a_bundle_is_made_of_photographs(photographs, tmp_path):
    """Colour, JPEG and PNG of other sizes; the golden photograph is a file of the data."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Rescaling(1 / 128, -1),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ],
        name="small",
    )
    model.save(tmp_path / "small.keras")
    flags = [f"--model={tmp_path}/small.keras", f"--output_dir={tmp_path}/out", "--bundle", "--formats=float32"]
    run("export/main.py", *flags, f"--eval_data=folder:{photographs}", "--max_top1_drop=100")
    folder = tmp_path / "out" / "bundle"
    assert (folder / "labels.txt").read_text() == "cat\ndog\n"
    assert "ok      preprocessing" in classify(folder, "--check").stdout


@pytest.mark.unit
@pytest.mark.parametrize("is_turned", [False, True])
def test_a_golden_photograph_is_seen_as_in_training(photographs, script, tmp_path, is_turned):
    """Which reads photographs as they are stored, where apps turn those of phones: the check would fail there."""
    pixels = np.broadcast_to(np.arange(96, dtype="uint8")[:, None, None] * 2, (96, 96, 3))  # dark above, bright below
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for path in photographs.rglob("validation/*/*.JPEG"):
        PIL.Image.fromarray(pixels).save(path, exif=exif if is_turned else b"")
    source = data.load(f"folder:{photographs}", image_size=32)
    images, labels, indices = input_pipeline.arrays(source, "test", 6)
    examination = pipeline.Examination(images, labels, np.eye(2, dtype="float32")[labels], indices)
    subject = subjects.choose("net", source, examination)
    (tmp_path / "photo.jpg").write_bytes(subject.photo)
    facts = {"image_shape": [32, 32, 3], "resize": subject.resize, "interpolation": subject.interpolation}
    seen = script.read_photo(tmp_path / "photo.jpg", facts).astype("int64")
    assert np.abs(seen - subject.photo_pixels).mean() < script.PIXEL_LEVELS
    originals = [path.read_bytes() for path in photographs.rglob("validation/*/*.JPEG")]
    assert (subject.photo in originals) != is_turned


@pytest.mark.smoke
def test_a_bundle_that_fails_its_own_check_is_not_made(tmp_path):
    files, images = files_of("ResNet8", ["float32"])
    (tmp_path / "net.tflite").write_bytes(files["float32"])
    buffer = io.BytesIO()
    PIL.Image.fromarray(images[0]).save(buffer, "JPEG")
    labels = tuple("abcdefghij")
    subject = subjects.Subject("net", labels, images, buffer.getvalue(), 255 - images[0], 37, "bilinear", "noise")
    with pytest.raises(ValueError, match=r"its own check .* code 1: FAILED  preprocessing: off by [0-9.]+, (?!.*INFO)"):
        bundle.make(subject, {"float32": str(tmp_path / "net.tflite")}, str(tmp_path / "bundle"))


@pytest.mark.smoke
@pytest.mark.parametrize("flags", [["--batch_size=2"], ["--formats=saved_model"]])
def test_flags_that_make_no_bundle_are_refused(digits_run, tmp_path, flags):
    done = run(
        "export/main.py",
        f"--model={digits_run}/model.keras",
        f"--output_dir={tmp_path}/out",
        "--bundle",
        *flags,
        code=2,
    )
    assert "Expected --bundle with --batch_size=1" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.smoke
def test_an_earlier_bundle_goes_when_the_export_is_new(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--formats=float32", "--overwrite"]
    run("export/main.py", *flags, "--bundle")
    assert (tmp_path / "out" / "bundle" / "classify.py").exists()
    run("export/main.py", *flags)
    assert not (tmp_path / "out" / "bundle").exists()
    assert not [*(tmp_path / "out").glob(".*")]


# Just enough of LiteRT's C++ API to check the snippet's syntax and types; its real headers are in no package here.
STUBS = {
    "tensorflow/lite/model_builder.h": """#pragma once
#include <memory>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
struct FlatBufferModel { static std::unique_ptr<FlatBufferModel> BuildFromFile(const char*); };
}""",
    "tensorflow/lite/interpreter.h": """#pragma once
#include "tensorflow/lite/model_builder.h"
namespace tflite {
struct Interpreter {
  TfLiteStatus AllocateTensors(); TfLiteStatus Invoke();
  template <class T> T* typed_input_tensor(int); template <class T> T* typed_output_tensor(int);
};
struct OpResolver {};
struct InterpreterBuilder {
  InterpreterBuilder(const FlatBufferModel&, const OpResolver&);
  TfLiteStatus operator()(std::unique_ptr<Interpreter>*);
};
}""",
    "tensorflow/lite/kernels/register.h": """#pragma once
#include "tensorflow/lite/interpreter.h"
namespace tflite::ops::builtin { struct BuiltinOpResolver : OpResolver {}; }""",
}


@pytest.mark.smoke
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to check the C++ snippet with")
def test_the_cpp_snippet_is_cpp(digits_bundle, tmp_path):
    check_cpp(digits_bundle / "classify.cc", tmp_path)


def check_cpp(path, tmp_path):
    for name, text in STUBS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{tmp_path}"]
    subprocess.run([*command, path], check=True)


@pytest.mark.smoke
def test_snippets_take_images_of_the_nets_size_as_they_are(digits_bundle):
    """As classify.py does, whose golden outputs they have to give; and they have a function of pixels for tests."""
    kotlin = (digits_bundle / "Classify.kt").read_text()
    assert "if (photo.width == 8 && photo.height == 8) photo else\n" in kotlin
    assert "fun pixels(photo: Bitmap): IntArray" in kotlin
    assert "fun probabilities(pixels: IntArray): FloatArray" in kotlin
    cpp = (digits_bundle / "classify.cc").read_text()
    assert "std::vector<float> Probabilities(tflite::Interpreter& interpreter, const std::vector<uint8_t>&" in cpp
    page = " ".join((digits_bundle / "README.md").read_text().split())
    assert "give (1, 10) float32 probabilities: quantized inside, nothing to scale outside." in page
    assert "an image of 8 x 8 pixels is taken as it is; of any other the shorter side is resized to 9 pixels" in page


@pytest.mark.unit
def test_the_page_names_the_mediapipe_that_it_was_tried_with():
    page = pathlib.Path(templates.path("README.md")).read_text()
    pinned = re.search(r"mediapipe==([\d.]+)", (ROOT / ".ci" / "run").read_text())
    assert f"mediapipe {pinned.group(1)}" in page


MEDIAPIPE = os.environ.get("KERAS_RESNET_MEDIAPIPE_PYTHON", "")
CLASSIFY_WITH_MEDIAPIPE = """
import json, sys
import mediapipe as mp
from mediapipe.tasks import python as tasks
from mediapipe.tasks.python import vision
options = vision.ImageClassifierOptions(base_options=tasks.BaseOptions(model_asset_path=sys.argv[1]))
with vision.ImageClassifier.create_from_options(options) as classifier:
    found = classifier.classify(mp.Image.create_from_file(sys.argv[2])).classifications[0].categories
print(json.dumps([[one.category_name, one.index, one.score] for one in found]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not MEDIAPIPE, reason="KERAS_RESNET_MEDIAPIPE_PYTHON names no interpreter that has mediapipe")
@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.scheme and not row.preparation])
def test_mediapipe_opens_every_format_and_ranks_as_we_do(tmp_path, name):
    files, images = files_of("ResNet20", [name])
    labels = [f"class {number}" for number in range(10)]
    (tmp_path / "net.tflite").write_bytes(metadata.attach(probabilities.append(files[name]), "ResNet20", labels))
    PIL.Image.fromarray(images[0]).save(tmp_path / "image.png")
    done = subprocess.run(
        [MEDIAPIPE, "-c", CLASSIFY_WITH_MEDIAPIPE, tmp_path / "net.tflite", tmp_path / "image.png"],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    (scores,) = predictor.from_tflite(str(tmp_path / "net.tflite")).predict(images[:1])
    assert len(found) == 10
    assert all(label == labels[number] for label, number, _ in found)
    limit = 1e-4 if FORMATS[name].scheme.activations == "float32" else 0.05
    assert max(abs(scores[number] - score) for _, number, score in found) < limit
