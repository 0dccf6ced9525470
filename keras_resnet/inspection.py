"""What a net costs, and the feature maps inside it."""

import math
import re

import keras

PYRAMID_LEVELS = ("C2", "C3", "C4", "C5")  # 4, 8, 16 and 32 input pixels per pixel


def count_flops(model):
    """Multiply-adds of one forward pass over one image, as He et al. 2015, table 1, counts them.

    Convolutions and dense layers count, one multiply-add a weight and output position; batch
    normalization, additions and pooling do not.

    Args:
        model: built `keras.Model` with known height and width.
    Returns:
        int.
    Raises:
        ValueError: if a side of the input is None.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += count_flops(layer)
        if getattr(layer, "kernel", None) is None:
            continue
        shape = list(layer.output.shape[1:])
        shape.pop(0 if getattr(layer, "data_format", "channels_last") == "channels_first" else -1)
        if None in shape:
            raise ValueError(
                "Multiply-adds depend on the image's size. Expected a model with known height and "
                f"width. Received: input shape {model.input_shape}. Build it with input_shape=(224, 224, 3)."
            )
        total += math.prod(layer.kernel.shape) * math.prod(shape)
    return total


def feature_pyramid(model):
    """The same net with the maps C2 to C5 as outputs, for detection and segmentation.

    C2 to C5 are the last activations (after ReLU) of 1/4, 1/8, 1/16 and 1/32 of the input's size
    (Lin et al. 2017, arXiv 1612.03144, section 3). Layers and weights are shared with `model`.

    Args:
        model: an ImageNet net of this package, as built or as loaded from a file.
    Returns:
        `keras.Model` with a dict of four outputs, "C2" to "C5": (n, h/4, w/4, c) to (n, h/32, w/32, c).
    Raises:
        ValueError: if the model has no such maps.
    """
    names = {layer.name for layer in model.layers}
    if "stem_pool" not in names or "stage4_block1_conv1" not in names:
        raise ValueError(
            "A feature pyramid needs the four stages of an ImageNet net, at strides 4, 8, 16 and 32. "
            f"Received: model {model.name!r}. Build ResNet18 to ResNet152, a PlainNet18 or 34, or a V2 net."
        )
    last_blocks = [_last_block(names, stage) for stage in range(1, 5)]
    if "post_relu" in names:  # V2 halves the size inside a stage's last block: the map before that
        layers = [f"{block}_preact_relu" for block in last_blocks[:3]] + ["post_relu"]
    else:
        layers = [f"{block}_out" for block in last_blocks]
    outputs = {level: model.get_layer(layer).output for level, layer in zip(PYRAMID_LEVELS, layers, strict=True)}
    return keras.Model(model.input, outputs, name=f"{model.name}_pyramid")


def _last_block(names, stage):
    blocks_found = [re.match(rf"stage{stage}_block(\d+)_conv1$", name) for name in names]
    return f"stage{stage}_block{max(int(match[1]) for match in blocks_found if match)}"
