"""Our own quantization: LiteRT's arithmetic, on trained nets and on what breaks it."""

import golden
import keras
import numpy as np
import pytest
from conftest import run

import keras_resnet
from export import calibration, equivalents, flatbuffer, graph, quantization, rounding, verify, walk
from export.formats import FORMATS, Scheme
from train import data, input_pipeline, predictor


@pytest.fixture(scope="module")
def digits_graph(digits_run):
    """Graph of the trained digits net, its ranges, test images and what the Keras model says of them."""
    model = predictor.load_keras(str(digits_run / "model.keras"))
    source = data.load("digits")
    net = walk.from_keras(model, 1)
    ranges = calibration.observe(net, input_pipeline.arrays(source, "train", 100)[0])
    images, _, _ = input_pipeline.arrays(source, "test", 300)
    return net, ranges, images, predictor.from_keras(model).predict(images)


def scores_of(net, images, tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(flatbuffer.to_bytes(net))
    return predictor.from_tflite(str(path)).predict(images)


# What a trained net keeps in each format: agreement, and root mean square error over that of the scores.
KEPT = {
    "float32": (1.0, 1e-6),
    "float16": (1.0, 2e-3),
    "dynamic": (0.99, 0.03),
    "int8": (0.99, 0.04),
    "int8_float_io": (0.99, 0.04),
    "float16_float_io": (1.0, 2e-3),
    "int8_cpu": (0.99, 0.04),
    "int8_edgetpu": (0.99, 0.04),
    "int8_mixed": (0.99, 0.04),
    "int16x8": (0.99, 0.03),
    "int4": (0.97, 0.2),
}


@pytest.mark.contract
@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.scheme and not row.preparation])
def test_a_format_keeps_what_it_should(digits_graph, tmp_path, name):
    net, ranges, images, expected = digits_graph
    agreement, error = KEPT[name]
    scheme = FORMATS[name].scheme
    stored = rounding.rounded(net, scheme.weights, images[:40]) if scheme.rounding == "optimal" else None
    scores = scores_of(quantization.quantize(net, scheme, ranges, stored=stored), images, tmp_path)
    assert np.mean(scores.argmax(1) == expected.argmax(1)) >= agreement
    assert np.sqrt(np.mean((scores - expected) ** 2) / np.mean(expected**2)) <= error


@pytest.mark.unit
def test_the_given_graph_stays_as_it_is(digits_graph, tmp_path):
    net, ranges, images, expected = digits_graph
    for row in FORMATS.values():
        if row.scheme:
            quantization.quantize(net, row.scheme, ranges)
    assert np.abs(scores_of(net, images[:20], tmp_path) - expected[:20]).max() < 1e-4


@pytest.mark.contract
@pytest.mark.parametrize("uses_xnnpack", [True, False])
@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8", "int8_cpu", "int16x8"])
@pytest.mark.parametrize("case", ["ResNet20", "ResNet18-A", "ResNet50D"])
def test_operators_exchanged_for_speed_give_the_same_bits(case, name, uses_xnnpack, tmp_path, monkeypatch):
    model = golden.build(case)
    images = np.random.default_rng(0).integers(0, 256, (3, *model.input_shape[1:])).astype("uint8")
    net, path, scores, kinds = walk.from_keras(model, 1), tmp_path / "net.tflite", [], []
    ranges = calibration.observe(net, images)
    for is_exchanged in (True, False):
        if not is_exchanged:
            monkeypatch.setattr(equivalents, "exchanged", lambda net, is_for_cpu: net)
        path.write_bytes(flatbuffer.to_bytes(quantization.quantize(net, FORMATS[name].scheme, ranges)))
        scores.append(predictor.from_tflite(str(path), uses_xnnpack=uses_xnnpack).predict(images))
        kinds.append(verify.count_operators(str(path))[0])
    assert np.array_equal(*scores)
    has_shortcut_a = case in ("ResNet20", "ResNet18-A")
    # ResNet-D's first kernel has 864 weights: few enough to stay float in a dynamic file.
    in_pairs = {"ResNet18-A": ("dynamic", "int8_cpu"), "ResNet50D": ("int8_cpu",)}
    subsamplings = [counts.get("MAX_POOL_2D", 0) for counts in kinds]
    expected = len([stage for stage in net.operators if stage.output.name.endswith("shortcut_pool")])
    assert subsamplings[1] - subsamplings[0] == (expected if has_shortcut_a and name != "int16x8" else 0)
    assert kinds[0].get("RESHAPE", 0) == (name in in_pairs.get(case, ()))


