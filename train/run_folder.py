"""The folder of a run: config.json, history.csv, checkpoints/, model.keras, plots/curve.png.

Every file is written aside and renamed, so that what stands there is whole.
"""

import contextlib
import csv
import dataclasses
import glob
import json
import os
import signal
import time
import warnings

import numpy as np

import train
from train import config as configs
from train import strategies

CONFIG, HISTORY, MODEL, CURVE = (
    "config.json",
    "history.csv",
    "model.keras",
    os.path.join("plots", "curve.png"),
)
CHECKPOINTS = "checkpoints"
PARTIAL = ".partial-"
DAMAGED = "damaged_images.json"
# What may differ between two starts of one run: it changes nothing of the result.
PASSING = (
    "workdir",
    "checkpoints_to_keep",
    "checkpoint_seconds",
    "steps_per_execution",
    "download",
    "data_dir",
    "strict",
)


@contextlib.contextmanager
def written_aside(path):
    """Gives a temporary path beside `path`, with its extension, and renames it when all went well.

    The file is on the disk before its name is there, so that a power cut leaves the old or the new one.
    """
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    aside = os.path.join(folder, f"{PARTIAL}{os.getpid()}-{name}")
    try:
        yield aside
        if os.path.isfile(aside):
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


def look(config, resume):
    """Checks that the run folder, if there is one, is of the same run; writes nothing.

    Args:
        config: `train.config.Config`.
        resume: "auto" goes on where there is a run, "never" wants none, "require" wants one.
    Returns:
        Whether that run is finished.
    Raises:
        ValueError: if the folder holds another run (the differences are given), one where none is wanted, or none
            where one is.
    """
    path = os.path.join(config.workdir, CONFIG)
    exists = os.path.exists(path)
    if exists and resume == "never":
        raise ValueError(
            "The run folder holds a run already. Expected none with --resume=never. "
            f"Received: --workdir={config.workdir}. Choose another --workdir, or delete that one."
        )
    if not exists and resume == "require":
        raise ValueError(
            f"There is no run to go on with. Expected one with --resume=require. Received: --workdir={config.workdir}."
        )
    if exists:
        _check_same(config, path)
    return os.path.exists(os.path.join(config.workdir, MODEL))


def open_run(config, damaged):
    """Makes the run folder with its `config.json` and the list of damaged images; removes what a process left that was killed while it wrote.

    Args:
        config: `train.config.Config`.
        damaged: what `train.damage.look` returned.
    Raises:
        ValueError: if it cannot be written.
    """
    try:
        path = os.path.join(config.workdir, CONFIG)
        with written_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
            file.write(configs.to_json(config))
        if damaged["fingerprint"]:
            with written_aside(os.path.join(config.workdir, DAMAGED)) as aside, open(aside, "w") as file:
                json.dump(damaged, file, indent=2)
        for left in glob.glob(os.path.join(glob.escape(config.workdir), "**", f"{PARTIAL}*"), recursive=True):
            os.remove(left)
    except OSError as error:
        raise ValueError(
            f"The run folder cannot be written. Received: --workdir={config.workdir} ({error})."
        ) from error


def _check_same(config, path):
    before, now = configs.read(path), json.loads(configs.to_json(config))
    changed = [name for name in now if name not in PASSING and now[name] != before.get(name)]
    if changed:
        changes = ", ".join(f"{name}: {before.get(name)!r} before, {now[name]!r} now" for name in changed)
        raise ValueError(
            f"The run folder holds another run. Expected the same configuration as in {path}. "
            f"Received: {changes}. Choose another --workdir, or delete that one."
        )


