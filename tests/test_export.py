"""The exporter: every file run and held against the Keras model; nothing published that fails."""

import dataclasses
import json
import pathlib
import re
import shutil
import weakref

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, run

import keras_resnet
from export import card, convert, flatbuffer, formats, main, pipeline, rebuild, rounding, saved_model, staging, verify
from train import data, input_pipeline, predictor, scoring


@pytest.fixture(scope="module")
def digits_export(digits_run, tmp_path_factory):
    """Folder of all formats of the digits net, by the real command."""
    output = tmp_path_factory.mktemp("exports") / "digits"
    done = run("export/main.py", f"--model={digits_run}/model.keras", f"--output_dir={output}")
    assert done.stderr == ""  # no framework noise, no warnings
    (output / "output.txt").write_text(done.stdout)
    return output


def read_card(folder):
    return json.loads((folder / "card.json").read_text())


@pytest.mark.smoke
def test_every_format_is_written_verified_and_on_the_card(digits_export):
    report = read_card(digits_export)
    assert [*report["artifacts"]] == [*formats.BASIC]
    for name, artifact in report["artifacts"].items():
        assert (digits_export / artifact["file"]).exists(), name
        assert artifact["failures"] == []
        assert artifact["agreement"] >= formats.FORMATS[name].min_agreement
        assert 0 <= artifact["mean_difference"] <= artifact["max_difference"]
        assert all(0 < found["median"] <= found["p90"] for found in artifact["latency_ms"].values())
        assert name == "saved_model" or [*artifact["latency_ms"]] == ["1", "2"]
        assert name == "saved_model" or 0.1 < artifact["peak_memory_mb"] < 100
        assert name == "saved_model" or 0.5 < artifact["delegated"] <= 1
        assert artifact["custom_operators"] == []
    page = (digits_export / "card.md").read_text()
    assert all(name in page for name in formats.BASIC)
    assert card.table(report)[0] in (digits_export / "output.txt").read_text()
    assert report["model"]["input"] == ["uint8", 8, 8, 1]
    assert report["data"]["num_images"] == 359


