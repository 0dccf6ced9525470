"""Weights files: what `weights=` accepts, and loading one completely or not at all."""

import contextlib
import os
import zipfile

from keras_resnet import blocks

_EXTENSIONS = (".keras", ".weights.h5")
_NET_PREFIXES = ("stem_", "stage", "post_", "predictions")  # layers that make a net what it is


def resolve(weights):
    """Path that `weights=` names, or None for random initialisation.

    Args:
        weights: None or the path of a file saved by Keras.
    Returns:
        str or None.
    Raises:
        ValueError: if there is no such file, or it is of a kind that cannot be loaded.
    """
    if weights is None:
        return None
    path = os.fspath(weights)
    expected = "Expected None, or the path of a .keras or .weights.h5 file"
    if path == "imagenet":
        raise ValueError(
            f"Published weights are not part of this version. {expected}. Received: weights='imagenet'. "
            "Pass weights=None to start from random weights."
        )
    if not os.path.exists(path):
        raise ValueError(
            f"The weights file does not exist. {expected}. Received: weights={path!r}, "
            f"which is {os.path.abspath(path)}."
        )
    if not path.endswith(_EXTENSIONS):
        raise ValueError(f"The weights file is of an unknown kind. {expected}. Received: weights={path!r}.")
    return path


def load(model, path):
    """Loads every weight of `model` by layer name, without running code from the file.

    Only arrays are read; the architecture in a `.keras` file is not deserialised. The layers' names,
    those without weights too, must be the file's, which tells nets of equal shapes apart (a plain
    net from a residual one, `stride_in`). Of a whole net, `include_top=False` leaves the classifier.

    Args:
        model: built `keras.Model`.
        path: `.keras` or `.weights.h5` file.
    Raises:
        ValueError: if the file is damaged, or not of this net; the model is then unchanged.
    """
    layers = {layer.name: layer for layer in model.layers if layer.name.startswith(_NET_PREFIXES)}
    with _stored_layers(path) as stored:
        if "predictions" not in layers:
            stored.pop("predictions", None)
        _check(model, layers, stored, path)
        for name, layer in layers.items():
            if not layer.weights:
                continue
            layer.load_own_variables({key: array[...] for key, array in stored[name].items()})
            if hasattr(layer, "kernel_initializer"):
                # Zeros, to save the random draw; a copy of the model must start as the paper's.
                layer.kernel_initializer = blocks.he_normal()


@contextlib.contextmanager
def _stored_layers(path):
    """Dict from the name of each of the net's layers to its group of arrays in the file."""
    import h5py  # a dependency of Keras, imported here to keep `import keras_resnet` light

    with contextlib.ExitStack() as stack:
        try:
            source = path
            if path.endswith(".keras"):
                archive = stack.enter_context(zipfile.ZipFile(path))
                source = stack.enter_context(archive.open("model.weights.h5"))
            groups = stack.enter_context(h5py.File(source, "r"))["layers"].values()
            names = [(str(group["vars"].attrs["name"]), group["vars"]) for group in groups if "vars" in group]
        except (OSError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise ValueError(
                "The weights file cannot be read: it is damaged, or not saved by Keras 3. Expected a "
                f".keras or .weights.h5 file. Received: {path!r} ({error})."
            ) from error
        yield {name: arrays for name, arrays in names if name.startswith(_NET_PREFIXES)}


def _check(model, layers, stored, path):
    """Raises unless the file has the model's layers, each with arrays of the model's shapes."""
    if {*layers} != {*stored}:
        raise ValueError(
            f"The weights are of another net than {model.name}. Expected layers that the file lacks: "
            f"{_listed({*layers} - {*stored})}. Received layers that the net lacks: "
            f"{_listed({*stored} - {*layers})}. File: {path!r}."
        )
    for name, layer in layers.items():
        expected = [tuple(weight.shape) for weight in layer.weights]
        found = [tuple(stored[name][key].shape) for key in sorted(stored[name], key=int)]
        if expected != found and name == "predictions" and len(found) == 2:
            raise ValueError(
                f"The weights have another number of classes. Expected: classes={expected[1][0]}. "
                f"Received: {found[1][0]}, in {path!r}. Pass classes={found[1][0]}, or include_top=False."
            )
        if expected != found:
            raise ValueError(
                f"The weights are of another net than {model.name}. Layer {name}: expected arrays of shape "
                f"{expected}. Received: {found} in {path!r}."
            )


def _listed(names, most=5):
    rows = sorted(names)
    return (", ".join(rows[:most]) + (f" and {len(rows) - most} more" if len(rows) > most else "")) or "none"
