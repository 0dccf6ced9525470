"""Holds an exported file against the Keras model it came from, on real images."""

import dataclasses
import os
import time

import numpy as np

from train import predictor

# Calls. The median of 50 moved by under 5 % from run to run on the machine of BUILD_NOTES.md.
WARMUP_RUNS, TIMED_RUNS = 5, 50


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
        latency_ms: dict with median, p10 and p90 of one call, in milliseconds.
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
    latency_ms: dict
    operators: dict
    custom_operators: tuple


def gather(path, scores, expected, labels, seconds):
    """Puts the evidence on one file together.

    Args:
        path: `.tflite` file or SavedModel folder.
        scores: what the file gave, float32 (n, classes).
        expected: what the Keras model gave, float32 (n, classes).
        labels: int (n,).
        seconds: list of latencies of a call.
    Returns:
        `Evidence`.
    """
    differences = np.abs(scores.astype("float64") - expected)
    operators, custom = count_operators(path) if path.endswith(".tflite") else ({}, ())
    low, median, high = np.percentile(np.array(seconds) * 1000, (10, 50, 90))
    return Evidence(
        top1=float(np.mean(scores.argmax(axis=1) == labels)),
        agreement=float(np.mean(scores.argmax(axis=1) == expected.argmax(axis=1))),
        max_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        relative_difference=float(differences.max() / np.abs(expected).max()),
        num_images=len(labels),
        bytes=_size(path),
        latency_ms={"median": float(median), "p10": float(low), "p90": float(high)},
        operators=operators,
        custom_operators=custom,
    )


def broken_promises(evidence, row, expected_top1, max_top1_drop):
    """What a file fails of its row's promise, in words.

    Args:
        evidence: `Evidence`.
        row: `formats.Format`.
        expected_top1: the Keras model's share of right answers on the same images.
        max_top1_drop: points that the file may lose, in percent.
    Returns:
        list of str, empty where the file keeps its promise.
    """
    drop = 100 * (expected_top1 - evidence.top1)
    checks = (
        (
            evidence.agreement >= row.min_agreement,
            f"agreement {evidence.agreement:.2%}, at least {row.min_agreement:.1%} promised",
        ),
        (
            evidence.relative_difference <= row.max_difference,
            f"largest difference {evidence.relative_difference:.2%} of the largest score, "
            f"at most {row.max_difference:.2%} promised",
        ),
        (drop <= max_top1_drop + 1e-9, f"top-1 falls by {drop:.2f} points, at most {max_top1_drop} allowed"),
        (not evidence.custom_operators, f"operators outside LiteRT: {', '.join(evidence.custom_operators)}"),
    )
    return [text for kept, text in checks if not kept]


def run_tflite(path, images):
    """Scores images with the LiteRT interpreter and times single calls.

    Args:
        path: `.tflite` file.
        images: uint8 (n, h, w, c).
    Returns:
        float32 scores (n, classes), list of seconds a call of the file's batch size.
    """
    scores = predictor.from_tflite(path).predict(images)
    interpreter = predictor.open_tflite(path)
    seconds = []
    for _ in range(WARMUP_RUNS + TIMED_RUNS):
        start = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - start)
    return scores, seconds[WARMUP_RUNS:]


def count_operators(path):
    """Operators of a `.tflite` file: dict from name to number, and the names of custom ones."""
    from ai_edge_litert import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    with open(path, "rb") as file:
        model = schema.ModelT.InitFromPackedBuf(file.read())
    codes = [
        code.customCode.decode() if code.customCode else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    counts = {}
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            counts[codes[operator.opcodeIndex]] = counts.get(codes[operator.opcodeIndex], 0) + 1
    custom = [code.customCode.decode() for code in model.operatorCodes if code.customCode]
    return dict(sorted(counts.items())), tuple(custom)


def check_raw_pixels(path):
    """Raises RuntimeError unless the file takes pixels 0 to 255 as they are."""
    (details,) = predictor.open_tflite(path).get_input_details()
    if details["dtype"] != np.uint8 or details["quantization"] not in ((0.0, 0), (1.0, 0)):
        raise RuntimeError(
            "The input is not raw pixels. Expected uint8 with scale 1 and zero point 0. Received: "
            f"{details['dtype'].__name__} with (scale, zero point) {details['quantization']}."
        )


def _size(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)
