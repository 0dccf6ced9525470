"""What the command line of the lab asks for, and what a budget in minutes is in epochs."""

import dataclasses
import json
import os
import re

import train
from train.run_folder import written_aside

SMOKE = "smoke"
SMOKE_EPOCHS = 3  # the fewest that hold ResNet-110's warm-up of 1.14 epochs before the rate's first fall
FEWEST_EPOCHS = 4  # of a budget in minutes: one at least between two falls of the rate, at 1/2 and 3/4 of the run
BUDGETS = "budgets.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all experiments of one call share.

    Attributes:
        data: as `--data` of train/main.py.
        data_dir: folder of prepared TFDS data sets.
        budget: "24" epochs a net, "30m" minutes for all nets of an experiment together, or "smoke".
        seeds: tuple of whole numbers; every net is trained once from each.
        output_dir: folder of the results, and of `runs/`, which all experiments share.
        nets: names that replace the experiment's own; empty: its own.
        weights: dict from an ImageNet net to its weights, which `crops` scores instead of training nets.
        class_index: file with ImageNet's classes, for folders named by wnids.
    """

    data: str
    data_dir: str
    budget: str
    seeds: tuple
    output_dir: str
    nets: tuple = ()
    weights: dict = dataclasses.field(default_factory=dict)
    class_index: str = ""

    @property
    def is_smoke(self):
        """Whether only that everything works is to be shown."""
        return self.budget == SMOKE


def check_budget(text):
    """Raises ValueError unless it is a budget: whole epochs, minutes as "30m", or "smoke"."""
    if text == SMOKE or re.fullmatch(r"[1-9]\d*m?", text):
        return
    raise ValueError(
        "Expected --budget in epochs a net, as 24, in minutes for all nets together, as 30m, or smoke. "
        f"Received: --budget={text}.{train.nearest(text, [SMOKE])}"
    )


def epochs(settings, nets, seconds_an_epoch):
    """Epochs that each of these nets is trained for.

    Minutes are turned into epochs once, from the speed that is measured then, and kept in the output folder, so that
    the same command goes on with the same runs, and experiments with the same nets share them.

    Args:
        settings: `Settings`.
        nets: list of their titles.
        seconds_an_epoch: function without arguments that measures how long one epoch of all its nets takes.
    Returns:
        Whole number.
    Raises:
        ValueError: if the minutes are too few.
    """
    if settings.is_smoke:
        return SMOKE_EPOCHS
    if not settings.budget.endswith("m"):
        return int(settings.budget)
    path = os.path.join(settings.output_dir, BUDGETS)
    key = f"{settings.data} {settings.budget} {','.join(sorted(nets))}, {len(settings.seeds)} seeds"
    known = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            known = json.load(file)
    if key not in known:
        known[key] = _affordable(float(settings.budget[:-1]), seconds_an_epoch())
        with written_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=2)
    return known[key]


def _affordable(minutes, seconds_an_epoch):
    found = int(60 * minutes / seconds_an_epoch)
    if found >= FEWEST_EPOCHS:
        return found
    raise ValueError(
        f"The budget is too small. Expected at least {FEWEST_EPOCHS} epochs of all nets, which take "
        f"{FEWEST_EPOCHS * seconds_an_epoch / 60:,.0f} minutes here. Received: --budget={minutes:g}m. Pass more "
        "minutes, or fewer nets in --nets."
    )
