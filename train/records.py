"""Random access to TFRecord files: where each record starts, and reading one by its number.

Shuffling over all images, sharing them out before any is decoded, and going on in the middle of an epoch all need it;
TensorFlow's own reader only goes from the start to the end.
"""

import dataclasses
import functools
import mmap
import os
import resource
import struct

import numpy as np
import tensorflow as tf

OTHER_FILES = 512  # that a process may need beside one split's: the other splits', libraries, sockets
HEADER_BYTES, FOOTER_BYTES = 12, 4  # length and its checksum before a record, the record's checksum behind it


@dataclasses.dataclass(frozen=True)
class Records:
    """Records of several files, numbered through in the order of the files.

    Attributes:
        paths: list of str.
        files: int64 (n,), of each record the number of its file.
        starts: int64 (n,), of each record its first byte in the file.
        lengths: int64 (n,), bytes.
    """

    paths: list
    files: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def read(self, position):
        """One serialized record: int64 scalar tensor -> scalar string tensor, for graphs of tf.data."""
        record = tf.numpy_function(self._read, [position], tf.string, stateful=False)
        return tf.ensure_shape(record, ())

    def _read(self, position):
        descriptor = _descriptor(self.paths[self.files[position]])
        return os.pread(descriptor, self.lengths[position], self.starts[position])


def index(paths):
    """Finds every record; of each only its length is read.

    Args:
        paths: TFRecord files, uncompressed.
    Returns:
        `Records`.
    Raises:
        ValueError: if a file is absent, cut off or no TFRecord file, or there are more than may be open.
    """
    _allow_open_files(len(paths))
    found = [_offsets(path) for path in paths]
    files = np.repeat(np.arange(len(paths)), [len(starts) for starts, _ in found])
    starts, lengths = (np.concatenate([part[column] for part in found]) for column in (0, 1))
    return Records([*paths], files, starts, lengths)


def _allow_open_files(count):
    """Raises the process's limit as far as it may itself, and ValueError if so many files are still too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_FILES
    is_endless = hard == resource.RLIM_INFINITY
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed if is_endless else hard, hard))
    if not is_endless and hard < needed:
        raise ValueError(
            f"Too few files may be open at once. Expected at least {needed}, for {count} TFRecord files and what else "
            f"a run opens. Received: a hard limit of {hard}. Raise it (ulimit -Hn {needed}), or let TFDS prepare the "
            "data set in fewer shards."
        )


def _offsets(path):
    """First bytes and lengths of the records of a file: int64 (n,) twice."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _walked(content)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a whole TFRecord file. Received: {path} ({error}). Let TFDS prepare the data set again."
        ) from error


def _walked(content):
    starts, lengths, end = [], [], 0
    while end < len(content):
        if end + HEADER_BYTES > len(content):
            raise ValueError("it is cut off")
        (length,) = struct.unpack_from("<Q", content, end)
        starts.append(end + HEADER_BYTES)
        lengths.append(length)
        end += HEADER_BYTES + length + FOOTER_BYTES
        if end > len(content):
            raise ValueError(f"its record {len(starts)} is cut off")
    return np.array(starts, np.int64), np.array(lengths, np.int64)


@functools.cache
def _descriptor(path):
    """An open file, kept: there are as many as files of the data set, 1,024 for ImageNet's training images."""
    return os.open(path, os.O_RDONLY)
