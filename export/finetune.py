"""Nets that are fine-tuned before their files are made: pruned, clustered, or aware of their quantization.

The work is done by twin.py in a process of its own; here are its table, its request and what comes back.
"""

import dataclasses
import json
import os
import time

import keras
import numpy as np

from export import calibration, convert, quantization, walk
from export.formats import FORMATS

TWIN = os.path.join(os.path.dirname(__file__), "twin.py")  # not imported: it brings a second Keras into the process
CHECKED_IMAGES = 64  # that the quantized file and the twin must agree on
MOST_STEPS = 8  # of the scores' scale, between them; seen: 3 (BUILD_NOTES.md, "Fine-tuned formats")


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How a net is fine-tuned: SGD with Nesterov's momentum 0.9, whose rate falls from its highest as a cosine.

    Attributes:
        learning_rate: highest.
        teacher_share: share of the target that is the unprepared net's answer (arXiv 1503.02531); the rest is labels.
        frozen_norm: whether batch normalization keeps its statistics and weights, which folding then puts into the
            kernels as they were in training; the zeros of pruning shift the statistics too far for that.
        settings: the fields of `Settings` that it depends on.
    """

    learning_rate: float
    teacher_share: float
    frozen_norm: bool
    settings: tuple


# Rates and targets: the best of those tried on ResNet-20, CIFAR-10 (BUILD_NOTES.md, "Fine-tuned formats").
# fmt: off
PREPARATIONS = {
    #                             rate   teacher frozen  settings
    "pruned":        Preparation(0.05,  1.0,     False,  ("sparsity",)),
    "pruned_2_of_4": Preparation(0.02,  1.0,     False,  ()),
    "clustered":     Preparation(0.002, 1.0,     True,   ("clusters",)),
    "qat":           Preparation(0.001, 1.0,     True,   ()),
}
# fmt: on


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user chooses.

    Attributes:
        epochs: passes over the training images.
        sparsity: share of a kernel's weights that become zero, 0 to 1.
        clusters: distinct values of a kernel.
        data: dict of the arguments of `train.data.load_for_model` that open the training images.
    """

    epochs: int
    sparsity: float
    clusters: int
    data: dict


def prepared(kind, staged, settings, images):
    """Fine-tunes the staged net in a child process.

    Args:
        kind: one of `PREPARATIONS`.
        staged: `pipeline.Staged`; stays as it is.
        settings: `Settings`.
        images: uint8 (n, h, w, c), on which a quantized file is held against the twin.
    Returns:
        `pipeline.Staged` of the fine-tuned net; where it failed, one that says so.
    """
    if staged.graph is None:
        return dataclasses.replace(
            staged, failure=f"{kind} nets are made of the layers of this package's nets alone. {staged.obstacle}"
        )
    start, images = time.perf_counter(), images[:CHECKED_IMAGES]
    try:
        facts, weights, scores = _run_child(kind, staged, settings, images)
        return _staged_anew(kind, staged, weights, scores, images, facts | {"seconds": time.perf_counter() - start})
    except RuntimeError as error:
        return dataclasses.replace(staged, failure=str(error))


def _run_child(kind, staged, settings, images):
    """Facts, dict from "layer/weight" to array, scores of the images."""
    row = PREPARATIONS[kind]
    path = {
        name: os.path.join(staged.folder, f"{kind}_{file}")
        for name, file in (
            ("model", "model.keras"),
            ("images", "images.npy"),
            ("weights", "weights.npz"),
            ("scores", "scores.npy"),
            ("request", "request.json"),
        )
    }
    staged.model.save(path["model"])
    np.save(path["images"], images)
    facts = {
        "preparation": kind,
        "epochs": settings.epochs,
        "learning_rate": row.learning_rate,
        "teacher_share": row.teacher_share,
        "frozen_norm": row.frozen_norm,
    } | {name: getattr(settings, name) for name in row.settings}
    ranges = _rounded_ranges(staged) if kind == "qat" else {}
    request = facts | path | {"data": settings.data, "ranges": ranges, "seed": 0}
    with open(path["request"], "w", encoding="utf-8") as file:
        json.dump(request, file)
    learned = json.loads(convert.run_child(TWIN, path["request"]))
    with np.load(path["weights"]) as stored:
        return facts | learned, dict(stored), np.load(path["scores"])


def _rounded_ranges(staged):
    """(low, high) of the activations that an int8 file rounds to a range of their own."""
    exempt = ("CAST", *quantization.SAME_SCALE, *quantization.FIXED_RANGE)
    names = [operator.output.name for operator in staged.graph.operators if operator.kind not in exempt]
    return {name: (staged.ranges[name].low, staged.ranges[name].high) for name in names}


def _staged_anew(kind, staged, weights, scores, images, facts):
    model = keras.models.clone_model(staged.model)
    for layer in model.layers:
        for weight in layer.weights:
            weight.assign(weights[f"{layer.name}/{weight.name}"])
    graph = walk.from_keras(model, staged.graph.image.shape[0])
    ranges = staged.ranges
    if kind == "qat":  # trained with these ranges, and with rounded weights: there is nothing left to correct
        ranges = {name: dataclasses.replace(seen, means=None) for name, seen in staged.ranges.items()}
        facts = facts | {"steps_from_twin": _steps_apart(graph, ranges, images, scores)}
        if facts["steps_from_twin"] > MOST_STEPS:
            raise RuntimeError(
                f"The int8 file does not compute what was trained: scores differ by {facts['steps_from_twin']:.1f} "
                f"steps of their scale, at most {MOST_STEPS} expected."
            )
    elif staged.calibration_images is not None:
        ranges = calibration.observe(graph, staged.calibration_images)
    facts = facts | {"zeros": share_of_zeros(graph)}
    return dataclasses.replace(staged, model=model, graph=graph, ranges=ranges, preparation=facts)


def _steps_apart(graph, ranges, images, scores):
    """Largest difference between the int8 net and the twin's scores, in steps of the scores' scale."""
    quantized = quantization.quantize(graph, FORMATS["int8_qat"].scheme, ranges)
    logits = next(one for one in reversed(quantized.operators) if one.kind not in quantization.FIXED_RANGE).output
    found = np.concatenate([arrays[logits.name].copy() for arrays in calibration.activations(quantized, images)])
    return float(np.abs(found - scores[: len(found)]).max() / logits.scale)


def share_of_zeros(graph):
    """Share of zeros in the kernels of a graph."""
    kernels = [operator.inputs[1].data for operator in graph.operators if operator.kind in quantization.WEIGHTED]
    return sum(int(np.sum(kernel == 0)) for kernel in kernels) / sum(kernel.size for kernel in kernels)