class Keeper:
    """Writes checkpoints and history, and ends the run when a signal asks for it.

    Within an epoch a checkpoint is written every `checkpoint_seconds`, at its end always, on the chief alone.
    """

    def __init__(self, config, strategy, variables):
        self.config, self.strategy, self.variables = config, strategy, variables
        self.last_written = time.monotonic()
        self.signal = None

    def listen(self):
        """Takes SIGTERM and Ctrl-C: the first ends the run at the next execution's end, a second one at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number, frame):
        self.signal = number
        signal.signal(number, signal.default_int_handler)

    def keep(self, progress, last_of_epoch=False):
        """Writes what is due.

        Args:
            progress: `train.loop.Progress`.
            last_of_epoch: whether an epoch has just ended.
        Raises:
            train.Stopped: if a signal has come, to any process.
            ValueError: if a weight is no number any more, or the checkpoint cannot be written.
        """
        stops = strategies.any_process(self.strategy, self.signal is not None)
        due = time.monotonic() - self.last_written >= self.config.checkpoint_seconds
        if strategies.is_chief(self.strategy) and (stops or due or last_of_epoch):
            save_checkpoint(self.config, self.variables, progress)
            if progress.history:
                write_history(self.config, progress.history)
            self.last_written = time.monotonic()
        if stops:
            name = signal.Signals(self.signal or signal.SIGTERM).name
            raise train.Stopped(
                f"Stopped by {name} after {progress.epoch} epochs and {progress.step} steps; saved in "
                f"{self.config.workdir}. The same command goes on from there.",
                self.signal or signal.SIGTERM,
            )

    def newest(self):
        """Path of the newest checkpoint, or None."""
        return (checkpoints(self.config) or [None])[-1]


def save_checkpoint(config, variables, progress):
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
    before = checkpoints(config)
    last_good = f"Last good checkpoint: {before[-1] if before else 'none'}."
    if bad:
        raise ValueError(
            f"Weights are not finite after epoch {progress.epoch}, step {progress.step}. Expected a run that converges. "
            f"Received: {bad[0]} and {len(bad) - 1} more. Lower --learning_rate or set --clip_norm=1 with another "
            f"--workdir. {last_good}"
        )
    path = os.path.join(config.workdir, CHECKPOINTS, f"epoch-{progress.epoch:05d}-step-{progress.step:07d}.npz")
    try:
        with written_aside(path) as aside:
            np.savez(aside, **arrays, progress=json.dumps(dataclasses.asdict(progress)))
    except OSError as error:
        raise ValueError(
            f"The checkpoint cannot be written: {error}. Expected space for {path}. {last_good}"
        ) from error
    for old in checkpoints(config)[: -config.checkpoints_to_keep]:
        os.remove(old)


def checkpoints(config):
    """Paths of the run's checkpoints, the newest last."""
    return sorted(glob.glob(os.path.join(glob.escape(config.workdir), CHECKPOINTS, "epoch-*.npz")))


def restore(config, variables):
    """Loads the newest checkpoint that is whole; damaged ones are named in a warning.

    Args:
        config: `train.config.Config`.
        variables: Keras variables, in the order they were saved in.
    Returns:
        Fields of `train.loop.Progress`, or None without a checkpoint.
    Raises:
        ValueError: if there are checkpoints and all are damaged or of another net.
    """
    found, reasons = checkpoints(config), []
    for path in reversed(found):
        try:
            arrays, progress = _read(path, variables)
        except Exception as error:  # NumPy raises whatever the damaged part happens to trip over
            reasons.append(f"{path} ({error})")
            continue
        if reasons:
            warnings.warn(f"Damaged checkpoints: {', '.join(reasons)}. Going on from {path}.", stacklevel=2)
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)
        return progress
    if found:
        raise ValueError(
            "The checkpoint is damaged or of another run. Expected one that this run wrote. Received: "
            f"{', '.join(reasons)}. Choose another --workdir, or delete them to begin anew."
        )
    return None


def _read(path, variables):
    """Arrays of all variables, each checked by its CRC, and the fields of the progress."""
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = [stored[name] for name in _unique_names(variables)]
        progress = json.loads(str(stored["progress"]))
    for variable, array in zip(variables, arrays, strict=True):
        if tuple(variable.shape) != array.shape:
            raise ValueError(f"{variable.path} has shape {array.shape}, not {tuple(variable.shape)}")
    return arrays, progress


def damaged_images(config):
    """What an earlier start of the run found out about damaged image files, or None."""
    path = os.path.join(config.workdir, DAMAGED)
    return configs.read(path) if os.path.exists(path) else None


def write_history(config, history):
    """Writes `history.csv`, one row an epoch, counted from 1."""
    path = os.path.join(config.workdir, HISTORY)
    with written_aside(path) as aside, open(aside, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["epoch", *history[0]])
        writer.writeheader()
        writer.writerows({"epoch": epoch} | row for epoch, row in enumerate(history, start=1))


def write_curve(config, history):
    """Draws error and loss over the epochs into `plots/curve.png`."""
    import matplotlib  # a second of import that only the end of a run needs

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    epochs = range(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for prefix, label in (("", "training"), ("val_", "validation")):
        left.plot(epochs, [100 * (1 - row[f"{prefix}accuracy"]) for row in history], marker=".", label=label)
        right.plot(epochs, [row[f"{prefix}loss"] for row in history], marker=".", label=label)
    left.set(xlabel="epoch", ylabel="top-1 error (%)", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="cross entropy", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend()
    figure.suptitle(f"{config.model} on {config.data}")
    with written_aside(os.path.join(config.workdir, CURVE)) as aside:
        figure.savefig(aside, dpi=100)
    plt.close(figure)


def save_model(config, model):
    """Writes `model.keras`: preprocessing, net and weights, without the optimizer."""
    with written_aside(os.path.join(config.workdir, MODEL)) as aside:
        model.save(aside)


def _unique_names(variables):
    """Names for a checkpoint's arrays: paths, which stay the same from process to process, and positions."""
    return [f"{position:05d}/{variable.path}" for position, variable in enumerate(variables)]
