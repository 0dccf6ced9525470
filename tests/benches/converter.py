"""Plain TFLiteConverter calls: `python -m benches.converter MODEL FOLDER NAME[,NAME...] [IMAGES.npy]` in tests/.

MODEL is a .keras file from pixels 0 to 255, or "applications.ResNet50". Writes FOLDER/NAME.tflite, for "saved_model"
FOLDER/saved_model; prints as JSON the seconds and the processor's, without imports and loading, and the largest memory
in MiB.
"""

import json
import os
import sys

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from benches.rounds import spent  # noqa: E402

INTEGERS = {
    "int8": tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
    "int16x8": tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
}


def convert(model, name, images):
    """Bytes of the file that the converter makes with the settings of its documentation.

    Args:
        model: `keras.Model`.
        name: "float32", "float16", "dynamic", or one of INTEGERS.
        images: for INTEGERS: (n, h, w, c) to calibrate on.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if name != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if name in INTEGERS:
        converter.representative_dataset = lambda: ([image[None].astype("float32")] for image in images)
        converter.target_spec.supported_ops = [INTEGERS[name]]
    return converter.convert()


def open_model(name):
    """A model of one batch size, which its users fix: LiteRT's CPU delegate wants static shapes."""
    kind, _, net = name.partition(".")
    if kind == "applications":
        return getattr(keras.applications, net)(weights=None, input_tensor=keras.Input((224, 224, 3), batch_size=1))
    model = keras.saving.load_model(name, compile=False)
    image = keras.Input(model.input_shape[1:], batch_size=1)
    return keras.Model(image, model(image))


def main(model, folder, names, images=None):
    """Converts one after the other; returns what is printed."""
    model, images = open_model(model), np.load(images) if images else None

    def work():
        for name in names.split(","):
            if name == "saved_model":
                model.export(os.path.join(folder, name), verbose=False)
                continue
            content = convert(model, name, images)
            with open(os.path.join(folder, f"{name}.tflite"), "wb") as file:
                file.write(content)

    return spent(work)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
