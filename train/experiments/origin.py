"""Where the figures of a page come from: how nets were trained, the command, the date, the versions, the machine."""

import datetime
import os
import platform
import re

import keras
import tensorflow as tf

from train.experiments.pages import CIFAR10
from train.experiments.settings import SMOKE


def stem(name, settings, nets):
    """Name of the files of an experiment, with the data's where figures depend on it: "degradation_cifar10"."""
    if not (nets or settings.weights):
        return name
    data = settings.data.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return f"{name}_{re.sub(r'[^A-Za-z0-9.]+', '-', data)}"


def conditions(trained):
    """The sentences that say how nets were trained; "" where none were.

    Args:
        trained: list of `train.experiments.runs.Run`.
    Returns:
        str.
    """
    if not trained:
        return ""
    config = trained[0].config
    seeds = sorted({run.config.seed for run in trained})
    warm = sorted({run.net.title for run in trained if run.config.warmup_rate})
    return (
        f"Trained on {config.data} for {config.epochs} epochs (the paper: 64,000 steps of 128 images of CIFAR-10, 182 "
        f"epochs), batch {config.batch_size}, rate {config.learning_rate:g} divided by 10 at half and three quarters, "
        f"weight decay {config.weight_decay:g}, float32, seed{'s' if len(seeds) > 1 else ''} "
        f"{', '.join(map(str, seeds))}."
        + (f" {', '.join(warm)} begin{'s' * (len(warm) == 1)} with the paper's warm-up." if warm else "")
        + ("" if config.data == CIFAR10 else f" The paper's figures are not of {config.data}.")
    )


def made(command, trained):
    """The sentence that says by what, when and on which machine a page was made.

    Args:
        command: of `command`.
        trained: list of `train.experiments.runs.Run`.
    Returns:
        str.
    """
    details, gpus = tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU")
    names = [details(gpu).get("device_name", "GPU") for gpu in gpus] or ["no GPU"]
    machine = ", ".join([_processor(), f"{os.cpu_count()} cores", *names])
    return (
        f"Made by `{command}` on {datetime.date.today()} with TensorFlow {tf.__version__}, "
        f"Keras {keras.__version__} and Python {platform.python_version()} on {machine}"
        + ("; nets that were in `--output_dir` already were not trained again." if trained else ".")
    )


def command_of(path):
    """The command line that a page says it was made by; "" where there is no such page."""
    try:
        with open(path, encoding="utf-8") as file:
            return "".join(re.findall(r"^Made by `(.+?)`", file.read(), re.MULTILINE))
    except (OSError, UnicodeDecodeError):
        return ""


def command(name, settings, nets):
    """The command line that gives the same figures; where files lie is left out."""
    given = {"data": settings.data} if nets or settings.weights else {}
    if nets:
        given |= {"budget": settings.budget, "seeds": ",".join(map(str, settings.seeds))}
    elif settings.budget == SMOKE and not settings.weights:
        given |= {"budget": SMOKE}
    given |= {"nets": ",".join(settings.nets)} if settings.nets else {}
    given |= {"weights": ",".join("=".join(pair) for pair in settings.weights.items())} if settings.weights else {}
    given |= {"class_index": settings.class_index} if settings.class_index else {}
    return " ".join(["python train/lab.py", name, *(f"--{flag}={value}" for flag, value in given.items())])


def _processor():
    """The processor's name as Linux gives it, else its kind."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return re.search(r"model name\s*: (.+)", file.read())[1].strip()
    except (OSError, TypeError):
        return platform.processor() or platform.machine()
