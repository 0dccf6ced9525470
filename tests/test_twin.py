"""Fine-tuned formats: twins that compute the same, files that hold what they promise, wrong input refused."""

import json
import pathlib
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import run

from export import finetune, formats, pipeline, quantization, verify
from train import data, input_pipeline, predictor

# A net of every block, stem, shortcut and padding; the deeper ones repeat them.
FAMILIES = ("ResNet20", "ResNet20-C", "PlainNet20", "ResNet8", "ResNet18-A", "ResNet50V2", "ResNet50D", "SEResNet50")
FAMILIES += ("ResNeXt50_32x4d",)
ALL = [name for name, row in formats.FORMATS.items() if row.preparation not in (None, "channel_pruned")]
SPARSITY, CLUSTERS = 0.7, 16


@pytest.fixture(scope="module")
def export(digits_run, tmp_path_factory):
    """Folder of all fine-tuned formats of the digits net, by the real command."""
    output = tmp_path_factory.mktemp("exports") / "tuned"
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={output}", f"--formats=float32,int8,{','.join(ALL)}"]
    flags += ["--finetune_epochs=10", f"--sparsity={SPARSITY}", f"--clusters={CLUSTERS}", "--max_top1_drop=3"]
    done = run("export/main.py", *flags)
    assert done.stderr == ""
    assert done.stdout.count("fine-tuning: pruned,") == 1  # for two formats
    return output


def card(folder):
    return json.loads((folder / "card.json").read_text())


def kernels(path):
    """Arrays of the kernels in a file, in the order of execution: (channels, ...)."""
    model = schema.ModelT.InitFromPackedBuf(pathlib.Path(path).read_bytes())
    (graph,), found = model.subgraphs, []
    weighted = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED)
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode in weighted:
            tensor = graph.tensors[operator.inputs[1]]
            dtype = {schema.TensorType.FLOAT32: "float32", schema.TensorType.INT8: "int8"}[tensor.type]
            found.append(np.asarray(model.buffers[tensor.buffer].data, "uint8").view(dtype).reshape(tensor.shape))
    return found


@pytest.fixture(scope="module")
def deviations():
    return json.loads(run("tests/twins.py", *FAMILIES).stdout.splitlines()[-1])


@pytest.mark.contract
@pytest.mark.parametrize("case", FAMILIES)
def test_a_twin_computes_what_its_net_does(deviations, case):
    assert deviations[case] < 2e-5  # of the largest logit


@pytest.mark.smoke
@pytest.mark.parametrize("name", ALL)
def test_a_fine_tuned_file_keeps_its_promise_and_is_on_the_card(export, name):
    report = card(export)
    artifact = report["artifacts"][name]
    assert artifact["failures"] == []
    assert (export / artifact["file"]).exists()
    assert artifact["top1"] >= report["model"]["top1"] - 0.03
    told = artifact["preparation"]
    assert told["epochs"] == 10
    assert told["mirror_difference"] < 1e-5
    assert len(told["history"]) == 10
    assert f"- {name}: fine-tuned" in (export / "card.md").read_text()


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["pruned", "pruned_int8"])
def test_every_kernel_but_the_first_has_the_zeros_asked_for(export, name):
    """Folding batch normalization and quantizing keep zeros; compressed, the file shrinks."""
    report = card(export)["artifacts"]
    first, *others = kernels(export / report[name]["file"])
    assert np.mean(first == 0) < 0.1
    for kernel in others:
        assert np.sum(kernel == 0) >= np.floor(SPARSITY * kernel.size)
    before = report["float32" if name == "pruned" else "int8"]
    assert report[name]["bytes"] == before["bytes"]
    assert report[name]["compressed_bytes"] < (0.5 if name == "pruned" else 0.6) * before["compressed_bytes"]


@pytest.mark.smoke
def test_two_of_four_weights_in_a_row_are_zero(export):
    first, *others = kernels(export / card(export)["artifacts"]["pruned_2_of_4"]["file"])
    for kernel in others:
        fours = (kernel == 0).reshape(-1, 4).sum(axis=1)
        assert fours.min() >= 2
    assert np.mean(first == 0) < 0.1


@pytest.mark.smoke
def test_a_clustered_kernel_has_few_distinct_values(export):
    """In every output channel, as batch normalization scales each channel for itself."""
    report = card(export)["artifacts"]
    for kernel in kernels(export / report["clustered"]["file"]):
        assert max(len(np.unique(channel)) for channel in kernel) <= CLUSTERS
    for kernel in kernels(export / report["clustered_int8"]["file"]):
        assert max(len(np.unique(channel)) for channel in kernel) <= CLUSTERS
    assert report["clustered"]["compressed_bytes"] < 0.6 * report["float32"]["compressed_bytes"]


@pytest.mark.smoke
def test_the_int8_file_is_what_was_trained(export):
    artifact = card(export)["artifacts"]["int8_qat"]
    assert artifact["preparation"]["steps_from_twin"] <= 2
    assert artifact["operators"] == card(export)["artifacts"]["int8"]["operators"]


