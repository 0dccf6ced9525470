"""From a trained model to examined files in a staging folder; nothing is published here."""

import dataclasses
import functools
import json
import os
import shutil

import numpy as np

from export import (
    calibration,
    convert,
    flatbuffer,
    microcontroller,
    quantization,
    rebuild,
    rounding,
    saved_model,
    sensitivity,
    targets,
    verify,
    walk,
)
from export.formats import FORMATS
from export.graph import Graph
from train import input_pipeline, predictor, scoring


@dataclasses.dataclass(frozen=True, eq=False)
class Examination:
    """Real images, and what the Keras model says of them.

    Attributes:
        images: uint8 (n, h, w, c), never used for calibration.
        labels: int (n,).
        expected: the Keras model's scores, float32 (n, classes).
        indices: int64 (n,): their places in the test split's source.
    """

    images: np.ndarray
    labels: np.ndarray
    expected: np.ndarray
    indices: np.ndarray

    @property
    def top1(self):
        """The Keras model's share of right answers."""
        return scoring.score(self.expected, self.labels).top1


@dataclasses.dataclass(frozen=True, eq=False)
class Staged:
    """What files are made from.

    Attributes:
        model: `keras.Model` in float32.
        folder: the staging folder.
        graph: the model's `Graph` in float32; None where a layer is unknown to `walk`, so that the converter serves.
        obstacle: which layer that is, in words.
        float32_bytes: size of the float32 file.
        calibration_images: uint8 (n, h, w, c), or None.
        ranges: dict from activation to `calibration.Range`: a quantization-aware model's own, or those on calibration
            images.
        held_out: `Examination` of training images that mixed formats choose on, or None.
        preparation: dict of how the net was fine-tuned; empty where it was not.
        failure: why the net could not be fine-tuned, or "".
        shared: dict of what its formats have in common, of `once`; freed with the net.
    """

    model: object
    folder: str
    graph: Graph | None
    obstacle: str
    float32_bytes: int
    calibration_images: np.ndarray | None
    ranges: dict | None
    held_out: Examination | None = None
    preparation: dict = dataclasses.field(default_factory=dict)
    failure: str = ""
    shared: dict = dataclasses.field(default_factory=dict, init=False)  # init: a changed copy begins with none

    def once(self, key, make):
        """What `make` gives, made when it is first asked for."""
        if key not in self.shared:
            self.shared[key] = make()
        return self.shared[key]


