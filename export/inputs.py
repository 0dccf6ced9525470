"""What an export starts from, as the flags name it: the model, and the images that it is looked at with."""

import dataclasses
import os
import sys

import numpy as np

from export import calibration, finetune, metadata, pipeline, sensitivity
from export.formats import FORMATS
from keras_resnet import list_models, weights
from train import config as configs
from train import data, input_pipeline, network, predictor, scoring, sources
from train.run_folder import CONFIG


@dataclasses.dataclass(frozen=True)
class Images:
    """What is looked at, and by whom.

    Attributes:
        source: `train.data.Source` of the test images.
        examination: `pipeline.Examination` of the test images: what every file is scored on.
        calibration: uint8 (n, h, w, c), training images that ranges are taken from; or None.
        held_out: `pipeline.Examination` of training images that mixed formats choose on; or None.
        facts: dict of all this, for the card.
    """

    source: sources.Source
    examination: pipeline.Examination
    calibration: np.ndarray | None
    held_out: pipeline.Examination | None
    facts: dict


def open_model(values):
    """The model that `--model` names, and the file that its weights come from."""
    if values.model not in list_models():
        return values.model, predictor.load_keras(values.model)
    file, _ = weights.resolve(values.model, values.weights)
    return file, network.published(values.model, values.weights)


def open_training(model, kinds, values):
    """`finetune.Settings`, whose training images are there and the model's.

    Args:
        model: `keras.Model`.
        kinds: names of `finetune.PREPARATIONS`.
        values: the flags.
    Raises:
        ValueError: if the images are missing or not the model's, or the model is quantization-aware.
    """
    for kind in kinds:
        finetune.check_is_float(kind, model)
    preprocessing = getattr(model, "preprocessing", None)
    options = {
        "model_path": values.model,
        "image_shape": pipeline.check_static(model),
        "spec": values.finetune_data or values.calibration_data,
        "data_dir": values.data_dir,
        "class_index": values.class_index,
    }
    source = data.load_for_model(**options, preprocessing=preprocessing)
    _check_has_training_images(source, "finetune_data", "fine-tuned")
    scoring.check_fits(predictor.from_keras(model), source)
    options["preprocessing"] = preprocessing and dataclasses.asdict(preprocessing)
    shares = (values.sparsity, values.clusters, values.channel_sparsity)
    return finetune.Settings(values.finetune_epochs, *shares, options)


def open_images(model, formats, values, has_ranges):
    """Test images with the Keras model's answers, and training images as the formats need them.

    Args:
        model: `keras.Model`.
        formats: names of `FORMATS`.
        values: the flags.
        has_ranges: whether the model is quantization-aware.
    Returns:
        `Images`.
    Raises:
        ValueError: if images are missing or not the model's.
    """
    shape = pipeline.check_static(model)
    options = {"data_dir": values.data_dir, "class_index": values.class_index}
    options["preprocessing"] = getattr(model, "preprocessing", None)  # of published weights
    labels = metadata.read_labels(values.labels) if values.labels else None
    if labels:
        metadata.check_labels(labels, model.outputs[0].shape[-1])
    tested = data.load_for_model(values.model, shape, values.eval_data, **options)
    tested = dataclasses.replace(tested, titles=labels or tested.titles)
    scoring.check_images_fit(shape, tested)
    needs_images = any(FORMATS[name].needs_images(has_ranges) for name in formats)
    if needs_images:  # opened before any image is scored, which takes time
        source = data.load_for_model(values.model, shape, values.calibration_data, **options)
        _check_has_training_images(source, "calibration_data", "calibrated")
    examination = pipeline.examine_keras(model, tested, values.eval_images)
    facts = {
        "labels": tested.titles,
        "preprocessing": options["preprocessing"] and dataclasses.asdict(options["preprocessing"]),
        "eval_data": tested.name,
        "num_images": len(examination.labels),
        "calibration_indices": [],
        "calibration_warnings": [],
        "held_out_warnings": [],
    }
    if not needs_images:
        return Images(tested, examination, None, None, facts)
    images, indices, suspicious = _calibration_images(shape, source, values)
    facts |= {"calibration_data": source.name, "calibration_indices": indices.tolist()}
    facts |= {"calibration_warnings": suspicious}
    held_out = None
    if any(FORMATS[name].scheme and FORMATS[name].scheme.is_mixed for name in formats):
        split, facts["held_out_data"] = _held_out(source, indices)
        others = dataclasses.replace(source, splits={"test": split})
        held_out = pipeline.examine_keras(model, others, values.eval_images)
        facts["held_out_warnings"] = sensitivity.doubts(
            held_out, examination, is_own_run(values.model, values.calibration_data)
        )
        for text in facts["held_out_warnings"]:
            print(f"Warning: held-out images: {text}.", file=sys.stderr)
    return Images(tested, examination, images, held_out, facts)


def _check_has_training_images(source, flag, verb):
    """Raises ValueError if a source has no training images, which `flag` asks for."""
    if "train" not in source.splits:
        raise ValueError(
            f"A net is {verb} on training images. Expected --{flag} with a train split: of folder:PATH the images in "
            f"PATH/train. Received: --{flag}={source.name}, with {', '.join(source.splits)}."
        )


def is_own_run(model_path, spec):
    """Whether the images of a `--data` flag are split as by the run that trained the model, of which we know it."""
    path = os.path.join(os.path.dirname(model_path), CONFIG)
    if not (os.path.isfile(model_path) and os.path.exists(path)):
        return False
    return spec is None or spec == configs.read(path).get("data")


def _calibration_images(shape, source, values):
    """Training images uint8 (n, h, w, c), their places in the source, and what is suspicious about them."""
    scoring.check_images_fit(shape, source)
    images, labels, indices = input_pipeline.arrays(source, "train", values.calibration_images)
    if len(images) < values.batch_size:
        raise ValueError(
            "Expected at least one batch of calibration images. Received: "
            f"{len(images)} images with --batch_size={values.batch_size}."
        )
    suspicious = calibration.doctor(images, labels)
    for text in suspicious:
        print(f"Warning: calibration images: {text}.", file=sys.stderr)
    return images, indices, suspicious


def _held_out(source, calibration_indices):
    """Images to choose a format's numbers on, none of them scored, and what they are, in words.

    The run's validation images, on which the net's own errors are those of unseen images; where these are the test
    images (ImageNet), training images; where there are hardly more of them than calibrate, these too.
    """
    train, validation, test = (source.splits.get(name) for name in ("train", "validation", "test"))
    if validation and not (validation.open is test.open and np.isin(validation.positions, test.positions).any()):
        return validation, f"validation images of {source.name}"
    others = train.positions[~np.isin(train.positions, calibration_indices)]
    if len(others) < len(calibration_indices):
        return train, f"training images of {source.name}, among them those that calibrated"
    return dataclasses.replace(train, positions=others), f"training images of {source.name} that did not calibrate"
