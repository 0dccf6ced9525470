"""Which blocks lose most in int8, and how many of these must stay in float for a net to keep its answers.

No image that a file is scored on is looked at: blocks are ordered on calibration images, by the scores alone, and their
number is chosen on training images that were held out. The gate then judges the choice on the test images.
"""

import dataclasses
import re

import numpy as np

from export import flatbuffer
from train import predictor

BLOCK = re.compile(r"stage\d+_block\d+")
SCANNED_IMAGES = 32  # that blocks are ordered on, each with all its scores; our choice, not measured against others
KNOWN_IMAGES = 3  # standard errors by which the top-1 of images that a net was trained on is above that of others


@dataclasses.dataclass(frozen=True)
class Step:
    """A net with some blocks in float, judged on held-out images.

    Attributes:
        num_float: how many of the blocks stay in float, the most sensitive first.
        bytes: size of the file.
        top1: its share of right answers.
        agreement: share of images whose best class is the Keras model's.
    """

    num_float: int
    bytes: int
    top1: float
    agreement: float


def blocks(graph):
    """The graph's activations by block.

    Args:
        graph: `Graph` in float32.
    Returns:
        dict from "stem", "stage1_block1", ..., "head" to a list of names of activations, in the order of execution; of
        a net without such names every layer is a block.
    """
    found, current = {}, "stem"
    for name in _names(graph):
        if named := BLOCK.match(name):
            current = named[0]
        elif current != "stem":
            current = "head"
        found.setdefault(current, []).append(name)
    return found if len(found) > 1 else {name: [name] for name in _names(graph)}


def _names(graph):
    return [operator.output.name for operator in graph.operators if operator.kind != "CAST"]


def errors(graph, quantized, images):
    """What each block alone does to the scores in int8, while all others compute in float.

    A block alone, not all but one: where two blocks ruin the scores, either of them left out improves nothing.

    Args:
        graph: `Graph` in float32.
        quantized: function from the names of activations that stay in float to a `Graph`.
        images: uint8 (n, h, w, c); the first SCANNED_IMAGES are used.
    Returns:
        dict from the block to the root mean square error of the scores over that of the scores, the largest first.
    """
    few, parts = images[:SCANNED_IMAGES], blocks(graph)
    expected = _scores(flatbuffer.to_bytes(graph), few)
    found = {}
    for name in parts:
        others = [activation for other in parts if other != name for activation in parts[other]]
        wrong = _scores(flatbuffer.to_bytes(quantized(others)), few) - expected
        found[name] = float(np.sqrt(np.mean(np.square(wrong)) / np.mean(np.square(expected))))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def steps(graph, quantized, order, held_out, is_enough):
    """Nets with more and more blocks in float, up to the first that is enough, and a few beyond it for the picture.

    Args:
        graph: `Graph` in float32.
        quantized: function from the names of activations that stay in float to a `Graph`.
        order: names of the blocks, the most sensitive first.
        held_out: `pipeline.Examination` of images to choose on.
        is_enough: function from a `Step` to bool.
    Returns:
        `Step` that is chosen, and list of all steps.
    """
    found, chosen, parts, num_float = [], None, blocks(graph), 0
    while True:
        kept = [activation for name in order[:num_float] for activation in parts[name]]
        content = flatbuffer.to_bytes(quantized(kept))
        best = _scores(content, held_out.images).argmax(axis=1)
        step = Step(
            num_float,
            len(content),
            float(np.mean(best == held_out.labels)),
            float(np.mean(best == held_out.expected.argmax(axis=1))),
        )
        found.append(step)
        chosen = chosen or (step if is_enough(step) else None)
        if num_float == len(order):
            return chosen or step, found
        # Behind the choice at distances of 1, 2, 4, ...: few runs show where the curve goes.
        further = 1 if chosen is None else max(1, num_float - chosen.num_float)
        num_float = min(num_float + further, len(order))


def choose(graph, quantized, images, held_out, gate):
    """As few blocks in float, the most sensitive first, as keep what the gate asks, on held-out images.

    Args:
        graph: `Graph` in float32.
        quantized: function from the names of activations that stay in float to a `Graph`.
        images: uint8 (n, h, w, c), calibration images.
        held_out: `pipeline.Examination` of training images.
        gate: `verify.Gate`, of which max_top1_drop and min_agreement count.
    Returns:
        names of the activations that stay in float, and the scan as plain data for the card.
    """

    def is_enough(step):
        drop = 100 * (held_out.top1 - step.top1)
        return drop <= gate.max_top1_drop + 1e-9 and step.agreement >= (gate.min_agreement or 0)

    ordered = errors(graph, quantized, images)
    chosen, all_steps = steps(graph, quantized, [*ordered], held_out, is_enough)
    parts, in_float = blocks(graph), [*ordered][: chosen.num_float]
    scan = {
        "float_blocks": in_float,
        "errors": ordered,
        "steps": [dataclasses.asdict(step) for step in all_steps],
        "scanned_images": min(len(images), SCANNED_IMAGES),
        "held_out_images": len(held_out.labels),
        "held_out_top1": held_out.top1,
        "max_top1_drop": gate.max_top1_drop,
        "min_agreement": gate.min_agreement,
    }
    return [activation for name in in_float for activation in parts[name]], scan


def doubts(held_out, examination, is_own):
    """Why a choice on held-out images may not hold for new ones.

    Args:
        held_out: `pipeline.Examination` of the images that mixed formats choose on.
        examination: `pipeline.Examination` of the test images.
        is_own: whether they were held out by the run that trained the model.
    Returns:
        list of str: empty where there is nothing to doubt.
    """
    few = (
        "on images that a net knows int8 seems to lose less than on new ones, so that too few blocks may stay in float"
    )
    shares = np.array([held_out.top1, examination.top1])
    counts = np.array([len(held_out.labels), len(examination.labels)])
    # An image more of each answer (Agresti and Caffo 2000): a share of 100 % has an error too.
    smooth = (shares * counts + 1) / (counts + 2)
    error = np.sqrt(np.sum(smooth * (1 - smooth) / (counts + 2)))
    if held_out.top1 - examination.top1 > KNOWN_IMAGES * error:
        return [
            f"the Keras model is right on {held_out.top1:.2%} of these {counts[0]:,} and on {examination.top1:.2%} of "
            f"the {counts[1]:,} test images: it was trained on the former, it seems; {few}"
        ]
    if not is_own:
        return [
            "nothing tells that the Keras model was not trained on them: it is not the model of a run of train/main.py "
            f"on this data; {few}"
        ]
    return []


def _scores(content, images):
    return predictor.from_tflite(content).predict(images)
