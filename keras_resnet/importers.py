"""Weights of other people's nets into ours, and ours into theirs, exactly and completely.

Every source is brought to one canonical architecture: a bias before a batch normalization goes into its moving mean,
a difference of epsilon into its moving variance. Both are exact.
"""

import dataclasses
import re
import warnings
from collections.abc import Callable

import numpy as np

from keras_resnet import blocks, stored

NET_PREFIXES = ("stem_", "stage", "post_", "predictions")  # layers that make a net what it is
_TORCH = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
_TORCH |= {"moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one library names and counts the arrays of a ResNet.

    Attributes:
        title: for messages.
        layer_name: function from (our layer's name, the file's arrays) to theirs; None where they have no such layer.
        is_torch: arrays are named "LAYER.weight" and kernels are (out, in, h, w); else "LAYER/INDEX", (h, w, in, out).
        bn_epsilon: of their batch normalization.
        stride_in: of their bottlenecks; None: the layers' names tell.
    """

    title: str
    layer_name: Callable
    is_torch: bool
    bn_epsilon: float
    stride_in: str | None

    def array_name(self, layer, variable, index, arrays):
        """Name in the file of one weight of our layer, or None."""
        theirs = self.layer_name(layer, arrays)
        if theirs is None:
            return None
        return f"{theirs}.{_TORCH[variable]}" if self.is_torch else f"{theirs}/{index}"


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
        return {"stem_conv": "conv2d", "stem_bn": "batch_normalization", "predictions": "dense"}[name]
    stage = int(match[1])
    first_conv = 1 if stage == 1 else 3 * stage - 3
    kind, index = {
        "conv1": ("conv2d", first_conv),
        "conv2": ("conv2d", first_conv + 1),
        "shortcut_conv": ("conv2d", first_conv + 2),
        "bn1": ("batch_normalization", 2 * stage - 1),
        "bn2": ("batch_normalization", 2 * stage),
        "shortcut_bn": (None, 0),
    }[match[2]]
    return kind and f"{kind}_{index}"


# The key is an array that every file of the layout has.
LAYOUTS = {
    "stem_conv/0": Layout("keras_resnet", lambda name, _: name, False, blocks.BN_EPSILON, None),
    "stem_conv1/0": Layout("keras_resnet", lambda name, _: name, False, blocks.BN_EPSILON, None),
    "conv1.weight": Layout("torchvision or timm", torch_layer, True, 1e-5, "3x3"),
    "conv1.0.weight": Layout("timm", torch_layer, True, 1e-5, "3x3"),
    "conv1_conv/0": Layout("keras.applications", applications_layer, False, 1.001e-5, None),
    "conv2d/0": Layout("MLPerf Tiny", mlperf_layer, False, 1e-3, None),
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
        f"keras.applications or MLPerf Tiny. Received: {_few(source.arrays)} in {source.path!r}."
    )


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


def load(model, source):
    """Copies every weight of a file into a model, or none.

    A classifier of another number of classes stays out, and a first convolution of another number of channels is
    summed or tiled, each with a warning that says so. Of a whole net, a model without a top takes the rest.

    Args:
        model: built `keras.Model` of this package.
        source: `stored.StoredWeights`.
    Raises:
        ValueError: if an array of the file or a weight of the model is left over, or shapes differ; all are listed.
    """
    layout = layout_of(source)
    layers = {layer.name: layer for layer in model.layers if layer.name.startswith(NET_PREFIXES)}
    if layout.title == "keras_resnet":
        _check_layers(model, layers, source)
    plan, missing, unused = _plan(layers, layout, source)
    new_head, new_channels = _differences(layers, plan, layout, source)
    problems = [f"{name}: expected, not in the file" for name in missing]
    problems += [f"{name}: received {source.arrays[name].shape}, no such weight in the net" for name in unused]
    for layer, names in plan.items():
        if layer not in (new_head, new_channels):
            problems += _wrong_shapes(layers[layer], names, layout, source)
    if problems:
        raise ValueError(
            f"The weights are of another net than {model.name}: {len(problems)} arrays differ. File ({layout.title} "
            f"names): {source.path!r}.\n  " + "\n  ".join(problems)
        )
    for layer in layers.values():
        if hasattr(layer, "kernel_initializer"):
            # Zeros, to save the random draw; a copy of the model must start as the paper's.
            layer.kernel_initializer = blocks.he_normal()
    for name, names in plan.items():
        if name == new_head:
            layers[name].kernel.assign(layers[name].kernel_initializer(layers[name].kernel.shape))
        else:
            layers[name].load_own_variables(_values(layers[name], names, layout, source))


def _plan(layers, layout, source):
    """Dict from our layer to the names of its arrays in the file, None where they have none; names left over."""
    plan = {}
    for name, layer in layers.items():
        if not layer.weights:
            continue
        names = [
            layout.array_name(name, weight.name, index, source.arrays) for index, weight in enumerate(layer.weights)
        ]
        bias = layout.array_name(name, "bias", 1, source.arrays)
        if [weight.name for weight in layer.weights] == ["kernel"] and bias in source.arrays:
            names.append(bias)
        plan[name] = names
    used = [name for names in plan.values() for name in names if name is not None]
    repeated = {name for name in used if used.count(name) > 1} if len({*used}) < len(used) else set()
    missing = sorted({name for name in used if name not in source.arrays} | repeated)
    unused = {*source.arrays} - {*used}
    if layout.title == "keras_resnet":
        unused = {name for name in unused if name.startswith(NET_PREFIXES)}
    if "predictions" not in layers:
        unused -= _head_names(layout, source)
    return plan, missing, sorted(unused)


def _head_names(layout, source):
    return {
        layout.array_name("predictions", variable, i, source.arrays) for i, variable in enumerate(("kernel", "bias"))
    }


def _differences(layers, plan, layout, source):
    """Names of the layers whose shape may differ: the head and the first convolution; warned of."""
    new_head = new_channels = None
    head = layers.get("predictions")
    found = _shape(plan.get("predictions"), layout, source)
    ours = tuple(head.kernel.shape) if head else None
    if ours and found and found != ours and found[:1] == ours[:1]:
        new_head = "predictions"
        warnings.warn(
            f"The file has {found[1]} classes and the model {ours[1]}: the classifier starts from random weights. "
            f"Pass classes={found[1]} to keep the file's.",
            stacklevel=5,
        )
    first = next((name for name in layers if name.startswith("stem_conv") and layers[name].weights), None)
    found = _shape(plan.get(first), layout, source)
    if found and len(found) == 4:
        ours = tuple(layers[first].kernel.shape)
        if found != ours and found[:2] == ours[:2] and found[3] == ours[3]:
            new_channels = first
            warnings.warn(
                f"The file's images have {found[2]} channels and the model's {ours[2]}: the first convolution is "
                f"{'summed over' if ours[2] == 1 else 'tiled along'} them.",
                stacklevel=5,
            )
    return new_head, new_channels


def _shape(names, layout, source):
    """Shape of a kernel of the file in Keras's order, or None."""
    if not names or names[0] not in source.arrays:
        return None
    shape = source.arrays[names[0]].shape
    if not layout.is_torch:
        return shape
    return (shape[1], shape[0]) if len(shape) == 2 else (*shape[2:], shape[1], shape[0])


def _wrong_shapes(layer, names, layout, source):
    problems = []
    for weight, name in zip(layer.weights, names, strict=False):
        if name not in source.arrays:
            continue
        shape = source.arrays[name].shape
        found = _shape([name], layout, source) if weight.name == "kernel" else shape
        if found != tuple(weight.shape):
            problems.append(f"{name}: expected {tuple(weight.shape)} of {layer.name}/{weight.name}, received {found}")
    return problems


def _values(layer, names, layout, source):
    """Arrays of one layer in Keras's order of weights, brought to the canonical architecture."""
    conv = re.sub(r"bn(\d?)$", r"conv\1", layer.name)
    is_bn = layer.name != conv
    if names[0] is None:  # they have no such batch normalization: one that does nothing
        size = layer.gamma.shape
        values = [np.ones(size), np.zeros(size), np.zeros(size), np.full(size, 1.0 - layer.epsilon)]
    else:
        values = [source.arrays[name].read() for name in names[: len(layer.weights)]]
        if is_bn:
            values[3] = values[3] + (layout.bn_epsilon - blocks.BN_EPSILON)
    if is_bn:
        bias = layout.array_name(conv, "bias", 1, source.arrays)
        if bias in source.arrays:
            values[2] = values[2] - source.arrays[bias].read()
    elif values[0].ndim == 4:
        values[0] = values[0].transpose(2, 3, 1, 0) if layout.is_torch else values[0]
        values[0] = _with_channels(values[0], layer.kernel.shape[2])
    elif values[0].ndim == 2 and layout.is_torch:
        values[0] = values[0].T
    return {str(index): np.asarray(value, "float32") for index, value in enumerate(values)}


def _with_channels(kernel, channels):
    """First kernel for images of other channels: one takes the sum, more repeat it at the same total weight."""
    given = kernel.shape[2]
    if given == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % given] * (given / channels)


