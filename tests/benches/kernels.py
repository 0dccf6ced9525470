"""How far LiteRT's own kernels agree on an int8 file: `python -m benches.kernels MODEL.keras IMAGES` in tests/.

Of a model of `--qat` and so many test images of CIFAR-10: the share of scores that are the same, the share within one
step of their scale, and the largest difference in steps, for each two of XNNPACK (what LiteRT uses), its built-in
optimized and reference kernels, and the Keras model.
"""

import itertools
import os
import sys
import tempfile

import train

train.import_tensorflow_quietly()

import numpy as np  # noqa: E402
from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: E402
from benches.rounds import DATA  # noqa: E402

from export import pipeline  # noqa: E402
from train import data, input_pipeline, predictor  # noqa: E402

KERNELS = {
    "XNNPACK": OpResolverType.AUTO,
    "built-in": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def integers(path, kernels, images):
    """Scores int8 (n, classes) of a file, and their scale."""
    interpreter = Interpreter(path, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    (given,), (asked,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(asked["index"])[0])
    scale, zero_point = asked["quantization"]
    return (np.stack(found).astype("float64") - zero_point) * scale, scale


def main(path, num_images):
    """Prints a line for each two."""
    source = data.load("tfds:cifar10", data_dir=os.path.join(DATA, "tfds"))
    images, _, _ = input_pipeline.arrays(source, "test", int(num_images))
    model = predictor.load_keras(path)
    keras_model = predictor.from_keras(model)
    batches = np.array_split(images, -(-len(images) // 100))
    scores = {"Keras": np.concatenate([*map(keras_model.predict, batches)])}
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "int8.tflite")
        pipeline.make("int8", pipeline.stage(model, folder, None, 1), file)
        for name, kernels in KERNELS.items():
            scores[name], scale = integers(file, kernels, images)
    for first, second in itertools.combinations(scores, 2):
        steps = np.abs(scores[first] - scores[second]) / scale
        same, near = np.mean(steps < 0.01), np.mean(steps < 1.01)
        print(f"{first} and {second}: same {same:.1%}, within 1 step {near:.2%}, largest {steps.max():.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