@pytest.mark.unit
@pytest.mark.parametrize("name", ["float32", "int8"])
def test_shortcuts_a_of_wide_nets_stay_plain_operators(name, monkeypatch):
    """As convolutions ResNet-50's would take 11 MB and be slower."""
    model = keras_resnet.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10, shortcut="A")
    golden.seed_weights(model)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    net = walk.from_keras(model, 1)
    ranges = calibration.observe(net, images)
    made = quantization.quantize(net, FORMATS[name].scheme, ranges)
    kernels = [one.inputs[1] for one in made.operators if one.kind == "CONV_2D"]
    assert [one.shape for one in kernels if one.name.endswith("shortcut_pad/kernel")] == [(512, 1, 1, 256)]
    assert [one.kind for one in made.operators].count("MAX_POOL_2D") == 1 + 2  # the stem's
    content = flatbuffer.to_bytes(made)
    monkeypatch.setattr(equivalents, "exchanged", lambda net, is_for_cpu: net)
    plain = flatbuffer.to_bytes(quantization.quantize(net, FORMATS[name].scheme, ranges))
    assert 0 < len(content) - len(plain) < 600_000
    assert np.array_equal(*(predictor.from_tflite(one).predict(images) for one in (content, plain)))


@pytest.mark.unit
@pytest.mark.parametrize("name", ["dynamic", "int4"])
def test_small_kernels_stay_float_where_activations_do(name):
    net = quantization.quantize(walk.from_keras(golden.build("ResNet20"), 1), FORMATS[name].scheme)
    weights = [one.inputs[1] for one in net.operators if one.kind in quantization.WEIGHTED]
    dtypes = {one.name: one.dtype for one in weights if not one.name.endswith("shortcut_pad/kernel")}
    assert [key for key, dtype in dtypes.items() if dtype == "float32"] == ["stem_conv/kernel", "predictions/kernel"]
    assert {*dtypes.values()} == {"float32", FORMATS[name].scheme.weights}


@pytest.mark.unit
def test_a_net_of_shortcuts_a_is_one_part_for_xnnpack(tmp_path):
    path = tmp_path / "net.tflite"
    net = walk.from_keras(golden.build("ResNet20"), 1)
    path.write_bytes(flatbuffer.to_bytes(quantization.quantize(net, FORMATS["float32"].scheme)))
    interpreter = predictor.open_tflite(str(path))
    assert [node["op_name"] for node in interpreter._get_ops_details()].count("DELEGATE") == 1


@pytest.mark.unit
def test_pixels_are_shifted_in_float_where_a_cpu_runs_all(digits_graph):
    """LiteRT's kernel alone turns uint8 into int8; XNNPACK, which does not, runs what is there instead."""
    net, ranges, images, _ = digits_graph
    whole, mixed = (quantization.quantize(net, FORMATS[name].scheme, ranges) for name in ("int8", "int8_cpu"))
    kinds, own = ([operator.kind for operator in graph.operators] for graph in (whole, mixed))
    assert kinds[:2] == ["QUANTIZE", "ADD"]
    assert own == ["DEQUANTIZE", "ADD", "QUANTIZE", *kinds[2:]]
    assert mixed.operators[1].inputs[1].shape == images.shape[2:]


@pytest.mark.unit
def test_blocks_kept_in_float_compute_in_float(digits_graph, tmp_path):
    net, ranges, images, expected = digits_graph
    kept = [tensor.name for tensor in net.activations() if tensor.name.startswith("stage2")]
    mixed = quantization.quantize(net, FORMATS["int8"].scheme, ranges, kept)
    kinds = [operator.kind for operator in mixed.operators]
    assert kinds.count("DEQUANTIZE") == 1  # one border before the block
    assert kinds.count("QUANTIZE") == 2  # the pixels, and one behind it
    dtypes = {operator.output.name: operator.output.dtype for operator in mixed.operators}
    assert {dtypes[name] for name in kept} == {"float32"}
    assert dtypes["stage1_block1_out"] == "int8"
    scores = scores_of(mixed, images, tmp_path)
    assert np.mean(scores.argmax(1) == expected.argmax(1)) >= 0.99
    whole = [tensor.name for tensor in net.activations()]
    same = quantization.quantize(net, FORMATS["int8_float_io"].scheme, ranges, whole)
    assert {operator.kind for operator in same.operators} & {"QUANTIZE", "DEQUANTIZE"} == set()


