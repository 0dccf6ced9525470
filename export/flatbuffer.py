"""From a `Graph` to the bytes of a `.tflite` file."""

import struct

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"
ALIGNMENT = 16  # bytes, of every buffer: what LiteRT's schema asks for (force_align)

# Operator -> its options in the schema, and its version by what it computes with: float32, int8, int16
# (tensorflow/lite/tools/versioning/op_version.cc). Older runtimes refuse files that ask for newer ones than they need.
# fmt: off
OPERATORS = {
    "CAST":            ("CastOptions",           (1, 1, 1)),
    "QUANTIZE":        ("QuantizeOptions",       (1, 1, 2)),
    "DEQUANTIZE":      ("DequantizeOptions",     (1, 2, 3)),
    "CONV_2D":         ("Conv2DOptions",         (1, 3, 4)),
    "FULLY_CONNECTED": ("FullyConnectedOptions", (1, 4, 7)),
    "ADD":             ("AddOptions",            (1, 2, 3)),
    "MUL":             ("MulOptions",            (1, 2, 4)),
    "PAD":             ("PadOptions",            (1, 2, 3)),
    "RESHAPE":         ("ReshapeOptions",        (1, 1, 1)),
    "RELU":            (None,                    (1, 2, 3)),
    "LOGISTIC":        (None,                    (1, 2, 3)),
    "SOFTMAX":         ("SoftmaxOptions",        (1, 2, 3)),
    "MAX_POOL_2D":     ("Pool2DOptions",         (1, 2, 3)),
    "AVERAGE_POOL_2D": ("Pool2DOptions",         (1, 2, 3)),
    "MEAN":            ("ReducerOptions",        (1, 2, 3)),
}
# fmt: on
COLUMNS = {"float32": 0, "uint8": 0, "float16": 2, "int8": 1, "int16": 2}
HYBRID_VERSIONS = {"CONV_2D": 5, "FULLY_CONNECTED": 12}  # float32 activations, integer weights with a scale a channel
INT4_VERSIONS = {"CONV_2D": 7, "FULLY_CONNECTED": 10}
GROUPED_VERSION = 6
NAMED_OPTIONS = {"padding": schema.Padding, "fusedActivationFunction": schema.ActivationFunctionType}
KINDS = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
TYPES = {
    name: getattr(schema.TensorType, name.upper())
    for name in ("float32", "float16", "uint8", "int8", "int16", "int32", "int64", "int4")
}


def to_bytes(graph, observed=()):
    """The file of a graph.

    Args:
        graph: `Graph`.
        observed: activations that the file gives as further outputs, beside the scores.
    Returns:
        bytes.
    """
    tensors = list(dict.fromkeys(_tensors(graph)))
    numbers = {tensor: number for number, tensor in enumerate(tensors)}
    buffers, buffer_numbers = [schema.BufferT()], {}
    for tensor in tensors:
        if tensor.data is not None:
            buffer_numbers[tensor] = len(buffers)
            buffers.append(_Buffer(_stored(tensor)))
    versions = {}  # of each kind the newest that any of its operators needs
    for operator in graph.operators:
        versions[operator.kind] = max(versions.get(operator.kind, 1), _version(operator))
    kinds = [*versions]
    subgraph = schema.SubGraphT(
        tensors=[_tensor(tensor, buffer_numbers.get(tensor, 0)) for tensor in tensors],
        inputs=[numbers[graph.image]],
        outputs=[numbers[tensor] for tensor in (graph.scores, *observed)],
        operators=[_operator(one, numbers, kinds) for one in graph.operators],
        name="main",
    )
    signature = schema.SignatureDefT(
        inputs=[_named("image", numbers[graph.image])],
        outputs=[_named("scores", numbers[graph.scores])],
        signatureKey="serving_default",
    )
    model = schema.ModelT(
        version=3,
        operatorCodes=[_code(*item) for item in versions.items()],
        subgraphs=[subgraph],
        description=graph.name,
        buffers=buffers,
        signatureDefs=[signature],
    )
    return pack(model)


def unpack(content):
    """The tables of a file, to be changed and packed again.

    Args:
        content: bytes of a `.tflite` file.
    Returns:
        `schema.ModelT`.
    Raises:
        ValueError: if it is no such file.
    """
    if content[4:8] != IDENTIFIER:
        raise ValueError(
            f"The content is not a .tflite file. Expected {IDENTIFIER!r} at byte 4. Received: {content[4:8]!r}."
        )
    try:
        model = schema.ModelT.InitFromPackedBuf(content)
    except (struct.error, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"The .tflite file is damaged. Expected whole tables. Received: {len(content)} bytes ({error}). "
            "Export or copy it again."
        ) from error
    model.buffers = [_inside(buffer, content) for buffer in model.buffers]
    return model


def _inside(buffer, content):
    """The buffer with its bytes in it, also where they stand behind the tables (litert-quantizer's files)."""
    data = buffer.data
    if buffer.offset > 1:  # 0 and 1: not given, by the schema
        data = np.frombuffer(content, "uint8", buffer.size, buffer.offset)
    return schema.BufferT() if data is None else _Buffer(np.asarray(data))


