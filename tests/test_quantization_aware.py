"""Nets that train with the numbers of their int8 file: the file gives what they give."""

import json

import golden
import keras
import numpy as np
import pytest
from conftest import run

import keras_resnet
from export import calibration, flatbuffer, pipeline, quantization, verify, walk
from export.formats import FORMATS
from keras_resnet import quantization_aware, quantized_layers
from train import data, input_pipeline, predictor, scoring

INT8 = FORMATS["int8"].scheme


def int8_scores(model, images, tmp_path):
    """Scores of the int8 file of a quantization-aware model, and the step of its output scale."""
    net = walk.from_keras(model, 1)
    ranges = {name: calibration.Range(*seen) for name, seen in net.ranges.items()}
    path = tmp_path / "int8.tflite"
    path.write_bytes(flatbuffer.to_bytes(quantization.quantize(net, INT8, ranges)))
    (output,) = predictor.open_tflite(str(path)).get_output_details()
    return predictor.from_tflite(str(path)).predict(images), output["quantization"][0]


def steps_apart(model, images, tmp_path):
    """Largest difference between the scores of a settled model and its int8 file, in steps of their scale."""
    scores, step = int8_scores(model, images, tmp_path)
    return np.abs(scores - predictor.from_keras(model).predict(images)).max() / step


def settled_on(images, model):
    return quantization_aware.settled(quantization_aware.convert(model, images.astype("float32"), 1))


@pytest.mark.contract
@pytest.mark.parametrize(
    "case",
    ["ResNet8", "ResNet20", "ResNet20-C", "PlainNet20", "ResNet18", "ResNet50", "ResNet50D", "SEResNet50"],
)
def test_the_int8_file_gives_what_the_net_gives(case, tmp_path):
    """Of random weights, which make much of every tie that is rounded apart: of a settled net, none is."""
    name, arguments = golden.CASES[case]
    size = 32 if name in ("ResNet8", "ResNet20", "PlainNet20") else 64
    options = {"input_shape": (size, size, 3), "classes": 10, "classifier_activation": None}
    model = keras_resnet.build(name, weights=None, include_preprocessing=True, **options, **arguments)
    golden.seed_weights(model)
    images = np.random.default_rng(0).integers(0, 256, (20, size, size, 3)).astype("uint8")
    aware = quantization_aware.convert(model, images.astype("float32"), 10)
    trained = predictor.from_keras(aware).predict(images)
    settled = quantization_aware.settled(aware)
    settled.save(tmp_path / "model.keras")
    settled = predictor.load_keras(str(tmp_path / "model.keras"))
    assert steps_apart(settled, images, tmp_path) < 1e-3
    expected = predictor.from_keras(settled).predict(images)
    steps = np.abs(trained - expected) / settled.get_layer("predictions").steps[1]
    assert np.mean(steps) < (2 if name == "SEResNet50" else 1.5)  # which rounds its products as well
    assert steps.max() < 10
    exact = predictor.from_keras(model).predict(images)
    error = np.sqrt(np.mean((expected - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.2  # it rounds, and it is the same net


@pytest.mark.unit
@pytest.mark.parametrize("means", [(0.5, 0.5, 0.5), (0.499, 0.377, 0.57), (0.397, 0.373, 0.353)])
def test_the_int8_file_subtracts_the_mean_as_the_net_does(means, tmp_path):
    """All 256 values of a pixel; of these means, sums in float32 round one value or all odd ones the other way."""
    pixels = keras.Input((1, 1, 3))
    centred = keras.layers.Rescaling([1.0] * 3, [-255 * mean for mean in means])(pixels)
    conv = keras.layers.Conv2D(3, 1)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(conv(centred)))
    conv.kernel.assign(np.eye(3)[None, None])  # so that the scores are the pixels less the mean
    images = np.arange(256, dtype="uint8")[:, None, None, None].repeat(3, axis=-1)
    assert steps_apart(settled_on(images, model), images, tmp_path) < 1e-3


@pytest.mark.unit
def test_pixels_from_which_nothing_is_subtracted_stay_as_in_the_file(tmp_path):
    pixels = keras.Input((1, 1, 3))
    scaled = keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(scaled))
    images = np.random.default_rng(0).integers(0, 200, (64, 1, 1, 3)).astype("uint8")
    assert steps_apart(settled_on(images, model), images, tmp_path) < 1e-3


@pytest.mark.unit
def test_ties_of_a_mean_go_as_in_the_file(tmp_path):
    pixels = keras.Input((1, 2, 1))
    conv = keras.layers.Conv2D(1, 1)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(conv(pixels)))
    conv.kernel.assign([[[[1.0]]]])
    whole = np.arange(256, dtype="uint8")[:, None, None, None].repeat(2, axis=2)  # so that all scales are 1
    images = np.concatenate([whole[:-1, :, :1], whole[1:, :, :1]], axis=2)
    assert steps_apart(settled_on(whole, model), images, tmp_path) == 0