@pytest.mark.unit
def test_means_of_the_inputs_correct_biases(digits_graph, tmp_path):
    """4-bit weights move the outputs' means; known means of the inputs move them back."""
    net, ranges, images, expected = digits_graph
    blind = {name: calibration.Range(seen.low, seen.high) for name, seen in ranges.items()}
    scheme = Scheme("int4", "int8", "uint8", "int8")
    errors = [
        np.mean((scores_of(quantization.quantize(net, scheme, known), images, tmp_path) - expected) ** 2)
        for known in (ranges, blind)
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.unit
def test_bias_correction_is_the_mean_error_of_each_output():
    rng = np.random.default_rng(0)
    weights, inputs = rng.normal(size=(6, 1, 1, 2)), rng.normal(3, 1, (1000, 4))  # 2 groups of 2 inputs, 3 outputs each
    stored, scale = quantization.symmetric(weights, "int4")
    groups = inputs.reshape(-1, 2, 2).repeat(3, axis=1)
    exact, rounded = (
        np.einsum("nci,ci->nc", groups, kernel.reshape(6, 2))
        for kernel in (weights, stored * scale[:, None, None, None])
    )
    found = quantization.bias_correction(weights, stored, scale, inputs.mean(axis=0))
    assert np.abs(found - (exact - rounded).mean(axis=0)).max() < 1e-6
    assert np.abs(found).max() > 0.01


@pytest.mark.unit
def test_optimal_rounding_beats_the_nearest_where_inputs_are_correlated():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 90)) + 0.1 * rng.normal(size=(400, 90))
    weights = rng.normal(size=(8, 3, 3, 10)).astype("float32")
    nearest, scale = quantization.symmetric(weights, "int4")
    optimal = rounding.optimal(weights, scale, inputs.T @ inputs, 7)
    assert optimal.dtype == np.int8
    assert np.abs(optimal).max() <= 7
    errors = [
        np.mean((inputs @ (weights - stored * scale[:, None, None, None]).reshape(8, -1).T) ** 2)
        for stored in (nearest, optimal)
    ]
    assert errors[1] < 0.2 * errors[0]
    assert np.array_equal(rounding.optimal(weights, scale, np.eye(90), 7), nearest)  # nothing to make up for


@pytest.mark.unit
def test_int8_rounds_small_kernels_optimally_and_only_where_it_may(digits_graph, tmp_path):
    """Nets that were trained with their weights rounded, zero or clustered keep these."""
    net, ranges, images, expected = digits_graph
    stored = rounding.rounded(net, "int8", images)
    kernels = {one.inputs[1].name: one.inputs[1].data for one in net.operators if one.kind in quantization.WEIGHTED}
    assert {*stored} == {name for name, kernel in kernels.items() if np.prod(kernel.shape[1:]) <= 600}
    assert len(stored) > 5
    nearest, optimal = (quantization.quantize(net, FORMATS["int8"].scheme, ranges, stored=one) for one in ({}, stored))
    steps = [
        np.abs(after.inputs[1].data.astype(int) - before.inputs[1].data).max()
        for before, after in zip(nearest.operators, optimal.operators, strict=True)
        if before.kind in quantization.WEIGHTED
    ]
    assert 1 <= max(steps) <= 3
    errors = [np.mean((scores_of(one, images, tmp_path) - expected) ** 2) for one in (nearest, optimal)]
    assert errors[1] < 1.05 * errors[0]
    for name in ("int8_qat", "pruned_int8", "clustered_int8"):
        assert FORMATS[name].scheme.rounding == "nearest"
    assert not FORMATS["int8"].needs_images(has_ranges=True)
    assert FORMATS["int8_mixed"].needs_images(has_ranges=True)


GEOMETRIES = [("same", 1, 1), ("same", 2, 1), ("valid", 2, 1), ("same", 1, 2)]


