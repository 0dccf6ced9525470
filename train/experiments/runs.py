"""The trained nets of an experiment: each an ordinary run folder of the trainer, named after its configuration."""

import csv
import dataclasses
import hashlib
import json
import math
import os

import keras

import keras_resnet
from train import benchmark, damage, data, input_pipeline, predictor, recipes, run_folder, scoring, strategies, trainer
from train import config as configs
from train.experiments import settings as lab_settings
from train.experiments.nets import Net

# He 2015, section 4.2: of CIFAR-10's 50,000 training images 5,000 are held out, and 45,000 trained on. The digits, of
# 8 x 8 grey pixels, are shifted by a pixel and never mirrored.
PROTOCOL = {"recipe": "paper_cifar"}
PROTOCOLS = {"digits": PROTOCOL | {"batch_size": 64, "crop_padding": 1, "flip": False}}


@dataclasses.dataclass(frozen=True)
class Run:
    """A net trained from one seed.

    Attributes:
        net: `Net`.
        config: `train.config.Config`.
    """

    net: Net
    config: configs.Config

    @property
    def columns(self):
        """What every row of figures over layers or epochs begins with."""
        kind = "plain" if self.net.is_plain else "residual"
        return {"net": self.net.title, "kind": kind, "layers": self.net.depth, "seed": self.config.seed}

    @property
    def path(self):
        """Of the trained model."""
        return os.path.join(self.config.workdir, run_folder.MODEL)

    def history(self):
        """Rows of history.csv, one an epoch: list of dicts of floats.

        Raises:
            ValueError: if it is damaged or not of all epochs.
        """
        path = os.path.join(self.config.workdir, run_folder.HISTORY)
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
            found = [row["epoch"] for row in rows]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged: {error}. {self._repair}") from error
        if found != [*range(1, self.config.epochs + 1)]:
            raise ValueError(
                f"{path} is damaged. Expected a row for each of {self.config.epochs} epochs. Received: {len(found)} "
                f"rows. {self._repair}"
            )
        return rows

    @property
    def _repair(self):
        return f"Delete {self.path} and run the same command: the run is completed from its checkpoints."

    def source(self):
        """The images it was trained on, with its splits: `train.data.Source`."""
        found = data.load_for_run(self.config)
        return damage.leave_out(found, damage.look(found, run_folder.damaged_images(self.config)))

    def model(self):
        """The trained `keras.Model`, from pixels to logits; raises ValueError if the file is damaged."""
        try:
            return predictor.load_keras(self.path)
        except ValueError as error:
            raise ValueError(f"{error} {self._repair}") from error

    def tester(self, model):
        """Function that scores its model as its weights then are.

        Returns:
            Function that returns columns of a row: the per cent of the test images that the model gets wrong, and how
            many they are.
        """
        found, source = predictor.from_keras(model), self.source()

        def tested():
            scores = scoring.score(*scoring.predict(found, source, "test"))
            return {"test_error": 100 * (1 - scores.top1), "test_images": scores.num_images}

        return tested


def plan(settings, net, seed, num_epochs, passing=None):
    """The run of a net: where it is and with which configuration.

    Args:
        settings: `Settings`.
        net: `Net`.
        seed: whole number.
        num_epochs: whole number.
        passing: dict of fields of the trainer's configuration that change nothing of the result.
    Returns:
        `Run`, trained or not.
    Raises:
        ValueError: if there is no such net or no such shortcut, or its warm-up does not fit.
    """
    _check_warmup(net, num_epochs)
    kind = settings.data.partition(":")[0]
    chosen = PROTOCOLS.get(kind, PROTOCOL) | {"model": net.model, "data": settings.data, "epochs": num_epochs}
    chosen |= {"seed": seed} | ({"shortcut": net.shortcut} if net.shortcut else {})
    chosen |= {"image_size": net.image_size} if kind == "folder" else {}
    # Of what was chosen, not of all fields, so that a run is found again when the trainer has learnt more.
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
    folder = f"{net.model}{'-' + net.shortcut if net.shortcut else ''}-{num_epochs}epochs-seed{seed}-{digest}"
    workdir = os.path.join(settings.output_dir, "runs", folder)
    return Run(net, configs.make(chosen | (passing or {}) | {"workdir": workdir, "data_dir": settings.data_dir}))


def _check_warmup(net, num_epochs):
    """Raises ValueError where a deep net's warm-up would not end before the rate falls first, at half of the run."""
    recipe = recipes.RECIPES[recipes.DEEP_RECIPES.get((PROTOCOL["recipe"], net.model), PROTOCOL["recipe"])]
    fewest = math.ceil(2 * recipe.warmup_epochs)
    if num_epochs < fewest:
        raise ValueError(
            f"The budget is too small for {net.title}, which warms up for {recipe.warmup_epochs:.2f} epochs before "
            f"half of the run. Expected at least {fewest} epochs. Received: {num_epochs}. Pass a larger --budget, or "
            "other --nets."
        )


def _check_images(run):
    """Raises ValueError where photographs would be resized to another size than the net's."""
    if run.config.data.partition(":")[0] != "tfds":
        return
    source = data.load_for_run(run.config)
    if source.encoded and source.image_shape[0] != run.net.image_size:
        raise ValueError(
            f"The images of {source.name} are resized to {source.image_shape[0]} pixels. Expected "
            f"{run.net.image_size} for {run.net.title}. Pass them as folder:PATH, which is resized to the net's size, "
            "or other --nets."
        )


def train(run):
    """Trains to the end of the run from where it stands; a finished run is left alone."""
    if not run_folder.look(run.config, "auto"):
        forget()
        trainer.fit(strategies.make(run.config), run.config, "auto")


def forget():
    """Clears what earlier nets have left in Keras: names, which checkpoints hold, are those of a process of its own."""
    keras.backend.clear_session()


def train_all(settings, nets, passing=None):
    """Trains every net from every seed, the shallow ones first: their results are of use while the others go on.

    Args:
        settings: `Settings`.
        nets: list of `Net`.
        passing: as of `plan`.
    Returns:
        list of `Run`, by net, then by seed.
    """
    if not nets:
        return []
    titles = [net.title for net in nets]
    num_epochs = lab_settings.epochs(settings, titles, lambda: _seconds_an_epoch(settings, nets))
    runs = [plan(settings, net, seed, num_epochs, passing) for net in nets for seed in settings.seeds]
    for run in {run.net.image_size: run for run in runs}.values():
        _check_images(run)
    for run in sorted(runs, key=lambda run: (run.config.seed, run.net.depth)):
        print(f"\n{run.net.title}, seed {run.config.seed}: {run.config.workdir}", flush=True)
        train(run)
    return runs


def _seconds_an_epoch(settings, nets):
    """Time for one epoch of all nets from all seeds: the first one's measured, the others by their multiply-adds."""
    first = plan(settings, nets[0], settings.seeds[0], lab_settings.SMOKE_EPOCHS)
    strategy, source = strategies.make(first.config), first.source()
    rate = benchmark.MEASURES["compute"](strategy, first.config, source)
    images = input_pipeline.num_training_batches(source, first.config) * first.config.batch_size
    costs = [keras_resnet.count_flops(net.build(source.image_shape)) for net in nets]
    return len(settings.seeds) * sum(costs) / costs[0] * images / rate
