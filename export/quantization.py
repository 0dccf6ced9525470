"""A graph in fewer bits: integer or half-precision weights, integer activations, in whole or in part.

The arithmetic is LiteRT's quantization specification (ai.google.dev/edge/litert, "8-bit quantization specification"):
value = scale * (stored - zero point); weights symmetric with a scale an output channel, activations with one scale,
biases in 32 bits at the product of both scales.
"""

import numpy as np

from export import equivalents
from export.graph import Graph, Operator, Tensor, constant
from keras_resnet import quantized_layers

WEIGHTED = ("CONV_2D", "FULLY_CONNECTED")
SAME_SCALE = ("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RELU")  # LiteRT's kernels do not rescale their outputs
FIXED_RANGE = ("SOFTMAX", "LOGISTIC")  # outputs from 0 to 1, whose scale the kernels fix
LIMITS = {"int4": 7, "int8": 127, "int16": 32767}  # of symmetric integers
# Weights of a kernel with float32 activations from which on it is made of integers: as in TFLiteConverter. Those of a
# CIFAR net's first and last layer are few and weigh much (BUILD_NOTES.md, "Quantization").
FEWEST_WEIGHTS = 1024
LARGEST_BIAS = 2**30  # half of what 32 bits hold, so that sums have room


def quantize(graph, scheme, ranges=None, kept_float=(), stored=None):
    """The graph in the numbers of a scheme.

    Args:
        graph: `Graph` in float32.
        scheme: `formats.Scheme`.
        ranges: for integer activations: dict from the name of an activation to its `calibration.Range`. Where it
            knows the means, biases make up for what rounding the weights does to the outputs' means.
        kept_float: names of activations whose operators stay in float32.
        stored: for optimal rounding: dict of `rounding.rounded`; kernels that it lacks are rounded to the nearest.
    Returns:
        `Graph`; the given one is left as it is.
    """
    if scheme.activations == "float32":
        made = _weights_only(graph, scheme, stored or {})
        if scheme.weights == "int4":  # XNNPACK has no such convolutions
            return made
        return equivalents.exchanged(made, scheme.is_for_cpu)
    made = _Quantized(graph, scheme, ranges, frozenset(kept_float), stored or {}).graph
    return equivalents.exchanged(made, scheme.is_for_cpu)


