"""The scan by block: what is fragile is found, the fewest blocks stay in float, and no scored image decides."""

import dataclasses
import functools
import json

import golden
import keras
import numpy as np
import pytest
from conftest import run
from matplotlib.image import imread

import keras_resnet
from export import calibration, flatbuffer, inputs, pictures, pipeline, quantization, sensitivity, verify, walk
from export.formats import FORMATS
from keras_resnet import quantization_aware
from train import data, input_pipeline, predictor

BLOCKS = ["stem", "stage1_block1", "stage2_block1", "stage3_block1", "head"]  # of ResNet-8


def make_fragile(model, *blocks):
    """The same function in float32: one channel 10,000 times larger, its next weights as much smaller.

    In int8 it leaves the other channels of its layer no resolution.
    """
    for block in blocks:
        norm, next_conv = (model.get_layer(f"{block}_{name}") for name in ("bn1", "conv2"))
        gamma, beta, *statistics = norm.get_weights()
        (kernel,) = next_conv.get_weights()
        gamma[0], beta[0], kernel[:, :, 0] = 1e4 * gamma[0], 1e4 * beta[0], kernel[:, :, 0] / 1e4
        norm.set_weights([gamma, beta, *statistics])
        next_conv.set_weights([kernel])
    return model


@pytest.fixture
def digits_net(digits_run):
    """Function from names of blocks to what `sensitivity.choose` takes, of a digits net in which these are fragile."""

    def prepared(*fragile):
        model = make_fragile(predictor.load_keras(str(digits_run / "model.keras")), *fragile)
        graph, source = walk.from_keras(model, 1), data.load("digits")
        images, _, _ = input_pipeline.arrays(source, "train", 100)
        scheme, ranges = FORMATS["int8_mixed"].scheme, calibration.observe(graph, images)
        quantized = functools.partial(quantization.quantize, graph, scheme, ranges)
        held_out = dataclasses.replace(source, splits={"test": source.splits["validation"]})
        return graph, quantized, images, pipeline.examine_keras(model, held_out, 1000)

    return prepared


@pytest.mark.unit
@pytest.mark.parametrize("fragile", [("stage1_block1",), ("stage2_block1",), ("stage1_block1", "stage3_block1")])
def test_exactly_the_fragile_blocks_stay_in_float(digits_net, fragile):
    graph, quantized, images, held_out = digits_net(*fragile)
    kept, scan = sensitivity.choose(graph, quantized, images, held_out, verify.Gate(max_top1_drop=1.0))
    assert {*scan["float_blocks"]} == {*fragile}
    assert {*kept} == {name for block in fragile for name in sensitivity.blocks(graph)[block]}
    errors = scan["errors"]
    assert [*errors] == sorted(errors, key=errors.get, reverse=True)
    robust = max(error for block, error in errors.items() if block not in fragile)
    assert min(errors[block] for block in fragile) > 5 * robust
    last, whole = scan["steps"][-1], len(flatbuffer.to_bytes(graph))
    assert (last["num_float"], last["top1"], last["agreement"]) == (5, held_out.top1, 1.0)
    assert abs(last["bytes"] - whole) < 2000
    sizes = [step["bytes"] for step in scan["steps"]]
    assert sizes[:-1] == sorted(sizes[:-1])
    assert scan["held_out_images"] == len(held_out.labels)


@pytest.mark.unit
def test_where_int8_is_enough_no_block_stays_in_float(digits_net):
    kept, scan = sensitivity.choose(*digits_net(), verify.Gate(max_top1_drop=2.0))
    assert (kept, scan["float_blocks"]) == ([], [])
    assert max(scan["errors"].values()) < 0.05


@pytest.mark.unit
def test_agreement_that_is_asked_for_counts_too(digits_net):
    net = digits_net("stage2_block1")
    _, generous = sensitivity.choose(*net, verify.Gate(max_top1_drop=100.0))
    _, strict = sensitivity.choose(*net, verify.Gate(max_top1_drop=100.0, min_agreement=0.98))
    assert generous["float_blocks"] == []
    assert strict["float_blocks"] == ["stage2_block1"]


@pytest.mark.unit
@pytest.mark.parametrize(("fewest", "tried"), [(0, [0, 1, 2, 4, 5]), (2, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])])
def test_steps_go_one_by_one_to_the_choice_and_by_doubling_behind_it(digits_net, fewest, tried):
    graph, quantized, _, held_out = digits_net()
    chosen, found = sensitivity.steps(graph, quantized, BLOCKS, held_out, lambda step: step.num_float >= fewest)
    assert [step.num_float for step in found] == tried
    assert chosen.num_float == min(fewest, 5)


