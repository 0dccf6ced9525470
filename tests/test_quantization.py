"""Our own quantization: LiteRT's arithmetic, on trained nets and on what breaks it."""

import keras
import numpy as np
import pytest
from conftest import run

from export import calibration, flatbuffer, graph, quantization, rounding, verify, walk
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
    "int16x8": (0.99, 0.03),
    "int4": (0.97, 0.2),
}


@pytest.mark.contract
@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row.scheme and not row.preparation])
def test_a_format_keeps_what_it_should(digits_graph, tmp_path, name):
    net, ranges, images, expected = digits_graph
    agreement, error = KEPT[name]
    moments = rounding.second_moments(net, images[:40]) if name == "int4" else None
    scores = scores_of(quantization.quantize(net, FORMATS[name].scheme, ranges, moments=moments), images, tmp_path)
    assert np.mean(scores.argmax(1) == expected.argmax(1)) >= agreement
    assert np.sqrt(np.mean((scores - expected) ** 2) / np.mean(expected**2)) <= error


@pytest.mark.unit
def test_the_given_graph_stays_as_it_is(digits_graph, tmp_path):
    net, ranges, images, expected = digits_graph
    for row in FORMATS.values():
        if row.scheme:
            quantization.quantize(net, row.scheme, ranges)
    assert np.abs(scores_of(net, images[:20], tmp_path) - expected[:20]).max() < 1e-4


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
    inputs = rng.normal(size=(400, 3)) @ rng.normal(size=(3, 36)) + 0.1 * rng.normal(size=(400, 36))
    weights = rng.normal(size=(8, 2, 2, 9)).astype("float32")
    nearest, scale = quantization.symmetric(weights, "int4")
    optimal = rounding.optimal(weights, scale, inputs.T @ inputs, 7)
    assert optimal.dtype == np.int8
    assert np.abs(optimal).max() <= 7
    errors = [
        np.mean((inputs @ (weights - stored * scale[:, None, None, None]).reshape(8, -1).T) ** 2)
        for stored in (nearest, optimal)
    ]
    assert errors[1] < 0.2 * errors[0]
    assert np.array_equal(rounding.optimal(weights, scale, np.eye(36), 7), nearest)  # nothing to make up for


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


@pytest.mark.unit
def test_a_channel_of_zeros_with_a_bias_keeps_its_bias(tmp_path):
    image, one = graph.Tensor("image", (1, 2, 2, 1), "uint8"), np.zeros((2, 1, 1, 1), "float32")
    one[0] = 1.0
    net = graph.Graph("net", image, image)
    pixels, made, mean = (graph.Tensor(*row) for row in (
        ("pixels", (1, 2, 2, 1)), ("conv", (1, 2, 2, 2)), ("mean", (1, 2)),
    ))  # fmt: skip
    weights = [graph.constant("kernel", one), graph.constant("bias", [0.0, 100.0], "float32")]
    options = {"padding": "SAME", "strideH": 1, "strideW": 1}
    net.operators = [
        graph.Operator("CAST", [image], pixels),
        graph.Operator("CONV_2D", [pixels, *weights], made, options),
        graph.Operator("MEAN", [made, graph.constant("axes", [1, 2], "int32")], mean),
    ]
    net.scores = mean
    images = np.array([[[[0], [40]], [[80], [120]]]], "uint8")
    ranges = calibration.observe(net, images)
    assert ranges["conv"].high == 120
    assert ranges["conv"].means.tolist() == [60.0, 100.0]
    for weight in ("int8", "int4"):
        scheme = Scheme(weight, "int8", "uint8", "int8")
        scores = scores_of(quantization.quantize(net, scheme, ranges), images, tmp_path)
        assert np.abs(scores - [[60, 100]]).max() < 1


@pytest.mark.unit
def test_noise_names_the_layer_that_was_hurt(digits_graph):
    net, ranges, images, _ = digits_graph
    wrong = dict(ranges)
    seen = ranges["stage2_block1_relu1"]
    wrong["stage2_block1_relu1"] = calibration.Range(0.0, 0.05 * seen.high, seen.means)
    hurt = verify.noise(net, quantization.quantize(net, FORMATS["int8"].scheme, wrong), images)
    fine = verify.noise(net, quantization.quantize(net, FORMATS["int8"].scheme, ranges), images)
    assert "stage2_block1_relu1" in hurt
    assert hurt["stage2_block1_relu1"] < 10 < min(fine.values())


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
    done = run("export/main.py", *flags, "--calibration_images=10", "--max_top1_drop=10", "--eval_images=100")
    assert "Warning: calibration images: only 10 images" in done.stderr
    assert "only 10 images" in (tmp_path / "out" / "card.md").read_text()