def export_weights(model, path):
    """Writes a net's weights in torchvision's names, for torch users: `.safetensors`, float32.

    Args:
        model: net of this package, as built or as loaded from a file; not V2.
        path: file to write, ending in ".safetensors"; an existing one is replaced.
    Raises:
        ValueError: if the model has layers that torch's ResNets have not, or the path ends otherwise.
    """
    if not str(path).endswith(".safetensors"):
        raise ValueError(f"Expected a path that ends in .safetensors. Received: {str(path)!r}.")
    layers = [layer for layer in model.layers if layer.name.startswith(NET_PREFIXES) and layer.weights]
    if not layers or any(layer.name == "post_bn" for layer in layers):
        raise ValueError(
            "Expected a net of keras_resnet in torchvision's layout, ResNet18 to SEResNet50 or a CIFAR net. "
            f"Received: model {model.name!r}."
        )
    is_deep = any(layer.name == "stem_conv2" for layer in layers)
    arrays = {}
    for layer in layers:
        theirs = torch_layer(layer.name, {})
        if is_deep and "_shortcut_" in layer.name:  # ResNet-D: the pooling is their item 0
            theirs = theirs[:-1] + str(int(theirs[-1]) + 1)
        for weight in layer.weights:
            value = np.asarray(weight.numpy() if hasattr(weight, "numpy") else weight, "float32")
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            arrays[f"{theirs}.{_TORCH[weight.name]}"] = value
            if weight.name == "moving_mean":
                arrays[f"{theirs}.num_batches_tracked"] = np.array(0, "int64")
    stored.save_safetensors(path, arrays)


def _check_layers(model, layers, source):
    """Our own files name layers without weights too, which tells nets of equal shapes apart."""
    dilated = any(getattr(layer, "dilation_rate", (1, 1)) != (1, 1) for layer in layers.values())
    ignored = r".*_(pad|pool)$" if dilated else r"$"
    expected = {name for name in layers if not re.match(ignored, name)}
    received = {name for name in source.layers if name.startswith(NET_PREFIXES) and not re.match(ignored, name)}
    received -= {"predictions"} - expected
    if expected != received:
        raise ValueError(
            f"The weights are of another net than {model.name}. Expected layers that the file lacks: "
            f"{_few(expected - received)}. Received layers that the net lacks: {_few(received - expected)}. "
            f"File: {source.path!r}."
        )


def _few(names, most=5):
    rows = sorted(names)
    return (", ".join(rows[:most]) + (f" and {len(rows) - most} more" if len(rows) > most else "")) or "none"