def pack(model):
    """The file of a model's tables, as `unpack` gives them.

    Args:
        model: `schema.ModelT`.
    Returns:
        bytes.
    """
    size = sum(buffer.data.nbytes for buffer in model.buffers if buffer.data is not None)
    entries = sum(len(one.tensors) + len(one.operators) + 8 for one in model.subgraphs)
    builder = flatbuffers.Builder(size + 1024 * entries)  # or it doubles as it grows
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def add_metadata(model, name, content):
    """Adds an entry of metadata, in place of one of the same name.

    Args:
        model: `schema.ModelT`.
        name: bytes.
        content: bytes.
    """
    model.metadata = [entry for entry in model.metadata or [] if entry.name != name]
    model.metadata.append(schema.MetadataT(name=name, buffer=len(model.buffers)))
    model.buffers.append(_Buffer(np.frombuffer(content, "uint8")))


def kind(model, operator):
    """Name of an operator in LiteRT's schema, or a custom operator's own.

    Args:
        model: `schema.ModelT`.
        operator: `schema.OperatorT` of it.
    """
    code = model.operatorCodes[operator.opcodeIndex]
    return code.customCode.decode() if code.customCode else KINDS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def add_code(model, kind, dtype):
    """Number of an operator's entry in the model, made or made newer where need be.

    Args:
        model: `schema.ModelT`.
        kind: one of OPERATORS.
        dtype: `schema.TensorType` that it computes with.
    Returns:
        int.
    """
    name = next(name for name, number in TYPES.items() if number == dtype)
    version = OPERATORS[kind][1][COLUMNS[name]]
    builtin = getattr(schema.BuiltinOperator, kind)
    for number, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            code.version = max(code.version, version)
            return number
    model.operatorCodes.append(_code(kind, version))
    return len(model.operatorCodes) - 1


class _Buffer(schema.BufferT):
    """A buffer whose bytes start at a multiple of ALIGNMENT, as the schema asks; the generated class forgets it."""

    def Pack(self, builder):  # noqa: N802 - the schema's name
        size = self.data.nbytes
        builder.StartVector(1, size, ALIGNMENT)
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = memoryview(self.data)
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _tensors(graph):
    yield graph.image
    for operator in graph.operators:
        yield from operator.inputs
        yield operator.output


def _stored(tensor):
    if tensor.dtype == "int4":  # two a byte, the first in the low half
        nibbles = tensor.data.ravel().astype("int8").view("uint8") & 0x0F
        nibbles = np.append(nibbles, np.zeros(len(nibbles) % 2, "uint8"))
        return nibbles[0::2] | nibbles[1::2] << 4
    return np.ascontiguousarray(tensor.data).reshape(-1).view("uint8")


def _tensor(tensor, buffer):
    quantization = None
    if tensor.scale is not None:
        scale = np.atleast_1d(np.asarray(tensor.scale, "float32"))
        quantization = schema.QuantizationParametersT(
            scale=scale,
            zeroPoint=np.full(len(scale), tensor.zero_point, "int64"),
            quantizedDimension=tensor.axis,
        )
    return schema.TensorT(
        shape=np.array(tensor.shape, "int32"),
        type=TYPES[tensor.dtype],
        buffer=buffer,
        name=tensor.name,
        quantization=quantization,
        hasRank=True,
    )


def _operator(operator, numbers, kinds):
    made = schema.OperatorT(
        opcodeIndex=kinds.index(operator.kind),
        inputs=[numbers[tensor] for tensor in operator.inputs],
        outputs=[numbers[operator.output]],
    )
    name, _ = OPERATORS[operator.kind]
    if name:
        values = {
            key: getattr(NAMED_OPTIONS[key], value) if key in NAMED_OPTIONS else value
            for key, value in operator.options.items()
        }
        made.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        made.builtinOptions = getattr(schema, f"{name}T")(**values)
    return made


def _version(operator):
    _, versions = OPERATORS[operator.kind]
    computes = operator.output.dtype if operator.kind == "QUANTIZE" else operator.activation.dtype
    weights = operator.inputs[1] if operator.kind in HYBRID_VERSIONS else None
    if weights is None:
        return versions[COLUMNS[computes]]
    if weights.dtype == "int4":
        return INT4_VERSIONS[operator.kind]
    if len(weights.shape) == 4 and weights.shape[3] != operator.activation.shape[3]:
        return GROUPED_VERSION
    if weights.dtype == "int8" and computes == "float32":
        return HYBRID_VERSIONS[operator.kind]
    return versions[COLUMNS[computes]]


def _code(kind, version):
    number = getattr(schema.BuiltinOperator, kind)
    return schema.OperatorCodeT(deprecatedBuiltinCode=min(number, 127), builtinCode=number, version=version)


def _named(name, number):
    return schema.TensorMapT(name=name, tensorIndex=number)
