"""Folders of photographs, one a class, as a `sources.Source`."""

import os

import tensorflow as tf

from keras_resnet.predictions import read_class_index
from train import sources


def load(path, image_size, preprocessing, class_index):
    """PATH/train/CLASS/*.jpg and the same for validation and test; a class is a folder's name.

    With a class index all its classes are there, in its order, and folders are named by wnid.

    Args:
        path: of the folder.
        image_size: side in pixels to resize and crop to; 0: `preprocessing`'s.
        preprocessing: `keras_resnet.preprocessing.Preprocessing`.
        class_index: file with ImageNet's classes; "": the folders' names are the classes.
    Returns:
        `Source`.
    Raises:
        ValueError: if there are no splits or no images in it, or a folder is no class of the index.
    """
    splits = {split: os.path.join(path, split) for split in sources.SPLITS}
    splits = {split: folder for split, folder in splits.items() if os.path.isdir(folder)}
    if not splits:
        raise ValueError(
            f"Expected folders {path}/train/CLASS and {path}/validation/CLASS with images in them. "
            f"Received: --data=folder:{path}, which has neither."
        )
    class_names = sorted(
        {
            entry.name
            for folder in splits.values()
            for entry in os.scandir(folder)
            if entry.is_dir() and entry.name[0] != "."
        }
    )
    titles = class_names
    if class_index:
        wnids, titles = zip(*read_class_index(class_index), strict=True)
        unknown = sorted({*class_names} - {*wnids})
        if unknown:
            raise ValueError(
                f"Expected folders named by the wnids of {class_index}. Received: {', '.join(unknown[:5])}, "
                f"{len(unknown)} unknown folders in {path}."
            )
        class_names = wnids
    size = image_size or preprocessing.crop
    splits = {split: _files(folder, class_names) for split, folder in splits.items()}
    facts = (f"folder:{path}", tuple(class_names), (size, size, 3), splits, tuple(titles))
    return sources.Source(*facts, preprocessing.for_size(size), encoded=True, files=True)


def _files(folder, class_names):
    """Every file of the class folders but hidden ones; those that are no images are found by `train.damage`."""
    files, labels = [], []
    for label, name in enumerate(class_names):
        found = sorted(os.listdir(os.path.join(folder, name))) if os.path.isdir(os.path.join(folder, name)) else []
        found = [os.path.join(folder, name, file) for file in found if file[0] != "."]
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(f"Expected images in {folder}/CLASS. Received: no files.")
    paths, labels = tf.constant(files), tf.constant(labels, tf.int64)

    def read(position):
        return {"image": tf.io.read_file(paths[position]), "label": labels[position]}

    return sources.from_reader(read, len(files), lambda position: files[position])
