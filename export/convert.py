"""SavedModel -> .tflite bytes: the one file that calls the converter and the quantizer.

As a command, `python convert.py REQUEST.json` converts once and ends: the converter leaks memory
(tensorflow#122598) and can abort its process, which must not be the exporter's.
"""

import json
import subprocess
import sys

import numpy as np

BLACK, WHITE = 0.0, 255.0


def convert(name, saved_model, output, *, float32_file=None, calibration_file=None):
    """Converts in a child process.

    Args:
        name: one of `CONVERTERS`.
        saved_model: folder written by `saved_model.write` with a fixed batch size.
        output: path of the `.tflite` file to write.
        float32_file: "dynamic" starts from this `.tflite` file.
        calibration_file: `.npy` of uint8 images (n, h, w, c), for "int8".
    Raises:
        RuntimeError: with the child's last words, if it fails.
    """
    request = {
        "name": name,
        "saved_model": saved_model,
        "output": output,
        "float32_file": float32_file,
        "calibration_file": calibration_file,
    }
    run_child(__file__, json.dumps(request))


def run_child(script, *arguments):
    """Runs a Python script with this interpreter; returns what it printed last.

    Raises:
        RuntimeError: with its last words, if it fails.
    """
    child = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    if child.returncode:
        words = child.stderr.strip().splitlines()[-3:]
        raise RuntimeError(f"The child process ended with code {child.returncode}: {' '.join(words)}")
    return (child.stdout.strip().splitlines() or [""])[-1]


def _float32(request):
    return _converter(request).convert()


def _float16(request):
    import tensorflow as tf

    converter = _converter(request)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _dynamic(request):
    from litert_quantizer import quantizer, recipe

    weights_in_int8 = quantizer.Quantizer(request["float32_file"], recipe.dynamic_wi8_afp32())
    return weights_in_int8.quantize().quantized_model


def _int8(request):
    import tensorflow as tf

    images = np.load(request["calibration_file"]).astype("float32")
    # One black and one white pixel make the input's range exactly 0 to 255: scale 1, zero point 0, so
    # that a device feeds raw pixels.
    images[0, 0, 0], images[0, 0, 1] = BLACK, WHITE
    converter = _converter(request, signature="pixels")
    batch_size = _batch_size(request)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [images[start : start + batch_size]] for start in range(0, len(images) - batch_size + 1, batch_size)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.int8
    return converter.convert()


def _converter(request, signature="serving_default"):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(request["saved_model"], signature_keys=[signature])
    # Flex operators would load TensorFlow on the device: never.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _batch_size(request):
    import tensorflow as tf

    signature = tf.saved_model.load(request["saved_model"]).signatures["pixels"]
    return signature.structured_input_signature[1]["image"].shape[0]


CONVERTERS = {"float32": _float32, "float16": _float16, "dynamic": _dynamic, "int8": _int8}

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    content = CONVERTERS[asked["name"]](asked)
    with open(asked["output"], "wb") as file:
        file.write(content)
