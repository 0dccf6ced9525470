"""Operators that compute the same bits in a form that XNNPACK, LiteRT's CPU delegate, runs faster.

BUILD_NOTES.md, "Speed", has by how much. They are put in when a graph has its final numbers; until then its shapes and
scales are the Keras model's.
"""

import dataclasses

import numpy as np

from export.graph import Operator, constant

DEPTH = 8  # input channels that XNNPACK's 8-bit kernels take at a time; fewer are filled up
# Weights of a shortcut A made a convolution, at most: all of ResNet-18's and 34's, which gain nothing by it but run on
# an Edge TPU. ResNet-50 took 1.06 of the time and 11 MB more with its larger ones (BUILD_NOTES.md, "Speed").
MOST_ONES = 512 * 256


def exchanged(graph, is_for_cpu):
    """Exchanges what is slow, in place.

    Args:
        graph: `Graph` of `quantization.quantize`.
        is_for_cpu: whether also for what NPUs may refuse: kernels with different strides in height and width.
    Returns:
        the same `Graph`.
    """
    for operator in list(graph.operators):
        if operator.kind == "PAD":
            before = [one for one in graph.operators if one.output is operator.activation]
            beside, after = (_users(graph, one) for one in (operator.activation, operator.output))
            is_alone = before and len(beside) == 1 and _is_subsampling(before[0])
            if is_alone and _pads_channels(operator) and _is_small(operator):
                _to_convolution(graph, before[0], operator)
            elif is_for_cpu and len(after) == 1 and _reads_thin_columns(after[0], operator):
                _to_pairs_of_columns(graph, operator, after[0])
    return graph


def _users(graph, tensor):
    return [one for one in graph.operators if tensor in one.inputs]


def _is_subsampling(operator):
    """Pooling over one pixel, which XNNPACK refuses, so that the net falls into parts."""
    one_pixel = operator.options.get("filterHeight") == operator.options.get("filterWidth") == 1
    return operator.kind == "MAX_POOL_2D" and one_pixel and operator.output.dtype in ("float32", "int8")


def _pads_channels(pad):
    return not np.any(pad.inputs[1].data[:3])


def _is_small(pad):
    return pad.activation.shape[3] * pad.output.shape[3] <= MOST_ONES


def _to_convolution(graph, pooling, pad):
    """Shortcut A, subsampling and zero channels, as one convolution with ones where a channel goes on."""
    x, channels = pooling.activation, pad.output.shape[3]
    (first, _), name = pad.inputs[1].data[3], pad.output.name
    ones = np.zeros((channels, 1, 1, x.shape[3]), "int8" if x.dtype == "int8" else "float32")
    ones[first : first + x.shape[3], 0, 0] = np.eye(x.shape[3])
    kernel, bias = constant(f"{name}/kernel", ones), constant(f"{name}/bias", np.zeros(channels, "float32"))
    if x.dtype == "int8":
        kernel.scale = np.ones(channels, "float32")
        bias = constant(bias.name, np.zeros(channels, "int32"))
        bias.scale = np.full(channels, x.scale, "float32")
    options = {"padding": "VALID", "dilationHFactor": 1, "dilationWFactor": 1}
    kept = ("strideH", "strideW", "fusedActivationFunction")
    options |= {name: pooling.options[name] for name in kept if name in pooling.options}
    place = graph.operators.index(pad)
    graph.operators[place] = Operator("CONV_2D", [x, kernel, bias], pad.output, options)
    graph.operators.remove(pooling)


def _reads_thin_columns(conv, pad):
    """A stem: 8-bit weights, every second column, so few channels that those of two columns fit into DEPTH."""
    if conv.kind != "CONV_2D" or conv.inputs[1].dtype != "int8" or conv.activation.dtype == "int16":
        return False
    _, _, width, channels = pad.activation.shape
    options, (left, _) = conv.options, pad.inputs[1].data[2]
    kernel_width = left % 2 + conv.inputs[1].shape[2]
    pairs = conv.output.shape[2] - 1 + -(-kernel_width // 2)
    return (
        2 * channels <= DEPTH
        and width % 2 == 0
        and options["padding"] == "VALID"
        and (options["strideW"], options["dilationWFactor"]) == (2, 1)
        and conv.inputs[1].shape[3] == channels
        and not np.any(pad.inputs[1].data[[0, 3]])
        and pairs >= -(-left // 2) + width // 2
    )


def _to_pairs_of_columns(graph, pad, conv):
    """(n, h, w, c) read as (n, h, w/2, 2c): half as many taps, each of twice the channels, and no stride in width."""
    x, kernel = pad.activation, conv.inputs[1]
    number, height, width, channels = x.shape
    (top, bottom), (left, _) = pad.inputs[1].data[1:3]
    filters, taps_down, taps_across, _ = kernel.shape
    pairs_left, odd = -(-left // 2), left % 2
    taps = -(-(odd + taps_across) // 2)
    pairs = conv.output.shape[2] - 1 + taps
    wide = np.zeros((filters, taps_down, 2 * taps, channels), "int8")
    wide[:, :, odd : odd + taps_across] = kernel.data
    conv.inputs[1] = constant(kernel.name, wide.reshape(filters, taps_down, taps, 2 * channels))
    conv.inputs[1].scale = kernel.scale
    conv.options["strideW"] = 1
    shape = (number, height, width // 2, 2 * channels)
    paired = dataclasses.replace(x, name=f"{x.name}/pairs", shape=shape)
    new_shape = constant(f"{paired.name}/shape", shape, "int32")
    reshape = Operator("RESHAPE", [x, new_shape], paired, {"newShape": list(shape)})
    graph.operators.insert(graph.operators.index(pad), reshape)
    sides = [[0, 0], [top, bottom], [pairs_left, pairs - pairs_left - width // 2], [0, 0]]
    padded_shape = (number, height + top + bottom, pairs, 2 * channels)
    padded = dataclasses.replace(pad.output, name=f"{pad.output.name}/pairs", shape=padded_shape)
    pad.inputs, pad.output = [paired, constant(f"{padded.name}/padding", sides, "int32")], padded
    conv.inputs[0] = padded
