"""The configuration of a run: one flat, frozen, printable dataclass; flags are made from its fields."""

import dataclasses
import json
import os

from absl import flags

import train
from train import recipes

CHOICES = {  # what a field may be, where that is a short list
    "strategy": ("default", "mirrored", "multi_worker", "tpu"),
    "schedule": ("cosine", "one_cycle", "steps", "plateau", "constant"),
    "optimizer": ("sgd", "adamw", "lamb", "muon"),
    "loss": ("cross_entropy", "bce"),
    "crop": ("center", "padded", "resized", "scale_jitter"),
    "auto_augment": ("none", "trivial", "rand"),
    "mixed_precision": ("none", "float16", "bfloat16"),
    "jit": ("auto", "on", "off"),
}
RANGES = (  # (fields, test of a value, the same in words)
    (("epochs", "batch_size", "accumulation", "repeats", "plateau_epochs", "cpu_replicas", "steps_per_execution",
      "checkpoints_to_keep"), lambda value: value >= 1, "at least 1"),
    (("learning_rate", "warmup_epochs", "warmup_rate", "weight_decay", "clip_norm", "crop_padding", "image_size",
      "training_size", "mixup", "cutmix", "seed", "checkpoint_seconds"), lambda value: value >= 0, "at least 0"),
    (("momentum", "label_smoothing", "validation_fraction", "dropout", "stochastic_depth", "ema", "colour_jitter",
      "bce_threshold"),
     lambda value: 0 <= value < 1, "from 0 up to, not including, 1"),
    (("erasing",), lambda value: 0 <= value <= 1, "from 0 to 1"),
    (("min_area",), lambda value: 0 < value <= 1, "above 0 and at most 1"),
    (("rand_magnitude",), lambda value: 0 <= value <= 10, "from 0 to 10"),
)  # fmt: skip


def _field(default, text):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Config(recipes.Recipe):
    """Everything that a run depends on; `config.json` in the run folder holds it."""

    model: str = _field("ResNet20", "one of keras_resnet.list_models()")
    shortcut: str = _field("", "of the net's blocks, such as A, B or C (He 2015, section 4.1); empty: the net's own")
    weights: str = _field("", "to start from: imagenet, a tag of keras_resnet.list_weights(), a file; empty: random")
    freeze_backbone: bool = _field(False, "train the classifier alone; batch normalization keeps its statistics")
    qat: bool = _field(False, "train on from weights with the numbers of an int8 file (arXiv 1712.05877), for export")
    data: str = _field("digits", "digits, synthetic, tfds:NAME or folder:PATH (PATH/train/CLASS/*.jpg)")
    data_dir: str = _field("", "folder of prepared TFDS data sets; empty: TFDS's own")
    download: bool = _field(False, "let TFDS download a data set that is not in data_dir")
    class_index: str = _field("", "imagenet_class_index.json, or a text with a wnid a line: order of folder's classes")
    image_size: int = _field(0, "side of the square images in pixels; 0: the data's own, or the net's if that varies")
    validation_fraction: float = _field(0.1, "share of the training images held out (He 2015: 5,000 of 50,000)")
    recipe: str = _field("", f"one of {', '.join(recipes.RECIPES)}; empty: the one for the data")
    fill_last_batch: bool = _field(False, "fill an epoch's last batch from its beginning, not leave the images out")
    strict: bool = _field(False, "stop at damaged images instead of leaving them out")
    strategy: str = _field("default", "of tf.distribute: default (one device), mirrored (one machine), multi_worker "
                           "(TF_CONFIG or SLURM) or tpu")  # fmt: skip
    cpu_replicas: int = _field(2, "logical CPU devices that mirrored makes where there is no GPU")
    synchronized_bn: bool = _field(False, "batch statistics over all replicas, not of each replica's images")
    mixed_precision: str = _field("none", "float16 (GPU), bfloat16 (TPU, newer GPUs and CPUs) or none: float32")
    jit: str = _field("auto", "XLA: on, off, or auto: on one GPU alone")
    deterministic: bool = _field(True, "the same bits in every run on the same machine; false may be faster on a GPU")
    steps_per_execution: int = _field(10, "steps between two looks at the screen, signals and checkpoints")
    checkpoint_seconds: float = _field(300.0, "time between two checkpoints within an epoch")
    checkpoints_to_keep: int = _field(3, "newest checkpoints kept in the run folder")
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
        is_recipes = field.name in recipes.Recipe.__dataclass_fields__
        default = "the recipe's" if is_recipes else repr(field.default)
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
    recipe = recipes.DEEP_RECIPES.get((recipe, chosen.get("model", Config.model)), recipe)
    row = dataclasses.asdict(recipes.RECIPES[recipe])
    if chosen.get("qat") and not chosen.get("recipe"):
        row |= recipes.QAT
    config = Config(**row | chosen | {"recipe": recipe})
    if not config.workdir:
        folder = f"{config.model}-{os.path.basename(config.data.rstrip('/')).replace(':', '-')}"
        config = dataclasses.replace(config, workdir=os.path.join("runs", folder))
    _check("model", config.model, VARIANTS)
    for name, allowed in CHOICES.items():
        _check(name, getattr(config, name), allowed)
    _check_ranges(config)
    _check_together(config)
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
        hint = train.nearest(str(value), allowed)
        raise ValueError(f"Expected {name} to be one of {', '.join(allowed)}. Received: --{name}={value}.{hint}")


