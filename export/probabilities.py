"""Makes a file's scores probabilities, as apps show them."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer

NORMALIZED = ("SOFTMAX", "LOGISTIC")  # operators whose outputs are probabilities already
PASSING = ("QUANTIZE", "DEQUANTIZE")  # operators that change how a number is stored
# The one scale and zero point that LiteRT's int8 SOFTMAX may have (tensorflow/lite/kernels/activations.cc).
STORED = schema.QuantizationParametersT(scale=np.array([1 / 256], "float32"), zeroPoint=np.array([-128], "int64"))


def append(content, in_integers=False):
    """The same net with a softmax at its end, in float32 unless asked otherwise.

    Why: a net's scores are logits, of which MediaPipe's `ImageClassifier` and an app's user would see numbers such as
    11.3; and MediaPipe refuses int8 outputs (classification_postprocessing_graph.cc takes float32, uint8 and bool).
    Why in float32, behind DEQUANTIZE where the scores are integers: softmax keeps the order of the logits, so that the
    classes rank exactly as in the file that was verified, whereas 8 bits of probability (steps of 1/256) make most
    of 1,000 classes equal. It costs two operators on as many numbers as there are classes. What runs on integers
    alone (Edge TPU, Ethos-U) has to take these steps.

    Args:
        content: bytes of an image classifier's `.tflite` file.
        in_integers: whether int8 scores become int8 probabilities, 1/256 * (stored + 128).
    Returns:
        bytes of one from the same images to probabilities (n, classes).
    Raises:
        ValueError: if it is no such file.
    """
    model = flatbuffer.unpack(content)
    (subgraph,) = model.subgraphs
    (output,) = subgraph.outputs
    is_normalized = flatbuffer.kind(model, _maker(model, output)) in NORMALIZED
    dtype = subgraph.tensors[output].type
    if dtype != schema.TensorType.FLOAT32 and not (in_integers and dtype == schema.TensorType.INT8):
        dtype = schema.TensorType.FLOAT32
        _add(model, "DEQUANTIZE", schema.DequantizeOptionsT(), dtype)
    if not is_normalized:
        _add(model, "SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), dtype)
    return flatbuffer.pack(model)


def has(content):
    """Whether a file's scores are probabilities already."""
    model = flatbuffer.unpack(content)
    return flatbuffer.kind(model, _maker(model, model.subgraphs[0].outputs[0])) in NORMALIZED


def logit_step(content):
    """What one step of a file's stored logits is worth; 0.0 where they are no integers.

    Args:
        content: bytes of an image classifier's `.tflite` file, with or without softmax.
    """
    model = flatbuffer.unpack(content)
    (subgraph,) = model.subgraphs
    maker = _maker(model, subgraph.outputs[0])
    if flatbuffer.kind(model, maker) in NORMALIZED:
        maker = _maker(model, maker.inputs[0])
    quantization = subgraph.tensors[maker.outputs[0]].quantization
    has_scale = quantization is not None and quantization.scale is not None and len(quantization.scale)
    return float(quantization.scale[0]) if has_scale else 0.0


def _maker(model, number):
    """The operator that computed a tensor, before it was stored in another way."""
    (subgraph,) = model.subgraphs
    makers = {operator.outputs[0]: operator for operator in subgraph.operators}
    while flatbuffer.kind(model, makers[number]) in PASSING:
        number = makers[number].inputs[0]
    return makers[number]


def _add(model, kind, options, dtype):
    """Puts an operator behind the output, whose result of that `schema.TensorType` is the new output."""
    (subgraph,) = model.subgraphs
    (before,) = subgraph.outputs
    source = subgraph.tensors[before]
    after = len(subgraph.tensors)
    subgraph.tensors.append(
        schema.TensorT(
            shape=np.array(source.shape, "int32"),
            type=dtype,
            buffer=0,
            quantization=STORED if dtype == schema.TensorType.INT8 else None,
            name=f"probabilities/{kind.lower()}",
            hasRank=True,
        )
    )
    made = schema.OperatorT(opcodeIndex=flatbuffer.add_code(model, kind, source.type), inputs=[before], outputs=[after])
    made.builtinOptionsType = getattr(schema.BuiltinOptions, flatbuffer.OPERATORS[kind][0])
    made.builtinOptions = options
    subgraph.operators.append(made)
    subgraph.outputs = [after]
    for signature in model.signatureDefs or []:
        for named in signature.outputs:
            if named.tensorIndex == before:
                named.tensorIndex = after
