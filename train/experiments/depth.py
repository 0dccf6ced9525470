"""How deep can they be? He 2015, section 4.2: errors to ResNet-110, and that ResNet-1202 can be trained at all."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from matplotlib import pyplot as plt

from train import config as configs
from train import run_folder
from train.experiments import pages, runs, seeds, table6
from train.experiments import settings as lab_settings
from train.experiments.nets import Net
from train.experiments.one_step import ONE_STEP
from train.experiments.pages import Fact
from train.experiments.paper import CIFAR10_ERROR, CIFAR10_PARAMETERS

TITLE = "Depth: error to 110 layers, and 1202 layers built, trained a step and exported"
DEEPEST, SMOKE_DEEPEST = "ResNet1202", "ResNet44"
PARTS = 16  # that its batch is worked through in, for memory: 14 GB of activations at 128 images a part
EXPORT, EXPORT_IMAGES = "export", 100  # that the file is checked on: each takes 5.7e9 operations, thrice
EXPORTER = str(pathlib.Path(__file__).parents[2] / "export" / "main.py")


def measure(trained, settings):
    """A row a run, as of `table6`, and one of the deepest net: seconds and memory of what can be done with it.

    Args:
        trained: list of `Run`.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    net, config = deepest(settings)
    return [*table6.measure(trained, settings), {"net": net.title, "layers": net.depth} | prove(config)]


def deepest(settings):
    """The deepest net of the lab, and the configuration of its one step: `Net`, `train.config.Config`."""
    net = Net(SMOKE_DEEPEST if settings.is_smoke else DEEPEST)
    data = re.sub(r"[^\w.]+", "-", settings.data)  # a folder's path, too, is one name
    workdir = os.path.join(settings.output_dir, "runs", f"{net.model}-one-step-{data}")
    # Of one seed, whatever others are asked for: it changes nothing of the time and the memory.
    config = runs.plan(settings, net, 0, lab_settings.SMOKE_EPOCHS).config
    return net, dataclasses.replace(config, workdir=workdir, accumulation=PARTS)


def prove(config):
    """Builds the net, trains it a step and exports it, in processes of their own, unless that has been done.

    Args:
        config: `train.config.Config`, whose workdir keeps the results.
    Returns:
        dict: parameters, seconds and peak memory of each.
    Raises:
        ValueError: if one of them fails, or the folder is of another configuration.
    """
    run_folder.look(config, "auto")
    run_folder.open_run(config, {"fingerprint": None})
    found = _child(config, "step", [sys.executable, "-m", "train.experiments.one_step", config.workdir])
    found |= configs.read(os.path.join(config.workdir, ONE_STEP))
    model, folder = os.path.join(config.workdir, run_folder.MODEL), os.path.join(config.workdir, EXPORT)
    arguments = [f"--model={model}", f"--output_dir={folder}", "--formats=float32", "--overwrite"]
    arguments += [f"--eval_images={EXPORT_IMAGES}", "--max_top1_drop=100"]  # of a net that has learnt nothing
    found |= _child(config, "export", [sys.executable, EXPORTER, *arguments])
    (file,) = [name for name in os.listdir(folder) if name.endswith(".tflite")]
    return found | {"file_bytes": os.path.getsize(os.path.join(folder, file))}


def _child(config, what, command):
    """Seconds and peak memory in MB of a command, which the run folder keeps: it is run once."""
    path = os.path.join(config.workdir, f"{what}_costs.json")
    if os.path.exists(path):
        return configs.read(path)
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ValueError(f"The deepest net's {what} failed with exit code {process.returncode}; see above.")
    found = {f"{what}_seconds": round(time.perf_counter() - start, 1), f"{what}_peak_mb": usage.ru_maxrss // 1024}
    with run_folder.written_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=2)
    return found


def draw(rows):
    """Test and training error over the number of layers, with the paper's test error."""
    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    trained = sorted((row for row in rows if "test_error" in row), key=lambda row: row["layers"])
    nets = seeds.by_net(trained)
    depths = [own[0]["layers"] for own in nets.values()]
    for name, marker, label in (("test_error", "o-", "test"), ("training_error", "x--", "training")):
        means = [seeds.mean([row[name] for row in own]) for own in nets.values()]
        axes.plot(depths, means, marker, color=pages.COLOURS[1], label=f"ours, {label}")
    paper = [(own[0]["layers"], CIFAR10_ERROR[net]) for net, own in nets.items() if net in CIFAR10_ERROR]
    if paper:
        axes.plot(*zip(*paper, strict=True), "s:", color=pages.COLOURS[4], label="the paper, test (CIFAR-10)")
    axes.set(xlabel="layers", ylabel="error (%)", ylim=(0, None), xticks=depths)
    axes.grid(alpha=0.3)
    axes.legend(**pages.BELOW, ncols=3)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, reading = table6.tell([row for row in rows if "test_error" in row])
    deepest = rows[-1]
    net = deepest["net"]
    facts.append(Fact(f"{net}, parameters (1e6)", CIFAR10_PARAMETERS[net], deepest["parameters"] / 1e6))
    for name, unit in (("build_seconds", "s"), ("first_step_seconds", "s"), ("second_step_seconds", "s"),
                       ("step_peak_mb", "MB"), ("export_seconds", "s"), ("export_peak_mb", "MB"),
                       ("file_bytes", "bytes")):  # fmt: skip
        words = name.rpartition("_")[0].replace("_", " ")
        facts.append(Fact(f"{net}, {words} ({unit})", "", deepest[name]))
    return facts, (
        f"{reading} {net} is built, trained by the run's own step on a whole batch in {PARTS} parts, and exported to "
        f".tflite; its error is not measured (the paper: {CIFAR10_ERROR[net]} %). The paper finds no difficulty of "
        "optimization at 1202 layers: a training error below 0.1 %."
    )
