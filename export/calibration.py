"""What a net's activations are on real images, which integer files need to know; and a look at these images."""

import dataclasses
import hashlib

import numpy as np

from export import flatbuffer
from keras_resnet.preprocessing import BLUE_MINUS_RED
from train import predictor

FEWEST_IMAGES = 32  # our choice, not measured
SAMPLES = 400_000  # values of an activation, for `clipped`; with 100,000 the error of ImageNet nets was a fifth larger
# Of a range; the whole one first, so that it wins where nothing gains.
FRACTIONS = np.linspace(1, 0.3, 29, dtype="float32")
DARKEST = 3  # levels of 255: images of floats from 0 to 1, cast to uint8


@dataclasses.dataclass(frozen=True)
class Range:
    """What was seen of one activation.

    Attributes:
        low: smallest value.
        high: largest value.
        means: float array (channels,) of mean values, or None where they are not known.
    """

    low: float
    high: float
    means: np.ndarray | None = None


def observe(graph, images):
    """Ranges of all activations. The net runs as a float32 `.tflite` file that gives every one of them.

    A range is cut where that lowers the squared error of 8-bit values (a few outliers must not cost all others their
    resolution), but for the scores', whose largest value is the answer.

    Args:
        graph: `Graph` in float32.
        images: uint8 (n, h, w, c), at least one.
    Returns:
        dict from the activation's name to its `Range`.
    """
    lows, highs, means, samples = [], [], [], []
    rng = np.random.default_rng(0)
    for arrays in activations(graph, images):
        lows.append([array.min() for array in arrays.values()])
        highs.append([array.max() for array in arrays.values()])
        means.append([array.mean((*range(array.ndim - 1),)) for array in arrays.values()])
        samples.append([rng.choice(array.reshape(-1), SAMPLES // len(images)) for array in arrays.values()])
        names = [*arrays]
    found = {}
    for number, name in enumerate(names):
        low, high = (float(edge(rows)) for edge, rows in ((min, _column(lows, number)), (max, _column(highs, number))))
        if name != graph.scores.name:
            low, high = clipped(min(low, 0.0), max(high, 0.0), np.concatenate(_column(samples, number)))
        found[name] = Range(low, high, np.mean(_column(means, number), axis=0))
    return found


def _column(rows, number):
    return [row[number] for row in rows]


def clipped(low, high, samples):
    """The share of a range with the least squared error of 8-bit values.

    Args:
        low: smallest value, at most 0.
        high: largest value, at least 0.
        samples: float array of values.
    Returns:
        (low, high), each times the same number from FRACTIONS.
    """
    step = (high - low) / 255
    far = samples[(samples > FRACTIONS[-1] * high) | (samples < FRACTIONS[-1] * low)]
    num_rounded = np.count_nonzero(samples)  # zero is stored as it is
    errors = []
    for fraction in FRACTIONS:
        beyond = np.maximum(far - fraction * high, 0) + np.maximum(fraction * low - far, 0)
        rounded = num_rounded - np.count_nonzero(beyond)
        errors.append(np.sum(beyond.astype("float64") ** 2) + rounded * (fraction * step) ** 2 / 12)
    best = float(FRACTIONS[int(np.argmin(errors))])
    return best * low, best * high


def activations(graph, images):
    """Runs a graph image by image and yields for each a dict from the name of each activation to its values.

    The arrays are the interpreter's memory, which here holds all of them at once: whatever batch the graph is for, one
    image is run at a time. The dict is emptied when the next one is asked for.

    Args:
        graph: `Graph`; integer activations are given as the numbers that they stand for, float32.
        images: uint8 (n, h, w, c).
    """
    graph = graph.for_batch(1)
    observed = list(dict.fromkeys(graph.activations()))
    interpreter = predictor.open_interpreter(flatbuffer.to_bytes(graph, observed))
    (image,) = interpreter.get_input_details()
    # The first output is the scores.
    outputs = [interpreter.tensor(details["index"]) for details in interpreter.get_output_details()[1:]]
    for one in images:
        interpreter.set_tensor(image["index"], one[None].astype(image["dtype"]))
        interpreter.invoke()
        arrays = {
            tensor.name: output() if tensor.scale is None else _values(tensor, output())
            for tensor, output in zip(observed, outputs, strict=True)
        }
        yield arrays
        arrays.clear()


def _values(tensor, stored):
    return np.float32(tensor.scale) * (stored.astype("float32") - tensor.zero_point)


def doctor(images, labels):
    """What is suspicious about calibration images, in words.

    Args:
        images: uint8 (n, h, w, c).
        labels: int (n,).
    Returns:
        list of str, empty where nothing is.
    """
    found = []
    if len(images) < FEWEST_IMAGES:
        found.append(f"only {len(images)} images; ranges settle with {FEWEST_IMAGES} or more")
    if images.max() <= DARKEST:
        found.append(f"no pixel above {images.max()} of 255: they look like floats from 0 to 1, cast to whole numbers")
    flat = images.reshape(len(images), -1)
    constant = int(np.sum(flat.min(axis=1) == flat.max(axis=1)))
    if constant:
        found.append(f"{constant} of {len(images)} images are of one colour")
    distinct = len({hashlib.sha256(row.tobytes()).digest() for row in flat})
    if distinct < len(images):
        found.append(f"{len(images) - distinct} of {len(images)} images are repeated")
    if len(np.unique(labels)) == 1 and len(labels) > 1:
        found.append(f"all images are of class {labels[0]}; ranges of other classes were not seen")
    if images.shape[-1] == 3:
        red, _, blue = images.mean(axis=(0, 1, 2)) / 255
        if blue - red > BLUE_MINUS_RED / len(images) ** 0.5:
            found.append(f"blue exceeds red by {blue - red:.0%} of the range: they look like BGR")
    return found
