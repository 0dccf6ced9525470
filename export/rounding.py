"""Rounds weights up or down so that a layer's outputs on real images change least (GPTQ, arXiv 2210.17323)."""

import numpy as np

from export import calibration
from export.quantization import LIMITS, WEIGHTED, symmetric

POSITIONS = 32  # of an image that a convolution's inputs are looked at, drawn anew for each image
DAMPING = 0.01  # of the mean power of the inputs, added to each: section 3.3
BLOCK = 32  # columns after which the others are corrected (section 3.3): few enough for a core's cache
# Weights -> inputs of the largest kernel that is rounded so, and images looked at. Larger kernels and more images did
# nothing for int8 (BUILD_NOTES.md, "Quantization").
REACH = {"int4": (None, None), "int8": (600, 32)}


def rounded(graph, dtype, images):
    """Kernels in integers, rounded optimally; those that are too large, or in groups, are left out.

    Args:
        graph: `Graph` in float32.
        dtype: "int4" or "int8".
        images: uint8 (n, h, w, c).
    Returns:
        dict from the name of a kernel to an int8 array, to be multiplied by the scales of `quantization.symmetric`.
    """
    most_inputs, most_images = REACH[dtype]
    moments = second_moments(graph, images[:most_images], most_inputs)
    kernels = {one.inputs[1].name: one.inputs[1].data for one in graph.operators if one.kind in WEIGHTED}
    return {
        name: optimal(kernels[name], symmetric(kernels[name], dtype)[1], moment, LIMITS[dtype])
        for name, moment in moments.items()
    }


def second_moments(graph, images, most_inputs=None):
    """Sums of products of the inputs of every kernel: what makes one rounding error weigh more than another.

    Convolutions in groups are left out.

    Args:
        graph: `Graph` in float32.
        images: uint8 (n, h, w, c).
        most_inputs: of one output of the kernels that are looked at; None: all.
    Returns:
        dict from the name of a kernel (channels, ...) to a float32 array (inputs, inputs), in the order of the
        kernel's axes behind the first.
    """
    rng, sums = np.random.default_rng(0), {}
    layers = [
        operator
        for operator in graph.operators
        if operator.kind in WEIGHTED
        and operator.inputs[1].shape[-1] == operator.activation.shape[-1]
        and (most_inputs is None or np.prod(operator.inputs[1].shape[1:]) <= most_inputs)
    ]
    for arrays in calibration.activations(graph, images):
        for layer in layers:
            rows = _inputs(layer, arrays[layer.activation.name], rng)
            name = layer.inputs[1].name
            sums[name] = sums.get(name, 0) + rows.T @ rows
    return sums


def _inputs(layer, x, rng):
    """Inputs of one output, at some positions: float32 (positions, inputs)."""
    if layer.kind == "FULLY_CONNECTED":
        return x.copy()
    height, width = layer.inputs[1].shape[1:3]
    strides = layer.options["strideH"], layer.options["strideW"]
    dilations = layer.options["dilationHFactor"], layer.options["dilationWFactor"]
    if layer.options["padding"] == "SAME":
        x = _padded(x, (height, width), strides, dilations)
    _, out_height, out_width, _ = layer.output.shape
    image = rng.integers(0, len(x), POSITIONS)[:, None, None]
    rows = rng.integers(0, out_height, POSITIONS)[:, None] * strides[0] + np.arange(height) * dilations[0]
    columns = rng.integers(0, out_width, POSITIONS)[:, None] * strides[1] + np.arange(width) * dilations[1]
    return x[image, rows[:, :, None], columns[:, None, :]].reshape(POSITIONS, -1)


def _padded(x, kernel, strides, dilations):
    """TensorFlow's "same": as little as reaches ceil(side / stride) outputs, the odd pixel behind."""
    sides = []
    for side, taps, stride, dilation in zip(x.shape[1:3], kernel, strides, dilations, strict=True):
        missing = max((-(-side // stride) - 1) * stride + (taps - 1) * dilation + 1 - side, 0)
        sides.append((missing // 2, missing - missing // 2))
    return np.pad(x, ((0, 0), *sides, (0, 0)))


def optimal(weights, scale, moments, limit):
    """Integers near the weights, each column's error made up for by the columns after it.

    Args:
        weights: float array (channels, ...).
        scale: float array (channels,).
        moments: float array (inputs, inputs) of `second_moments`.
        limit: largest integer.
    Returns:
        int8 array of the shape of `weights`.
    """
    columns = weights.reshape(len(weights), -1).T.astype("float64", order="C")  # (inputs, channels)
    moments = moments.astype("float64")
    power = np.diag(moments)
    moments = moments + np.diag(np.where(power == 0, 1.0, 0.0) + DAMPING * power.mean())
    order = np.argsort(-power)  # what weighs most is rounded first, while all the others can still make up for it
    columns = columns[order]
    factors = np.linalg.cholesky(np.linalg.inv(moments[np.ix_(order, order)])).T
    stored = np.empty_like(columns)
    for start in range(0, len(order), BLOCK):
        end = min(start + BLOCK, len(order))
        errors = np.empty((end - start, len(weights)))
        for number in range(start, end):
            stored[number] = np.clip(np.round(columns[number] / scale), -limit, limit)
            error = errors[number - start] = (columns[number] - stored[number] * scale) / factors[number, number]
            columns[number + 1 : end] -= np.outer(factors[number, number + 1 : end], error)
        columns[end:] -= factors[start:end, end:].T @ errors
    found = np.empty(stored.shape, "int8")
    found[order] = stored
    return np.ascontiguousarray(found.T).reshape(weights.shape)
