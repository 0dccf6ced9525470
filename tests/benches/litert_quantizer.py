"""Files of litert-quantizer: `python -m benches.litert_quantizer FLOAT32.tflite FOLDER IMAGES.npy` in tests/.

Writes FOLDER/NAME.tflite for every name of RECIPES; prints as JSON why those that it refuses are absent.
"""

import json
import os
import sys

import numpy as np
from litert_quantizer import quantizer, recipe

ALGORITHMS = {
    "min-max": recipe.AlgorithmName.MIN_MAX_UNIFORM_QUANT,
    "MSE": recipe.AlgorithmName.MSE,
    "OCTAV": recipe.AlgorithmName.OCTAV,
}
MAKERS = {
    "dynamic": recipe.dynamic_wi8_afp32,
    "int8": recipe.static_wi8_ai8,
    "int16x8": recipe.static_wi8_ai16,
    "int4": recipe.dynamic_wi4_afp32,
}
RECIPES = {
    f"{name} {title}": (make, algorithm)
    for name, make in MAKERS.items()
    for title, algorithm in ALGORITHMS.items()
    if name != "int16x8" or title == "min-max"  # seconds an image; the others differed in no digit on CIFAR-10
}


def quantized(file, chosen, images):
    """Bytes of a float32 file in a recipe's numbers, calibrated where it asks for it."""
    one = quantizer.Quantizer(file, chosen)
    found = None
    if one.need_calibration:
        found = one.calibrate({"serving_default": [{"image": image[None]} for image in images]}, num_threads=2)
    return one.quantize(found, enable_progress_report=False).quantized_model


def main(file, folder, images):
    """Quantizes by every recipe; returns what is printed."""
    refused = {}
    for name, (make, algorithm) in RECIPES.items():
        try:
            content = quantized(file, make(algorithm), np.load(images))
        except ValueError as error:
            refused[name] = str(error)
            continue
        with open(os.path.join(folder, f"{name}.tflite"), "wb") as made:
            made.write(content)
    return refused


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
