"""The table of targets: what each kind of hardware accepts of a `.tflite` file, and a check against it in words.

Static: the file is read, nothing is run. tests/test_targets.py holds the rows of microcontrollers and Ethos-U against
their own runtime and compiler, where these are installed.
"""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer
from export.formats import BASIC, FORMATS, QAT

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
DTYPES = {number: name.lower() for name, number in vars(schema.TensorType).items() if name[0] != "_"}
PARAMETERS = ("int32", "int64")  # of constants that are shapes, axes, paddings and biases, besides weights


@dataclasses.dataclass(frozen=True)
class Target:
    """What runs a file, and what it accepts.

    Attributes:
        title: its name in sentences.
        formats: names of `formats.FORMATS`: what is made for it where nothing else is asked for (the format that suits
            it best first, then every one of `formats.BASIC` that fits), and what a finding advises.
        operators: dict from kind to (highest version, dtypes of the activations that it may read); None: any.
        weights: pairs (activation, weights) of dtypes that convolutions and dense layers may have; None: any.
        batch: most images a call; None: any.
        max_rank: most dimensions of a tensor; None: any.
        rules: functions from `Node` to a finding, or "".
    """

    title: str
    formats: tuple
    operators: dict
    weights: tuple | None = None
    batch: int | None = None
    max_rank: int | None = None
    rules: tuple[Callable, ...] = ()


@dataclasses.dataclass(frozen=True)
class Node:
    """One operator as the rules see it.

    Attributes:
        kind: its name in LiteRT's schema.
        version: int.
        inputs: list of `schema.TensorT`.
        constants: list of numpy arrays or None, for the inputs.
        options: the options of its kind in the schema, or None.
    """

    kind: str
    version: int
    inputs: list
    constants: list
    options: object


def _pads_space_only(node):
    if node.kind != "PAD" or node.constants[1] is None:
        return ""
    sides = node.constants[1].view("int32").reshape(-1, 2)
    if not sides[0].any() and not sides[-1].any():
        return ""
    return (
        "pads channels; it may pad height and width alone. Build the net with shortcut='B', as ResNet8 and the "
        "ImageNet nets are"
    )


def _has_one_dense_scale(node):
    if node.kind != "FULLY_CONNECTED":
        return ""
    quantization = node.inputs[1].quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 1:
        return ""
    return f"has {len(quantization.scale)} scales of weights; it may have one"


def _pools_without_activation(node):
    if node.kind not in ("MAX_POOL_2D", "AVERAGE_POOL_2D", "CONCATENATION") or not node.options.fusedActivationFunction:
        return ""
    return "has a fused ReLU; it may have none. Put the ReLU in front of the pooling"


def _means_space_only(node):
    if node.kind != "MEAN" or node.constants[1] is None:
        return ""
    axes = {int(axis) % len(node.inputs[0].shape) for axis in node.constants[1].view("int32")}
    return "" if axes <= {1, 2} else f"averages over axes {sorted(axes)}; it may average over height and width alone"


def _softmaxes_few(node):
    if node.kind != "SOFTMAX" or node.inputs[0].shape[-1] <= 16_000:
        return ""
    return f"is over {node.inputs[0].shape[-1]:,} scores; it may be over 16,000. Train a net of fewer classes"


_8 = ("int8", "uint8")
_8_16 = (*_8, "int16")
_8_FLOAT = (*_8, "float32")
_MICRO = ("int8", "int16", "float32")
_NET = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL", "PAD", "RELU", "LOGISTIC", "SOFTMAX",
        "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "RESHAPE")  # fmt: skip

