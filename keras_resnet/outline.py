"""What a picture shows of a net: the layers of its main path and its shortcuts, told from the layers' names."""

import dataclasses
import re

import keras

from keras_resnet.blocks import channel_axis

IDENTITY, CHANGED, DIMENSIONS = "identity", "changed", "dimensions"  # kinds of shortcuts


@dataclasses.dataclass(frozen=True)
class Box:
    """One layer.

    Attributes:
        text: as the paper writes it: "3x3 conv, 64, /2".
        stage: 0 for the stem, from 1 for the stages, None for pooling and the classifier.
        block: name of its residual block, or None.
        size: height of its output, or None where it has none.
    """

    text: str
    stage: int | None
    block: str | None
    size: int | None


def boxes(model):
    """The layers of a net's main path, in order.

    Args:
        model: `keras.Model` of this package.
    Returns:
        list of `Box`.
    Raises:
        ValueError: if its layers are not named as this package names them.
    """
    found = [box for box in map(_box, model.layers) if box]
    if not any(box.block for box in found):
        raise ValueError(f"Expected a net of keras_resnet.list_models(). Received: model {model.name!r}.")
    return found


def _box(layer):
    """`Box` of a layer of the main path, or None."""
    place = re.match(r"(?:stem|stage(\d+)_(block\d+))_conv\d*$", layer.name)
    if place:
        block = f"stage{place[1]}_{place[2]}" if place[1] else None
        return Box(_conv_text(layer), int(place[1] or 0), block, _size(layer))
    gated = re.match(r"(stage(\d+)_block\d+)_se_conv1$", layer.name)
    if gated:
        return Box(f"squeeze and excite, {layer.filters}", int(gated[2]), gated[1], None)
    if layer.name == "stem_pool":
        return Box(f"{layer.pool_size[0]}x{layer.pool_size[0]} max pool, /{layer.strides[0]}", None, None, _size(layer))
    if layer.name in ("avg_pool", "max_pool"):
        return Box(layer.name.replace("_", " "), None, None, None)
    if layer.name == "predictions":
        return Box(f"fc {layer.units}", None, None, None)
    return None


def _conv_text(layer):
    kernel = "x".join(map(str, layer.kernel_size))
    strides = f", /{layer.strides[0]}" if layer.strides[0] > 1 else ""
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    dilation = f", rate {layer.dilation_rate[0]}" if layer.dilation_rate[0] > 1 else ""
    return f"{kernel} conv, {layer.filters}{groups}{strides}{dilation}"


def _size(layer):
    """Height of a layer's output, or None where it is not known."""
    return layer.output.shape[1 if channel_axis() == -1 else 2]


def shortcuts(model):
    """The shortcuts of a net.

    Args:
        model: `keras.Model` of this package.
    Returns:
        list of (name of the block, its kind), in order: `DIMENSIONS` where the dimensions change; else `IDENTITY`, or
        `CHANGED` where a layer stands in it, as a projection, a gate, a scale or dropout.
    """
    found, names = [], [layer.name for layer in model.layers]
    for layer in model.layers:
        block = re.match(r"(stage\d+_block\d+)_(add|out)$", layer.name)
        if not (block and isinstance(layer, keras.layers.Add)):
            continue
        source = model.get_layer(f"{block[1]}_conv1").input.shape
        strides = [getattr(other, "strides", (1,))[0] for other in model.layers if _is_main(other, block[1])]
        if max(strides) > 1 or source[channel_axis()] != layer.output.shape[channel_axis()]:
            kind = DIMENSIONS
        else:
            kind = CHANGED if any(name.startswith(f"{block[1]}_shortcut_") for name in names) else IDENTITY
        found.append((block[1], kind))
    return found


def _is_main(layer, block):
    return re.match(rf"{block}_conv\d$", layer.name) is not None