@pytest.mark.unit
def test_a_block_that_adds_nothing_does_not_end_in_an_error():
    zeros = np.zeros((1, 2), "float32")
    assert np.array_equal(quantized_layers.QuantizedAdd(steps=[1.0, 1.0, 1e-12])([zeros, zeros]), zeros)


@pytest.mark.unit
def test_products_are_scaled_whole_in_a_graph_too():
    """TensorFlow's graphs multiply the smaller factor by a constant first, which rounds some ties the other way."""
    import tensorflow as tf

    steps = np.float32([0.04462060704827309, 1 / 256, 0.0340191125869751])  # of an SEResNet50: 21 * 237 makes 25.5
    integers = np.arange(256)
    inputs = [integers[None, :, None, None] * steps[0], integers[None, None, None, :] * steps[1]]
    layer = quantized_layers.QuantizedMultiply(steps=steps.tolist())
    found = tf.function(lambda x, gate: layer([x, gate]))(
        tf.repeat(tf.constant(inputs[0], "float32"), 256, axis=-1), tf.constant(inputs[1], "float32")
    )
    products = np.float32(np.multiply.outer(integers, integers))
    expected = np.round(products * (steps[0] * steps[1] / steps[2]))
    assert np.array_equal(np.round(found[0, :, 0] / steps[2]), expected)


@pytest.fixture
def digits_net(digits_run):
    model = predictor.load_keras(str(digits_run / "model.keras"))
    images, _, _ = input_pipeline.arrays(data.load("digits"), "train", 100)
    return quantization_aware.convert(model, images.astype("float32"), 3), images.astype("float32")


@pytest.mark.unit
def test_batch_norm_is_gone_and_every_rounding_has_a_range(digits_net):
    model, _ = digits_net
    kinds = [type(layer) for layer in model.layers]
    assert keras.layers.BatchNormalization not in kinds
    # Of ResNet-8: pixels less the mean, 9 convolutions of which 4 end in their ReLU, 3 additions, the mean, the scores.
    assert kinds.count(quantized_layers.ActivationRange) == 1 + 9 + 3 + 2
    assert {weight.name for weight in model.trainable_weights} == {"kernel", "bias"}


@pytest.mark.unit
def test_ranges_follow_the_batches_and_freeze(digits_net):
    model, _ = digits_net
    layer = model.get_layer("stem_relu_range")
    assert float(layer.range_updates) == 1
    high = float(layer.range_high)
    probe = quantized_layers.ActivationRange(3)
    probe(np.array([[-1.0, 4.0]]), training=True)
    assert [float(value) for value in probe.get_weights()] == [-1.0, 4.0, 1.0]  # the first batch is taken whole
    probe(np.array([[-2.0, 14.0]]), training=True)
    assert probe.get_weights()[:2] == pytest.approx([-1.01, 4.1])
    probe(np.array([[2.0, 3.0]]), training=True)
    assert probe.get_weights()[:2] == pytest.approx([-1.01 * 0.99, 4.1 * 0.99 + 0.03])
    before = probe.get_weights()[:2]
    probe(np.array([[-50.0, 50.0]]), training=True)
    assert probe.get_weights()[:2] == before  # three batches were seen
    probe(np.array([[-50.0, 50.0]]), training=False)
    assert probe.get_weights()[:2] == before
    assert high > 0


@pytest.mark.unit
def test_gradients_pass_the_rounding_but_not_the_ends_of_the_range():
    import tensorflow as tf

    x = tf.constant([-3.0, -0.51, 0.2, 0.9, 7.0])
    kernel = tf.constant([[0.3, -1.0], [0.0312, 0.77]])
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        rounded, weights = (
            quantized_layers.rounded_activation(x, -1.0, 2.0),
            quantized_layers.rounded_kernel(kernel),
        )
        total = tf.reduce_sum(rounded) + tf.reduce_sum(2 * weights)
    by_x, by_kernel = tape.gradient(total, [x, kernel])
    assert by_x.numpy().tolist() == [0, 1, 1, 1, 0]
    assert by_kernel.numpy().tolist() == [[2, 2], [2, 2]]
    assert np.allclose(np.round(rounded * 255 / 3) * 3 / 255, rounded, atol=1e-6)
    assert np.allclose(np.round(weights * 127 / [0.3, 1.0]) * [0.3, 1.0] / 127, weights, atol=1e-6)
    assert not np.allclose(weights, kernel, atol=1e-4)


