"""Nets that are fine-tuned before their files are made: pruned, clustered, or aware of their quantization.

Whole channels are left out here, in Keras 3; all else is done by twin.py in a process of its own. Here are the table,
the twin's request and what comes back.
"""

import dataclasses
import json
import os
import time

import keras
import numpy as np

from export import calibration, channels, convert, flatbuffer, quantization, training, verify, walk
from export.formats import FORMATS
from keras_resnet.quantization_aware import is_quantization_aware
from train import distillation

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
    "channel_pruned": Preparation(0.05, 1.0,     False,  ("channel_sparsity",)),
}
PLAIN = {  # of the run's recipe, what gives way: tfmot's twin is trained so too
    "schedule": "cosine", "warmup_epochs": 0.0, "optimizer": "sgd", "momentum": 0.9, "nesterov": True,
    "weight_decay": 0.0, "clip_norm": 0.0, "loss": "cross_entropy", "label_smoothing": 0.0, "ema": 0.0,
    "mixed_precision": "none",
}
# fmt: on


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user chooses.

    Attributes:
        epochs: passes over the training images.
        sparsity: share of a kernel's weights that become zero, 0 to 1.
        clusters: distinct values of a kernel.
        channel_sparsity: share of the inner channels of residual blocks that go, 0 to 1.
        data: dict of the arguments of `train.data.load_for_model` that open the training images.
    """

    epochs: int
    sparsity: float
    clusters: int
    channel_sparsity: float
    data: dict


def check_is_float(kind, model):
    """Raises ValueError for a quantization-aware model."""
    if is_quantization_aware(model):
        raise ValueError(
            f"{kind} nets are made of a net in float. Expected one that was trained without --qat. Received: "
            f"{model.name}, whose layers round as its int8 file. Export the run that --qat began with, or int8 "
            "of this one."
        )


def prepared(kind, staged, settings, images):
    """Fine-tunes the staged net.

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
    row = PREPARATIONS[kind]
    facts = {
        "preparation": kind,
        "epochs": settings.epochs,
        "learning_rate": row.learning_rate,
        "teacher_share": row.teacher_share,
        "frozen_norm": row.frozen_norm,
    } | {name: getattr(settings, name) for name in row.settings}
    make = _with_fewer_channels if kind == "channel_pruned" else _by_twin
    try:
        check_is_float(kind, staged.model)
        model, learned, scores = make(facts, staged, settings, images)
        facts |= learned | {
            "seconds": time.perf_counter() - start,
            "before": staged.once("before", lambda: _before(staged)),
        }
        return _staged_anew(kind, staged, model, scores, images, facts)
    except (RuntimeError, ValueError) as error:
        return dataclasses.replace(staged, failure=str(error))


def _by_twin(facts, staged, settings, images):
    """The fine-tuned model, facts that were learned, the twin's scores of the images."""
    kind = facts["preparation"]
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
    ranges = _rounded_ranges(staged) if kind == "qat" else {}
    request = facts | path | {"data": settings.data, "ranges": ranges, "seed": 0}
    with open(path["request"], "w", encoding="utf-8") as file:
        json.dump(request, file)
    learned = json.loads(convert.run_child(TWIN, path["request"]))
    with np.load(path["weights"]) as weights:
        return _with_weights(staged.model, weights), learned, np.load(path["scores"])


def _with_fewer_channels(facts, staged, settings, images):
    """The fine-tuned model, facts that were learned, and no scores: there is no twin."""
    teacher = training.logits(staged.model)
    kept = channels.choose(teacher, settings.channel_sparsity)
    source, config = training.open_images(settings.data)
    config = dataclasses.replace(config, epochs=facts["epochs"], learning_rate=facts["learning_rate"], **PLAIN)
    student, history = distillation.fine_tune(channels.without(teacher, kept), teacher, source, config)
    weights = {f"{layer.name}/{weight.name}": weight for layer in student.layers for weight in layer.weights}
    model = _with_weights(channels.without(staged.model, kept), weights)
    filters = {one.maker.name: one.maker.filters for one in channels.find(teacher)}
    left = {name: len(kept[name]) if name in kept else number for name, number in filters.items()}
    learned = {"inner_channels": f"{sum(left.values())} of {sum(filters.values())}"}  # eights make it another share
    return model, learned | {"parameters": model.count_params(), "history": history}, None


def _with_weights(model, weights):
    """A copy of a model with weights by their names, "layer/weight"."""
    copy = keras.models.clone_model(model)
    for layer in copy.layers:
        for weight in layer.weights:
            weight.assign(weights[f"{layer.name}/{weight.name}"])
    return copy


def _before(staged):
    """Size and latency of the net's own files of the kinds that fine-tuned ones are of."""
    found = {"parameters": staged.model.count_params()}
    for name in ("float32", "int8") if staged.ranges else ("float32",):
        content = flatbuffer.to_bytes(quantization.quantize(staged.graph, FORMATS[name].scheme, staged.ranges))
        path = os.path.join(staged.folder, f"before{FORMATS[name].suffix}")
        with open(path, "wb") as file:
            file.write(content)
        found[name] = {"bytes": len(content), "latency_ms": verify.measure_file(path)["latency_ms"]}
    return found


def _rounded_ranges(staged):
    """(low, high) of the activations that an int8 file rounds to a range of their own."""
    exempt = ("CAST", *quantization.SAME_SCALE, *quantization.FIXED_RANGE)
    names = [operator.output.name for operator in staged.graph.operators if operator.kind not in exempt]
    return {name: (staged.ranges[name].low, staged.ranges[name].high) for name in names}


def _staged_anew(kind, staged, model, scores, images, facts):
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
    return float(np.abs(found - scores).max() / logits.scale)


def share_of_zeros(graph):
    """Share of zeros in the kernels of a graph."""
    kernels = [operator.inputs[1].data for operator in graph.operators if operator.kind in quantization.WEIGHTED]
    return sum(int(np.sum(kernel == 0)) for kernel in kernels) / sum(kernel.size for kernel in kernels)
