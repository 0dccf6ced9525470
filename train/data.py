"""Opens the images of a run, of a model, or of a `--data` flag."""

import dataclasses
import os

import numpy as np

from keras_resnet import weights as published
from keras_resnet.preprocessing import Preprocessing
from train import config as configs
from train import damage, folder_source, sources, tfds_source
from train.sources import DEFAULT_PREPROCESSING

# Functions of what follows the colon, the side in pixels, and a kind's own options.
SOURCES = {
    "digits": sources.digits,
    "synthetic": sources.synthetic,
    "tfds": tfds_source.load,
    "folder": folder_source.load,
}


def load(
    spec,
    *,
    data_dir="",
    image_size=0,
    preprocessing=DEFAULT_PREPROCESSING,
    class_index="",
    validation_fraction=0.1,
    seed=0,
    download=False,
):
    """Opens a data source; no image is decoded yet.

    Where the source has no validation split, that share of the training images is held out, drawn by seed.

    Args:
        spec: "digits", "synthetic", "tfds:NAME" or "folder:PATH".
        data_dir: folder of prepared TFDS data sets.
        image_size: side in pixels to resize and crop to; 0: the source's own, or `preprocessing`'s if that varies.
        preprocessing: `keras_resnet.preprocessing.Preprocessing`: how images of other sizes are resized.
        class_index: file with ImageNet's classes, whose order a folder's classes then take.
        validation_fraction: share from 0 to 1.
        seed: whole number.
        download: whether TFDS may download.
    Returns:
        `Source`.
    Raises:
        ValueError: if the source is unknown, absent, empty or has no labels.
    """
    kind, _, name = spec.partition(":")
    if kind not in SOURCES:
        raise ValueError(f"Expected data to be one of {', '.join(SOURCES)}. Received: {spec!r}.")
    options = {
        "tfds": {"preprocessing": preprocessing, "data_dir": data_dir, "download": download},
        "folder": {"preprocessing": preprocessing, "class_index": class_index},
    }
    source = SOURCES[kind](name, image_size, **options.get(kind, {}))
    splits = dict(source.splits)
    if "validation" not in splits and "train" in splits:
        splits |= _held_out(splits["train"], validation_fraction, seed)
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits["validation"]  # ImageNet: published scores are those of its validation split
    return dataclasses.replace(source, splits=splits)


def load_for_run(config):
    """Opens the data of a run, resized as the evaluation of the weights that it starts from.

    Damaged files are still among them: `train.strategies.load_data` leaves them out.

    Args:
        config: `train.config.Config`.
    Returns:
        `Source`.
    Raises:
        ValueError: as `load`.
    """
    return load(config.data, download=config.download, image_size=config.image_size, **_options_of(config))


def _options_of(config):
    row = published.find(config.model, config.weights)
    return {
        "data_dir": config.data_dir,
        "class_index": config.class_index,
        "preprocessing": published.preprocessing_of(config.model, row),
        "validation_fraction": config.validation_fraction,
        "seed": config.seed,
    }


def load_for_model(model_path, image_shape, spec=None, **options):
    """Opens the data that a model is scored or calibrated on.

    Without a spec it is what the run that wrote the model was trained on, split as it was then: the
    `config.json` beside the model says so.

    Args:
        model_path: path of the model file.
        image_shape: (h, w, c) that the model takes; h and w may be None.
        spec: as `--data`, or None.
        **options: data_dir, class_index, preprocessing of `load`; None stands for the run's.
    Returns:
        `Source`.
    Raises:
        ValueError: if there is neither a spec nor a run's configuration, or the source cannot be opened.
    """
    path = os.path.join(os.path.dirname(model_path), "config.json")
    run = None
    if os.path.isfile(model_path) and os.path.exists(path):
        try:
            run = configs.make(configs.read(path))
        except ValueError:
            if spec is None:  # otherwise it may be another program's, and is not needed
                raise
    if spec is None and run is None:
        raise ValueError(
            "Which images? Expected --data (of the exporter: --eval_data and --calibration_data), such as digits or "
            "tfds:cifar10, or a config.json beside the model. "
            f"Received: neither, with {model_path}."
        )
    given = {name: value for name, value in options.items() if value is not None}
    options = (_options_of(run) if run else _options_of_card(model_path)) | given
    source = load(spec or run.data, image_size=image_shape[0] or 0, **options)
    return damage.leave_out(source, damage.look(source))


def _options_of_card(model_path):
    """How images were resized for an exported file of published weights: its card.json says so."""
    path = os.path.join(os.path.dirname(model_path), "card.json")
    if not (os.path.isfile(model_path) and os.path.exists(path)):
        return {}
    resized = configs.read(path).get("data", {}).get("preprocessing")
    return {"preprocessing": Preprocessing(**resized)} if resized else {}


def find_split(source, name):
    """The `Split` of that name.

    Raises:
        ValueError: if the source has none; those that it has are given.
    """
    if name not in source.splits:
        raise ValueError(
            f"{source.name} has no {name} split. Expected one of {', '.join(source.splits)}. Received: {name}."
        )
    return source.splits[name]


def _held_out(split, fraction, seed):
    """Splits a training split in two by a seeded draw."""
    num_held_out = round(split.num_images * fraction)
    if not 0 < num_held_out < split.num_images:
        raise ValueError(
            "Expected validation_fraction to leave images on both sides. Received: "
            f"validation_fraction={fraction}, {split.num_images} training images. Give more images, or "
            "a validation split of their own."
        )
    held_out = np.zeros(split.num_images, bool)
    held_out[np.random.default_rng(seed).permutation(split.num_images)[:num_held_out]] = True
    return {
        "train": dataclasses.replace(split, positions=split.positions[~held_out]),
        "validation": dataclasses.replace(split, positions=split.positions[held_out]),
    }