@pytest.mark.unit
def test_a_settled_net_rounds_to_integers_but_not_in_training(digits_net):
    import tensorflow as tf

    aware, images = digits_net
    model = quantization_aware.settled(aware)
    for layer in model.layers:
        if hasattr(layer, "deployed_kernel"):
            product = layer.steps[0] * np.ravel(quantized_layers.kernel_scale(layer.deployed_kernel))
            assert np.allclose(layer.bias / product, np.round(layer.bias / product), atol=0.01)
    (output,) = [layer for layer in model.layers if layer.output is model.outputs[0]]
    step = model.get_layer("predictions").steps[1]
    assert isinstance(output, quantized_layers.ActivationRange)
    before = keras.Model(model.inputs[0], output.input)
    with tf.GradientTape() as tape:
        scores = before(images, training=True)
    assert np.abs(scores / step - np.round(scores / step)).max() > 0.4
    assert all(np.any(gradient) for gradient in tape.gradient(scores, before.trainable_weights))
    assert np.allclose(before(images) / step, np.round(before(images) / step), atol=1e-4)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("ResNet50V2", {}, "V2 nets are quantized after training"),
        ("ResNet8", {"classifier_activation": "softmax"}, "'predictions' with softmax"),
        (
            "ResNet20",
            {"shortcut": "scaled"},
            "alone are rescaled. Received: 'stage1_block1_shortcut_scale'",
        ),
        ("ResNet20", {"shortcut": "gated"}, "whose pixels alone are rescaled"),
    ],
)
def test_nets_without_a_quantization_aware_form_are_refused(name, options, text):
    options = {"classifier_activation": None, "include_preprocessing": True} | options
    model = keras_resnet.build(name, weights=None, input_shape=(32, 32, 3), **options)
    with pytest.raises(ValueError, match=text):
        quantization_aware.convert(model, np.zeros((1, 32, 32, 3), "float32"), 1)


@pytest.fixture(scope="module")
def qat_run(digits_run, tmp_path_factory):
    """Run folder of --qat on from the digits net, two replicas, by the real command."""
    workdir = tmp_path_factory.mktemp("qat") / "run"
    flags = [f"--weights={digits_run}/model.keras", "--model=ResNet8", "--strategy=mirrored", "--epochs=2"]
    run("train/main.py", "--qat", *flags, f"--workdir={workdir}")
    return workdir


@pytest.mark.smoke
def test_qat_exports_int8_without_calibration_images(qat_run, digits_run, tmp_path):
    run("export/main.py", f"--model={qat_run}/model.keras", f"--output_dir={tmp_path}/out", "--min_agreement=0.99")
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert [*card["artifacts"]] == ["saved_model", "int8", "int8_float_io"]
    assert card["data"]["calibration_indices"] == []
    source = data.load("digits")
    trained = predictor.load(str(digits_run / "model.keras"))
    before = scoring.score(*scoring.predict(trained, source, "test")).top1
    assert card["artifacts"]["int8"]["top1"] >= before - 0.01
    images, _, _ = input_pipeline.arrays(source, "test", 200)
    model = predictor.load_keras(str(qat_run / "model.keras"))
    assert steps_apart(model, images, tmp_path) < 1e-3
    anywhere = predictor.from_keras(predictor.for_any_size(model)).predict(images)
    assert np.array_equal(anywhere, predictor.from_keras(model).predict(images))


@pytest.mark.smoke
def test_a_net_of_qat_is_not_pruned_and_the_command_says_so_at_once(qat_run, tmp_path):
    flags = [f"--model={qat_run}/model.keras", f"--output_dir={tmp_path}/out", "--formats=int8,pruned"]
    done = run("export/main.py", *flags, code=2)
    assert "pruned nets are made of a net in float" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.unit
def test_a_float_file_of_a_net_of_qat_is_told_to_be_another_net(digits_net, tmp_path):
    aware, images = digits_net
    staged = pipeline.stage(aware, str(tmp_path), images.astype("uint8"), 1)
    examination = pipeline.examine_keras(aware, data.load("digits"), 20)
    failures = {
        name: pipeline.produce(name, staged, examination, verify.Gate(max_size_mb=1e-6)).failures
        for name in ("float32", "int8")
    }
    assert failures["float32"][-1].startswith(
        "it is held against a net trained with --qat, which rounds as int8 does; float32 of it is another net: take "
    )
    assert not any("--qat" in text for text in failures["int8"])


@pytest.mark.smoke
def test_ranges_were_trained_and_froze(qat_run):
    model = predictor.load_keras(str(qat_run / "model.keras"))
    layer = model.get_layer("stage1_block1_out_range")
    steps = 2 * (1438 * 9 // 10 // 64)
    assert layer.freeze_after == steps // 2
    assert float(layer.range_updates) == steps + 1  # and the images that it began with
    assert len((qat_run / "history.csv").read_text().splitlines()) == 3


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--qat"], "Expected --weights with --qat"),
        (["--qat", "--weights=x", "--mixed_precision=bfloat16"], "--mixed_precision=bfloat16. Leave them out"),
        (["--qat", "--weights=x", "--freeze_backbone"], "--freeze_backbone=true"),
        (["--qat", "--weights=/absent.keras"], "absent.keras"),
    ],
)
def test_qat_that_cannot_be_is_refused(flags, text, tmp_path):
    done = run("train/main.py", *flags, "--model=ResNet8", f"--workdir={tmp_path}/run", code=2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
