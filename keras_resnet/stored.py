"""Weights files of every kind as named arrays, read one at a time; nothing in a file is executed."""

import contextlib
import dataclasses
import functools
import json
import os
import zipfile
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a file.

    Attributes:
        shape: tuple of int.
        read: function without arguments that gives the numpy array.
    """

    shape: tuple
    read: Callable


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """An open weights file.

    Attributes:
        path: the file.
        arrays: dict from name to `Array`. Names are the file's own in torch's files; "LAYER/INDEX" in Keras's, the
            index counting a layer's weights.
        layers: names of all layers in a Keras file, those without weights too; empty for torch's.
        normalization: (scale, offset) of the net's own layer "preprocessing", of a `.keras` file that has one.
    """

    path: str
    arrays: dict
    layers: frozenset = frozenset()
    normalization: tuple | None = None


@contextlib.contextmanager
def open_weights(path):
    """Opens a weights file for reading.

    Args:
        path: `.keras`, `.weights.h5`, `.h5`, `.safetensors`, `.pth` or `.th` file.
    Yields:
        `StoredWeights`, valid inside the context.
    Raises:
        ValueError: if the file does not exist, is damaged or of another kind.
        ImportError: if the package that reads this kind is not installed.
    """
    extension = os.path.splitext(path)[1]
    expected = f"Expected a file that ends in {', '.join(_READERS)}"
    if not os.path.isfile(path):
        raise ValueError(
            f"The weights file does not exist. {expected}. Received: weights={path!r}, which is "
            f"{os.path.abspath(path)}."
        )
    if extension not in _READERS:
        raise ValueError(f"The weights file is of an unknown kind. {expected}. Received: weights={path!r}.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"The weights file is empty. {expected}. Received: {path!r}, 0 bytes.")
    with contextlib.ExitStack() as stack:
        try:
            stored = _READERS[extension](path, stack)
        except ImportError:
            raise
        except Exception as error:  # each reader raises whatever the damaged part happens to trip over
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            with open(path, "rb") as file:
                start = file.read(4)
            is_text = start.isascii() and start.decode().isprintable()
            kind = " It starts like a text, not like such a file." if is_text else ""
            raise ValueError(
                f"The weights file cannot be read: it is truncated, damaged or of another kind.{kind} Expected a "
                f"{extension} file. Received: {path!r} ({reason})."
            ) from error
        yield stored


def _from_keras(path, stack):
    """`.keras`: an archive; of its architecture only two constants are read, nothing is deserialised."""
    archive = stack.enter_context(zipfile.ZipFile(path))
    weights = _from_h5(path, stack, stack.enter_context(archive.open("model.weights.h5")))
    config = json.loads(archive.read("config.json")).get("config") if "config.json" in archive.namelist() else {}
    layers = [layer.get("config", {}) for layer in config.get("layers", ())]
    found = [(layer["scale"], layer["offset"]) for layer in layers if layer.get("name") == "preprocessing"]
    return dataclasses.replace(weights, normalization=found[0] if found else None)


def _from_h5(path, stack, source=None):
    """Keras 3's layout (groups "layers/CLASS_N/vars" with the layer's name) or Keras 1 and 2's ("layer_names")."""
    import h5py  # a dependency of Keras, imported here to keep `import keras_resnet` light

    file = stack.enter_context(h5py.File(source or path, "r"))
    if "layers" in file:
        layers = _inside(file, "layers")
        groups = [_inside(layers, name) for name in layers]
        groups = [_inside(group, "vars") for group in groups if "vars" in group]
        names = [str(group.attrs["name"]) for group in groups]
        rows = {name: [_inside(g, key) for key in sorted(g, key=int)] for name, g in zip(names, groups, strict=True)}
        if len(rows) < len(names):
            raise ValueError("two layers have the same name")
    else:
        root = _inside(file, "model_weights") if "model_weights" in file else file
        rows = {}
        for name in _texts(root.attrs["layer_names"]):
            group = _inside(root, name)
            rows[name] = [_inside(group, key) for key in _texts(group.attrs["weight_names"])]
    arrays = {f"{name}/{index}": _h5_array(data) for name, row in rows.items() for index, data in enumerate(row)}
    return StoredWeights(path, arrays, frozenset(rows))


