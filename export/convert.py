"""SavedModel -> .tflite by TFLiteConverter, for models with layers that `walk` does not know.

The one file that calls the converter. As a command, `python convert.py REQUEST.json` converts once and ends: the
converter leaks memory (tensorflow#122598) and can abort its process, which must not be the exporter's.
"""

import itertools
import json
import os
import subprocess
import sys

import numpy as np

import train

# Becomes a script that is killed when this process ends, be it by kill -9; it need not find this package.
BOUND = """
import sys
folder, parent, *arguments = sys.argv[1:]
sys.path.append(folder)
from train import workers
workers.become(int(parent), arguments)
"""

# What `pipeline` stages for the converter, in one folder.
FIXED_BATCH, CALIBRATION, FLOAT32 = "fixed_batch", "calibration.npy", "converted_float32.tflite"


def convert(name, folder, output, *, obstacle=""):
    """Converts in a child process.

    Args:
        name: a format, one of `CONVERTERS`.
        folder: holds FIXED_BATCH, the SavedModel of `saved_model.write_fixed`; for "int8" CALIBRATION, uint8 images
            (n, h, w, c); for "dynamic" FLOAT32, a converted file.
        output: path of the `.tflite` file to write.
        obstacle: why the converter is asked, in words.
    Raises:
        RuntimeError: with the child's last words, if it fails; or if the converter does not make this format.
    """
    if name not in CONVERTERS:
        raise RuntimeError(
            f"{name} is made of the layers of this package's nets alone. {obstacle} Formats for other models: "
            f"{', '.join(CONVERTERS)}."
        )
    run_child(__file__, json.dumps({"name": name, "folder": folder, "output": output}))


def run_child(script, *arguments):
    """Runs a Python script with this interpreter; returns what it printed last. It ends when this process does.

    Raises:
        RuntimeError: with its last words, if it fails.
    """
    bound = ["-P", "-c", BOUND, os.path.dirname(train.__path__[0]), str(os.getpid())]
    bound = bound if sys.platform == "linux" else []
    command = [sys.executable, *bound, "-P", script, *arguments]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"The child process ended with code {child.returncode}: {_last_words(child.stderr)}")
    return (child.stdout.strip().splitlines() or [""])[-1]


def _last_words(errors):
    """What went wrong, in a line, without the lines of code that a traceback shows before it."""
    _, traceback, told = errors.strip().rpartition("Traceback (most recent call last):\n")
    lines = [line for line in told.splitlines() if not line.startswith("INFO: ")]  # LiteRT's remark on its delegate
    if not traceback:
        return " ".join(lines[-3:])
    message = itertools.dropwhile(lambda line: line.startswith(" "), lines)
    return " ".join(line.strip() for line in message).removeprefix("ValueError: ").removeprefix("RuntimeError: ")


def _float32(folder):
    return _converter(folder).convert()


def _float16(folder):
    import tensorflow as tf

    converter = _converter(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _dynamic(folder):
    from litert_quantizer import quantizer, recipe

    weights_in_int8 = quantizer.Quantizer(os.path.join(folder, FLOAT32), recipe.dynamic_wi8_afp32())
    return weights_in_int8.quantize().quantized_model


def _int8(folder):
    import tensorflow as tf

    images = np.load(os.path.join(folder, CALIBRATION)).astype("float32")
    # One black and one white pixel make the input's range exactly 0 to 255: scale 1, zero point 0, so
    # that a device feeds raw pixels.
    images[0, 0, 0], images[0, 0, 1] = 0.0, 255.0
    converter = _converter(folder, signature="pixels")
    batch_size = _batch_size(folder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [images[start : start + batch_size]] for start in range(0, len(images) - batch_size + 1, batch_size)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    return converter.convert()


def _converter(folder, signature="serving_default"):
    import tensorflow as tf

    saved_model = os.path.join(folder, FIXED_BATCH)
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[signature])
    # Flex operators would load TensorFlow on the device: never.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _batch_size(folder):
    import tensorflow as tf

    signature = tf.saved_model.load(os.path.join(folder, FIXED_BATCH)).signatures["pixels"]
    return signature.structured_input_signature[1]["image"].shape[0]


CONVERTERS = {"float32": _float32, "float16": _float16, "dynamic": _dynamic, "int8": _int8}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    content = CONVERTERS[asked["name"]](asked["folder"])
    with open(asked["output"], "wb") as file:
        file.write(content)
