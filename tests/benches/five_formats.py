"""Our five basic formats of a model: `python -m benches.five_formats MODEL.keras FOLDER IMAGES.npy` in tests/.

Prints as JSON the seconds and the processor's, without imports and loading, and the largest memory in MiB.
"""

import json
import os
import sys

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from benches.rounds import spent  # noqa: E402

from export import pipeline  # noqa: E402
from export.formats import BASIC, FORMATS  # noqa: E402


def main(model, folder, images):
    """Makes one after the other; returns what is printed."""
    model, images = keras.saving.load_model(model, compile=False), np.load(images)

    def work():
        staged = pipeline.stage(model, folder, images, 1)
        for name in BASIC:
            pipeline.make(name, staged, os.path.join(folder, f"{model.name}{FORMATS[name].suffix}"))

    return spent(work)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