@pytest.mark.contract
@pytest.mark.parametrize("case", ["ResNet20", "ResNet50", "ResNet50V2", "PlainNet20"])
def test_blocks_hold_every_activation_once_in_order(case):
    graph = walk.from_keras(golden.build(case), 1)
    found = sensitivity.blocks(graph)
    assert [name for names in found.values() for name in names] == [one.name for one in graph.activations()[1:]]
    first, *middle, last = found
    assert (first, last) == ("stem", "head")
    assert len(middle) == {"ResNet20": 9, "PlainNet20": 9}.get(case, 16)
    assert all(name.startswith(block) for block in middle for name in found[block])


@pytest.mark.unit
def test_a_net_without_blocks_is_scanned_by_layer():
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, name="first")(image)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(keras.layers.Conv2D(4, 3, name="second")(x))
    graph = walk.from_keras(keras.Model(image, keras.layers.Dense(3, name="scores")(x)), 1)
    assert sensitivity.blocks(graph) == {name: [name] for name in ("first", "second", "mean", "scores")}


@pytest.mark.unit
def test_no_scored_image_is_among_those_that_decide(photographs):
    digits, folder = data.load("digits"), data.load(f"folder:{photographs}")
    split, words = inputs._held_out(digits, np.array([0]))
    assert words == "validation images of digits"
    assert split is digits.splits["validation"]
    images, tested = (input_pipeline.arrays(digits, name)[0] for name in ("validation", "test"))
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in tested}
    train = folder.splits["train"]
    split, words = inputs._held_out(folder, train.positions[:2])  # its validation images are the test's
    assert words.endswith("that did not calibrate")
    assert (split.open, split.positions.tolist()) == (train.open, train.positions[2:].tolist())
    split, words = inputs._held_out(folder, train.positions[:5])
    assert words.endswith("among them those that calibrated")
    assert split is train


@pytest.mark.smoke
def test_int8_mixed_is_published_with_its_scan_where_int8_fails(digits_run, tmp_path):
    make_fragile(keras.saving.load_model(digits_run / "model.keras"), "stage2_block1").save(tmp_path / "net.keras")
    flags = [f"--model={tmp_path}/net.keras", "--eval_data=digits", "--calibration_data=digits"]
    done = run(
        *("export/main.py", *flags, f"--output_dir={tmp_path}/out", "--formats=int8,int8_mixed"),
        *("--max_top1_drop=1", "--bundle"),
        code=1,
    )
    assert "NOT WRITTEN" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"bundle", "card.json", "card.md", "card.png", "int8_mixed.png", "resnet8_int8_mixed.tflite"}
    assert names == expected
    report = json.loads((tmp_path / "out" / "card.json").read_text())
    artifact = report["artifacts"]["int8_mixed"]
    assert artifact["scan"]["float_blocks"] == ["stage2_block1"]
    assert artifact["scan"]["held_out_images"] == data.load("digits").splits["validation"].num_images
    assert artifact["top1"] >= report["model"]["top1"] - 0.01
    page = (tmp_path / "out" / "card.md").read_text()
    assert "Warning: held-out images: nothing tells that the Keras model was not trained on them" in done.stderr
    assert "is scored above. Warning: nothing tells that" in page
    assert "int8_mixed: in float stage2_block1, the most sensitive (" in page
    assert "validation images of digits" in page
    for name in ("card.png", "int8_mixed.png"):
        picture = imread(tmp_path / "out" / name)
        assert name in page
        assert min(picture.shape[:2]) > 500
        assert picture.std() > 0.05
    run("export/main.py", *flags, f"--output_dir={tmp_path}/out", "--formats=float32", "--overwrite")
    assert not (tmp_path / "out" / "int8_mixed.png").exists()


@pytest.mark.smoke
def test_a_card_says_that_all_in_int8_is_enough(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", "--formats=int8_mixed", "--max_top1_drop=3", "--eval_images=150"]
    done = run("export/main.py", *flags, f"--output_dir={tmp_path}/out")
    assert "held-out" not in done.stderr  # by the run that trained the net
    assert "int8_mixed: no block in float: all in int8 is enough" in (tmp_path / "out" / "card.md").read_text()


def examination(num_right, num_images):
    """Of a net that is right on so many."""
    labels = np.zeros(num_images, "int64")
    expected = np.float32(np.arange(num_images)[:, None] < num_right) * np.float32([1, 0]) + np.float32([0, 0.5])
    return pipeline.Examination(np.zeros((num_images, 1), "uint8"), labels, expected, np.arange(num_images))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("held_out", "tested", "is_own", "text"),
    [
        ((100, 100), (35, 50), False, "right on 100.00% of these 100 and on 70.00% of the 50 test images: it was"),
        ((100, 100), (35, 50), True, "it was trained on the former"),
        ((4590, 5000), (4575, 5000), True, None),  # as on CIFAR-10
        ((45, 50), (42, 50), True, None),  # an accident
        ((4590, 5000), (4575, 5000), False, "nothing tells that"),
        ((30, 50), (50, 50), True, None),  # the harder images are no harm
    ],
)
def test_a_choice_on_images_that_the_net_knows_is_doubted(held_out, tested, is_own, text):
    found = sensitivity.doubts(examination(*held_out), examination(*tested), is_own)
    assert (text in found[0]) if text else not found


