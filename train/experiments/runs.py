"""The trained nets of an experiment: each an ordinary run folder of the trainer, named after its configuration."""

import csv
import dataclasses
import hashlib
import json
import os
import re

import keras

import keras_resnet
from keras_resnet.variants import VARIANTS
from train import benchmark, damage, data, input_pipeline, predictor, run_folder, scoring, strategies, trainer
from train import config as configs
from train.experiments import settings as lab_settings

# He 2015, section 4.2, on all data; the digits, of 8 x 8 grey pixels, are shifted by a pixel and never mirrored.
PROTOCOL = {"recipe": "paper_cifar"}
PROTOCOLS = {
    "digits": PROTOCOL | {"batch_size": 64, "crop_padding": 1, "flip": False},
    "folder": PROTOCOL | {"image_size": 32},
}


@dataclasses.dataclass(frozen=True)
class Net:
    """One net to train.

    Attributes:
        model: one of `keras_resnet.list_models()`.
        shortcut: as `--shortcut`; "" is the net's own.
    """

    model: str
    shortcut: str = ""

    @property
    def title(self):
        """As the paper calls it: ResNet-20, plain-56; with its shortcut where that is chosen."""
        name = re.sub(r"(\D)(\d+)$", r"\1-\2", self.model).replace("PlainNet", "plain")
        return f"{name} ({self.shortcut})" if self.shortcut else name

    @property
    def depth(self):
        """Weighted layers, the number in its name."""
        return int(re.search(r"\d+", self.model)[0])

    @property
    def is_plain(self):
        """Whether it has no shortcuts."""
        return self.model.startswith("Plain")

    def build(self, image_shape=(32, 32, 3), classes=10):
        """The net with random weights, of logits."""
        shortcut = {"shortcut": self.shortcut} if self.shortcut else {}
        return keras_resnet.build(
            self.model, weights=None, input_shape=image_shape, classes=classes, classifier_activation=None, **shortcut
        )


def parse_net(text):
    """`Net` from MODEL or MODEL:SHORTCUT; a shortcut that is the net's own is left out, so that they are one run.

    Raises:
        ValueError: if there is no such net or shortcut; for a net the nearest names are given.
    """
    model, _, shortcut = text.partition(":")
    configs.make({"model": model})
    allowed = [choice for choice in VARIANTS[model].shortcuts if choice]
    if shortcut and shortcut not in allowed:
        raise ValueError(
            f"{model} has no such shortcut. Expected one of {', '.join(allowed) or 'none'}. Received: {text}."
        )
    return Net(model, "" if allowed and shortcut == allowed[0] else shortcut)


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
        """Rows of history.csv: list of dicts of floats."""
        with open(os.path.join(self.config.workdir, run_folder.HISTORY), newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def source(self):
        """The images it was trained on, with its splits: `train.data.Source`."""
        found = data.load_for_run(self.config)
        return damage.leave_out(found, damage.look(found, run_folder.damaged_images(self.config)))

    def model(self):
        """The trained `keras.Model`, from pixels to logits."""
        return predictor.load_keras(self.path)

    def test_error(self, model=None):
        """Per cent of the test images that it, or a changed model, gets wrong."""
        found = predictor.from_keras(model or self.model())
        return 100 * (1 - scoring.score(*scoring.predict(found, self.source(), "test")).top1)


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
        ValueError: if there is no such net or no such shortcut.
    """
    protocol = PROTOCOLS.get(settings.data.partition(":")[0], PROTOCOL)
    chosen = protocol | {"model": net.model, "data": settings.data, "epochs": num_epochs, "seed": seed}
    chosen |= {"shortcut": net.shortcut} if net.shortcut else {}
    # Of what was chosen, not of all fields, so that a run is found again when the trainer has learnt more.
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
    folder = f"{net.model}{'-' + net.shortcut if net.shortcut else ''}-{num_epochs}epochs-seed{seed}-{digest}"
    workdir = os.path.join(settings.output_dir, "runs", folder)
    return Run(net, configs.make(chosen | (passing or {}) | {"workdir": workdir, "data_dir": settings.data_dir}))


def train(run):
    """Trains to the end of the run from where it stands; a finished run is left alone."""
    if not run_folder.look(run.config, "auto"):
        forget()
        trainer.fit(strategies.make(run.config), run.config, "auto")


def forget():
    """Clears what earlier nets have left in Keras: names, which checkpoints hold, are those of a process of its own."""
    keras.backend.clear_session()


def train_all(settings, name, nets, passing=None):
    """Trains every net from every seed, the shallow ones first: their results are of use while the others go on.

    Args:
        settings: `Settings`.
        name: of the experiment.
        nets: list of `Net`.
        passing: as of `plan`.
    Returns:
        list of `Run`, by net, then by seed.
    """
    num_epochs = lab_settings.epochs(settings, name, lambda: _seconds_an_epoch(settings, nets)) if nets else 0
    runs = [plan(settings, net, seed, num_epochs, passing) for net in nets for seed in settings.seeds]
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
