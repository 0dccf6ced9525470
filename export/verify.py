"""Holds an exported file against the Keras model it came from, on real images."""

import collections
import dataclasses
import json
import math
import os
import zlib

import numpy as np

from export import calibration, convert, flatbuffer, measure
from train import predictor

NOISE_IMAGES = 2  # that a layer's noise is measured on, one at least
NOISE_BYTES = 400_000_000  # of their activations, at most; an image takes 70 MB in ResNet-50, 146 MB in ResNet-152
WORST_LAYERS = 5  # that the card names
STRUCTURE = 20_000  # bytes of a file that are names, shapes and scales, in nets so small that these count


@dataclasses.dataclass(frozen=True)
class Gate:
    """What a user asks of every file, beyond its format's promise; None: nothing.

    Attributes:
        max_top1_drop: points of top-1, in percent, that a file may lose.
        min_agreement: smallest share of images whose best class is the Keras model's.
        max_size_mb: largest size, in 10^6 bytes.
        max_latency_ms: largest median latency of a call on one thread, in milliseconds.
        target: one of `targets.TARGETS` that the file must run on as a whole.
    """

    max_top1_drop: float = 0.5
    min_agreement: float | None = None
    max_size_mb: float | None = None
    max_latency_ms: float | None = None
    target: str | None = None


