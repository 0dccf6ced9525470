"""Class scores of ImageNet nets as names."""

import json
import os
import pathlib

import keras
import numpy as np

# As keras.applications.imagenet_utils has them: the file is shared with it in the cache.
CLASS_INDEX_URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"


def decode_predictions(scores, top=5, class_index=None):
    """The best classes of each image.

    Args:
        scores: array (n, 1000), probabilities or logits (rows that do not sum to 1 get a softmax).
        top: how many classes an image.
        class_index: path of imagenet_class_index.json; None: keras.applications' file, downloaded once.
    Returns:
        list of n lists of `top` tuples (wnid, name, probability), best first.
    Raises:
        ValueError: if the scores are not of 1000 classes, or the file cannot be had.
    """
    return best_classes(scores, read_class_index(class_index), top)


def best_classes(scores, names, top):
    """As `decode_predictions`, with the list of (wnid, name) that `read_class_index` gives."""
    scores = np.asarray(scores, "float64")
    if scores.ndim != 2 or scores.shape[1] != len(names):
        raise ValueError(f"Expected scores of shape (n, {len(names)}). Received: shape {scores.shape}.")
    softmax = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    is_distribution = (scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) < 1e-3)
    scores = np.where(is_distribution[:, None], scores, softmax)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*names[index], float(row[index])) for index in best] for row, best in zip(scores, order, strict=True)]


def read_class_index(path=None):
    """ImageNet's classes in the order of the scores.

    Args:
        path: imagenet_class_index.json, {"0": ["n01440764", "tench"], ...}, or a text file with a wnid a line; None:
            keras.applications' file, downloaded once.
    Returns:
        list of (wnid, name).
    Raises:
        ValueError: if the file cannot be had or read.
    """
    path = path or _fetch_class_index()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if not text.lstrip().startswith("{"):
            return [(line.split()[0], line.split()[-1]) for line in text.splitlines() if line.strip()]
        rows = json.loads(text)
        return [(wnid, name) for wnid, name in (rows[str(index)] for index in range(len(rows)))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected a class index: imagenet_class_index.json, or a text with one wnid a line. "
            f"Received: {os.fspath(path)!r} ({error})."
        ) from error


def cache_folder():
    """Where Keras keeps downloaded models, ~/.keras/models or that of KERAS_HOME; made if need be."""
    folder = pathlib.Path(os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras", "models")
    folder.mkdir(parents=True, exist_ok=True)  # get_file puts its files in /tmp where the folder is missing
    return folder


def _fetch_class_index():
    folder, name = cache_folder(), "imagenet_class_index.json"
    options = {"cache_dir": folder.parent, "cache_subdir": folder.name, "file_hash": CLASS_INDEX_MD5}
    try:
        return keras.utils.get_file(name, CLASS_INDEX_URL, **options)
    except Exception as error:  # get_file raises what urllib does, and plain Exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The names of ImageNet's classes cannot be downloaded ({reason}). Fetch {CLASS_INDEX_URL} on a machine "
            f"with a network and put it here as {folder / name}, or pass class_index=."
        ) from error
