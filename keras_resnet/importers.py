"""Weights of other people's nets into ours, and ours into theirs, exactly and completely.

Every source is brought to one canonical architecture: a bias before a batch normalization goes into its moving mean,
a difference of epsilon into its moving variance. Both are exact.
"""

import re
import warnings

import numpy as np

from keras_resnet import blocks, layouts, stored

NET_PREFIXES = ("stem_", "stage", "post_", "predictions")  # layers that make a net what it is


class AdaptedWeights(UserWarning):
    """Weights were loaded into a net of other classes or channels."""


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
    layout = layouts.layout_of(source)
    layers = {layer.name: layer for layer in model.layers if layer.name.startswith(NET_PREFIXES)}
    if layout.title == "keras_resnet":
        _check_layers(model, layers, source)
    plan, missing, unused = _plan(layers, layout, source)
    adapted = _adapted(layers, plan, layout, source)
    problems = [f"{name}: expected, not in the file" for name in missing]
    problems += [f"{name}: received {source.arrays[name].shape}, no such weight in the net" for name in unused]
    for layer, names in plan.items():
        if layer not in adapted:
            problems += _wrong_shapes(layers[layer], names, layout, source)
    if problems:
        raise ValueError(
            f"The weights are of another net than {model.name}: {len(problems)} arrays differ. File ({layout.title} "
            f"names): {source.path!r}.\n  " + "\n  ".join(problems)
        )
    for message in adapted.values():
        warnings.warn(message, AdaptedWeights, stacklevel=3)
    for layer in layers.values():
        if hasattr(layer, "kernel_initializer"):
            # Zeros, to save the random draw; a copy of the model must start as the paper's.
            layer.kernel_initializer = blocks.he_normal()
    for name, names in plan.items():
        if name == "predictions" and name in adapted:
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


def _adapted(layers, plan, layout, source):
    """Layers whose shape may differ, the classifier and the first convolution, with what is to be said of each."""
    adapted = {}
    head = layers.get("predictions")
    ours, found = tuple(head.kernel.shape) if head else None, _shape(plan.get("predictions"), layout, source)
    if ours and found and found != ours and found[:1] == ours[:1]:
        adapted["predictions"] = (
            f"The file has {found[1]} classes and the model {ours[1]}: the classifier starts from random weights. "
            f"Pass classes={found[1]} to keep the file's."
        )
    first = next((name for name in layers if name.startswith("stem_conv") and layers[name].weights), None)
    ours, found = tuple(layers[first].kernel.shape), _shape(plan.get(first), layout, source)
    if found and found != ours and (*found[:2], *found[3:]) == (*ours[:2], *ours[3:]):
        adapted[first] = (
            f"The file's images have {found[2]} channels and the model's {ours[2]}: the first convolution is "
            f"{'summed over' if ours[2] == 1 else 'tiled along'} them."
        )
    return adapted


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
        broken = [name for name, value in zip(names, values, strict=False) if not np.isfinite(value).all()]
        if broken:
            raise ValueError(f"The weights are not finite: {', '.join(broken)} in {source.path!r}.")
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
    bottleneck = any(layer.name == "stage1_block1_conv3" for layer in layers)
    for layer in layers:
        if layer.name.startswith("stage") and getattr(layer, "strides", (1, 1)) != (1, 1):
            of_paper = bottleneck and layer.name.endswith("_conv1")
            if of_paper or layer.padding == "same":
                kind = "1x1" if of_paper else "padded on one side"
                raise ValueError(
                    f"torch's ResNets have no such strided convolution: {layer.name}, {kind}. Expected a net with "
                    f"stride_in='3x3' and padding on both sides. Received: model {model.name!r}."
                )
    is_deep = any(layer.name == "stem_conv2" for layer in layers)
    arrays = {}
    for layer in layers:
        theirs = layouts.torch_layer(layer.name, {})
        if is_deep and "_shortcut_" in layer.name:  # ResNet-D: the pooling is their item 0
            theirs = theirs[:-1] + str(int(theirs[-1]) + 1)
        for weight in layer.weights:
            value = np.asarray(weight.numpy() if hasattr(weight, "numpy") else weight, "float32")
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            arrays[f"{theirs}.{layouts.TORCH_VARIABLES[weight.name]}"] = value
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
        lacking, extra = stored.few(expected - received), stored.few(received - expected)
        raise ValueError(
            f"The weights are of another net than {model.name}. Expected layers that the file lacks: {lacking}. "
            f"Received layers that the net lacks: {extra}. "
            f"File: {source.path!r}."
        )
