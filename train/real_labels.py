"""ImageNet's reassessed labels (ReaL): all classes that an image shows (Beyer et al. 2020, arXiv 2006.07159)."""

import json
import re

import numpy as np

NUM_IMAGES, NUM_CLASSES = 50_000, 1000  # of ImageNet's validation split


def read(path, names, num_classes):
    """The acceptable classes of each image.

    Args:
        path: real.json, as google-research/reassessed-imagenet publishes it: a list of 50,000 lists of class
            numbers, for ILSVRC2012_val_00000001 onwards; empty where the raters agreed on none.
        names: list of str, the images' file names.
        num_classes: of the model.
    Returns:
        list of lists of int, one an image.
    Raises:
        ValueError: if the file is not that, the images are not ImageNet's, or the model is not.
    """
    if num_classes != NUM_CLASSES:
        raise ValueError(f"--real_labels are ImageNet's. Expected a model of 1000 classes. Received: {num_classes}.")
    labels = _read(path)
    found = [labels[_number(name) - 1] for name in names]
    if not any(found):
        raise ValueError(f"Expected images with real labels. Received: {len(names)} images, all without.")
    return found


def score(answers, acceptable):
    """Share of images whose best class is acceptable, and how many images have labels.

    Args:
        answers: int (n,), of `train.scoring.answers`.
        acceptable: list of n lists of int, not all empty.
    """
    hits = [answer in labels for answer, labels in zip(answers.tolist(), acceptable, strict=True) if labels]
    return float(np.mean(hits)), len(hits)


def _read(path):
    expected = f"Expected real.json of ImageNet-ReaL, {NUM_IMAGES:,} lists of class numbers from 0 to {NUM_CLASSES - 1}"
    try:
        with open(path, encoding="utf-8") as file:
            labels = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"The real labels do not load. {expected}. Received: {path!r} ({error}).") from error
    if not isinstance(labels, list) or len(labels) != NUM_IMAGES:
        found = f"{len(labels):,} entries" if isinstance(labels, list) else f"a {type(labels).__name__}"
        raise ValueError(f"The real labels are of another kind. {expected}. Received: {found} in {path!r}.")
    for position, row in enumerate(labels):
        if not isinstance(row, list) or any(type(label) is not int or not 0 <= label < NUM_CLASSES for label in row):
            raise ValueError(f"The real labels are damaged. {expected}. Received: entry {position} is {row!r:.60}.")
    return labels


def _number(name):
    found = re.search(r"ILSVRC2012_val_(\d{8})(?!\d)", name)
    if not found or not 1 <= int(found[1]) <= NUM_IMAGES:
        raise ValueError(
            "The image has no real labels. Expected names from ILSVRC2012_val_00000001 to "
            f"ILSVRC2012_val_{NUM_IMAGES:08d}. Received: {name!r}. Use ImageNet's validation images by their own names."
        )
    return int(found[1])
