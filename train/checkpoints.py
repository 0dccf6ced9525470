"""Checkpoints of a run: written whole, several deep, restored from the newest that is whole."""

import contextlib
import dataclasses
import glob
import json
import os
import signal
import time
import warnings

import numpy as np

import train
from train import strategies
from train.run_folder import CHECKPOINTS, write_history, written_aside


class Keeper:
    """Writes checkpoints and history, and ends the run when a signal asks for it.

    Within an epoch a checkpoint is written every `checkpoint_seconds`, at its end always, on the chief alone.
    """

    def __init__(self, config, strategy, variables):
        self.config, self.strategy, self.variables = config, strategy, variables
        self.last_written = time.monotonic()
        self.signal = None

    @contextlib.contextmanager
    def listening(self):
        """Takes SIGTERM and Ctrl-C meanwhile: the first ends the run at the next execution's end, a second at once."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number, frame):
        self.signal = number
        signal.signal(number, signal.default_int_handler)

    def keep(self, progress, last_of_epoch=False):
        """Writes what is due.

        Args:
            progress: `train.loop.Progress`.
            last_of_epoch: whether an epoch has just ended.
        Raises:
            train.StoppedError: if a signal has come, to any process.
            ValueError: if a weight is no number any more, or the checkpoint cannot be written.
        """
        stops = strategies.any_process(self.strategy, self.signal is not None)
        due = time.monotonic() - self.last_written >= self.config.checkpoint_seconds
        if strategies.is_chief(self.strategy) and (stops or due or last_of_epoch):
            save(self.config, self.variables, progress)
            if progress.history:
                write_history(self.config, progress.history)
            self.last_written = time.monotonic()
        if stops:
            name = signal.Signals(self.signal or signal.SIGTERM).name
            raise train.StoppedError(
                f"Stopped by {name} after {progress.epoch} epochs and {progress.step} steps; saved in "
                f"{self.config.workdir}. The same command goes on from there.",
                self.signal or signal.SIGTERM,
            )

    def newest(self):
        """Path of the newest checkpoint, or None."""
        return (paths(self.config) or [None])[-1]


def save(config, variables, progress):
    """Writes all variables and where the run stands; removes the oldest checkpoints beyond the number kept.

    Args:
        config: `train.config.Config`.
        variables: Keras variables.
        progress: `train.loop.Progress`.
    Raises:
        ValueError: if a variable is not finite, or the disk is full; the checkpoints before stay.
    """
    arrays = {name: np.asarray(v) for name, v in zip(_unique_names(variables), variables, strict=True)}
    bad = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    before = paths(config)
    last_good = f"Last good checkpoint: {before[-1] if before else 'none'}."
    if bad:
        raise ValueError(
            f"Weights are not finite after epoch {progress.epoch}, step {progress.step}. Expected a run that "
            f"converges. Received: {bad[0]} and {len(bad) - 1} more. Lower --learning_rate or set --clip_norm=1 with "
            f"another --workdir. {last_good}"
        )
    path = os.path.join(config.workdir, CHECKPOINTS, f"epoch-{progress.epoch:05d}-step-{progress.step:07d}.npz")
    try:
        with written_aside(path) as aside:
            np.savez(aside, **arrays, progress=json.dumps(dataclasses.asdict(progress)))
    except OSError as error:
        raise ValueError(
            f"The checkpoint cannot be written: {error}. Expected space for {path}. {last_good}"
        ) from error
    for old in paths(config)[: -config.checkpoints_to_keep]:
        os.remove(old)


def paths(config):
    """Paths of the run's checkpoints, the newest last."""
    return sorted(glob.glob(os.path.join(glob.escape(config.workdir), CHECKPOINTS, "epoch-*.npz")))


def restore(config, variables):
    """Loads the newest checkpoint that is whole; damaged newer ones are named in a warning and put aside.

    Otherwise they would count among those kept, and push out whole ones.

    Args:
        config: `train.config.Config`.
        variables: Keras variables, in the order they were saved in.
    Returns:
        Fields of `train.loop.Progress`, or None without a checkpoint.
    Raises:
        ValueError: if there are checkpoints and all are damaged or of another net.
    """
    found, damaged = paths(config), {}
    for path in reversed(found):
        try:
            progress = load(path, variables)
        except Exception as error:  # NumPy raises whatever the damaged part happens to trip over
            damaged[path] = error
            continue
        if damaged:
            _put_aside(damaged, path)
        return progress
    if found:
        raise ValueError(
            "The checkpoint is damaged or of another run. Expected one that this run wrote. Received: "
            f"{_listed(damaged)}. Choose another --workdir, or delete them to begin anew."
        )
    return None


def load(path, variables):
    """Sets the variables to what one checkpoint holds.

    Args:
        path: of the checkpoint.
        variables: Keras variables, in the order they were saved in.
    Returns:
        Fields of `train.loop.Progress`.
    Raises:
        Exception: if it is damaged or of another net, whatever NumPy trips over; nothing is set then.
    """
    arrays, progress = _read(path, variables)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return progress


def _put_aside(damaged, whole):
    """Renames damaged checkpoints, a dict from path to error, to names that are no checkpoint's, and warns."""
    for path in damaged:
        folder, name = os.path.split(path)
        os.replace(path, os.path.join(folder, f"damaged-{name}"))
    warnings.warn(
        f"Damaged checkpoints: {_listed(damaged)}. Going on from {whole}; they are kept as damaged-*.npz.",
        stacklevel=3,
    )


def _listed(damaged):
    return ", ".join(f"{path} ({error})" for path, error in damaged.items())


def _read(path, variables):
    """Arrays of all variables, each checked by its CRC, and the fields of the progress."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = [stored[name] for name in _unique_names(variables)]
        progress = json.loads(str(stored["progress"]))
    for variable, array in zip(variables, arrays, strict=True):
        if tuple(variable.shape) != array.shape:
            raise ValueError(f"{variable.path} has shape {array.shape}, not {tuple(variable.shape)}")
    return arrays, progress


def _unique_names(variables):
    """Names for a checkpoint's arrays: paths, which stay the same from process to process, and positions."""
    return [f"{position:05d}/{variable.path}" for position, variable in enumerate(variables)]
