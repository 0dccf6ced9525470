"""Makes a file's scores probabilities, as apps show them."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from export import flatbuffer

NORMALIZED = ("SOFTMAX", "LOGISTIC")  # operators whose outputs are probabilities already
PASSING = ("QUANTIZE", "DEQUANTIZE")  # operators that change how a number is stored


def append(content):
    """The same net with a softmax at its end, in float32.

    Why: a net's scores are logits, of which MediaPipe's `ImageClassifier` and an app's user would see numbers such as
    11.3; and MediaPipe refuses int8 outputs (classification_postprocessing_graph.cc takes float32, uint8 and bool).
    Why in float32, behind DEQUANTIZE where the scores are integers: softmax keeps the order of the logits, so that the
    classes rank exactly as in the file that was verified, whereas 8 bits of probability (steps of 1/256) make most
    of 1,000 classes equal. It costs two operators on as many numbers as there are classes. What runs on integers
    alone (Edge TPU, microcontrollers) takes the file beside the bundle.

    Args:
        content: bytes of an image classifier's `.tflite` file.
    Returns:
        bytes of one from the same images to float32 probabilities (n, classes).
    Raises:
        ValueError: if it is no such file.
    """
    model = flatbuffer.unpack(content)
    (subgraph,) = model.subgraphs
    is_normalized = _made_by(model, subgraph) in NORMALIZED
    (output,) = subgraph.outputs
    if subgraph.tensors[output].type != schema.TensorType.FLOAT32:
        _add(model, "DEQUANTIZE", schema.DequantizeOptionsT())
    if not is_normalized:
        _add(model, "SOFTMAX", schema.SoftmaxOptionsT(beta=1.0))
    return flatbuffer.pack(model)


def _made_by(model, subgraph):
    """Name of the operator that computed the output."""
    makers = {operator.outputs[0]: operator for operator in subgraph.operators}
    number = subgraph.outputs[0]
    while (kind := flatbuffer.kind(model, makers[number])) in PASSING:
        number = makers[number].inputs[0]
    return kind


def _add(model, kind, options):
    """Puts an operator behind the output, whose float32 result is the new output."""
    (subgraph,) = model.subgraphs
    (before,) = subgraph.outputs
    source = subgraph.tensors[before]
    after = len(subgraph.tensors)
    subgraph.tensors.append(
        schema.TensorT(
            shape=np.array(source.shape, "int32"),
            type=schema.TensorType.FLOAT32,
            buffer=0,
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
