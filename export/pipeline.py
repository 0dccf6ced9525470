"""From a trained model to examined files in a staging folder; nothing is published here."""

import dataclasses
import json
import os

import numpy as np

from export import convert, rebuild, saved_model, verify
from export.formats import FORMATS
from train import input_pipeline, predictor, scoring


@dataclasses.dataclass(frozen=True)
class Examination:
    """Real images, and what the Keras model says of them.

    Attributes:
        images: uint8 (n, h, w, c), never used for calibration.
        labels: int (n,).
        expected: the Keras model's scores, float32 (n, classes).
    """

    images: np.ndarray
    labels: np.ndarray
    expected: np.ndarray

    @property
    def top1(self):
        """The Keras model's share of right answers."""
        return scoring.score(self.expected, self.labels).top1


@dataclasses.dataclass(frozen=True)
class Result:
    """One format's outcome.

    Attributes:
        path: the staged file or folder, or None where none came about.
        evidence: `verify.Evidence`, or None.
        failures: list of str: why it is not published; empty where it is.
    """

    path: str | None
    evidence: verify.Evidence | None
    failures: list


def check_static(model):
    """The model's (h, w, c), all known.

    Raises:
        ValueError: if a side is None: an exported file has one size.
    """
    shape = tuple(model.inputs[0].shape[1:])
    if None in shape:
        raise ValueError(
            f"An exported file takes images of one size. Expected a model with known height and width. "
            f"Received: input shape {shape}. Build it with input_shape=(224, 224, 3) and load the weights."
        )
    return shape


def examine_keras(model, source, limit):
    """Runs the Keras model over the test split.

    Args:
        model: `keras.Model`.
        source: `train.data.Source`.
        limit: most images.
    Returns:
        `Examination`.
    Raises:
        ValueError: if the images or classes are not the model's.
    """
    judge = predictor.from_keras(model)
    scoring.check_fits(judge, source)
    images, labels, _ = input_pipeline.arrays(source, "test", limit)
    batches = np.array_split(images, -(-len(images) // scoring.SCORING_BATCH))
    return Examination(images, labels, np.concatenate([judge.predict(batch) for batch in batches]))


def stage(model, folder, calibration_images, batch_size):
    """Writes what conversions start from.

    Args:
        model: `keras.Model`.
        folder: staging folder.
        calibration_images: uint8 (n, h, w, c), or None.
        batch_size: images a call of the `.tflite` files.
    Returns:
        float32 `keras.Model` with folded preprocessing.
    """
    ready = rebuild.fold_preprocessing(rebuild.in_float32(model))
    saved_model.write(ready, os.path.join(folder, "fixed_batch"), batch_size)
    if calibration_images is not None:
        np.save(os.path.join(folder, "calibration.npy"), calibration_images)
    return ready


def produce(name, model, folder, examination, max_top1_drop):
    """Makes one format's file in the staging folder, runs it and holds it against its promise.

    Args:
        name: one of `FORMATS`.
        model: what `stage` returned.
        folder: the staging folder.
        examination: `Examination`.
        max_top1_drop: points of top-1 that the file may lose.
    Returns:
        `Result`.
    """
    path = os.path.join(folder, f"{model.name}{FORMATS[name].suffix}")
    try:
        scores, seconds = _run(name, model, folder, path, examination.images)
    except (RuntimeError, ValueError) as error:
        return Result(None, None, [str(error)])
    evidence = verify.gather(path, scores, examination.expected, examination.labels, seconds)
    failures = verify.broken_promises(evidence, FORMATS[name], examination.top1, max_top1_drop)
    return Result(path, evidence, failures)


def _run(name, model, folder, path, images):
    if name == "saved_model":
        saved_model.write(model, path)
        return _serve_in_child(folder, path, images)
    fixed_batch = os.path.join(folder, "fixed_batch")
    float32_file = os.path.join(folder, f"{model.name}{FORMATS['float32'].suffix}")
    if name == "dynamic" and not os.path.exists(float32_file):
        convert.convert("float32", fixed_batch, float32_file)
    convert.convert(
        name,
        fixed_batch,
        path,
        float32_file=float32_file,
        calibration_file=os.path.join(folder, "calibration.npy"),
    )
    verify.check_raw_pixels(path)
    return verify.run_tflite(path, images)


def _serve_in_child(folder, path, images):
    images_file, scores_file = os.path.join(folder, "images.npy"), os.path.join(folder, "scores.npy")
    np.save(images_file, images)
    seconds = json.loads(convert.run_child(saved_model.__file__, path, images_file, scores_file))
    return np.load(scores_file), seconds
