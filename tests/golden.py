"""Logits of every net with weights drawn from layer names, pinned in golden/logits.json.

    python tests/golden.py write     writes the file anew, after a change of architecture that is meant
    python tests/golden.py check     prints, as JSON, how far this backend's logits are from the file's

Batch normalization gets random statistics and gammas, so that no branch is hidden and every stride, padding,
epsilon and missing ReLU moves the result (STYLE.md, rule 10).
"""

import json
import pathlib
import sys
import zlib

import keras
import numpy as np

import keras_resnet
from keras_resnet.variants import VARIANTS

FILE = pathlib.Path(__file__).parent / "golden" / "logits.json"
TOLERANCE = 1e-4  # of the scale of the logits: kernels differ by 1.6e-6, the smallest fault by 6.6e-3
CLASSES = 10

# ResNet1202 takes a minute; it is built from the same rows and blocks as the other CIFAR nets.
CASES = {name: (name, {}) for name in keras_resnet.list_models() if name != "ResNet1202"} | {
    "ResNet18-A": ("ResNet18", {"shortcut": "A"}),
    "ResNet34-C": ("ResNet34", {"shortcut": "C"}),
    "ResNet50-v1.5": ("ResNet50", {"stride_in": "3x3"}),
    "ResNet20-B": ("ResNet20", {"shortcut": "B"}),
    "ResNet20-C": ("ResNet20", {"shortcut": "C"}),
    "ResNet20-None": ("ResNet20", {"shortcut": None}),
    "ResNet20-scaled": ("ResNet20", {"shortcut": "scaled"}),
    "ResNet20-gated": ("ResNet20", {"shortcut": "gated"}),
    "ResNet20-gated_shortcut": ("ResNet20", {"shortcut": "gated_shortcut"}),
    "ResNet20-dropout": ("ResNet20", {"shortcut": "dropout"}),
}
BACKEND_CASES = ("ResNet18-A", "ResNet50", "ResNet50-v1.5", "ResNet20", "PlainNet20", "ResNet50V2", "ResNet8")
BACKEND_CASES += ("ResNet50D", "SEResNet50", "ResNeXt50_32x4d")


def build(case):
    """The net of a case, or of a row of VARIANTS, small, with logits and seeded weights."""
    name, arguments = CASES.get(case, (case, {}))
    size = 2 * VARIANTS[name].total_strides if VARIANTS[name].image_size == 224 else 32
    model = keras_resnet.build(
        name,
        weights=None,
        input_shape=(size, size + 8, 3),
        classes=CLASSES,
        classifier_activation=None,
        **arguments,
    )
    seed_weights(model)
    return model


def seed_weights(model):
    """Sets every weight from a generator seeded by its layer's name and its own."""
    for layer in model.layers:
        layer.set_weights([_draw(layer.name, weight) for weight in layer.weights])


def _draw(layer_name, weight):
    rng = np.random.default_rng(zlib.crc32(f"{layer_name}/{weight.name}".encode()))
    shape = tuple(weight.shape)
    if weight.name == "kernel":
        return rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if weight.name == "gamma":
        return rng.uniform(0.4, 1.0, shape)
    if weight.name == "moving_variance":
        return rng.uniform(0.5, 1.5, shape)
    return 0.2 * rng.standard_normal(shape)


def logits(model):
    """Logits of two fixed images: (2, CLASSES)."""
    images = np.random.default_rng(0).standard_normal((2, *model.input_shape[1:])).astype("float32")
    return keras.ops.convert_to_numpy(model(images, training=False))


def deviation(case, model=None):
    """Largest difference from the pinned logits, as a share of the largest of them."""
    pinned = np.array(json.loads(FILE.read_text())["logits"][case])
    return float(np.abs(logits(model or build(case)) - pinned).max() / np.abs(pinned).max())


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        rows = {case: np.float64(logits(build(case))).tolist() for case in CASES}
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(json.dumps({"regenerate": "make golden", "logits": rows}, indent=1) + "\n")
    elif sys.argv[1:] == ["check"]:
        print(json.dumps({case: deviation(case) for case in BACKEND_CASES}))
    else:
        sys.exit(__doc__)
