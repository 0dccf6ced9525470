"""Our five basic formats of a model: `python -m benches.five_formats MODEL.keras FOLDER IMAGES.npy` in tests/.

Prints as JSON the seconds and the processor's, without imports and loading, and the largest memory in MiB.
"""

import json
import os
import sys
import time

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from benches.rounds import resident_mb  # noqa: E402

from export import calibration, flatbuffer, quantization, saved_model, walk  # noqa: E402
from export.formats import BASIC, FORMATS  # noqa: E402


def main(model, folder, images):
    """Makes one after the other; returns what is printed."""
    model, images = keras.saving.load_model(model, compile=False), np.load(images)
    start, processor = time.perf_counter(), time.process_time()
    graph = walk.from_keras(model, 1)
    ranges = calibration.observe(graph, images)
    for name in BASIC:
        path = os.path.join(folder, f"{model.name}{FORMATS[name].suffix}")
        if FORMATS[name].scheme is None:
            saved_model.write(model, path)
            continue
        with open(path, "wb") as file:
            file.write(flatbuffer.to_bytes(quantization.quantize(graph, FORMATS[name].scheme, ranges)))
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor,
        "peak_mb": resident_mb("VmHWM"),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
