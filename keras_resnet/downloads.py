"""Published files: fetched once, kept, and never used with a wrong hash."""

import hashlib
import os

import keras

from keras_resnet import predictions


class WrongDigestError(ValueError):
    """A weights file is not the published one."""


def folder():
    """Where files are kept, and one that was fetched by hand is looked for: ~/.keras/models/keras_resnet."""
    return predictions.cache_folder() / "keras_resnet"


def fetch(row):
    """Path of a row's file: fetched by hand, from the cache, or downloaded; its hash is checked each time.

    Of a file fetched by hand whose row states no digest there is nothing to check it with.

    Args:
        row: `Weights`.
    Returns:
        str.
    Raises:
        ValueError: if the file cannot be had, or its hash is wrong.
    """
    by_hand = folder() / f"{row.variant}.{row.tag}{os.path.splitext(row.location)[1]}"
    if by_hand.exists():
        _check_digest(by_hand, row.digest, row)
        return str(by_hand)
    download = _from_hub if row.location.startswith("hub:") else _from_url
    try:
        return download(row)
    except (WrongDigestError, ImportError):
        raise
    except Exception as error:  # the hub and urllib raise dozens of types, network ones and others
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The weights {row.tag!r} of {row.variant} cannot be downloaded ({type(error).__name__}: {reason}). Fetch "
            f"{row.url} on a machine with a network and put it here as {by_hand}."
        ) from error


def _from_hub(row):
    """Cached and resumed by huggingface_hub, which stores a file under its sha256."""
    try:
        import huggingface_hub  # only for downloads
    except ImportError as error:
        raise ImportError("huggingface_hub is not installed: pip install huggingface_hub") from error

    repository, _, file = row.location.removeprefix("hub:").rpartition("/")
    path = huggingface_hub.hf_hub_download(repository, file)
    digest = row.digest or os.path.basename(os.path.realpath(path))
    if len(digest) != 64:  # a cache without links, on Windows: ask the hub
        digest = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, file)).etag
    _check_digest(path, digest, row)
    return path


def _from_url(row):
    name = row.location.rpartition("/")[2]
    try:
        return keras.utils.get_file(
            name, row.location, cache_dir=folder().parent, cache_subdir=folder().name, file_hash=row.digest
        )
    except ValueError as error:  # get_file's word for a wrong hash
        path = folder() / name
        _check_digest(path, row.digest, row)
        raise OSError(str(error)) from error


def _check_digest(path, expected, row):
    """Deletes nothing, returns nothing: raises unless the file has the digest (none known: any file)."""
    if not expected:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "md5" if len(expected) == 32 else "sha256").hexdigest()
    if found != expected:
        raise WrongDigestError(
            f"The weights file of {row.variant} has the wrong hash and is not used: it is damaged or another file. "
            f"Expected: {expected}. Received: {found}, {os.fspath(path)}. Delete it and fetch {row.url} anew."
        )