@pytest.mark.unit
@pytest.mark.parametrize(("padding", "strides", "dilation"), GEOMETRIES)
def test_second_moments_see_what_the_convolution_sees(padding, strides, dilation):
    """Inputs drawn at positions, times the kernel, are outputs of the convolution."""
    image = keras.Input((9, 11, 2))
    conv = keras.layers.Conv2D(1, 3, strides, padding, dilation_rate=dilation, name="conv")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(conv(image)))
    net = walk.from_keras(model, 1)
    (layer,) = (operator for operator in net.operators if operator.kind == "CONV_2D")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 9, 11, 2)).astype("uint8")
    (arrays,) = ({name: array.copy() for name, array in seen.items()} for seen in calibration.activations(net, pixels))
    rows = rounding._inputs(layer, arrays["pixels"], np.random.default_rng(0))
    outputs = arrays["conv"].ravel()
    nearest = np.abs((rows @ layer.inputs[1].data.ravel())[:, None] - outputs).min(axis=1)
    assert nearest.max() < 1e-3
    assert rows.shape == (rounding.POSITIONS, 18)


@pytest.mark.unit
def test_zero_is_a_stored_number_and_pixels_are_their_own():
    assert quantization.scale_and_zero_point(0, 255, "int8") == (1.0, -128)
    assert quantization.scale_and_zero_point(3, 7, "int8") == (np.float32(7 / 255), -128)
    scale, zero_point = quantization.scale_and_zero_point(-1, 3, "int8")
    assert zero_point == -64
    assert scale * (-128 - zero_point) == pytest.approx(-1, abs=0.02)
    assert quantization.scale_and_zero_point(0, 0, "int8")[0] > 0
    assert quantization.scale_and_zero_point(-2, 1, "int16") == (np.float32(2 / 32767), 0)


def two_channels(small, bias):
    """Graph of a pixel times 1 and times `small`, plus 0 and `bias`, averaged; images, and their ranges."""
    image, one = graph.Tensor("image", (1, 2, 2, 1), "uint8"), np.zeros((2, 1, 1, 1), "float32")
    one[:, 0, 0, 0] = 1.0, small
    net = graph.Graph("net", image, image)
    pixels, made, mean = (graph.Tensor(*row) for row in (
        ("pixels", (1, 2, 2, 1)), ("conv", (1, 2, 2, 2)), ("mean", (1, 2)),
    ))  # fmt: skip
    weights = [graph.constant("kernel", one), graph.constant("bias", [0.0, bias], "float32")]
    options = {"padding": "SAME", "strideH": 1, "strideW": 1}
    net.operators = [
        graph.Operator("CAST", [image], pixels),
        graph.Operator("CONV_2D", [pixels, *weights], made, options),
        graph.Operator("MEAN", [made, graph.constant("axes", [1, 2], "int32")], mean),
    ]
    net.scores = mean
    images = np.array([[[[0], [40]], [[80], [120]]]], "uint8")
    return net, images, calibration.observe(net, images)


@pytest.mark.unit
def test_a_channel_of_zeros_with_a_bias_keeps_its_bias(tmp_path):
    net, images, ranges = two_channels(0.0, 100.0)
    assert ranges["conv"].high == 120
    assert ranges["conv"].means.tolist() == [60.0, 100.0]
    for weight in ("int8", "int4"):
        scheme = Scheme(weight, "int8", "uint8", "int8")
        scores = scores_of(quantization.quantize(net, scheme, ranges), images, tmp_path)
        assert np.abs(scores - [[60, 100]]).max() < 1


@pytest.mark.unit
def test_a_channel_whose_bias_needs_a_larger_scale_leaves_the_others_their_rounding():
    net, _, ranges = two_channels(1e-9, 100.0)
    stored = {"kernel": np.array([126, 127], "int8").reshape(2, 1, 1, 1)}  # optimal, not the nearest
    made = quantization.quantize(net, FORMATS["int8"].scheme, ranges, stored=stored)
    (conv,) = (operator for operator in made.operators if operator.kind == "CONV_2D")
    assert conv.inputs[1].data.ravel().tolist() == [126, 0]
    assert conv.inputs[1].scale == pytest.approx([1 / 127, 100 / quantization.LARGEST_BIAS])
    assert conv.inputs[2].data[1] == pytest.approx(quantization.LARGEST_BIAS, rel=1e-6)
    assert stored["kernel"].ravel().tolist() == [126, 127]  # stays as it is


