"""Real trained nets in torchvision's names, through our layers: the architecture against torch's own numbers."""

import re

import numpy as np
import pytest

import keras_resnet
from train import predictor, scoring

pytestmark = pytest.mark.slow
MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))


def load(model, path):
    """Copies torchvision's arrays into our layers; layers count from 1, theirs from 0."""
    tensors = {name.removeprefix("module."): array.astype("float32") for name, array in np.load(path).items()}
    used = set()

    def take(name, default=None):
        used.add(name)
        return tensors.get(name, default)

    for layer in model.layers:
        theirs = torch_name(layer.name, tensors)
        if not layer.weights:
            continue
        kernel = take(f"{theirs}.weight")
        if layer.name == "predictions":
            layer.set_weights([kernel.T, take(f"{theirs}.bias")])
        elif kernel.ndim == 4:
            layer.set_weights([kernel.transpose(2, 3, 1, 0)])
        else:
            zeros, ones = np.zeros(kernel.shape), np.ones(kernel.shape)
            mean, variance = take(f"{theirs}.running_mean", zeros), take(f"{theirs}.running_var", ones)
            layer.set_weights([kernel, take(f"{theirs}.bias"), mean, variance])
    assert {name for name in tensors if not name.endswith("num_batches_tracked")} <= used


def torch_name(name, tensors):
    head = "fc" if "fc.weight" in tensors else "linear"
    name = {"stem_conv": "conv1", "stem_bn": "bn1", "predictions": head}.get(name, name)
    match = re.match(r"stage(\d)_block(\d+)_(.+)", name)
    if not match:
        return name
    part = {"shortcut_conv": "downsample.0", "shortcut_bn": "downsample.1"}.get(match[3], match[3])
    return f"layer{match[1]}.{int(match[2]) - 1}.{part}"


def normalized(images):
    return ((images / 255 - MEAN) / STD).astype("float32")


@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_logits_are_torchs(shared_data, depth):
    stride = {"stride_in": "3x3"} if depth == 50 else {}
    model = keras_resnet.build(f"ResNet{depth}", weights=None, classifier_activation=None, **stride)
    load(model, shared_data / "weights" / f"imagenet_resnet{depth}.npz")
    with np.load(shared_data / "imagenet_reference_16.npz") as reference:
        images = next(array for array in reference.values() if array.dtype == np.uint8)
        expected = next(array for name, array in reference.items() if array.shape == (16, 1000) and str(depth) in name)
    logits = model.predict_on_batch(normalized(images))
    assert np.abs(logits - expected).max() < 2e-3
    assert np.array_equal(logits.argmax(1), expected.argmax(1))


def test_cifar_resnet20_scores_what_is_published(shared_data):
    import tensorflow_datasets as tfds

    model = keras_resnet.ResNet20(classifier_activation=None)
    load(model, shared_data / "weights" / "cifar10_resnet20.npz")
    rows = tfds.builder("cifar10", data_dir=shared_data / "tfds").as_dataset("test").as_numpy_iterator()
    rows = sorted(rows, key=lambda row: row["id"])
    images, labels = np.stack([row["image"] for row in rows]), np.array([row["label"] for row in rows])
    logits = predictor.from_keras(model).predict(normalized(images))
    assert np.abs(logits - np.load(shared_data / "cifar10_resnet20_test_logits.npy")).max() < 2e-3
    assert scoring.score(logits, labels).top1 == 0.9150