@pytest.fixture
def staged(digits_run, tmp_path):
    model = predictor.load_keras(str(digits_run / "model.keras"))
    images, _, _ = input_pipeline.arrays(data.load("digits"), "train", 40)
    return pipeline.stage(model, str(tmp_path), images, 1)


@pytest.mark.smoke
def test_a_file_unlike_its_twin_is_refused(staged, digits_run, monkeypatch):
    """Where the ranges of training are not the file's."""
    arguments = {"model_path": f"{digits_run}/model.keras", "image_shape": (8, 8, 1), "preprocessing": None}
    settings = finetune.Settings(1, 0.5, 8, 0.5, arguments | {"spec": None, "data_dir": None, "class_index": None})
    images = staged.calibration_images
    right = finetune.prepared("qat", staged, settings, images)
    assert right.failure == ""
    assert all(seen.means is None for seen in right.ranges.values())
    narrow = {name: (low / 4, high / 4) for name, (low, high) in finetune._rounded_ranges(staged).items()}
    monkeypatch.setattr(finetune, "_rounded_ranges", lambda net: narrow)
    wrong = finetune.prepared("qat", staged, settings, images)
    assert "does not compute what was trained" in wrong.failure
    result = pipeline.produce("int8_qat", wrong, None, verify.Gate())
    assert result.path is None
    assert result.failures == [wrong.failure]


@pytest.mark.smoke
def test_a_net_of_unknown_layers_is_not_fine_tuned(tmp_path):
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=8, name="depthwise")(image)
    scores = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    keras.Model(image, scores, name="theirs").save(tmp_path / "theirs.keras")
    flags = [f"--model={tmp_path}/theirs.keras", f"--output_dir={tmp_path}/out", "--calibration_data=digits"]
    run("export/main.py", *flags, "--eval_data=digits", "--formats=float32,pruned", "--eval_images=50", code=1)
    assert "'depthwise'" in card(tmp_path / "out")["artifacts"]["pruned"]["failures"][0]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["card.json", "card.md", "card.png", "theirs_float32.tflite"]
    script = f"import keras; from export import twin; twin.mirror(keras.saving.load_model('{tmp_path}/theirs.keras'))"
    done = run("-c", script, code=1)
    assert "Received: 'depthwise', a DepthwiseConv2D." in done.stderr


BAD_FLAGS = {
    "sparsity": (["--sparsity=1.5"], "Expected sparsity to be a share between 0 and 1. Received: --sparsity=1.5"),
    "clusters": (["--clusters=1"], "clusters"),
    "epochs": (["--finetune_epochs=0"], "finetune_epochs"),
    "no data": ([], "Which images?"),
    "other images": (["--finetune_data=synthetic"], "The images are not the model's. Expected: (8, 8, 1)"),
    "no training images": (["--finetune_data=folder:{}/empty"], "Expected folders"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("case", BAD_FLAGS)
def test_wrong_input_is_refused_and_nothing_is_written(digits_run, tmp_path, case):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "model.keras").write_bytes((digits_run / "model.keras").read_bytes())
    flags, text = BAD_FLAGS[case]
    asked = [f"--model={tmp_path}/net/model.keras", "--eval_data=digits", "--formats=pruned"]
    flags = [flag.format(tmp_path) for flag in flags]
    code = 1 if case in {"clusters", "epochs"} else 2  # absl's own checks of flags end with 1
    done = run("export/main.py", *asked, *flags, f"--output_dir={tmp_path}/out", code=code)
    assert text in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.smoke
def test_a_child_that_fails_fails_its_formats_alone(staged, monkeypatch, tmp_path):
    (tmp_path / "twin.py").write_text("raise SystemExit('no memory left')")
    monkeypatch.setattr(finetune, "TWIN", str(tmp_path / "twin.py"))
    settings = finetune.Settings(1, 0.5, 8, 0.5, {})
    failed = finetune.prepared("pruned", staged, settings, staged.calibration_images)
    assert "no memory left" in failed.failure
    assert pipeline.produce("pruned", failed, None, verify.Gate()).failures == [failed.failure]


@pytest.mark.unit
def test_ranges_are_given_for_what_the_file_rounds(staged):
    ranges = finetune._rounded_ranges(staged)
    quantized = quantization.quantize(staged.graph, formats.FORMATS["int8_qat"].scheme, staged.ranges)
    for operator in quantized.operators:
        if operator.output.name in ranges:
            low, high = ranges[operator.output.name]
            assert operator.output.scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)
    assert {one.name for one in staged.graph.activations()} - {*ranges} == {"pixels"}


def test_importing_the_exporter_leaves_the_second_keras_out():
    from export import main  # noqa: F401

    assert not {"tensorflow_model_optimization", "tf_keras"} & {*sys.modules}
