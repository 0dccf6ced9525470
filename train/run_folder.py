"""The folder of a run: config.json, history.csv, checkpoints/, model.keras, plots/curve.png.

Every file is written aside and renamed, so that what stands there is whole.
"""

import contextlib
import csv
import glob
import json
import os

import numpy as np

from train import config as configs

CONFIG, HISTORY, MODEL, CURVE = (
    "config.json",
    "history.csv",
    "model.keras",
    os.path.join("plots", "curve.png"),
)
PASSING = ("workdir", "checkpoints_to_keep", "steps_per_execution", "download", "data_dir")


@contextlib.contextmanager
def written_aside(path):
    """Gives a temporary path beside `path`, with its extension, and renames it when all went well."""
    folder, name = os.path.split(path)
    os.makedirs(folder or ".", exist_ok=True)
    aside = os.path.join(folder, f".partial-{os.getpid()}-{name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.remove(aside)


def check_same(config):
    """Checks that a run folder that is there already is of the same run.

    Args:
        config: `train.config.Config`.
    Raises:
        ValueError: if the folder holds a run with another configuration; the differences are given.
    """
    path = os.path.join(config.workdir, CONFIG)
    if os.path.exists(path):
        before, now = configs.read(path), json.loads(configs.to_json(config))
        changed = [name for name in now if name not in PASSING and now[name] != before.get(name)]
        if changed:
            changes = ", ".join(f"{name}: {before.get(name)!r} before, {now[name]!r} now" for name in changed)
            raise ValueError(
                f"The run folder holds another run. Expected the same configuration as in {path}. "
                f"Received: {changes}. Choose another --workdir, or delete that one."
            )


def open_run(config):
    """Makes the run folder with its `config.json`.

    Args:
        config: `train.config.Config`.
    Raises:
        ValueError: if it cannot be written.
    """
    path = os.path.join(config.workdir, CONFIG)
    try:
        with written_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
            file.write(configs.to_json(config))
    except OSError as error:
        raise ValueError(
            f"The run folder cannot be written. Received: --workdir={config.workdir} ({error})."
        ) from error


def is_finished(config):
    """Whether the run has written its model."""
    return os.path.exists(os.path.join(config.workdir, MODEL))


def save_checkpoint(config, variables, epochs_done, history):
    """Writes all variables and the history after an epoch; removes the oldest beyond the number kept.

    Args:
        config: `train.config.Config`.
        variables: Keras variables of model and optimizer.
        epochs_done: whole number.
        history: list of dicts, one an epoch.
    """
    path = os.path.join(config.workdir, "checkpoints", f"epoch-{epochs_done:05d}.npz")
    with written_aside(path) as aside:
        names = _unique_names(variables)
        arrays = {name: np.asarray(variable) for name, variable in zip(names, variables, strict=True)}
        np.savez(aside, **arrays, history=json.dumps(history), epochs_done=epochs_done)
    for old in checkpoints(config)[: -config.checkpoints_to_keep]:
        os.remove(old)


def checkpoints(config):
    """Paths of the run's checkpoints, the newest last."""
    return sorted(glob.glob(os.path.join(glob.escape(config.workdir), "checkpoints", "epoch-*.npz")))


def restore(config, variables):
    """Loads the newest checkpoint, if there is one.

    Args:
        config: `train.config.Config`.
        variables: Keras variables of model and optimizer, in the order they were saved in.
    Returns:
        (epochs done, history): (0, []) without a checkpoint.
    Raises:
        ValueError: if the checkpoint is damaged (each array is checked by its CRC) or of another net.
    """
    found = checkpoints(config)
    if not found:
        return 0, []
    try:
        with open(found[-1], "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = [stored[name] for name in _unique_names(variables)]
            history, epochs_done = json.loads(str(stored["history"])), int(stored["epochs_done"])
    except Exception as error:  # NumPy raises whatever the damaged part happens to trip over
        raise ValueError(
            f"The checkpoint is damaged or of another run. Expected one that this run wrote. Received: {found[-1]} "
            f"({error}). Delete it to go on from the one before."
        ) from error
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return epochs_done, history


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
    import keras  # seconds, which reading a run folder need not wait for

    deployable = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    with written_aside(os.path.join(config.workdir, MODEL)) as aside:
        deployable.save(aside)


def _unique_names(variables):
    """Names for a checkpoint's arrays: paths, which stay the same from process to process, and positions."""
    return [f"{position:05d}/{variable.path}" for position, variable in enumerate(variables)]