def _inside(group, path):
    """A member of an HDF5 group; links, and data kept in other files, are refused before they are opened."""
    import h5py

    for name in path.split("/"):
        link = group.get(name, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path} is a link, which may point to another file")
        group = group[name]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise ValueError(f"{path} is kept in another file")
    return group


def _texts(names):
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _h5_array(dataset):
    return Array(tuple(dataset.shape), lambda: dataset[...])


def _from_safetensors(path, stack):
    file = _MappedFile(path)
    arrays = {name: Array(shape, functools.partial(file.read, name)) for name, shape in file.shapes.items()}
    return StoredWeights(path, _without_wrapper(arrays))


class _MappedFile:
    """A `.safetensors` file, mapped anew now and then: pages once read would count as memory until the end.

    (ResNet-152: 2.39 times the file's size at the peak without, 1.5 with; BUILD_NOTES.md, "Weights".)
    """

    REMAP_BYTES = 2**25

    def __init__(self, path):
        self.path = path
        self.num_bytes = 0
        self.file = self._open()
        self.shapes = {name: tuple(self.file.get_slice(name).get_shape()) for name in self.file.keys()}  # noqa: SIM118

    def _open(self):
        try:
            import safetensors  # only for these files
        except ImportError as error:
            raise ImportError("safetensors is not installed: pip install safetensors") from error
        return safetensors.safe_open(self.path, framework="numpy")

    def read(self, name):
        """The array of that name."""
        if self.num_bytes > self.REMAP_BYTES:
            self.file, self.num_bytes = self._open(), 0
        array = self.file.get_tensor(name)
        self.num_bytes += array.nbytes
        return array


def _from_torch(path, stack):
    try:
        import torch  # an optional extra, only for these files
    except ImportError as error:
        raise ImportError(
            f"torch, which reads {path!r}, is not installed: pip install torch. Or convert the file "
            "where torch is: safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'weights.safetensors'), "
            "with its 'state_dict' or 'model' entry if it has one."
        ) from error
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    for key in ("state_dict", "model"):  # training checkpoints hold the optimizer's state beside it
        state = state[key] if isinstance(state.get(key), dict) else state
    arrays = {name: _torch_array(tensor) for name, tensor in state.items() if hasattr(tensor, "shape")}
    return StoredWeights(path, _without_wrapper(arrays))


def _torch_array(tensor):
    return Array(tuple(tensor.shape), lambda: tensor.float().numpy())


def _without_wrapper(arrays):
    """Names without the "module." of torch.nn.DataParallel and the step counters of batch normalization."""
    names = {name: name.removeprefix("module.") for name in arrays if not name.endswith("num_batches_tracked")}
    if len({*names.values()}) < len(names):
        raise ValueError("two arrays have the same name but for module.")
    return {short: arrays[name] for name, short in names.items()}


def few(names, most=5):
    """The first of some names, for a message."""
    rows = sorted(names)
    return (", ".join(rows[:most]) + (f" and {len(rows) - most} more" if len(rows) > most else "")) or "none"


def save_safetensors(path, arrays):
    """Writes a `.safetensors` file: aside, then renamed.

    Args:
        path: file to write; its folder exists.
        arrays: dict from name to numpy array.
    """
    from safetensors.numpy import save_file

    aside = f"{path}.part"
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, aside, {"format": "pt"})
    os.replace(aside, path)


_READERS = {
    ".keras": _from_keras,
    ".h5": _from_h5,
    ".safetensors": _from_safetensors,
    ".pth": _from_torch,
    ".th": _from_torch,
}