@pytest.mark.unit
def test_a_run_s_own_images_are_told_by_its_config(tmp_path):
    (tmp_path / "model.keras").write_text("")
    model = str(tmp_path / "model.keras")
    assert not inputs.is_own_run(model, None)
    (tmp_path / "config.json").write_text('{"data": "digits"}')
    assert inputs.is_own_run(model, None)
    assert inputs.is_own_run(model, "digits")
    assert not inputs.is_own_run(model, "synthetic")
    assert not inputs.is_own_run("ResNet18", "digits")


def fake_report(num_made):
    """A card with that many artifacts, most of them nearly the same, some failed, one not made."""
    rng = np.random.default_rng(0)
    artifacts = {
        name: {
            "bytes": 10**6 if number % 2 else int(4e6 * rng.uniform(0.2, 1)),
            "top1": 0.9 if number % 3 else 0.9 - 0.02 * rng.uniform(),
            "latency_ms": {"1": {"median": 1 + number % 2 * 20}},
            "failures": ["failed"] if number % 5 == 1 else [],
            "scan": {},
        }
        for number, name in enumerate([*FORMATS][:num_made])
    }
    artifacts["int4"] = artifacts["float32"] | {"top1": 0.1, "failures": ["failed"]}
    artifacts["absent"] = dict.fromkeys(artifacts["float32"]) | {"failures": ["no"], "scan": {}}
    return {
        "model": {"name": "net", "top1": 0.9},
        "data": {"num_images": 5000, "eval_data": "digits"},
        "batch_size": 1,
        "artifacts": artifacts,
    }


@pytest.mark.unit
@pytest.mark.parametrize("num_made", [2, 6, len(FORMATS)])
def test_labels_of_the_card_neither_overlap_nor_leave_the_picture(num_made):
    report = fake_report(num_made)
    figure = pictures._draw_card(report)
    figure.draw_without_rendering()
    made = len(report["artifacts"]) - 1
    for axes in figure.axes:
        assert len(axes.texts) == made
        boxes = [text.get_bbox_patch().get_window_extent() for text in axes.texts]
        for number, box in enumerate(boxes):
            assert axes.bbox.x0 - 3 <= box.x0 <= box.x1 <= axes.bbox.x1 + 3
            assert axes.bbox.y0 - 3 <= box.y0 <= box.y1 <= axes.bbox.y1 + 3
            assert not any(box.shrunk(0.9, 0.7).overlaps(other.shrunk(0.9, 0.7)) for other in boxes[:number])
        colours = {text.get_text().partition(",")[0]: text.get_color() for text in axes.texts}
        failed = {name for name, artifact in report["artifacts"].items() if artifact["failures"]} - {"absent"}
        assert {name for name, colour in colours.items() if colour == pictures.FAILED} == failed
        assert "int4, 10.00 %" in {text.get_text() for text in axes.texts}  # far below, at the edge with its value
    assert "Not made: absent" in figure.get_suptitle()


@pytest.mark.unit
def test_the_picture_of_an_export_without_files_says_so(tmp_path):
    failed = {"bytes": None, "failures": ["no channels"], "scan": {}, "latency_ms": {}}
    report = {"model": {"name": "net", "top1": 0.5}, "data": {"num_images": 10, "eval_data": "digits"}, "batch_size": 1}
    pictures.draw(report | {"artifacts": {"channel_pruned": failed}}, tmp_path)
    assert imread(tmp_path / pictures.CARD).std() > 0


@pytest.mark.unit
def test_a_quantization_aware_net_keeps_any_block_in_float(tmp_path):
    model = keras_resnet.ResNet18(
        weights=None, input_shape=(32, 32, 3), classes=4, include_preprocessing=True, classifier_activation=None
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    aware = quantization_aware.convert(model, images.astype("float32"), 1)
    staged = pipeline.stage(aware, tmp_path, images, 1)
    parts = sensitivity.blocks(staged.graph)
    for block in ("stem", "stage2_block1"):  # the stem ends in pooling, which has no range of its own
        mixed = quantization.quantize(staged.graph, FORMATS["int8_mixed"].scheme, staged.ranges, parts[block])
        found = predictor.from_tflite(flatbuffer.to_bytes(mixed)).predict(images)
        expected = np.asarray(aware(images.astype("float32")))
        assert np.abs(found - expected).max() < 0.2 * np.abs(expected).max()
