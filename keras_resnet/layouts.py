"""How other libraries name and count the arrays of a ResNet: a row a library."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from keras_resnet import blocks, stored
from keras_resnet.preprocessing import CAFFE, RAW, SLIM, Preprocessing

TORCH_VARIABLES = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
TORCH_VARIABLES |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one library names and counts the arrays of a ResNet.

    Attributes:
        title: for messages.
        layer_name: function from (our layer's name, the file's arrays) to theirs; None where they have no such layer.
        is_torch: arrays are named "LAYER.weight" and kernels are (out, in, h, w); else "LAYER/INDEX", (h, w, in, out).
        bn_epsilon: of their batch normalization.
        stride_in: of their bottlenecks; None: the layers' names tell.
        preprocessing: function from a variant to the `Preprocessing` of their nets; None: they do not fix one.
    """

    title: str
    layer_name: Callable
    is_torch: bool
    bn_epsilon: float
    stride_in: str | None
    preprocessing: Callable | None = None

    def array_name(self, layer, variable, index, arrays):
        """Name in the file of one weight of our layer, or None."""
        theirs = self.layer_name(layer, arrays)
        if theirs is None:
            return None
        return f"{theirs}.{TORCH_VARIABLES[variable]}" if self.is_torch else f"{theirs}/{index}"


def torch_layer(name, arrays):
    """Name in torchvision's and timm's ResNets, and in the CIFAR nets that call the head "linear"."""
    match = re.match(r"stage(\d)_block(\d+)_(.+)", name)
    if match:
        block = f"layer{match[1]}.{int(match[2]) - 1}"
        if match[3].startswith("shortcut_"):
            holder = "shortcut" if any(f"{block}.shortcut.0" in other for other in arrays) else "downsample"
            # ResNet-D pools first, so that its convolution has index 1.
            second = arrays.get(f"{block}.{holder}.1.weight") if arrays else None
            first = 1 if second and len(second.shape) == 4 else 0
            return f"{block}.{holder}.{first + (match[3] == 'shortcut_bn')}"
        return f"{block}.{match[3].replace('se_conv', 'se.fc')}"
    stem = re.match(r"stem_(conv|bn)(\d?)$", name)
    if stem and stem[2]:  # the deep stem: conv1 is a sequence conv, bn, relu, conv, bn, relu, conv
        return "bn1" if name == "stem_bn3" else f"conv1.{3 * (int(stem[2]) - 1) + (stem[1] == 'bn')}"
    if stem:
        return f"{stem[1]}1"
    return "linear" if "linear.weight" in arrays else "fc"


def applications_layer(name, arrays):
    """Name in keras.applications' ResNet50 to ResNet152V2: conv2_block1_0_conv is the first stage's shortcut."""
    match = re.match(r"stage(\d)_block(\d+)_(.+)", name)
    if match:
        part = {"shortcut_conv": "0_conv", "shortcut_bn": "0_bn"}.get(match[3])
        part = part or re.sub(r"(conv|bn)(\d)$", r"\2_\1", match[3])
        return f"conv{int(match[1]) + 1}_block{match[2]}_{part}"
    return {"stem_conv": "conv1_conv", "stem_bn": "conv1_bn"}.get(name, name)


def mlperf_layer(name, arrays):
    """Name in MLPerf Tiny's ResNet-8: conv2d, conv2d_1, ... in the order of creation; no BN on its projections."""
    match = re.match(r"stage(\d)_block1_(.+)", name)
    if not match:
        return {"stem_conv": "conv2d", "stem_bn": "batch_normalization", "predictions": "dense"}.get(name, name)
    stage = int(match[1])
    first_conv = 1 if stage == 1 else 3 * stage - 3
    kind, index = {
        "conv1": ("conv2d", first_conv),
        "conv2": ("conv2d", first_conv + 1),
        "shortcut_conv": ("conv2d", first_conv + 2),
        "bn1": ("batch_normalization", 2 * stage - 1),
        "bn2": ("batch_normalization", 2 * stage),
        "shortcut_bn": (None, 0),
    }.get(match[2], (name, 0))
    return kind and f"{kind}_{index}"


def _of_applications(variant):
    return SLIM if variant.preactivation else CAFFE


def _of_mlperf(variant):
    return Preprocessing(variant.image_size, variant.image_size, **RAW)


# The key is an array that every file of the layout has.
LAYOUTS = {
    "stem_conv/0": Layout("keras_resnet", lambda name, _: name, False, blocks.BN_EPSILON, None),
    "stem_conv1/0": Layout("keras_resnet", lambda name, _: name, False, blocks.BN_EPSILON, None),
    "conv1.weight": Layout("torchvision or timm", torch_layer, True, 1e-5, "3x3"),
    "conv1.0.weight": Layout("timm", torch_layer, True, 1e-5, "3x3"),
    "conv1_conv/0": Layout("keras.applications", applications_layer, False, 1.001e-5, "1x1", _of_applications),
    "conv2d/0": Layout("MLPerf Tiny", mlperf_layer, False, 1e-3, None, _of_mlperf),
}


def layout_of(source):
    """`Layout` of an open file.

    Args:
        source: `stored.StoredWeights`.
    Returns:
        `Layout`.
    Raises:
        ValueError: if the file holds no ResNet that is known.
    """
    for marker, layout in LAYOUTS.items():
        if marker in source.arrays:
            return layout
    raise ValueError(
        "The weights file holds no ResNet of a known layout. Expected names of keras_resnet, torchvision, timm, "
        f"keras.applications or MLPerf Tiny. Received: {stored.few(source.arrays)} in {source.path!r}."
    )


def preprocessing(source, variant, default):
    """What a file says of the images that its net was trained on.

    Args:
        source: `stored.StoredWeights`.
        variant: row of `VARIANTS`.
        default: `Preprocessing` for files that do not say.
    Returns:
        `Preprocessing`.
    """
    layout = layout_of(source)
    if layout.preprocessing:
        return layout.preprocessing(variant)
    if source.normalization is None:
        return default
    scale, offset = (np.ravel(values).astype("float64") for values in source.normalization)
    std = 1 / (255 * scale)
    return dataclasses.replace(default, mean=tuple((-offset * std).tolist()), std=tuple(std.tolist()))


def stride_in(source, allowed):
    """Which convolution of a bottleneck has the stride in the net that a file is of.

    Args:
        source: `stored.StoredWeights`.
        allowed: values of `stride_in` of the net to build.
    Returns:
        "1x1", "3x3" or None, one of `allowed`.
    """
    layout = layout_of(source)
    if layout.title == "keras_resnet" and any(name.startswith("stage2") for name in source.layers):
        # A strided 3x3 has an explicit padding layer, a strided 1x1 needs none.
        found = "3x3" if any(re.match(r"stage2_block\d+_conv2_pad", name) for name in source.layers) else "1x1"
    else:
        found = layout.stride_in or "1x1"
    return found if found in allowed else allowed[0]