# Kind: (highest version, dtypes that it may read), None: any.
# fmt: off
# Tried on ai-edge-litert 2.3.0: versions raised in a file until it was refused (2026-11-21); of kinds that the nets tried
# have not (MUL and below), tensorflow/lite/core/kernels/register.cc. Older runtimes know fewer.
_CPU = {
    "CAST":              (9, None),
    "QUANTIZE":          (6, None),
    "DEQUANTIZE":        (9, None),
    "CONV_2D":           (8, None),
    "FULLY_CONNECTED":   (14, None),
    "ADD":               (6, None),
    "PAD":               (6, None),
    "MAX_POOL_2D":       (3, None),
    "MEAN":              (3, None),
    "MUL":               (7, None),
    "RELU":              (3, None),
    "LOGISTIC":          (3, None),
    "SOFTMAX":           (3, None),
    "AVERAGE_POOL_2D":   (3, None),
    "DEPTHWISE_CONV_2D": (7, None),
    "RESHAPE":           (1, None),
}
# tensorflow/lite/delegates/gpu/common/model_builder.cc (CheckMaxSupportedOpVersion; its tensors have four dimensions) and
# tensorflow/lite/tools/versioning/gpu_compatibility.cc (no CAST from uint8, no DEQUANTIZE of int16). Not tried: no phone.
_GPU = dict.fromkeys(_NET, (2, _8_FLOAT)) | {
    "CAST":              (None, ("float32", "int32")),
    "QUANTIZE":          (2, _8_FLOAT),
    "DEQUANTIZE":        (3, ("float16", *_8)),
    "CONV_2D":           (6, _8_FLOAT),
    "DEPTHWISE_CONV_2D": (6, _8_FLOAT),
    "FULLY_CONNECTED":   (9, _8_FLOAT),
    "MEAN":              (None, _8_FLOAT),
    "RESHAPE":           (None, _8_FLOAT),
}
# coral.ai/docs/edgetpu/models-intro, "Model requirements" and "Supported operations": 8 bits, fixed sizes, only the three
# innermost dimensions above 1. One scale in dense layers: the compiler (16.0, 2021) is older than such layers with a
# scale a channel (2024: tflite-micro#2602). Not tried: no device, and its compiler is not in a package registry.
_EDGETPU = dict.fromkeys((*_NET, "QUANTIZE"), (None, _8))
# SUPPORTED_OPS.md of Vela 5.2.0 (`vela --supported-ops-report`), Ethos-U55 and U65: feature maps of 8 or 16 bits,
# weights of 8, quantization parameters everywhere, MEAN of one image. Held against the compiler in the tests.
_ETHOS_U = dict.fromkeys((*_NET, "QUANTIZE"), (None, _8_16))
# github.com/tensorflow/tflite-micro, tensorflow/lite/micro/kernels: cast.cc, quantize_common.cc, dequantize_common.cc,
# conv_common.cc ("Hybrid models are not supported"), fully_connected_common.cc (a scale a channel since #2673, September
# 2024). Held against its runtime in the tests.
_TFLM = dict.fromkeys(_NET, (None, _MICRO)) | {
    "CAST":              (None, (*_MICRO, "int32")),
    "QUANTIZE":          (None, (*_MICRO, "int32", "uint8")),
    "DEQUANTIZE":        (None, _8_16),
}
_INT8, _INT16, _FLOAT = (("int8", "int8"), ("uint8", "uint8")), (("int16", "int8"),), (("float32", "float32"),)
_MICRO_PAIRS = (*_INT8, *_INT16, *_FLOAT, ("int8", "int4"))
_EDGETPU_RULES = (_pads_space_only, _has_one_dense_scale, _pools_without_activation, _means_space_only, _softmaxes_few)
_CPU_FORMATS = ("int8_cpu", "float32", "float16", "dynamic", "int8")

TARGETS = {
    #                 title                    formats                        operators  weights             batch rank  rules
    "cpu":     Target("LiteRT 2 on a CPU",     _CPU_FORMATS,                  _CPU),
    "gpu":     Target("LiteRT's GPU delegate", ("float16_float_io", "int8"),  _GPU,      None,               None, 4),
    "edgetpu": Target("the Edge TPU",          ("int8_edgetpu",),             _EDGETPU,  _INT8,              1,    4,    _EDGETPU_RULES),
    "ethos_u": Target("an Ethos-U NPU",        ("int8",),                     _ETHOS_U,  (*_INT8, *_INT16),  1),
    "tflm":    Target("TensorFlow Lite Micro", ("int8", "int8_float_io"),     _TFLM,     _MICRO_PAIRS),
}
# fmt: on


