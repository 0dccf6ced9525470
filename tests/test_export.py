"""The exporter: every file run and held against the Keras model; nothing published that fails."""

import dataclasses
import json
import pathlib
import shutil

import golden
import keras
import numpy as np
import pytest
from conftest import run

import keras_resnet
from export import card, convert, formats, pipeline, rebuild, saved_model, verify
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
    assert written == ["card.json", "card.md", "resnet8_float32.tflite"]
    report = read_card(tmp_path / "out")["artifacts"]
    assert report["int8"]["file"] is None
    assert any("top-1 falls by" in failure for failure in report["int8"]["failures"])
    assert report["float32"]["failures"] == []
    run("export/main.py", *flags, f"--output_dir={tmp_path}/2", "--formats=int8", "--max_top1_drop=100", code=1)
    failures = read_card(tmp_path / "2")["artifacts"]["int8"]["failures"]
    assert failures  # of agreement
    assert not any("top-1 falls by" in failure for failure in failures)


@pytest.mark.unit
def test_promises_are_held_against_the_evidence():
    row = formats.FORMATS["int8"]
    good = verify.Evidence(0.9, 0.99, 0.1, 0.01, 0.01, 100, 10, {"median": 1.0}, {"CONV_2D": 1}, ())
    assert verify.broken_promises(good, row, 0.9, 0.5) == []
    for change, text in (
        ({"agreement": 0.5}, "agreement 50.00%"),
        ({"relative_difference": 0.9}, "largest difference 90.00%"),
        ({"top1": 0.8}, "falls by 10.00 points"),
        ({"custom_operators": ("FlexConv2D",)}, "FlexConv2D"),
    ):
        (failure,) = verify.broken_promises(dataclasses.replace(good, **change), row, 0.9, 0.5)
        assert text in failure


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
def test_folding_the_preprocessing_changes_no_logit(digits_run):
    model = predictor.load_keras(str(digits_run / "model.keras"))
    images, _, _ = input_pipeline.arrays(data.load("digits"), "test", 50)
    folded = rebuild.fold_preprocessing(model)
    assert folded.get_layer("preprocessing").scale == 1.0
    expected = predictor.from_keras(model).predict(images)
    assert np.abs(predictor.from_keras(folded).predict(images) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.contract
@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "ResNet50V2", "PlainNet20", "ResNet20"])
def test_float32_files_of_every_family_equal_the_keras_model(tmp_path, name):
    model = golden.build(name)
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:])).astype("uint8")
    saved_model.write(rebuild.in_float32(model), str(tmp_path / "fixed"), 1)
    convert.convert("float32", str(tmp_path / "fixed"), str(tmp_path / "net.tflite"))
    expected = predictor.from_keras(model).predict(images)
    scores, _ = verify.run_tflite(str(tmp_path / "net.tflite"), images)
    assert np.abs(scores - expected).max() < 1e-4 * np.abs(expected).max()
    operators, custom = verify.count_operators(str(tmp_path / "net.tflite"))
    assert custom == ()
    if name != "ResNet50V2":  # pre-activation: a BN after an addition has no convolution to fold into
        assert {*operators} <= {"ADD", "CAST", "CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "MEAN", "PAD"}


@pytest.mark.unit
def test_a_child_that_dies_is_an_error_not_a_crash(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("import os; os.abort()")
    with pytest.raises(RuntimeError, match="ended with code -6"):
        convert.run_child(str(script))


@pytest.mark.smoke
def test_a_format_that_does_not_convert_is_reported(digits_run, tmp_path):
    model = predictor.load_keras(str(digits_run / "model.keras"))
    examination = pipeline.examine_keras(model, data.load("digits"), 20)
    result = pipeline.produce("float32", model, str(tmp_path), examination, 0.5)  # nothing was staged
    assert result.path is None
    assert "child process" in result.failures[0]


@pytest.mark.smoke
def test_a_saved_model_is_scored_from_its_files(digits_run, tmp_path, monkeypatch):
    """What cannot be loaded in a fresh process is not published, however well the model in memory scores."""
    write = saved_model.write

    def write_and_damage(model, path, batch_size=None):
        write(model, path, batch_size)
        for file in (pathlib.Path(path) / "variables").iterdir():
            file.write_bytes(file.read_bytes()[:100])

    model = predictor.load_keras(str(digits_run / "model.keras"))
    examination = pipeline.examine_keras(model, data.load("digits"), 20)
    monkeypatch.setattr(saved_model, "write", write_and_damage)
    result = pipeline.produce("saved_model", model, str(tmp_path), examination, 0.5)
    assert result.failures


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
    assert names == ["card.json", "card.md", "config.json", "mine.txt", "resnet8_float32.tflite"]


@pytest.fixture
def bad_models(tmp_path, digits_run):
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
    "shape of calibration data": (
        ["--model={}/digits.keras", "--eval_data=digits", "--calibration_data=synthetic"],
        "The images are not the model's. Expected: (8, 8, 1)",
    ),
    "shape of test data": (["--model={}/digits.keras", "--eval_data=synthetic"], "The images are not the model's"),
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
    done = run("export/main.py", *(flag.format(bad_models) for flag in flags), f"--output_dir={output}", code=2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    assert not list(bad_models.glob(".export-*"))


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
        run("export/main.py", *flags, f"--output_dir={root}/out", "--max_top1_drop=4")
        card = json.loads((root / "out" / "card.json").read_text())
        artifact = card["artifacts"]["int8"]
        agreement += round(50 * artifact["agreement"])
        lost += round(50 * (card["model"]["top1"] - artifact["top1"]))
    assert agreement >= 90
    assert lost <= 2