@pytest.mark.unit
def test_noise_names_the_layer_that_was_hurt(digits_graph):
    net, ranges, images, _ = digits_graph
    wrong = dict(ranges)
    seen = ranges["stage2_block1_relu1"]
    wrong["stage2_block1_relu1"] = calibration.Range(0.0, 0.05 * seen.high, seen.means)
    signals = verify.signal(net, images)
    hurt = verify.noise(signals, quantization.quantize(net, FORMATS["int8"].scheme, wrong), images)
    fine = verify.noise(signals, quantization.quantize(net, FORMATS["int8"].scheme, ranges), images)
    assert "stage2_block1_relu1" in hurt
    assert hurt["stage2_block1_relu1"] < 10 < min(fine.values())


@pytest.mark.unit
def test_noise_is_measured_on_two_images_or_one_whatever_the_batch(digits_graph, digits_run, monkeypatch):
    """The activations of a large batch, or of large images, would not fit into memory."""
    net, ranges, images, _ = digits_graph
    batches = walk.from_keras(predictor.load_keras(str(digits_run / "model.keras")), 32)
    found = []
    for one in (net, batches):
        signals = verify.signal(one, images)
        assert len(signals) == 2
        assert {array.shape[0] for seen in signals for array in seen.values()} == {1}
        found.append(verify.noise(signals, quantization.quantize(one, FORMATS["int8"].scheme, ranges), images))
    assert found[0] == found[1]
    seen = [calibration.observe(one, images[:40]) for one in (net, batches)]
    assert {name: seen[0][name].high for name in seen[0]} == {name: one.high for name, one in seen[1].items()}
    moments = [rounding.second_moments(one, images[:40]) for one in (net, batches)]
    assert all(np.array_equal(moment, moments[1][name]) for name, moment in moments[0].items())
    size = sum(array.nbytes for array in signals[0].values())
    for budget, number in ((2 * size, 2), (2 * size - 1, 1), (1, 1)):
        monkeypatch.setattr(verify, "NOISE_BYTES", budget)
        signals = verify.signal(net, images)
        assert len(signals) == number
    assert verify.noise(signals, quantization.quantize(net, FORMATS["int8"].scheme, ranges), images) != found[0]


@pytest.mark.unit
@pytest.mark.parametrize("name", ["float32", "float16", "int8_cpu"])
def test_a_net_for_other_batches_gives_the_same_scores(name):
    model = golden.build("ResNet50D")  # whose int8_cpu file reads the columns in pairs: a shape that is a constant
    images = np.random.default_rng(0).integers(0, 256, (4, *model.input_shape[1:])).astype("uint8")
    net = walk.from_keras(model, 4)
    four = quantization.quantize(net, FORMATS[name].scheme, calibration.observe(net, images))
    scores = [predictor.from_tflite(flatbuffer.to_bytes(one)).predict(images) for one in (four, four.for_batch(1))]
    assert four.image.shape[0] == four.operators[0].output.shape[0] == 4  # stays as it is
    assert np.array_equal(*scores)


DOCTOR = {
    "range": (lambda images, labels: ((images / 255).astype("uint8"), labels), "floats from 0 to 1"),
    "few": (lambda images, labels: (images[:9], labels[:9]), "only 9 images"),
    "constant": (lambda images, labels: (np.where(np.arange(40)[:, None, None, None] < 3, 7, images), labels),
                 "3 of 40 images are of one colour"),
    "repeated": (lambda images, labels: (images[np.arange(40) // 2], labels), "20 of 40 images are repeated"),
    "one class": (lambda images, labels: (images, 0 * labels + 4), "all images are of class 4"),
    "BGR": (lambda images, labels: (images[..., ::-1], labels), "look like BGR"),
}  # fmt: skip


@pytest.mark.unit
@pytest.mark.parametrize("case", DOCTOR)
def test_the_doctor_names_what_is_wrong_with_calibration_images(case):
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 200, (40, 8, 8, 3)) + np.array([50, 25, 0])).astype("uint8")
    labels = np.arange(40) % 5
    assert calibration.doctor(images, labels) == []
    spoil, text = DOCTOR[case]
    assert any(text in warning for warning in calibration.doctor(*spoil(images, labels)))


@pytest.mark.smoke
def test_the_doctor_speaks_on_stderr_and_on_the_card(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", "--formats=int8", f"--output_dir={tmp_path}/out"]
    done = run("export/main.py", *flags, "--calibration_images=24", "--max_top1_drop=10", "--eval_images=100")
    assert "Warning: calibration images: only 24 images" in done.stderr
    assert "only 24 images" in (tmp_path / "out" / "card.md").read_text()