ANYTHING = Gate(max_top1_drop=100.0)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured on one file.

    Attributes:
        top1: its share of right answers.
        agreement: share of images whose best class is the Keras model's.
        max_difference: largest difference of any score.
        mean_difference: mean difference of the scores.
        relative_difference: max_difference over the largest absolute score of the Keras model.
        num_images: images that these four were counted on.
        bytes: size of the file, or of all files in the folder.
        compressed_bytes: size of the file as gzip and app stores compress it; None of a SavedModel.
        latency_ms: dict from threads to median, p90 and number of calls, in milliseconds.
        peak_memory_mb: what running it adds to a process, in 10^6 bytes; None of a SavedModel.
        delegated: share of the operators that XNNPACK runs; None of a SavedModel.
        noise: dict from the worst layers to signal-to-noise ratios in decibels, the worst first.
        operators: dict from operator to how many the file has; empty for a SavedModel.
        custom_operators: names of operators that a plain LiteRT runtime lacks (Flex).
    """

    top1: float
    agreement: float
    max_difference: float
    mean_difference: float
    relative_difference: float
    num_images: int
    bytes: int
    compressed_bytes: int | None
    latency_ms: dict
    peak_memory_mb: float | None
    delegated: float | None
    noise: dict
    operators: dict
    custom_operators: tuple


def gather(path, scores, examination, measured, noise):
    """Puts the evidence on one file together.

    Args:
        path: `.tflite` file or SavedModel folder.
        scores: what the file gave, float32 (n, classes).
        examination: `pipeline.Examination`.
        measured: dict as of `measure.measure`.
        noise: dict as of `noise`.
    Returns:
        `Evidence`.
    """
    expected, best = examination.expected, scores.argmax(axis=1)
    differences = np.abs(scores.astype("float64") - expected)
    operators, custom = count_operators(path) if path.endswith(".tflite") else ({}, ())
    return Evidence(
        top1=float(np.mean(best == examination.labels)),
        agreement=float(np.mean(best == expected.argmax(axis=1))),
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        relative_difference=float(differences.max() / np.abs(expected).max()),
        num_images=len(examination.labels),
        bytes=_size(path),
        compressed_bytes=_compressed_size(path),
        latency_ms=measured["latency_ms"],
        peak_memory_mb=measured.get("peak_memory_mb"),
        delegated=measured.get("delegated"),
        noise=noise,
        operators=operators,
        custom_operators=custom,
    )


def broken_promises(evidence, row, gate, expected_top1, float32_bytes):
    """What a file fails of its row's promise and of the user's gate, in words.

    Args:
        evidence: `Evidence`.
        row: `formats.Format`.
        gate: `Gate`.
        expected_top1: the Keras model's share of right answers on the same images.
        float32_bytes: size of the float32 file.
    Returns:
        list of str, empty where the file keeps its promise.
    """
    drop = 100 * (expected_top1 - evidence.top1)
    latency = next(iter(evidence.latency_ms.values()))["median"]
    size = evidence.bytes / 1e6
    checks = (
        (
            evidence.agreement >= row.min_agreement,
            f"agreement {evidence.agreement:.2%}, at least {row.min_agreement:.1%} promised",
        ),
        (
            gate.min_agreement is None or evidence.agreement >= gate.min_agreement,
            f"agreement {evidence.agreement:.2%}, at least {gate.min_agreement or 0:.2%} asked for",
        ),
        (
            row.max_difference is None or evidence.relative_difference <= row.max_difference,
            f"largest difference {evidence.relative_difference:.2%} of the largest score, "
            f"at most {row.max_difference or 0:.2%} promised",
        ),
        (
            drop <= gate.max_top1_drop + 1e-9,
            f"top-1 falls by {drop:.2f} points, at most {gate.max_top1_drop} allowed"
            + (f" ({coarse})" if (coarse := too_coarse(gate.max_top1_drop, evidence.num_images)) else ""),
        ),
        (
            row.max_size is None or evidence.bytes <= row.max_size * float32_bytes + STRUCTURE,
            f"size {evidence.bytes / float32_bytes:.1%} of the float32 file's, at most {row.max_size or 0:.0%} "
            "promised",
        ),
        (
            gate.max_size_mb is None or size <= gate.max_size_mb,
            f"size {size:.3f} MB, at most {gate.max_size_mb} MB asked for",
        ),
        (
            gate.max_latency_ms is None or latency <= gate.max_latency_ms,
            f"latency {latency:.3f} ms, at most {gate.max_latency_ms} ms asked for",
        ),
        (not evidence.custom_operators, f"operators outside LiteRT: {', '.join(evidence.custom_operators)}"),
    )
    return [text for kept, text in checks if not kept]


def too_coarse(max_top1_drop, num_images):
    """What is to be said where a single image lost fails a file, because few are scored; "" where they are enough."""
    weight = 100 / num_images
    if not 0 < max_top1_drop < weight:
        return ""
    return f"one of {num_images} images is {weight:.2f} points: score more images, or raise --max_top1_drop"


def signal(graph, images):
    """What `noise` holds changed numbers against: the activations on the first NOISE_IMAGES.

    Of images so large that their activations pass NOISE_BYTES it is fewer, but one.

    Args:
        graph: `Graph` in float32.
        images: uint8 (n, h, w, c).
    Returns:
        list of dict from activation to float32 array of one image, a dict an image.
    """
    size = 4 * sum(math.prod(tensor.shape[1:]) for tensor in graph.activations())
    few = images[: max(1, min(NOISE_IMAGES, NOISE_BYTES // size))]
    return [{name: array.copy() for name, array in seen.items()} for seen in calibration.activations(graph, few)]


def noise(signals, changed, images):
    """Signal-to-noise ratio of the layers that a change of numbers hurt most.

    Args:
        signals: list of `signal`.
        changed: `Graph` of the same layers in other numbers.
        images: uint8 (n, h, w, c), as of `signal`.
    Returns:
        dict from the layer's name to 10 log10 of its power over its error's, in decibels; the worst WORST_LAYERS,
        those without error left out.
    """
    power, error = {}, {}
    for before, after in zip(signals, calibration.activations(changed, images[: len(signals)]), strict=True):
        for name in (name for name in before if name in after):
            power[name] = power.get(name, 0.0) + float(np.sum(np.square(before[name], dtype="float64")))
            difference = np.subtract(before[name], after[name], dtype="float64")
            error[name] = error.get(name, 0.0) + float(np.sum(np.square(difference)))
    decibels = {name: 10 * np.log10(power[name] / error[name]) for name in power if power[name] and error[name]}
    return dict(sorted(decibels.items(), key=lambda item: item[1])[:WORST_LAYERS])


def measure_file(path):
    """What `measure.measure` finds in a process of its own."""
    return json.loads(convert.run_child(measure.__file__, path))


def count_operators(path):
    """Operators of a `.tflite` file: dict from name to number, and the names of custom ones."""
    with open(path, "rb") as file:
        model = flatbuffer.unpack(file.read())
    counts = collections.Counter(
        flatbuffer.kind(model, operator) for subgraph in model.subgraphs for operator in subgraph.operators
    )
    custom = [code.customCode.decode() for code in model.operatorCodes if code.customCode]
    return dict(sorted(counts.items())), tuple(custom)


def check_pixels(path, scheme):
    """Raises RuntimeError unless the file takes pixels 0 to 255 as they are, in the scheme's type."""
    (details,) = predictor.open_tflite(path).get_input_details()
    if details["dtype"] != np.dtype(scheme.pixels) or details["quantization"] not in ((0.0, 0), (1.0, 0)):
        raise RuntimeError(
            f"The input is not raw pixels. Expected {scheme.pixels} with scale 1 and zero point 0. Received: "
            f"{details['dtype'].__name__} with (scale, zero point) {details['quantization']}."
        )


def _size(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)


def _compressed_size(path):
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return len(zlib.compress(file.read(), 9))
