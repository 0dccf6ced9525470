"""The folder that an export is made in: inside the output folder, one export at a time, gone at the end.

Its lock file is held locked by the exporter's process. The system lets go of it when the process ends, however that
is: a staging folder without a holder is one that a kill -9 left, and the next export into the same folder clears it.
"""

import contextlib
import errno
import os
import shutil
import signal

import train
from export.formats import FORMATS

try:
    import fcntl
except ImportError:  # Windows: `publication.publish` looks a last time whether there is an earlier export
    fcntl = None

FOLDER, LOCK = ".export", "lock"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def opened(output_dir, overwrite):
    """Gives an empty staging folder on the output folder's disk; nothing stays of it, nor of folders made for it.

    Args:
        output_dir: the output folder, which may not exist.
        overwrite: whether there may be an earlier export in it.
    Raises:
        ValueError: if nothing can be written there, another export is at work there, the folder is not empty, what has
            the staging folder's name is none, or the disk fills up meanwhile.
    """
    with train.no_empty_folders(output_dir):
        try:
            with _claimed(output_dir) as folder:
                check_replaceable(output_dir, overwrite)
                yield folder
        except Exception as error:
            if getattr(error, "errno", None) not in FULL and not any(os.strerror(one) in str(error) for one in FULL):
                raise
            raise ValueError(
                "The disk filled up during the export; nothing was published. "
                f"Received: --output_dir={output_dir}, with {_free(output_dir):,} bytes free now. "
                "Free some, or ask for fewer --formats."
            ) from error


def check_replaceable(output_dir, overwrite):
    """Raises ValueError if the output folder holds something that must not be replaced."""
    if [name for name in os.listdir(output_dir) if name != FOLDER] and not overwrite:
        raise ValueError(
            f"The output folder is not empty. Expected a new or empty one. Received: {output_dir}. "
            "Pass --overwrite to replace the earlier export in it."
        )


def check_space(output_dir, formats, num_parameters, has_bundle):
    """Raises ValueError if the disk cannot hold the files asked for.

    Args:
        output_dir: the output folder.
        formats: names of `FORMATS`.
        num_parameters: of the model.
        has_bundle: whether the files are made a second time, for the bundle.
    """
    shares = [FORMATS[name].max_size or 1.0 for name in formats]  # of the float32 file; that one is staged besides
    needed, free = int(4 * num_parameters * (1 + sum(shares) * (1 + has_bundle))), _free(output_dir)
    if free < needed:
        raise ValueError(
            f"The disk is too full for these files. Expected about {needed:,} bytes free in --output_dir. Received: "
            f"--output_dir={output_dir}, with {free:,} bytes free. Free some, or ask for fewer --formats."
        )


def listen():
    """From now on SIGTERM and Ctrl-C end the export in order, with its children; a second one at once."""
    for number in SIGNALS:
        signal.signal(number, _stop)


def ignore_signals():
    """From now on SIGTERM and Ctrl-C come too late: the files are being moved into place, which takes no time."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _stop(number, frame):
    for one in SIGNALS:
        signal.signal(one, signal.SIG_DFL)
    name = signal.Signals(number).name
    raise train.StoppedError(f"Stopped by {name}. Nothing was written; the same command starts anew.", number)


@contextlib.contextmanager
def _claimed(output_dir):
    folder = os.path.join(output_dir, FOLDER)
    path = os.path.join(folder, LOCK)
    try:
        _check_own(folder)
        os.makedirs(folder, exist_ok=True)
        lock = open(path, "a+", encoding="ascii")  # noqa: SIM115 - closed below, where the lock ends
    except OSError as error:
        raise _not_writable(output_dir, error) from error
    with lock:
        _lock(lock, path, output_dir)
        try:
            _clear(folder)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        except OSError as error:
            _remove(folder)
            raise _not_writable(output_dir, error) from error
        try:
            yield folder
        finally:
            _remove(folder)


def _check_own(folder):
    """Raises ValueError if what stands in the staging folder's place is no exporter's: it would be emptied."""
    if not os.path.lexists(folder):
        return
    is_folder = os.path.isdir(folder) and not os.path.islink(folder)
    names = os.listdir(folder) if is_folder else []
    if not is_folder or (names and LOCK not in names):
        raise ValueError(
            f"What is called {FOLDER} in the output folder is not an export's. Expected none, or a folder with the "
            f"{LOCK} of a killed export. Received: {folder}. Move it away, or choose another --output_dir."
        )


def _lock(lock, path, output_dir):
    try:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = not os.path.samestat(os.fstat(lock.fileno()), os.stat(path))  # its holder has ended, and removed it
    except (BlockingIOError, FileNotFoundError):
        is_held = True
    except OSError:  # a network's file system without locks
        is_held = False
    if is_held:
        lock.seek(0)
        raise ValueError(
            "Another export into the same folder is at work. Expected one at a time. Received: "
            f"--output_dir={output_dir}, where process {lock.read() or 'unknown'} writes. Wait for it, or choose "
            "another folder."
        )


def _clear(folder):
    """Removes what an export left, but its lock."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        elif entry.name != LOCK:
            os.remove(entry.path)


def _remove(folder):
    """The lock goes last: by it the next export knows as an exporter's what a kill leaves of this."""
    with contextlib.suppress(OSError):
        _clear(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _free(path):
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def _not_writable(output_dir, error):
    return ValueError(
        "Nothing can be written into the output folder. Expected a folder, or a name for a new one, on a disk with "
        f"room. Received: --output_dir={output_dir} ({error.strerror})."
    )