def _check_ranges(config):
    for names, fits, text in RANGES:
        for name in names:
            value = getattr(config, name)
            if not fits(value):
                raise ValueError(f"Expected {name} to be {text}. Received: --{name}={value}.")


def _check_together(config):
    """Raises ValueError for fields that contradict each other."""
    if config.warmup_epochs >= config.epochs:
        raise ValueError(
            f"Expected warmup_epochs to end before the run does. Received: --warmup_epochs={config.warmup_epochs} "
            f"and --epochs={config.epochs}. Pass a smaller --warmup_epochs, such as 0."
        )
    if config.schedule == "steps" and config.warmup_epochs > config.epochs / 2:
        raise ValueError(
            "Expected the warm-up of --schedule=steps to end before the first fall, at half of the run. Received: "
            f"--warmup_epochs={config.warmup_epochs:.4g} and --epochs={config.epochs}. Pass more --epochs or a smaller "
            "--warmup_epochs."
        )
    if config.warmup_rate and (config.schedule in ("cosine", "one_cycle") or not config.warmup_epochs):
        raise ValueError(
            "Expected warmup_rate with --schedule=steps or constant and --warmup_epochs above 0 alone. Received: "
            f"--warmup_rate={config.warmup_rate} with --schedule={config.schedule} and --warmup_epochs="
            f"{config.warmup_epochs:.4g}. Pass --warmup_rate=0, or that schedule and that warm-up."
        )
    if config.schedule == "plateau" and config.warmup_epochs:
        raise ValueError(
            "Expected no warm-up with --schedule=plateau, whose rate follows val_loss alone. "
            f"Received: --warmup_epochs={config.warmup_epochs}. Pass --warmup_epochs=0 or another schedule."
        )
    if config.crop_padding and config.crop != "padded":
        raise ValueError(
            "Expected crop_padding with padded crops alone. Received: "
            f"--crop_padding={config.crop_padding} with --crop={config.crop}. Pass --crop=padded or --crop_padding=0."
        )
    if config.bce_threshold and config.loss != "bce":
        raise ValueError(
            "Expected bce_threshold with the binary loss alone. Received: "
            f"--bce_threshold={config.bce_threshold} with --loss={config.loss}. Pass --loss=bce or --bce_threshold=0."
        )
    if config.qat and not config.weights:
        raise ValueError(
            "Quantization-aware training goes on from trained weights. Expected --weights with --qat. Received: none. "
            "Pass the model.keras of a run, or other weights of the net."
        )
    if config.qat and (config.freeze_backbone or config.mixed_precision != "none"):
        raise ValueError(
            "Expected --qat to train all layers in float32. Received: --freeze_backbone="
            f"{str(config.freeze_backbone).lower()}, --mixed_precision={config.mixed_precision}. Leave them out."
        )
    if config.batch_size % config.accumulation:
        raise ValueError(
            "The global batch must split evenly into the parts that are accumulated. Received: "
            f"--batch_size={config.batch_size}, --accumulation={config.accumulation}."
        )
