"""From a Keras model to a `Graph`: a walk over the layers that the zoo's nets are made of.

Batch normalization is folded into the convolution before it and ReLU fused into whatever comes before it, as
`TFLiteConverter` does, whose operators these are (tests/test_walk.py holds one against the other).
"""

import collections

import keras
import numpy as np

from export.graph import Graph, Operator, Tensor, constant
from keras_resnet import quantized_layers

# Operators that can end in a ReLU, in LiteRT's schema.
FUSING = ("CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "MAX_POOL_2D", "AVERAGE_POOL_2D")


class UnknownLayerError(ValueError):
    """The model has a layer that the walk does not know; the converter may."""


def from_keras(model, batch_size):
    """The operators of a float32 functional model.

    Args:
        model: `keras.Model` from pixels 0 to 255 (n, h, w, c) to scores (n, classes), channels last.
        batch_size: n.
    Returns:
        `Graph` from uint8 images to float32 scores.
    Raises:
        UnknownLayerError: for a layer outside `LAYERS`, or one that is used in a way that no net of the zoo does.
    """
    if not isinstance(model, keras.Model) or not hasattr(model, "operations"):
        raise UnknownLayerError(f"Expected a functional model. Received: {type(model).__name__}.")
    walk = _Walk(model, batch_size)
    for layer in model.layers:
        for kind, add in LAYERS.items():
            if type(layer) is kind:
                walk.visit(layer, add)
                break
        else:
            known = ", ".join(kind.__name__ for kind in LAYERS)
            raise UnknownLayerError(
                f"Expected layers among {known}. Received: {layer.name!r}, a {type(layer).__name__}."
            )
    _fold_scale(walk.graph.operators)
    return walk.graph


def _fold_scale(operators):
    """Moves the preprocessing's scale into the first kernel: x * scale + shift = (x + shift / scale) * scale.

    The zero padding in front of the convolution stays zero, so that the outputs are equal.
    """
    if [operator.kind for operator in operators[:3]] != ["CAST", "MUL", "ADD"]:
        return
    _, scaling, shifting, *later = operators
    conv = later[1] if later[0].kind == "PAD" else later[0]
    scale, shift = scaling.inputs[1].data, shifting.inputs[1]
    if conv.kind == "CONV_2D" and conv.inputs[1].shape[3] in scale.shape and np.all(scale):
        kernel = conv.inputs[1]
        kernel.data = np.ascontiguousarray(kernel.data * scale)
        shift.data = np.broadcast_to(shift.data / scale, scale.shape).copy()
        shift.shape = shift.data.shape
        shifting.inputs[0] = scaling.inputs[0]
        operators.remove(scaling)


class _Walk:
    """The graph so far, and which tensor of it stands for which Keras tensor."""

    def __init__(self, model, batch_size):
        (image,), (scores,) = model.inputs, model.outputs
        if any(
            getattr(layer, "data_format", "channels_last") == "channels_first"
            for layer in model.layers
            if not isinstance(layer, keras.layers.ZeroPadding2D)
        ):
            raise UnknownLayerError("Expected channels last. Received: a channels-first model.")
        self.batch_size = batch_size
        self.tensors, self.makers = {}, {}
        self.uses = collections.Counter(
            id(tensor) for layer in model.layers for tensor in keras.tree.flatten(layer.input)
        )
        self.uses[id(scores)] += 1
        pixels = Tensor("image", self.shape(image), "uint8")
        self.graph = Graph(model.name, pixels, pixels)
        self.tensors[id(image)] = self.add("CAST", [pixels], pixels.shape, "pixels")

    def shape(self, keras_tensor):
        return (self.batch_size, *keras_tensor.shape[1:])

    def visit(self, layer, add):
        inputs = keras.tree.flatten(layer.input)
        if isinstance(layer, keras.layers.InputLayer):
            return
        fresh = all(self.uses[id(tensor)] == 1 for tensor in inputs)
        made = add(self, layer, *(self.tensors[id(tensor)] for tensor in inputs), is_only_use=fresh)
        self.tensors[id(layer.output)] = self.graph.scores = made

    def add(self, kind, inputs, shape, name, **options):
        output = Tensor(name, tuple(shape))
        operator = Operator(kind, list(inputs), output, options)
        self.graph.operators.append(operator)
        self.makers[output] = operator
        return output


def _conv(walk, layer, x, **_):
    kernel = np.asarray(getattr(layer, "deployed_kernel", layer.kernel), "float32").transpose(3, 0, 1, 2)
    bias = np.asarray(layer.bias, "float32") if layer.use_bias else np.zeros(layer.filters, "float32")
    (stride_h, stride_w), (dilation_h, dilation_w) = layer.strides, layer.dilation_rate
    made = walk.add(
        "CONV_2D",
        [x, constant(f"{layer.name}/kernel", kernel), constant(f"{layer.name}/bias", bias)],
        walk.shape(layer.output),
        layer.name,
        padding=layer.padding.upper(),
        strideH=stride_h,
        strideW=stride_w,
        dilationHFactor=dilation_h,
        dilationWFactor=dilation_w,
    )
    return _activated(walk, layer.activation, made, layer.name)


def _dense(walk, layer, x, **_):
    kernel = np.asarray(layer.kernel, "float32").T
    bias = np.asarray(layer.bias, "float32") if layer.use_bias else np.zeros(layer.units, "float32")
    weights = [constant(f"{layer.name}/kernel", kernel), constant(f"{layer.name}/bias", bias)]
    made = walk.add("FULLY_CONNECTED", [x, *weights], walk.shape(layer.output), layer.name)
    return _activated(walk, layer.activation, made, layer.name)


def _batch_norm(walk, layer, x, is_only_use):
    gamma = np.asarray(layer.gamma, "float64") if layer.scale else 1.0
    beta = np.asarray(layer.beta, "float64") if layer.center else 0.0
    scale = gamma / np.sqrt(np.asarray(layer.moving_variance, "float64") + layer.epsilon)
    return _affine(walk, layer.name, x, is_only_use, scale, beta - scale * np.asarray(layer.moving_mean, "float64"))


def _rescaling(walk, layer, x, is_only_use):
    return _affine(walk, layer.name, x, is_only_use, np.asarray(layer.scale), np.asarray(layer.offset))


def _affine(walk, name, x, is_only_use, scale, shift):
    """x * scale + shift, as a part of the convolution before it where there is one."""
    conv = walk.makers[x]
    if conv.kind == "CONV_2D" and is_only_use and "fusedActivationFunction" not in conv.options:
        _, kernel, bias = conv.inputs
        kernel.data = np.ascontiguousarray(kernel.data * scale.reshape(-1, 1, 1, 1), "float32")
        bias.data = (bias.data * scale + shift).astype("float32")
        return _renamed(x, name)
    if np.any(scale != 1):
        x = walk.add("MUL", [x, constant(f"{name}/scale", scale, "float32")], x.shape, f"{name}/scaled")
    if np.any(shift):
        x = walk.add("ADD", [x, constant(f"{name}/shift", shift, "float32")], x.shape, name)
    return x


def _relu(walk, layer, x, is_only_use):
    if layer.negative_slope or layer.threshold or layer.max_value is not None:
        raise UnknownLayerError(f"Expected a plain ReLU. Received: {layer.name!r} with {layer.get_config()}.")
    maker = walk.makers[x]
    if is_only_use and maker.kind in FUSING and "fusedActivationFunction" not in maker.options:
        maker.options["fusedActivationFunction"] = "RELU"
        return _renamed(x, layer.name)
    return walk.add("RELU", [x], x.shape, layer.name)


def _activation(walk, layer, x, is_only_use):
    return _activated(walk, layer.activation, x, layer.name)


def _activated(walk, function, x, name):
    if function is keras.activations.linear:
        return x
    kinds = {keras.activations.softmax: "SOFTMAX", keras.activations.sigmoid: "LOGISTIC"}
    if function not in kinds:
        raise UnknownLayerError(f"Expected softmax, sigmoid or none in {name!r}. Received: {function.__name__}.")
    if x.name == name:
        _renamed(x, f"{name}/logits")
    return walk.add(kinds[function], [x], x.shape, name, **({"beta": 1.0} if kinds[function] == "SOFTMAX" else {}))


def _zero_padding(walk, layer, x, **_):
    sides = [[0, 0], *layer.padding, [0, 0]]
    if layer.data_format == "channels_first":  # told so by a net of channels last, it pads the channels: option A
        sides = [[0, 0], [0, 0], *layer.padding]
    padding = constant(f"{layer.name}/padding", sides, "int32")
    return walk.add("PAD", [x, padding], walk.shape(layer.output), layer.name)


def _pool(kind):
    def add(walk, layer, x, **_):
        (height, width), (stride_h, stride_w) = layer.pool_size, layer.strides
        return walk.add(
            kind,
            [x],
            walk.shape(layer.output),
            layer.name,
            padding=layer.padding.upper(),
            filterHeight=height,
            filterWidth=width,
            strideH=stride_h,
            strideW=stride_w,
        )

    return add


def _global_average(walk, layer, x, **_):
    axes = constant(f"{layer.name}/axes", [1, 2], "int32")
    return walk.add("MEAN", [x, axes], walk.shape(layer.output), layer.name, keepDims=bool(layer.keepdims))


def _merge(kind):
    def add(walk, layer, first, second, **_):
        return walk.add(kind, [first, second], walk.shape(layer.output), layer.name)

    return add


def _nothing(walk, layer, x, **_):
    return x


def _range(walk, layer, x, **_):
    walk.graph.ranges[x.name] = (float(layer.range_low), float(layer.range_high))
    return x


def _renamed(tensor, name):
    tensor.name = name
    return tensor


# Layer class -> function(walk, layer, *inputs, is_only_use) -> output tensor.
LAYERS = {
    keras.layers.InputLayer: None,
    keras.layers.Rescaling: _rescaling,
    keras.layers.ZeroPadding2D: _zero_padding,
    keras.layers.Conv2D: _conv,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.ReLU: _relu,
    keras.layers.Activation: _activation,
    keras.layers.MaxPooling2D: _pool("MAX_POOL_2D"),
    keras.layers.AveragePooling2D: _pool("AVERAGE_POOL_2D"),
    keras.layers.GlobalAveragePooling2D: _global_average,
    keras.layers.Add: _merge("ADD"),
    keras.layers.Multiply: _merge("MUL"),
    keras.layers.Dense: _dense,
    keras.layers.Dropout: _nothing,
    quantized_layers.QuantizedConv2D: _conv,
    quantized_layers.QuantizedDense: _dense,
    quantized_layers.QuantizedRescaling: _rescaling,
    quantized_layers.QuantizedAdd: _merge("ADD"),
    quantized_layers.QuantizedMultiply: _merge("MUL"),
    quantized_layers.QuantizedAveragePooling2D: _pool("AVERAGE_POOL_2D"),
    quantized_layers.QuantizedGlobalAveragePooling2D: _global_average,
    quantized_layers.ActivationRange: _range,
}
