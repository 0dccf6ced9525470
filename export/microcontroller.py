"""C++ sources of a file for TensorFlow Lite Micro: the file as an array, and the operators that it needs."""

import os
import re

from export import flatbuffer, templates

ALIGNMENT = 16  # bytes: TensorFlow Lite Micro reads the flatbuffer where it lies
BYTES_A_LINE = 16
SUFFIXES = ("_model_data.cc", "_model_data.h", "_op_resolver.h")
# Kind -> the method that adds it: tensorflow/lite/micro/micro_mutable_op_resolver.h of tflite-micro.
METHODS = {
    "ADD": "AddAdd",
    "AVERAGE_POOL_2D": "AddAveragePool2D",
    "CAST": "AddCast",
    "CONV_2D": "AddConv2D",
    "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
    "DEQUANTIZE": "AddDequantize",
    "FULLY_CONNECTED": "AddFullyConnected",
    "LOGISTIC": "AddLogistic",
    "MAX_POOL_2D": "AddMaxPool2D",
    "MEAN": "AddMean",
    "MUL": "AddMul",
    "PAD": "AddPad",
    "QUANTIZE": "AddQuantize",
    "RELU": "AddRelu",
    "RESHAPE": "AddReshape",
    "SOFTMAX": "AddSoftmax",
}


def sources(content, stem):
    """The sources of one file.

    Args:
        content: bytes of a `.tflite` file that `targets.check(content, "tflm")` finds nothing in.
        stem: name of the file without its extension.
    Returns:
        dict from file name to text: the array, its header, and a resolver with exactly the operators of the file.
    """
    model = flatbuffer.unpack(content)
    kinds = sorted({flatbuffer.kind(model, operator) for operator in model.subgraphs[0].operators})
    symbol = re.sub(r"^(?=\d)", "model_", re.sub(r"[^A-Za-z0-9]", "_", stem))  # a C++ name begins with no digit
    guard, kind = symbol.upper(), "".join(word.capitalize() for word in symbol.split("_"))
    rows = (content[start : start + BYTES_A_LINE] for start in range(0, len(content), BYTES_A_LINE))
    words = {
        "STEM": stem,
        "SYMBOL": symbol,
        "GUARD": guard,
        "KIND": kind,
        "ALIGNMENT": ALIGNMENT,
        "SIZE": len(content),
        "COUNT": len(kinds),
        "ARRAY": "\n".join("  " + " ".join(f"0x{byte:02x}," for byte in row) for row in rows),
        "CALLS": "\n".join(f"  TF_LITE_ENSURE_STATUS(resolver.{METHODS[one]}());" for one in kinds),
    }
    return {f"{stem}{suffix}": templates.filled(f"microcontroller{suffix}", words) for suffix in SUFFIXES}


def write(path):
    """Writes the sources of a file beside it; returns their paths."""
    stem, _ = os.path.splitext(path)
    with open(path, "rb") as file:
        texts = sources(file.read(), os.path.basename(stem))
    written = [os.path.join(os.path.dirname(path), name) for name in texts]
    for one, text in zip(written, texts.values(), strict=True):
        with open(one, "w", encoding="utf-8") as file:
            file.write(text)
    return written
