"""Scores of a predictor on labelled images: top-1, top-5, loss, and the same by class."""

import dataclasses

import numpy as np

from train import input_pipeline

SCORING_BATCH = 128  # images in memory at a time; the scores do not depend on it


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model scores on a set of images, each counted once.

    Attributes:
        top1: share of images whose best class is right.
        top5: share of images whose label is among the five best (all, where there are no more classes).
        loss: mean cross entropy, in nats.
        num_images: images counted.
    """

    top1: float
    top5: float
    loss: float
    num_images: int


def predict(predictor, source, split):
    """Runs a predictor over a split.

    Args:
        predictor: `train.predictor.Predictor`.
        source: `train.data.Source`.
        split: "train", "validation" or "test".
    Returns:
        Logits or probabilities float32 (n, classes) and labels int64 (n,).
    Raises:
        ValueError: if the images or classes are not the predictor's.
    """
    check_fits(predictor, source)
    outputs, labels = [], []
    for batch in input_pipeline.evaluation_batches(source, split, SCORING_BATCH).as_numpy_iterator():
        real = batch["weight"] > 0
        outputs.append(predictor.predict(batch["image"][real]))
        labels.append(batch["label"][real])
    return np.concatenate(outputs), np.concatenate(labels)


def check_fits(predictor, source):
    """Raises ValueError unless the predictor takes the source's images and knows its classes."""
    check_images_fit(predictor.image_shape, source)
    if predictor.num_classes != len(source.class_names):
        # A folder with images of some of the classes alone cannot tell which those are.
        cure = " Name all of them in order with --class_index=FILE." if source.files else ""
        raise ValueError(
            f"The classes are not the model's. Expected: {predictor.num_classes}. Received: "
            f"{len(source.class_names)} in {source.name}.{cure}"
        )


def check_images_fit(image_shape, source):
    """Raises ValueError unless the source's images have that (h, w, c), in which None fits all."""
    sides = zip(image_shape, source.image_shape, strict=True)
    if any(taken not in (None, given) for taken, given in sides):
        raise ValueError(
            f"The images are not the model's. Expected: {tuple(image_shape)}. Received: {source.image_shape} "
            f"from {source.name}. Use data of the kind that the model was trained on."
        )


def score(outputs, labels):
    """Scores from logits or probabilities.

    Args:
        outputs: float (n, classes); rows that are not negative and sum to one count as probabilities.
        labels: int (n,).
    Returns:
        `Scores`.
    """
    log_probabilities = np.log(np.maximum(probabilities(outputs), 1e-12))
    rank = ranks(outputs, labels)
    return Scores(
        top1=float(np.mean(rank == 0)),
        top5=float(np.mean(rank < 5)),
        loss=float(-np.mean(log_probabilities[np.arange(len(labels)), labels])),
        num_images=len(labels),
    )


def per_class(outputs, labels, class_names):
    """Rows (class name, images, top-1 share) for every class that has images."""
    hits = ranks(outputs, labels) == 0
    members = [(name, labels == label) for label, name in enumerate(class_names)]
    return [(name, int(of.sum()), float(hits[of].mean())) for name, of in members if of.any()]


def ranks(outputs, labels):
    """Position of each label among its image's scores, 0 for the best: int (n,).

    Of equal scores the lower class is better, as in argmax, so that coarse int8 scores count fairly. Where a score
    is not finite the label counts as missed, beyond any top-5.
    """
    own = np.take_along_axis(outputs, labels[:, None], axis=1)
    earlier = np.arange(outputs.shape[1]) < labels[:, None]
    found = np.sum((outputs > own) | ((outputs == own) & earlier), axis=1)
    return np.where(np.isfinite(outputs).all(axis=1), found, outputs.shape[1] + 5)


def answers(outputs):
    """The best class of each image: int (n,), the lower one of equals, -1 where a score is not finite."""
    return np.where(np.isfinite(outputs).all(axis=1), outputs.argmax(axis=1), -1)


def confusion(outputs, labels):
    """How often images of each class (row) got each answer (column): int (classes, classes)."""
    found, counts = answers(outputs), np.zeros((outputs.shape[1],) * 2, int)
    np.add.at(counts, (labels[found >= 0], found[found >= 0]), 1)
    return counts


def worst(outputs, labels, most):
    """Positions of the wrong answers, the most confident first: at most that many."""
    found = answers(outputs)
    (wrong,) = np.nonzero((found != labels) & (found >= 0))
    return wrong[np.argsort(-confidences(outputs)[wrong], kind="stable")][:most]


def confidences(outputs):
    """Probability of the best class of each image: float (n,)."""
    return probabilities(outputs).max(axis=1)


def is_probabilities(outputs):
    """Whether every row is a distribution (int8 scores sum to one within a percent or two)."""
    return bool(np.all(outputs >= 0) and np.all(np.abs(outputs.sum(axis=1) - 1) < 0.02))


def probabilities(outputs):
    """Softmax of logits; probabilities stay as they are."""
    return outputs if is_probabilities(outputs) else softmax(outputs)


def softmax(logits):
    """Probabilities over the last axis."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)
