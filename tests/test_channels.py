"""Whole channels left out: what is left computes the same, is smaller and faster to compute, and is trained on."""

import dataclasses
import json
import re

import golden
import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import run

from export import channels, finetune, inputs, pipeline, walk
from keras_resnet import quantization_aware
from train import config, data, distillation, input_pipeline, predictor

# How many convolutions make inner channels; a net of every block, stem, shortcut and padding.
INNER = {
    "ResNet20": 9, "ResNet20-C": 9, "ResNet8": 3, "ResNet18-A": 8, "PlainNet20": 18, "ResNet50": 32,
    "ResNet50-v1.5": 32, "ResNet50V2": 32, "ResNet50D": 34, "SEResNet50": 48,
}  # fmt: skip


@pytest.mark.contract
@pytest.mark.parametrize("case", INNER)
def test_channels_of_zeros_leave_and_nothing_changes(case):
    """Half of the inner channels, drawn at random, are made to compute zeros: these are the ones that go."""
    model = golden.build(case)
    inner = channels.find(model)
    assert len(inner) == INNER[case]
    rng, stays = np.random.default_rng(0), {}
    for one in inner:
        order = rng.permutation(one.maker.filters)
        stays[one.maker.name] = np.sort(order[: one.maker.filters // 2])
        for layer in (one.maker, *one.between):
            layer.set_weights([_zeroed(weight.numpy(), order[one.maker.filters // 2 :]) for weight in layer.weights])
    kept = channels.choose(model, 0.5)
    for name, numbers in kept.items():
        assert np.array_equal(numbers, stays[name])
    smaller, expected = channels.without(model, kept), golden.logits(model)
    assert np.abs(golden.logits(smaller) - expected).max() < 1e-5 * np.abs(expected).max()
    assert smaller.count_params() < 0.8 * model.count_params()
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    walk.from_keras(smaller, 1)


def _zeroed(weight, numbers):
    weight[..., numbers] = 0
    return weight


@pytest.mark.unit
def test_channels_that_a_block_adds_to_stay():
    model = golden.build("ResNet50")
    smaller = channels.without(model, channels.choose(model, 0.75))
    for layer in smaller.layers:
        if isinstance(layer, keras.layers.Conv2D):
            before = model.get_layer(layer.name).filters
            assert layer.filters == (before // 4 if re.search(r"block\d_conv[12]$", layer.name) else before)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("filters", "share", "stay"),
    [(16, 0.5, 8), (64, 0.3, 48), (64, 0.99, 8), (16, 0.2, 16), (8, 0.9, 8), (6, 0.5, 6)],
)
def test_channels_stay_in_eights(filters, share, stay):
    assert channels._num_kept(filters, share) == stay


@pytest.mark.unit
def test_a_net_without_channels_that_can_go_is_refused():
    with pytest.raises(ValueError, match=r"no channels that can go.*resnext50_32x4d, with a share of 0\.5"):
        channels.choose(golden.build("ResNeXt50_32x4d"), 0.5)


@pytest.mark.smoke
def test_the_net_learns_the_teachers_answers_and_not_the_labels(digits_run):
    teacher, source = predictor.load_keras(f"{digits_run}/model.keras"), data.load("digits")
    student = channels.without(teacher, channels.choose(teacher, 0.5))
    fields = {"data": "digits", "epochs": 2, "warmup_epochs": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0}
    options = config.make(fields)
    split = source.splits["train"]

    def mislabelled():
        read = split.open()
        return lambda position: (row := read(position)) | {"label": tf.zeros_like(row["label"])}

    splits = source.splits | {"train": dataclasses.replace(split, open=mislabelled)}
    learned, history = distillation.fine_tune(student, teacher, source, options)
    other, _ = distillation.fine_tune(student, teacher, dataclasses.replace(source, splits=splits), options)
    for ours, theirs in zip(learned.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(ours, theirs)
    images, _, _ = input_pipeline.arrays(source, "test")
    wanted = keras.ops.softmax(predictor.from_keras(teacher).predict(images))

    def loss(model):
        scores = predictor.from_keras(model).predict(images)
        return float(keras.ops.mean(keras.losses.categorical_crossentropy(wanted, scores, from_logits=True)))

    assert loss(learned) < 0.5 * loss(student)
    assert [*map(len, (history, history[0]))] == [2, 5]


@pytest.fixture(scope="module")
def export(digits_run, tmp_path_factory):
    """Folder of the digits net and of half its inner channels, by the real command."""
    output = tmp_path_factory.mktemp("exports") / "cut"
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={output}", "--max_top1_drop=3"]
    flags += [f"--formats=float32,int8,{','.join(PRUNED)}", "--finetune_epochs=10"]
    done = run("export/main.py", *flags)
    assert done.stderr == ""
    assert done.stdout.count("fine-tuning: channel_pruned,") == 1  # for two formats
    return output


PRUNED = {"channel_pruned": "float32", "channel_pruned_int8": "int8"}


@pytest.mark.smoke
@pytest.mark.parametrize(("name", "whole"), PRUNED.items())
def test_a_file_of_fewer_channels_is_smaller_and_keeps_its_promise(export, name, whole):
    card = json.loads((export / "card.json").read_text())
    artifact, before = card["artifacts"][name], card["artifacts"][whole]
    assert artifact["failures"] == []
    assert artifact["top1"] >= card["model"]["top1"] - 0.03
    assert artifact["operators"] == before["operators"]
    assert artifact["bytes"] < (0.65 if whole == "float32" else 0.75) * before["bytes"]
    told = artifact["preparation"]
    assert told["parameters"] < 0.6 * told["before"]["parameters"] == 0.6 * card["model"]["parameters"]
    assert told["before"][whole]["bytes"] == before["bytes"]
    assert [*told["before"][whole]["latency_ms"]] == ["1", "2"]
    page = (export / "card.md").read_text()
    assert (
        f"before: {card['model']['parameters']:,} parameters, float32 {told['before']['float32']['bytes']:,} bytes"
        in page
    )


@pytest.mark.unit
@pytest.mark.parametrize(
    ("share", "left"), [(0.25, {16: 16, 32: 24, 64: 48}), (0.5, {16: 8, 32: 16, 64: 32}), (0.9, {16: 8, 32: 8, 64: 8})]
)
def test_a_net_is_fine_tuned_by_the_plain_recipe_whatever_its_run_was_trained_by(monkeypatch, tmp_path, share, left):
    """And the card says how many channels are left, which eights make another share than was asked for."""
    model, configs = golden.build("ResNet20"), []
    hostile = {
        "schedule": "steps", "warmup_epochs": 3.0, "optimizer": "adamw", "momentum": 0.5, "nesterov": False,
        "weight_decay": 0.1, "clip_norm": 1.0, "loss": "bce", "label_smoothing": 0.1, "ema": 0.99,
        "mixed_precision": "bfloat16",
    }  # fmt: skip
    options = config.make({"data": "digits", "epochs": 200, "learning_rate": 5.0} | hostile)
    monkeypatch.setattr(finetune.training, "open_images", lambda asked: (None, options))
    monkeypatch.setattr(finetune.distillation, "fine_tune", lambda net, *rest: configs.append(rest[2]) or (net, []))
    images = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
    staged = pipeline.stage(model, str(tmp_path), images, 1)
    made = finetune.prepared("channel_pruned", staged, finetune.Settings(2, 0.5, 8, share, {}), images)
    assert made.failure == ""
    plain = {
        "schedule": "cosine", "warmup_epochs": 0.0, "optimizer": "sgd", "momentum": 0.9, "nesterov": True,
        "weight_decay": 0.0, "clip_norm": 0.0, "loss": "cross_entropy", "label_smoothing": 0.0, "ema": 0.0,
        "mixed_precision": "none", "epochs": 2, "learning_rate": 0.05,
    }  # fmt: skip
    assert {name: getattr(configs[0], name) for name in plain} == plain
    told = made.preparation
    assert told["inner_channels"] == f"{3 * sum(left.values())} of 336"
    assert {layer.filters for layer in made.model.layers if layer.name.endswith("_conv1")} == {*left.values()}
    assert told["parameters"] == made.model.count_params() < told["before"]["parameters"]


@pytest.mark.unit
@pytest.mark.parametrize("kind", finetune.PREPARATIONS)
def test_a_net_of_qat_is_told_to_be_pruned_before(digits_run, tmp_path, kind):
    model = predictor.load_keras(str(digits_run / "model.keras"))
    images, _, _ = input_pipeline.arrays(data.load("digits"), "train", 40)
    aware = quantization_aware.convert(model, images.astype("float32"), 1)
    staged = pipeline.stage(aware, str(tmp_path), images, 1)
    failure = finetune.prepared(kind, staged, finetune.Settings(1, 0.5, 8, 0.5, {}), images).failure
    assert failure.startswith(f"{kind} nets are made of a net in float. Expected one that was trained without --qat.")
    with pytest.raises(ValueError, match=f"^{kind} nets are made of a net in float"):
        inputs.open_training(aware, [kind], None)


@pytest.mark.unit
def test_without_validation_images_a_line_says_so(digits_run):
    teacher, source = predictor.load_keras(f"{digits_run}/model.keras"), data.load("digits")
    splits = {name: split for name, split in source.splits.items() if name != "validation"}
    options = config.make({"data": "digits", "epochs": 1, "warmup_epochs": 0.0})
    with pytest.raises(
        ValueError, match=r"with these, as train\.data\.load holds them out\. Received: digits, with test, train"
    ):
        distillation.fine_tune(teacher, teacher, dataclasses.replace(source, splits=splits), options)


@pytest.mark.smoke
def test_a_net_without_blocks_fails_its_format_alone(tmp_path):
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, name="conv")(image))
    keras.Model(image, keras.layers.Dense(10)(x), name="theirs").save(tmp_path / "theirs.keras")
    flags = [f"--model={tmp_path}/theirs.keras", f"--output_dir={tmp_path}/out", "--calibration_data=digits"]
    flags += ["--eval_data=digits", "--eval_images=50", "--formats=float32,channel_pruned"]
    done = run("export/main.py", *flags, code=1)
    assert "Traceback" not in done.stderr
    artifacts = json.loads((tmp_path / "out/card.json").read_text())["artifacts"]
    assert artifacts["float32"]["failures"] == []
    assert "The net has no channels that can go." in artifacts["channel_pruned"]["failures"][0]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tflite")) == ["theirs_float32.tflite"]


@pytest.mark.smoke
def test_a_share_of_channels_is_between_0_and_1(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--formats=channel_pruned"]
    done = run("export/main.py", *flags, "--channel_sparsity=1", code=2)
    assert "Expected channel_sparsity to be a share between 0 and 1. Received: --channel_sparsity=1.0." in done.stderr
    assert not (tmp_path / "out").exists()
