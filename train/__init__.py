"""The trainer: tf.distribute, tf.data and Keras callbacks; run `python train/main.py --help`."""

import contextlib
import difflib
import os
import sys
import warnings


@contextlib.contextmanager
def quiet_stderr():
    """Keeps C++ libraries from writing to the process's error stream meanwhile; Python errors still rise."""
    sys.stderr.flush()
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


def import_tensorflow_quietly():
    """Imports TensorFlow without the dozen lines that its C++ side prints on every machine.

    They are start-up remarks (oneDNN, no GPU found), written before any log level counts. What goes
    wrong in a run reaches us as Python errors.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_stderr():
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")


class StoppedError(BaseException):
    """What a signal ended, after its state was kept; like KeyboardInterrupt past every `except Exception`.

    Attributes:
        signal: number of the signal; the exit code is 128 more.
    """

    def __init__(self, message, signal_number):
        super().__init__(message)
        self.signal = signal_number


def refuse_positional(argv):
    """Raises ValueError if a command line holds more than flags: list of str, of which the first is the command."""
    if len(argv) > 1:
        raise ValueError(f"Expected flags only, as --name=value. Received: {' '.join(argv[1:])}.")


def nearest(received, expected, most=3):
    """The end of an error's text that names what may have been meant: " Nearest: a, b.", or "".

    Args:
        received: str.
        expected: collection of str.
        most: how many are named.
    """
    found = difflib.get_close_matches(received, expected, n=most, cutoff=0.4)
    return f" Nearest: {', '.join(found)}." if found else ""


@contextlib.contextmanager
def no_empty_folders(path):
    """Removes at the end what was made meanwhile of the folders on the way to a path, itself included, and is empty."""
    missing, path = [], os.path.abspath(path)
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    try:
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # it holds something, or was not made
                os.rmdir(folder)


def exit_code(code):
    """The shell's form of a process's end: what a signal ended has 128 + its number."""
    return 128 - code if code < 0 else code


def run(main):
    """Runs a command's `main` under absl; a user's mistake ends in one line and exit code 2.

    Args:
        main: function of the arguments that are no flags, called after flags are parsed.
    """
    from absl import app, logging

    def guarded(argv):
        logging.set_verbosity(logging.ERROR)  # TensorFlow Datasets tells of every file it opens
        warnings.showwarning = lambda message, *_: print(f"Warning: {message}", file=sys.stderr)  # without code lines
        try:
            return main(argv)
        except (ValueError, OSError, ImportError) as error:
            print(f"Error: {error}", file=sys.stderr)
            return 2
        except StoppedError as stopped:
            print(stopped, file=sys.stderr)
            return exit_code(-stopped.signal)
        except Exception as error:
            if "tensorflow" not in sys.modules or not isinstance(error, sys.modules["tensorflow"].errors.OpError):
                raise
            from train import failures

            message, code = failures.explain(error)
            print(f"Error: {message}", file=sys.stderr)
            return code
        except KeyboardInterrupt:
            print("Interrupted. Start the same command again.", file=sys.stderr)
            return 130

    app.run(guarded)