def bias_correction(weights, stored, scale, means):
    """What rounding the weights takes from the mean of each output (arXiv 1906.04721, section 4.2).

    Positions where the kernel reaches into the padding are taken for others.

    Args:
        weights: float array (channels, ..., inputs a group).
        stored: int array of the same shape.
        scale: float array (channels,).
        means: of the inputs: float array (inputs,).
    Returns:
        float array (channels,), to add to the bias.
    """
    error = weights - stored * scale.reshape(-1, *[1] * (weights.ndim - 1))
    error = error.reshape(len(weights), -1, weights.shape[-1]).sum(axis=1)
    groups = len(means) // weights.shape[-1]
    return (error * means.reshape(groups, -1).repeat(len(weights) // groups, axis=0)).sum(axis=1)


def symmetric(weights, dtype, has_one_scale=False):
    """Weights as integers, with a scale for each index of the first axis.

    Args:
        weights: float array (channels, ...).
        dtype: "int4" or "int8".
        has_one_scale: whether all these scales are the same.
    Returns:
        int8 array of the same shape, float32 array of scales (channels,).
    """
    limit = LIMITS[dtype]
    rows = weights.reshape(len(weights), -1).astype("float64")
    scale = np.abs(rows).max(axis=1) / limit
    if has_one_scale:
        scale = np.full_like(scale, scale.max())
    scale = np.where(scale > 0, scale, 1.0).astype("float32")
    stored = np.clip(np.round(rows / scale[:, None]), -limit, limit)
    return stored.astype("int8").reshape(weights.shape), scale


def scale_and_zero_point(smallest, largest, dtype):
    """Of an activation: 0 is always a stored number, so that padding with it is exact."""
    smallest, largest = min(float(smallest), 0.0), max(float(largest), 0.0)
    if dtype == "int16":
        return np.float32(max(-smallest, largest, quantized_layers.LEAST) / LIMITS["int16"]), 0
    scale = np.float32(quantized_layers.stored_scale(smallest, largest))
    return scale, int(np.clip(np.round(-128 - smallest / scale), -128, 127))


def _weights_only(graph, scheme, rounded):
    new = graph.copy()
    operators = []
    for operator in new.operators:
        if operator.kind == "CAST" and scheme.pixels == "float32":
            new.image = operator.output
            continue
        for number, weights in enumerate(operator.inputs[1:], start=1):
            if scheme.weights == "float16" and weights.dtype == "float32" and weights.data is not None:
                stored = constant(f"{weights.name}/float16", weights.data, "float16")
                operator.inputs[number] = output = Tensor(weights.name, weights.shape)
                operators.append(Operator("DEQUANTIZE", [stored], output))
            elif scheme.weights in LIMITS and _is_large_kernel(operator, number):
                nearest, weights.scale = symmetric(weights.data, scheme.weights)
                weights.data = rounded.get(weights.name, nearest)
                weights.dtype = scheme.weights
                if operator.kind == "FULLY_CONNECTED":
                    operator.options["asymmetricQuantizeInputs"] = True
        operators.append(operator)
    new.operators = operators
    return new


def _is_large_kernel(operator, number):
    return operator.kind in WEIGHTED and number == 1 and operator.inputs[1].data.size >= FEWEST_WEIGHTS


def _with_row(operator):
    """The operator with its constant of one pixel repeated for a row of the image, which XNNPACK does faster."""
    x, pixel = operator.inputs
    row = constant(pixel.name, np.broadcast_to(pixel.data, x.shape[2:]))
    return Operator(operator.kind, [x, row], operator.output, operator.options)


class _Quantized:
    """The new graph so far; each activation exists in integers, in float32, or in both where both are asked for."""

    def __init__(self, graph, scheme, ranges, kept_float, rounded):
        self.scheme, self.ranges, self.rounded = scheme, ranges, rounded
        self.integers, self.floats = {}, {}
        image = Tensor("image", graph.image.shape, scheme.pixels)
        if scheme.pixels == "uint8":
            image.scale, image.zero_point = np.float32(1), 0
        self.image, self.operators, preprocessed = image, [], set()
        for operator in graph.operators:
            if operator.kind == "CAST":
                self.pixels = operator.output
                preprocessed = {self.pixels} if scheme.is_for_cpu else set()
            elif operator.kind in ("ADD", "MUL") and operator.activation in preprocessed:
                preprocessed.add(operator.output)
                self._add_float(_with_row(operator))
            elif operator.output.name in kept_float:
                self._add_float(operator)
            else:
                self._add_integer(operator)
        scores = self._integer(graph.scores) if scheme.scores != "float32" else self._float(graph.scores)
        self.graph = Graph(graph.name, image, scores, self.operators)

    def _emit(self, kind, inputs, output, **options):
        self.operators.append(Operator(kind, inputs, output, options))
        return output

    def _quantized(self, tensor, name, smallest, largest):
        scale, zero_point = scale_and_zero_point(smallest, largest, self.scheme.activations)
        return Tensor(name, tensor.shape, self.scheme.activations, None, scale, zero_point)

    def _integer(self, tensor):
        if tensor not in self.integers:
            if tensor is self.pixels:
                made = self._quantized(tensor, tensor.name, 0, 255)
                direct = self.scheme.pixels == "float32" or self.scheme.activations == "int8"
                source = self.image if direct else self._float(tensor)
            else:
                seen = self.ranges[tensor.name]
                made = self._quantized(tensor, f"{tensor.name}/quantized", seen.low, seen.high)
                source = self.floats[tensor]
            self.integers[tensor] = self._emit("QUANTIZE", [source], made)
        return self.integers[tensor]

    def _float(self, tensor):
        if tensor not in self.floats:
            if tensor is self.pixels:
                if self.scheme.pixels == "float32":
                    return self.image
                # Pixels are stored with scale 1; XNNPACK runs no CAST.
                kind = "DEQUANTIZE" if self.scheme.is_for_cpu else "CAST"
                self.floats[tensor] = self._emit(kind, [self.image], Tensor("pixels/float32", tensor.shape))
            else:
                made = Tensor(f"{tensor.name}/float32", tensor.shape)
                self.floats[tensor] = self._emit("DEQUANTIZE", [self.integers[tensor]], made)
        return self.floats[tensor]

    def _add_float(self, operator):
        inputs = [self._float(one) if one.data is None else one for one in operator.inputs]
        output = Tensor(operator.output.name, operator.output.shape)
        self.floats[operator.output] = self._emit(operator.kind, inputs, output, **operator.options)

    def _add_integer(self, operator):
        inputs = [self._integer(one) if one.data is None else one for one in operator.inputs]
        options = dict(operator.options)
        output = self._output(operator, inputs[0])
        if operator.kind in WEIGHTED:
            seen = self.ranges.get(operator.activation.name)  # none of a quantization-aware net's padding
            has_one_scale = operator.kind == "FULLY_CONNECTED" and self.scheme.dense_scales == "one"
            biased = self._weights_and_bias(inputs[0], *operator.inputs[1:], seen and seen.means, has_one_scale)
            inputs = [inputs[0], *biased]
        elif operator.kind in ("ADD", "MUL"):
            inputs = [self._constant(one) if one.data is not None else one for one in inputs]
            if operator.kind == "ADD" and self.scheme.activations == "int16":
                options["potScaleInt16"] = False
        self.integers[operator.output] = self._emit(operator.kind, inputs, output, **options)

    def _output(self, operator, x):
        tensor = operator.output
        if operator.kind in SAME_SCALE:
            return Tensor(tensor.name, tensor.shape, x.dtype, None, x.scale, x.zero_point)
        if operator.kind in FIXED_RANGE:
            scale, zero_point = (1 / 256, -128) if x.dtype == "int8" else (1 / 32768, 0)
            return Tensor(tensor.name, tensor.shape, x.dtype, None, np.float32(scale), zero_point)
        seen = self.ranges[tensor.name]
        return self._quantized(tensor, tensor.name, seen.low, seen.high)

    def _constant(self, tensor):
        made = self._quantized(tensor, tensor.name, tensor.data.min(), tensor.data.max())
        limits = np.iinfo(made.dtype)
        stored = np.round(tensor.data / made.scale) + made.zero_point
        made.data = np.clip(stored, limits.min, limits.max).astype(made.dtype)
        return made

    def _weights_and_bias(self, x, weights, bias, means, has_one_scale):
        stored, scale = symmetric(weights.data, self.scheme.weights, has_one_scale)
        if not has_one_scale:
            stored = self.rounded.get(weights.name, stored)
        # A channel of tiny weights has a scale so small that its bias would not fit.
        least = np.abs(bias.data) / (np.float64(x.scale) * LARGEST_BIAS)
        fitting = np.maximum(scale, least.max() if has_one_scale else least).astype("float32")
        raised, scale = np.flatnonzero(fitting > scale), fitting
        if len(raised):
            rows = weights.data[raised] / scale[raised].reshape(-1, *[1] * (weights.data.ndim - 1))
            stored = stored.copy()  # other formats have it too
            stored[raised] = np.round(rows)
        biases = bias.data
        if means is not None:
            biases = biases + bias_correction(weights.data, stored, scale, means)
        wide = "int64" if x.dtype == "int16" else "int32"
        product = np.float64(x.scale) * scale.astype("float64")
        if has_one_scale:
            scale, product = scale[:1], product[:1]
        return (
            Tensor(weights.name, weights.shape, self.scheme.weights, stored, scale),
            Tensor(bias.name, bias.shape, wide, np.round(biases / product).astype(wide), product.astype("float32")),
        )
