"""The configuration of a run: one flat, frozen, printable dataclass; flags are made from its fields."""

import dataclasses
import difflib
import json
import os

from absl import flags

from train import recipes

STRATEGIES = ("default", "mirrored")
SCHEDULES = ("cosine", "steps", "constant")


def _field(default, text):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Config(recipes.Recipe):
    """Everything that a run depends on; `config.json` in the run folder holds it."""

    model: str = _field("ResNet20", "one of keras_resnet.list_models()")
    weights: str = _field("", "to start from: imagenet, a tag of keras_resnet.list_weights(), a file; empty: random")
    freeze_backbone: bool = _field(False, "train the classifier alone; batch normalization keeps its statistics")
    data: str = _field("digits", "digits, synthetic, tfds:NAME or folder:PATH (PATH/train/CLASS/*.jpg)")
    data_dir: str = _field("", "folder of prepared TFDS data sets; empty: TFDS's own")
    download: bool = _field(False, "let TFDS download a data set that is not in data_dir")
    class_index: str = _field("", "imagenet_class_index.json, or a text with a wnid a line: order of folder's classes")
    image_size: int = _field(0, "side of the square images in pixels; 0: the data's own, or the net's if that varies")
    validation_fraction: float = _field(0.1, "share of the training images held out (He 2015: 5,000 of 50,000)")
    recipe: str = _field("", f"one of {', '.join(recipes.RECIPES)}; empty: the one for the data")
    strategy: str = _field("default", f"of tf.distribute: {' or '.join(STRATEGIES)}")
    cpu_replicas: int = _field(2, "logical CPU devices that mirrored makes where there is no GPU")
    synchronized_bn: bool = _field(False, "batch statistics over all replicas, not of each replica's images")
    steps_per_execution: int = _field(50, "steps in one call of the compiled loop, between two progress lines")
    checkpoints_to_keep: int = _field(2, "newest checkpoints kept in the run folder")
    seed: int = _field(0, "of initial weights, validation split, order and augmentation")
    workdir: str = _field("", "run folder; empty: runs/MODEL-DATA")


def define_flags():
    """Defines one flag a field; a default is a row's or the dataclass's, never the flag's."""
    makers = {
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        bool: flags.DEFINE_bool,
    }
    for field in dataclasses.fields(Config):
        text = field.metadata["help"]
        default = "the recipe's" if field.default is dataclasses.MISSING else repr(field.default)
        makers[field.type](field.name, None, f"{text} (default: {default})", module_name="train/main.py")
    flags.DEFINE_string("config", None, "config.json of a run to repeat; other flags override it")


def from_flags(values):
    """The configuration that command-line flags ask for.

    Precedence: a flag, then the file of `--config`, then the recipe's row, then the default.

    Args:
        values: `absl.flags.FlagValues` after parsing.
    Returns:
        `Config`, checked.
    Raises:
        ValueError: if a value is out of range, with the allowed ones.
    """
    chosen = read(values.config) if values.config else {}
    names = [field.name for field in dataclasses.fields(Config)]
    if values.recipe and values.recipe != chosen.get("recipe"):  # another recipe: the file's fields of its own go
        chosen = {name: value for name, value in chosen.items() if name not in recipes.Recipe.__dataclass_fields__}
    chosen |= {name: values[name].value for name in names if values[name].value is not None}
    return make(chosen)


def make(chosen):
    """`Config` from some of its fields; the others come from the recipe and the defaults.

    Args:
        chosen: dict of fields of `Config`.
    Returns:
        `Config`, checked.
    Raises:
        ValueError: if a field is unknown or a value is out of range.
    """
    from keras_resnet.variants import (
        VARIANTS,
    )  # Keras takes seconds to import, which --help need not wait for

    unknown = sorted({*chosen} - {field.name for field in dataclasses.fields(Config)})
    if unknown:
        raise ValueError(f"Unknown configuration fields: {', '.join(unknown)}. Remove them from config.json.")
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    for name, value in chosen.items():
        fits = isinstance(value, (int, float) if types[name] is float else types[name])
        if not fits or (isinstance(value, bool) and types[name] is not bool):
            raise ValueError(f"Expected {name} to be of type {types[name].__name__}. Received: {value!r}.")
    kind = chosen.get("data", Config.data).partition(":")[0]
    recipe = chosen.get("recipe") or recipes.DEFAULT_RECIPES.get(kind, "cifar_fast")
    _check("recipe", recipe, recipes.RECIPES)
    config = Config(**dataclasses.asdict(recipes.RECIPES[recipe]) | chosen | {"recipe": recipe})
    if not config.workdir:
        folder = f"{config.model}-{os.path.basename(config.data.rstrip('/')).replace(':', '-')}"
        config = dataclasses.replace(config, workdir=os.path.join("runs", folder))
    _check("model", config.model, VARIANTS)
    _check("strategy", config.strategy, STRATEGIES)
    _check("schedule", config.schedule, SCHEDULES)
    _check_ranges(config)
    return config


def read(path):
    """Fields in a `config.json`.

    Raises:
        ValueError: if the file is not there or is not one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"Expected the config.json of a run. Received: {path!r} ({error}).") from error
    if not isinstance(fields, dict):
        raise ValueError(f"Expected the config.json of a run. Received: {path!r}, which holds no fields.")
    return fields


def to_json(config):
    """The text of `config.json`."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def _check(name, value, allowed):
    if value not in allowed:
        nearest = difflib.get_close_matches(str(value), allowed, n=3, cutoff=0.4)
        hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
        raise ValueError(f"Expected {name} to be one of {', '.join(allowed)}. Received: --{name}={value}.{hint}")


def _check_ranges(config):
    at_least_one = ("epochs", "batch_size", "cpu_replicas", "steps_per_execution", "checkpoints_to_keep")
    not_negative = ("learning_rate", "warmup_epochs", "weight_decay", "crop_padding", "image_size", "seed")
    below_one = ("momentum", "label_smoothing", "validation_fraction")
    for names, fits, text in (
        (at_least_one, lambda value: value >= 1, "at least 1"),
        (not_negative, lambda value: value >= 0, "at least 0"),
        (below_one, lambda value: 0 <= value < 1, "from 0 up to, not including, 1"),
    ):
        for name in names:
            value = getattr(config, name)
            if not fits(value):
                raise ValueError(f"Expected {name} to be {text}. Received: --{name}={value}.")
    if config.warmup_epochs >= config.epochs:
        raise ValueError(
            f"Expected warmup_epochs to end before the run does. Received: --warmup_epochs={config.warmup_epochs} "
            f"and --epochs={config.epochs}. Pass a smaller --warmup_epochs, such as 0."
        )
