"""Finds image files that do not decode, before a run depends on them."""

import dataclasses
import hashlib
import os
import warnings

import numpy as np
import tensorflow as tf

from train import decoding


def look(source, known=None, *, unchanged=False):
    """Decodes every image file once, so that every later step has the images that its order says.

    Args:
        source: `Source`.
        known: what this function returned before, or None: the work is saved where the files are the same.
        unchanged: whether names and sizes of the files must be those of `known`.
    Returns:
        {"fingerprint": str, "contents": str, "damaged": list of file names}; the first two tell whether files may have
        changed, and whether one was added, removed or has another size. They are empty if images are no files.
    Raises:
        ValueError: if they must be unchanged and are not.
    """
    if not source.files:
        return {"fingerprint": "", "contents": "", "damaged": []}
    fingerprints = _fingerprints(source)
    if known and known.get("fingerprint") == fingerprints["fingerprint"]:
        return known | fingerprints
    before = (known or {}).get("contents")
    if unchanged and before and before != fingerprints["contents"]:
        raise ValueError(
            f"The images have changed since the run began. Expected the files that {source.name} held then. Received: "
            "others, by their names or sizes. Put them back, choose another --workdir, or delete that one."
        )
    splits = {id(split): split for split in source.splits.values()}  # test may be validation
    return fingerprints | {"damaged": sorted(name for split in splits.values() for name in _damaged(split))}


def leave_out(source, report, *, strict=False):
    """The source without damaged files, which a warning names.

    Args:
        source: `Source`.
        report: what `look` returned.
        strict: whether a damaged file stops instead.
    Returns:
        `Source`.
    Raises:
        ValueError: if files are damaged and `strict`, or a split has no others.
    """
    names = report["damaged"]
    if not names:
        return source
    text = f"{len(names)} of the files in {source.name} are no whole images: {', '.join(names[:3])}"
    text += ", ..." if len(names) > 3 else ""
    if strict:
        raise ValueError(f"{text}. Expected JPEG, PNG, BMP, GIF or WebP. Remove them, or leave out --strict.")
    warnings.warn(f"{text}. They are left out.", stacklevel=2)
    splits = {name: _without(split, {*names}, source.name, name) for name, split in source.splits.items()}
    return dataclasses.replace(source, splits=splits)


def _without(split, damaged, source_name, split_name):
    whole = np.array([split.names(position) not in damaged for position in split.positions], bool)
    if not whole.any():
        raise ValueError(f"Expected whole images in the {split_name} split of {source_name}. Received: damaged ones.")
    return dataclasses.replace(split, positions=split.positions[whole])


def _damaged(split):
    """Names of the images that do not decode."""
    read = split.open()

    def check(position):
        encoded = read(position)["image"]
        # At an eighth of the size: everything is read and decompressed, little is transformed.
        size = tf.cond(
            tf.io.is_jpeg(encoded),
            lambda: tf.size(tf.io.decode_jpeg(encoded, 3, ratio=8)),
            lambda: tf.size(decoding.decode_whole(encoded, 3)),
        )
        return position, size

    checked = tf.data.Dataset.from_tensor_slices(split.positions).map(check, tf.data.AUTOTUNE).ignore_errors()
    whole = {int(position) for position, _ in checked.as_numpy_iterator()}
    return [split.names(position) for position in split.positions if position not in whole]


def _fingerprints(source):
    """Hashes of all files: of names, sizes and times, and of names below the folder and sizes alone."""
    folder = source.name.partition(":")[2]
    files, contents = hashlib.sha256(), hashlib.sha256()
    for split in source.splits.values():
        for name in map(split.names, split.positions):
            status = os.stat(name)
            files.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            contents.update(f"{name.removeprefix(folder)}\0{status.st_size}\n".encode())
    return {"fingerprint": files.hexdigest(), "contents": contents.hexdigest()}