def default_formats(target, has_ranges):
    """Names of the formats that are made where none is asked for; `has_ranges`: of a quantization-aware model."""
    if target is None:
        return QAT if has_ranges else BASIC
    formats = TARGETS[target].formats
    # Files in float do not round as a quantization-aware model does, whose scores they would be held against.
    return tuple(name for name in formats if not has_ranges or FORMATS[name].scheme.activations != "float32")


def check(content, name, made=""):
    """What a target does not accept of a file.

    Args:
        content: bytes of a `.tflite` file.
        name: one of TARGETS.
        made: the format that the file is, which no finding then advises.
    Returns:
        list of str: what, how often, and what to change; empty where all of the file runs there.
    Raises:
        ValueError: if there is no such target, or it is no such file.
    """
    if name not in TARGETS:
        raise ValueError(f"Expected a target among {', '.join(TARGETS)}. Received: {name!r}.")
    target, model = TARGETS[name], flatbuffer.unpack(content)
    if len(model.subgraphs) != 1:
        return [f"{target.title} runs files of one graph; this one has {len(model.subgraphs)}. Export the net alone."]
    who = collections.defaultdict(collections.Counter)  # finding -> how many operators of which kind it is about
    for node in _nodes(model):
        for text in filter(None, _of_node(node, target)):
            who[text][node.kind] += 1
    found = [f"{_named(kinds)}: {text}" for text, kinds in who.items()]
    return [f"{target.title}: {text}{_advice(text, target, made)}" for text in (*_of_tensors(model, target), *found)]


def _named(kinds):
    return ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in kinds.items())


def _advice(text, target, made):
    others = [name for name in target.formats if name != made]
    return "." if ". " in text or not others else f". Use --formats={' or '.join(others)}."


def _of_tensors(model, target):
    """Shapes that are not fixed, have too many dimensions or hold more images than one."""
    (subgraph,) = model.subgraphs
    found = {}  # kept in order, each once
    for tensor in subgraph.tensors:
        shape, signature = _list(tensor.shape), _list(tensor.shapeSignature)
        if any(side < 1 for side in [*shape, *signature]):
            found["a tensor has no fixed shape. Export it with fixed height, width and --batch_size"] = None
        if target.max_rank and len(shape) > target.max_rank:
            found[f"a tensor has {len(shape)} dimensions; it takes up to {target.max_rank}. Reshape it"] = None
    image = subgraph.tensors[subgraph.inputs[0]]
    if target.batch and image.shape[0] > target.batch:
        found[f"it takes {target.batch} image a call; this file takes {image.shape[0]}. Export with --batch_size=1"] = (
            None
        )
    return [*found]


def _of_node(node, target):
    """Findings on one operator."""
    if node.kind not in target.operators:
        return ["not among its operators"]
    version, dtypes = target.operators[node.kind]
    read = DTYPES[node.inputs[0].type]
    found = [rule(node) for rule in target.rules]
    if version is not None and node.version > version:
        found.append(f"is of version {node.version}; it knows up to {version}")
    if dtypes is not None and read not in dtypes:
        found.append(f"reads {read}; it may read {', '.join(dtypes)}")
    elif node.kind in WEIGHTED and target.weights is not None:
        pair = (read, DTYPES[node.inputs[1].type])
        if pair not in target.weights:
            found.append(f"reads {pair[0]} with weights of {pair[1]}, which do not go together there")
    return found


def _nodes(model):
    (subgraph,) = model.subgraphs
    for operator in subgraph.operators:
        inputs = [subgraph.tensors[number] for number in operator.inputs if number >= 0]
        yield Node(
            flatbuffer.kind(model, operator),
            model.operatorCodes[operator.opcodeIndex].version,
            inputs,
            [_constant(model, tensor) for tensor in inputs],
            operator.builtinOptions,
        )


def _constant(model, tensor):
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) or DTYPES[tensor.type] not in PARAMETERS else np.asarray(data)


def _list(shape):
    return [] if shape is None else [int(side) for side in shape]
