"""The folder of a run: config.json, history.csv, checkpoints/, model.keras, plots/curve.png.

Every file is written aside and renamed, so that what stands there is whole.
"""

import contextlib
import csv
import dataclasses
import fcntl
import glob
import json
import os
import socket

from train import config as configs

CONFIG, HISTORY, MODEL, CURVE = (
    "config.json",
    "history.csv",
    "model.keras",
    os.path.join("plots", "curve.png"),
)
CHECKPOINTS = "checkpoints"
PARTIAL = ".partial-"
LOCK = ".lock"
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
def locked(config):
    """Keeps other processes from training in the run folder meanwhile; however the process ends, the folder is free.

    Args:
        config: `train.config.Config`.
    Raises:
        ValueError: if another process trains in it, or it cannot be written.
    """
    path = os.path.join(config.workdir, LOCK)
    try:
        os.makedirs(config.workdir, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _not_writable(config, error) from error
    with open(descriptor, "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                "The run folder is in use. Expected no other process to train in it. Received: "
                f"--workdir={config.workdir}, in which process {file.read().strip() or 'of unknown number'} trains. "
                "Wait for its end, stop it, or choose another --workdir."
            ) from error
        except OSError:
            pass  # a network file system without locks
        file.truncate(0)
        file.write(f"{os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _not_writable(config, error):
    return ValueError(f"The run folder cannot be written. Received: --workdir={config.workdir} ({error}).")


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
        ValueError: if the folder holds another run (the differences are given), a model without its run, one where
            none is wanted, or none where one is.
    """
    path = os.path.join(config.workdir, CONFIG)
    exists, is_finished = os.path.exists(path), os.path.exists(os.path.join(config.workdir, MODEL))
    if is_finished and not exists:
        raise ValueError(
            f"The run folder holds a model of another origin. Expected {CONFIG} beside {MODEL}, as a run writes them, "
            f"or neither. Received: --workdir={config.workdir}. Choose another --workdir."
        )
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
    return is_finished


def open_run(config, damaged):
    """Makes the run folder with `config.json` and the list of damaged images; tidies up after a killed process.

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
        raise _not_writable(config, error) from error


def _check_same(config, path):
    defaults = {field.name: field.default for field in dataclasses.fields(config)}  # of fields younger than the run
    before, now = defaults | configs.read(path), json.loads(configs.to_json(config))
    changed = [name for name in now if name not in PASSING and now[name] != before[name]]
    if changed:
        changes = ", ".join(f"{name}: {before[name]!r} before, {now[name]!r} now" for name in changed)
        raise ValueError(
            f"The run folder holds another run. Expected the same configuration as in {path}. "
            f"Received: {changes}. Choose another --workdir, or delete that one."
        )


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