@pytest.mark.smoke
def test_the_readmes_python_exports_the_demos_net(digits_run, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (example,) = (block for block in blocks if "pipeline.produce" in block)
    shutil.copytree(digits_run, tmp_path / "runs/demo")
    (tmp_path / "exports").mkdir()
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert names["result"].failures == []
    assert (tmp_path / names["result"].path).stat().st_size > 50_000
    assert "top-1 9" in capsys.readouterr().out


@pytest.mark.smoke
def test_sizes_are_what_the_precision_promises(digits_export):
    sizes = {name: artifact["bytes"] for name, artifact in read_card(digits_export)["artifacts"].items()}
    weights = keras_resnet.ResNet8(input_shape=(8, 8, 1)).count_params()
    assert 4 * weights < sizes["float32"] < 4 * weights + 20_000
    (variables,) = digits_export.glob("*_saved_model/variables/variables.data*")
    assert variables.stat().st_size < 4 * weights + 20_000
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["int8"] < 0.36 * sizes["float32"]
    assert sizes["dynamic"] < 0.36 * sizes["float32"]


@pytest.mark.smoke
def test_batch_norm_and_preprocessing_are_folded(digits_export):
    artifacts = read_card(digits_export)["artifacts"]
    # ResNet-8: 7 convolutions and 2 projections; 3 additions and the mean's subtraction.
    structure = {"CONV_2D": 9, "FULLY_CONNECTED": 1, "MEAN": 1, "ADD": 4}
    assert artifacts["float32"]["operators"] == structure | {"CAST": 1}
    assert artifacts["int8"]["operators"] == structure | {"QUANTIZE": 1}


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8"])
def test_files_take_raw_pixels_and_score_as_the_card_says(digits_export, name):
    artifact = read_card(digits_export)["artifacts"][name]
    path = str(digits_export / artifact["file"])
    (details,) = predictor.open_tflite(path).get_input_details()
    assert details["dtype"] == np.uint8
    assert tuple(details["shape"]) == (1, 8, 8, 1)
    if name == "int8":
        assert details["quantization"] == (1.0, 0)
        (output,) = predictor.open_tflite(path).get_output_details()
        assert output["dtype"] == np.int8
    scores = scoring.score(*scoring.predict(predictor.load(path), data.load("digits"), "test"))
    assert scores.top1 == artifact["top1"]


@pytest.mark.smoke
def test_evaluate_scores_a_tflite_file(digits_export):
    artifact = read_card(digits_export)["artifacts"]["int8"]
    line = run("train/evaluate.py", f"--model={digits_export / artifact['file']}", "--data=digits").stdout
    assert f"top-1 {artifact['top1']:.2%}" in line


@pytest.mark.smoke
def test_calibration_images_are_training_images(digits_export):
    indices = read_card(digits_export)["data"]["calibration_indices"]
    assert len(indices) == len({*indices}) == 100
    assert {*indices} <= {*input_pipeline.arrays(data.load("digits"), "train")[2].tolist()}


@pytest.mark.smoke
def test_a_full_output_folder_is_kept_unless_told_otherwise(digits_run, digits_export, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}", "--formats=float32"]
    (tmp_path / "mine.txt").write_text("mine")
    assert "--overwrite" in run("export/main.py", *flags, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    run("export/main.py", *flags, "--overwrite", "--batch_size=4")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    (details,) = predictor.open_tflite(str(tmp_path / "resnet8_float32.tflite")).get_input_details()
    assert details["shape"][0] == 4


@pytest.mark.smoke
def test_a_file_that_fails_its_promise_is_not_written(digits_run, tmp_path):
    model = keras.saving.load_model(digits_run / "model.keras")
    # The same function in float32: one channel 10,000 times larger, its next weights as much smaller. In int8 it
    # leaves the other channels of its layer no resolution.
    norm, next_conv = (model.get_layer(f"stage1_block1_{name}") for name in ("bn1", "conv2"))
    gamma, beta, *statistics = norm.get_weights()
    (kernel,) = next_conv.get_weights()
    gamma[0], beta[0], kernel[:, :, 0] = 1e4 * gamma[0], 1e4 * beta[0], kernel[:, :, 0] / 1e4
    norm.set_weights([gamma, beta, *statistics])
    next_conv.set_weights([kernel])
    model.save(tmp_path / "net.keras")
    flags = [f"--model={tmp_path}/net.keras", "--eval_data=digits", "--calibration_data=digits"]
    done = run("export/main.py", *flags, f"--output_dir={tmp_path}/out", "--formats=float32,int8", code=1)
    assert "NOT WRITTEN" in done.stdout
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["card.json", "card.md", "card.png", "resnet8_float32.tflite"]
    report = read_card(tmp_path / "out")["artifacts"]
    assert report["int8"]["file"] is None
    assert any("top-1 falls by" in failure for failure in report["int8"]["failures"])
    assert report["float32"]["failures"] == []
    done = run("export/main.py", *flags, f"--output_dir={tmp_path}/2", "--formats=int8", "--max_top1_drop=100", code=1)
    assert done.stdout.splitlines()[-1].startswith(f"0 of 1 formats written to {tmp_path}/2, not int8;")
    failures = read_card(tmp_path / "2")["artifacts"]["int8"]["failures"]
    assert failures  # of agreement
    assert not any("top-1 falls by" in failure for failure in failures)


@pytest.mark.unit
def test_promises_are_held_against_the_evidence():
    row, latency = formats.FORMATS["int8"], {"1": {"median": 5.0}, "2": {"median": 3.0}}
    good = verify.Evidence(
        0.9, 0.99, 0.1, 0.01, 0.01, 100, 30_000_000, 20_000_000, latency, 9.0, 1.0, {}, {"CONV_2D": 1}, ()
    )
    gate = verify.Gate(0.5, 0.95, 30.0, 5.0)
    assert verify.broken_promises(good, row, gate, 0.9, 100_000_000) == []
    for change, text in (
        ({"agreement": 0.94}, "agreement 94.00%, at least 95.00% asked for"),
        ({"relative_difference": 0.9}, "largest difference 90.00%"),
        ({"top1": 0.8}, "falls by 10.00 points"),
        ({"custom_operators": ("FlexConv2D",)}, "FlexConv2D"),
        ({"bytes": 30_001_000}, "size 30.001 MB, at most 30.0 MB asked for"),
        ({"latency_ms": {"1": {"median": 5.1}, "2": {"median": 3.0}}}, "latency 5.100 ms, at most 5.0 ms"),
    ):
        (failure,) = verify.broken_promises(dataclasses.replace(good, **change), row, gate, 0.9, 100_000_000)
        assert text in failure
    (failure,) = verify.broken_promises(dataclasses.replace(good, top1=0.89), row, gate, 0.9, 100_000_000)
    assert failure == (  # strict all the same
        "top-1 falls by 1.00 points, at most 0.5 allowed (one of 100 images is 1.00 points: score more images, or "
        "raise --max_top1_drop)"
    )
    (failure,) = verify.broken_promises(
        dataclasses.replace(good, top1=0.89, num_images=200), row, gate, 0.9, 100_000_000
    )
    assert failure == "top-1 falls by 1.00 points, at most 0.5 allowed"
    (failure,) = verify.broken_promises(good, row, gate, 0.9, 60_000_000)
    assert "size 50.0% of the float32 file's, at most 36% promised" in failure
    agrees_seldom = dataclasses.replace(good, agreement=0.5)
    (failure,) = verify.broken_promises(agrees_seldom, row, verify.Gate(), 0.9, 100_000_000)
    assert "at least 90.0% promised" in failure


@pytest.mark.unit
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_models_are_rebuilt_in_float32(policy):
    keras.config.set_dtype_policy(policy)
    model = golden.build("ResNet20")
    keras.config.set_dtype_policy("float32")
    ready = rebuild.in_float32(model)
    assert {layer.compute_dtype for layer in ready.layers} == {"float32"}
    assert golden.deviation("ResNet20", ready) < golden.TOLERANCE < golden.deviation("ResNet20", model)


@pytest.mark.smoke
def test_a_mixed_precision_file_exports(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras_resnet.ResNet8()
    model.save(tmp_path / "mixed.keras")
    flags = [f"--model={tmp_path}/mixed.keras", "--eval_data=synthetic", "--max_top1_drop=5"]
    run("export/main.py", *flags, "--formats=float16", f"--output_dir={tmp_path}/out")
    assert read_card(tmp_path / "out")["artifacts"]["float16"]["custom_operators"] == []


@pytest.mark.unit
def test_a_child_that_dies_is_an_error_not_a_crash(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("import os; os.abort()")
    with pytest.raises(RuntimeError, match="ended with code -6"):
        convert.run_child(str(script))
    script.write_text(
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise ValueError('one\\ntwo') from error"
    )
    with pytest.raises(RuntimeError, match=r"^The child process ended with code 1: one two$"):
        convert.run_child(str(script))


@pytest.mark.smoke
def test_other_peoples_nets_go_through_the_converter(tmp_path):
    """A layer that no net of the zoo has: five formats, verified all the same; of the others the layer is named."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Rescaling(1 / 16)(image)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=8, activation="relu", name="depthwise")(x)
    scores = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, scores, name="theirs").save(tmp_path / "theirs.keras")
    flags = [f"--model={tmp_path}/theirs.keras", f"--output_dir={tmp_path}/out"]
    flags += ["--eval_data=digits", "--calibration_data=digits"]
    flags += [f"--formats={','.join(formats.BASIC)},int4", "--max_top1_drop=9"]
    run("export/main.py", *flags, "--eval_images=100", code=1)
    artifacts = read_card(tmp_path / "out")["artifacts"]
    assert [name for name, artifact in artifacts.items() if not artifact["failures"]] == [*formats.BASIC]
    assert "'depthwise'" in artifacts["int4"]["failures"][0]


@pytest.mark.smoke
def test_a_saved_model_is_scored_from_its_files(digits_run, tmp_path, monkeypatch):
    """What cannot be loaded in a fresh process is not published, however well the model in memory scores."""
    write = saved_model.write

    def write_and_damage(model, path):
        write(model, path)
        for file in (pathlib.Path(path) / "variables").iterdir():
            file.write_bytes(file.read_bytes()[:100])

    model = predictor.load_keras(str(digits_run / "model.keras"))
    examination = pipeline.examine_keras(model, data.load("digits"), 20)
    monkeypatch.setattr(saved_model, "write", write_and_damage)
    staged = pipeline.stage(model, str(tmp_path), None, 1)
    assert "child process" in pipeline.produce("saved_model", staged, examination, verify.Gate()).failures[0]


@pytest.mark.smoke
def test_a_saved_model_serves_pixels_files_and_features(digits_export, digits_run):
    """In a process that cannot import this package or Keras."""
    (folder,) = digits_export.glob("*_saved_model")
    script = """
import sys
sys.modules["keras"] = sys.modules["keras_resnet"] = None
import numpy as np
import tensorflow as tf
signatures = tf.saved_model.load(sys.argv[1]).signatures
images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype("uint8")
scores = signatures["serving_default"](image=tf.constant(images))["scores"].numpy()
files = [tf.io.encode_png(image) for image in images]
assert np.abs(signatures["serving_bytes"](encoded=tf.stack(files))["scores"] - scores).max() < 1e-4
large = tf.io.encode_jpeg(tf.fill((40, 60, 3), tf.constant(200, tf.uint8)))
print(signatures["serving_bytes"](encoded=[large])["scores"].numpy().shape)
np.save(sys.argv[2], signatures["features"](image=tf.constant(images))["features"])
"""
    features = digits_export / "features.npy"
    assert run("-P", "-c", script, folder, features).stdout.strip() == "(1, 10)"
    model = predictor.load_keras(str(digits_run / "model.keras"))
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype("uint8")
    pooled = keras.Model(model.inputs[0], model.get_layer("avg_pool").output)(images.astype("float32"))
    assert np.abs(np.load(features) - pooled).max() < 1e-4
    features.unlink()


@pytest.mark.smoke
def test_what_the_gate_refuses_is_not_written(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--eval_images=50"]
    asked = ["--max_size_mb=0.2", "--max_latency_ms=1000", "--min_agreement=0.5"]
    done = run("export/main.py", *flags, "--formats=float32,int8", *asked, code=1)
    assert "\n- float32 NOT WRITTEN: size 0.3" in done.stdout
    statuses = {line.split()[1]: line.split()[3] for line in done.stdout.splitlines() if line.startswith("| ")}
    assert statuses == {"format": "written", "float32": "NO", "int8": "yes"} | {
        name: status for name, status in statuses.items() if name.startswith("-")
    }
    last = done.stdout.splitlines()[-1]
    assert last == f"1 of 2 formats written to {tmp_path}/out, not float32; card.md there tells of all."
    coarse = "Warning: test images: one of 50 images is 2.00 points: score more images, or raise --max_top1_drop."
    assert done.stderr.strip() == coarse
    assert coarse.partition(": ")[2].partition(": ")[2] in (tmp_path / "out" / "card.md").read_text()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["card.json", "card.md", "card.png", "config.json", "resnet8_int8.tflite"]


@pytest.mark.smoke
def test_exported_files_are_scored_on_their_runs_data(digits_export):
    card_top1 = read_card(digits_export)["artifacts"]["float32"]["top1"]
    (file,) = digits_export.glob("*_float32.tflite")
    assert f"top-1 {card_top1:.2%}" in run("train/evaluate.py", f"--model={file}").stdout
    run("train/evaluate.py", f"--model={file}", "--split=validation")


@pytest.mark.smoke
def test_what_an_earlier_export_left_goes_when_the_card_is_new(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out"]
    run("export/main.py", *flags, "--formats=float16,saved_model")
    (tmp_path / "out" / "mine.txt").write_text("a user's file")
    run("export/main.py", *flags, "--formats=float32", "--overwrite")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["card.json", "card.md", "card.png", "config.json", "mine.txt", "resnet8_float32.tflite"]


@pytest.mark.smoke
def test_a_format_that_fails_takes_no_earlier_file_with_it(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--max_top1_drop=9"]
    run("export/main.py", *flags, "--formats=float32,int8")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    asked = ["--formats=float16,float32", "--max_size_mb=0.2", "--overwrite"]
    last = run("export/main.py", *flags, *asked, code=1).stdout.splitlines()[-1]
    assert last.startswith(f"Nothing was written: {tmp_path}/out stays as it was, with the earlier float32")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.fixture
def bad_models(tmp_path, digits_run):
    (tmp_path / "tested" / "validation" / "cat").mkdir(parents=True)
    (tmp_path / "tested" / "validation" / "cat" / "0.png").write_bytes(
        tf.io.encode_png(np.zeros((8, 8, 1), "uint8")).numpy()
    )
    (tmp_path / "text.keras").write_text("not a model")
    image = keras.Input((8, 8, 1))
    flat = keras.layers.Flatten()(image)
    code = keras.layers.Lambda(lambda x: 2 * x, output_shape=(64,))(flat)
    keras.Model(image, keras.layers.Dense(10)(code)).save(tmp_path / "lambda.keras")
    keras.Model(image, keras.layers.Conv2D(1, 1)(image)).save(tmp_path / "map.keras")
    keras_resnet.ResNet8(input_shape=(None, None, 1)).save(tmp_path / "any_size.keras")
    shutil.copy(digits_run / "model.keras", tmp_path / "digits.keras")
    return tmp_path


BAD_FLAGS = {
    "no file": (["--model={}/absent.keras"], "does not exist"),
    "text": (["--model={}/text.keras"], "not a Keras model"),
    "Lambda": (["--model={}/lambda.keras", "--eval_data=digits"], "Lambda layer"),
    "not a classifier": (["--model={}/map.keras", "--eval_data=digits"], "n, classes"),
    "any size": (["--model={}/any_size.keras", "--eval_data=digits"], "images of one size"),
    "no data": (["--model={}/digits.keras"], "Which images?"),
    "no calibration data": (["--model={}/digits.keras", "--eval_data=digits"], "Which images?"),
    "empty calibration data": (
        ["--model={}/digits.keras", "--eval_data=digits", "--calibration_data=folder:{}/empty"],
        "Expected folders",
    ),
    "no training images": (
        ["--model={}/digits.keras", "--eval_data=digits", "--calibration_data=folder:{0}/tested"],
        "calibrated on training images. Expected --calibration_data with a train split: of folder:PATH the images in "
        "PATH/train. Received: --calibration_data=folder:",
    ),
    "data that is not prepared": (
        ["--model={}/digits.keras", "--eval_data=tfds:mnist", "--data_dir=/nowhere"],
        "Pass its --data_dir; train/main.py --download lets TFDS fetch it",
    ),
    "shape of calibration data": (
        ["--model={}/digits.keras", "--eval_data=digits", "--calibration_data=synthetic"],
        "The images are not the model's. Expected: (8, 8, 1)",
    ),
    "shape of test data": (["--model={}/digits.keras", "--eval_data=synthetic"], "The images are not the model's"),
    "no folder": (["--model={}/digits.keras", "--output_dir="], "Expected --output_dir to name a folder"),
    "format": (["--model={}/digits.keras", "--formats=onnx"], "Received: onnx"),
    "batch": (
        ["--model={}/digits.keras", "--eval_data=digits", "--calibration_data=digits", "--batch_size=500"],
        "at least one batch",
    ),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", BAD_FLAGS)
def test_bad_input_is_refused_and_nothing_is_written(bad_models, case):
    flags, text = BAD_FLAGS[case]
    output = pathlib.Path(bad_models) / "out"
    done = run("export/main.py", f"--output_dir={output}", *(flag.format(bad_models) for flag in flags), code=2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    assert not list(bad_models.rglob(staging.FOLDER))


@pytest.mark.slow
def test_published_imagenet_weights_keep_their_answers_in_int8(shared_data, tmp_path):
    """ResNet-18 on the 100 photographs, each half calibrated on the other: no image is scored and calibrated on."""
    run(shared_data.parent / "tools" / "unpack_weights.py", tmp_path)
    wnids = sorted(folder.name for folder in (shared_data / "imagenet_sample" / "validation").iterdir())
    agreement = lost = 0
    for half in range(2):
        root = tmp_path / f"half{half}"
        for index, wnid in enumerate(wnids):
            split = root / ("train" if index % 2 == half else "validation")
            split.mkdir(parents=True, exist_ok=True)
            (split / wnid).symlink_to(shared_data / "imagenet_sample" / "validation" / wnid)
        flags = ["--model=ResNet18", f"--weights={tmp_path}/imagenet_resnet18.safetensors", "--formats=int8"]
        flags += [f"--eval_data=folder:{root}", f"--calibration_data=folder:{root}"]
        flags += [f"--class_index={shared_data}/imagenet_class_index.json"]
        run("export/main.py", *flags, f"--output_dir={root}/out", "--max_top1_drop=8")
        card = json.loads((root / "out" / "card.json").read_text())
        artifact = card["artifacts"]["int8"]
        agreement += round(50 * artifact["agreement"])
        lost += round(50 * (card["model"]["top1"] - artifact["top1"]))
    assert agreement >= 94
    assert lost <= 3


TWICE = ("dynamic", "int8", "int8_float_io")


@pytest.mark.smoke
def test_what_all_formats_need_is_computed_once(digits_run, tmp_path, monkeypatch):
    """The float net's file, its activations and its optimally rounded kernels; another net has its own."""
    calls = []

    def count(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *arguments: calls.append(name) or function(*arguments))

    model, source = predictor.load_keras(str(digits_run / "model.keras")), data.load("digits")
    images, _, _ = input_pipeline.arrays(source, "train", 40)
    examination = pipeline.examine_keras(model, source, 30)
    staged = pipeline.stage(model, str(tmp_path), images, 1)
    for module, name in ((verify, "signal"), (rounding, "rounded"), (flatbuffer, "to_bytes")):
        count(module, name)
    float32 = pipeline.produce("float32", staged, examination, verify.Gate(max_top1_drop=100))
    assert (calls, float32.failures) == ([], [])
    results = [pipeline.produce(name, staged, examination, verify.Gate(max_top1_drop=100)) for name in TWICE]
    assert [result.failures for result in results] == [[], [], []]
    assert (calls.count("signal"), calls.count("rounded")) == (1, 1)
    other = pipeline.stage(model, str(tmp_path), images[:35], 1)
    again = pipeline.produce("int8", other, examination, verify.Gate(max_top1_drop=100))
    assert (calls.count("signal"), calls.count("rounded")) == (2, 2)
    assert again.evidence.noise != results[1].evidence.noise
    kernels = [pipeline._rounded(other, dtype) for dtype in ("int8", "int4", "int8")]  # 4 bits have their own
    assert kernels[0] is kernels[2]
    assert [max(np.abs(array).max() for array in found.values()) for found in kernels[:2]] == [127, 7]
    assert dataclasses.replace(other, failure="none").shared == {}  # a fine-tuned net is another net
    kept = weakref.ref(next(iter(other.shared["signal", examination][0].values())))
    assert kept() is not None
    del other
    assert kept() is None  # freed with the net
    main.produce(("int8",), staged, None, examination, verify.Gate(max_top1_drop=100))
    assert staged.shared == {}