@dataclasses.dataclass(frozen=True)
class Result:
    """One format's outcome.

    Attributes:
        path: the staged file or folder, or None where none came about.
        evidence: `verify.Evidence`, or None.
        failures: list of str: why it is not published; empty where it is.
        companions: paths of staged files that go with it: C++ sources for microcontrollers.
        preparation: dict of how the net was fine-tuned; empty where it was not.
        scan: dict of which blocks stay in float, of `sensitivity.choose`; empty where none was made.
    """

    path: str | None
    evidence: verify.Evidence | None
    failures: list
    companions: tuple = ()
    preparation: dict = dataclasses.field(default_factory=dict)
    scan: dict = dataclasses.field(default_factory=dict)


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
    images, labels, indices = input_pipeline.arrays(source, "test", limit)
    batches = np.array_split(images, -(-len(images) // scoring.SCORING_BATCH))
    expected = np.concatenate([judge.predict(batch) for batch in batches])
    return Examination(images, labels, expected, indices)


def stage(model, folder, calibration_images, batch_size, held_out=None):
    """Prepares what every format starts from, of which the float32 file is written.

    Args:
        model: `keras.Model`.
        folder: staging folder.
        calibration_images: uint8 (n, h, w, c), or None.
        batch_size: images a call of the `.tflite` files.
        held_out: `Examination` of training images, for mixed formats.
    Returns:
        `Staged`.
    """
    ready = rebuild.in_float32(model)
    try:
        graph, obstacle = walk.from_keras(ready, batch_size), ""
    except walk.UnknownLayerError as error:
        graph, obstacle = None, str(error)
    float32_file = os.path.join(folder, convert.FLOAT32)
    if graph is None:
        _stage_for_converter(ready, folder, calibration_images, batch_size, obstacle)
        return Staged(ready, folder, None, obstacle, os.path.getsize(float32_file), calibration_images, None)
    ranges = {name: calibration.Range(low, high) for name, (low, high) in graph.ranges.items()}
    for operator in graph.operators:  # which a quantization-aware net's padding and pooling hand on
        if operator.kind in quantization.SAME_SCALE and operator.activation.name in ranges:
            ranges.setdefault(operator.output.name, ranges[operator.activation.name])
    if not ranges and calibration_images is not None:
        ranges = calibration.observe(graph, calibration_images)
    with open(float32_file, "wb") as file:
        file.write(flatbuffer.to_bytes(quantization.quantize(graph, FORMATS["float32"].scheme)))
    float32_bytes = os.path.getsize(float32_file)
    return Staged(ready, folder, graph, obstacle, float32_bytes, calibration_images, ranges, held_out)


def _stage_for_converter(model, folder, calibration_images, batch_size, obstacle):
    saved_model.write_fixed(model, os.path.join(folder, convert.FIXED_BATCH), batch_size)
    if calibration_images is not None:
        np.save(os.path.join(folder, convert.CALIBRATION), calibration_images)
    try:
        convert.convert("float32", folder, os.path.join(folder, convert.FLOAT32))
    except RuntimeError as error:
        raise ValueError(
            f"The model cannot be converted, neither by ourselves ({obstacle}) nor by TFLiteConverter: {error}"
        ) from error


def produce(name, staged, examination, gate):
    """Makes one format's file in the staging folder, runs it and holds it against its promise.

    Args:
        name: one of `FORMATS`.
        staged: `Staged`, of the net that the format's row is prepared as.
        examination: `Examination`.
        gate: `verify.Gate`.
    Returns:
        `Result`.
    """
    row = FORMATS[name]
    if staged.failure:
        return Result(None, None, [staged.failure])
    path = os.path.join(staged.folder, f"{staged.model.name}{row.suffix}")
    try:
        graph, scan = make(name, staged, path, gate)
        noise = _noise(staged, graph, examination) if graph else {}
        if name == "saved_model":
            scores, measured = _serve_in_child(staged.folder, path, examination.images)
        else:
            verify.check_pixels(path, row.scheme)
            scores, measured = predictor.from_tflite(path).predict(examination.images), verify.measure_file(path)
    except (RuntimeError, ValueError) as error:
        return Result(None, None, [str(error)])
    evidence = verify.gather(path, scores, examination, measured, noise)
    failures = verify.broken_promises(evidence, row, gate, examination.top1, staged.float32_bytes)
    if failures and staged.graph and staged.graph.ranges and row.scheme and row.scheme.activations != "int8":
        failures.append(
            f"it is held against a net trained with --qat, which rounds as int8 does; {name} of it is another net: "
            "take int8, or export the run that --qat began with"
        )
    failures += _refused(path, name, gate.target) if gate.target else []
    companions = microcontroller.write(path) if gate.target == "tflm" and not failures else ()
    return Result(path, evidence, failures, tuple(companions), staged.preparation, scan)


def make(name, staged, path, gate=verify.ANYTHING):
    """Writes one format's file, which nobody has looked at yet.

    Args:
        name: one of `FORMATS`.
        staged: `Staged`, of the net that the format's row is prepared as.
        path: where to.
        gate: `verify.Gate`, what a mixed format may lose.
    Returns:
        the file's `Graph`, None where it is float32's or not ours, and the scan of its blocks, of a mixed format.
    Raises:
        RuntimeError: if TFLiteConverter, which serves where the graph is not known, fails.
    """
    scheme = FORMATS[name].scheme
    if name == "float32":
        shutil.copyfile(os.path.join(staged.folder, convert.FLOAT32), path)
    elif scheme is None:
        saved_model.write(staged.model, path)
    elif staged.graph is None:
        convert.convert(name, staged.folder, path, obstacle=staged.obstacle)
    else:
        graph, scan = _quantized(scheme, staged, gate)
        with open(path, "wb") as file:
            file.write(flatbuffer.to_bytes(graph))
        return graph, scan
    return None, {}


def _quantized(scheme, staged, gate):
    """The staged graph in the scheme's numbers, and the scan of its blocks where it is mixed."""
    # A quantization-aware net was trained with its weights rounded to the nearest.
    is_trained = bool(staged.graph.ranges) and scheme.activations != "float32"
    is_rounded = scheme.rounding == "optimal" and not is_trained
    stored = _rounded(staged, scheme.weights) if is_rounded else None
    quantized = functools.partial(quantization.quantize, staged.graph, scheme, staged.ranges, stored=stored)
    if not scheme.is_mixed:
        return quantized(), {}
    kept_float, scan = sensitivity.choose(staged.graph, quantized, staged.calibration_images, staged.held_out, gate)
    return quantized(kept_float), scan


def _rounded(staged, dtype):
    return staged.once(("rounded", dtype), lambda: rounding.rounded(staged.graph, dtype, staged.calibration_images))


def _noise(staged, graph, examination):
    images = examination.images
    signals = staged.once(("signal", examination), lambda: verify.signal(staged.graph, images))
    return verify.noise(signals, graph, images)


def _refused(path, name, target):
    """What the target does not accept of a file, in words."""
    if FORMATS[name].scheme is None:
        return [f"{targets.TARGETS[target].title} runs .tflite files: leave saved_model out of --formats"]
    with open(path, "rb") as file:
        return targets.check(file.read(), target, name)


def _serve_in_child(folder, path, images):
    images_file, scores_file = os.path.join(folder, "images.npy"), os.path.join(folder, "scores.npy")
    np.save(images_file, images)
    measured = json.loads(convert.run_child(saved_model.__file__, path, images_file, scores_file))
    return np.load(scores_file), measured
