"""How strongly layers respond: standard deviations behind each 3x3 layer, He 2015, figure 7."""

import re

import keras
import numpy as np
from matplotlib import pyplot as plt

from train import input_pipeline
from train.experiments import pages, seeds
from train.experiments.pages import Fact

TITLE = "Layer responses: residual functions are closer to zero"
IMAGES = 1000  # of the test split, over which the deviation is taken
BATCH = 100
WIDE = 10  # times the median, from which on the largest deviation leaves no room for the others on a linear axis


def measure(runs, settings):
    """A row a layer of each net: the deviation after batch normalization, before addition and ReLU.

    Args:
        runs: list of `Run`, trained.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    rows = []
    for run in runs:
        model = run.model()
        names = normalizations(model)
        images, _, _ = input_pipeline.arrays(run.source(), "test", IMAGES)
        for place, (name, value) in enumerate(zip(names, deviations(model, names, images), strict=True), start=1):
            rows.append(run.columns | {"layer": place, "name": name, "standard_deviation": value})
    return rows


def normalizations(model):
    """Names of the batch normalizations behind the 3x3 convolutions of a net of basic blocks, in order."""
    found = [layer.name for layer in model.layers if getattr(layer, "kernel_size", None) == (3, 3)]
    return [name.replace("conv", "bn") for name in found]


def deviations(model, names, images):
    """Standard deviation of the outputs of layers over images, positions and channels.

    Args:
        model: `keras.Model` from pixels.
        names: of its layers.
        images: uint8 (n, h, w, c).
    Returns:
        list of floats.
    """
    inner = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    sums = np.zeros((len(names), 3))  # count, sum, sum of squares
    for start in range(0, len(images), BATCH):
        outputs = inner(images[start : start + BATCH].astype("float32"), training=False)
        values = [np.asarray(output, "float64") for output in outputs]
        sums += [(value.size, value.sum(), (value**2).sum()) for value in values]
    means, squares = sums[:, 1] / sums[:, 0], sums[:, 2] / sums[:, 0]
    return np.sqrt(np.maximum(squares - means**2, 0)).tolist()


def draw(rows):
    """The paper's two panels: in the layers' order above, sorted below; plain nets dashed."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 7.5), layout="constrained")
    colours, first = pages.colours(rows), min(row["seed"] for row in rows)
    for (net, seed), own in _of_each_run(rows).items():
        values = [row["standard_deviation"] for row in own]
        style = {"color": colours[net], "linewidth": 1.5}
        style |= {"linestyle": "--" if own[0]["kind"] == "plain" else "-", "label": net if seed == first else None}
        top.plot(range(1, len(values) + 1), values, **style)
        bottom.plot(range(1, len(values) + 1), sorted(values, reverse=True), **style)
    values = [row["standard_deviation"] for row in rows]
    for axes, words in ((top, "original"), (bottom, "sorted by magnitude")):
        axes.set(xlabel=f"layer index ({words})", ylabel="standard deviation")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if max(values) > WIDE * np.median(values):
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, None)
    bottom.legend(**pages.BELOW | {"bbox_to_anchor": (0.5, -0.2)}, ncols=4)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    means = {}  # of each net, a list with one a seed
    for (net, _), own in _of_each_run(rows).items():
        means.setdefault(net, []).append(seeds.mean([row["standard_deviation"] for row in own]))
    nets = {net: own[0] for net, own in seeds.by_net(rows).items()}
    facts = [Fact(f"{net}, mean standard deviation", "picture alone", value) for net, value in means.items()]
    pairs = [
        (residual, plain)
        for residual, one in nets.items()
        for plain, other in nets.items()
        if (one["kind"], other["kind"]) == ("residual", "plain") and one["layers"] == other["layers"]
    ]
    for family in _families(nets):
        pairs += [(family[-1], family[0])] if len(family) > 1 else []
    sentences = []
    for one, other in pairs:
        ratios = [a / b for a, b in zip(means[one], means[other], strict=True)]
        facts.append(Fact(f"{one} over {other}", "below 1", ratios))
        sentences.append(_relation(one, other, ratios))
    doubt = [] if len({row["seed"] for row in rows}) > 1 else [ONE_SEED]
    return facts, " ".join([*sentences, *doubt, ABOUT])


ABOUT = (
    f"Over {IMAGES:,} test images (all, where there are fewer), positions and channels; the paper's nets were trained "
    "to the end. The paper: residual nets lie below plain nets, and the deeper the net the less each layer changes the "
    "signal."
)


LEVEL = 0.02  # share that two means may differ by and count as level; our choice
ONE_SEED = "Of one seed: another may order nets otherwise that are near each other."


def _relation(one, other, ratios):
    """Where a net lies to another by the ratios of their means, one a seed: a sentence."""
    if max(ratios) < 1 - LEVEL:
        return f"{one} lies below {other} in the mean, as in the paper."
    if min(ratios) > 1 + LEVEL:
        return f"{one} lies above {other} in the mean, unlike in the paper."
    if max(abs(ratio - 1) for ratio in ratios) <= LEVEL:
        return f"{one} is level with {other} in the mean; in the paper it lies below."
    return f"{one} lies below {other} in the mean of some of the seeds alone."


def _families(nets):
    """Residual nets that differ in depth alone, from the shallowest: list of lists of titles."""
    found = {}
    for net, row in sorted(nets.items(), key=lambda pair: pair[1]["layers"]):
        if row["kind"] == "residual":
            found.setdefault(re.sub(r"\d+", "", net, count=1), []).append(net)
    return [*found.values()]


def _of_each_run(rows):
    found = {}
    for row in sorted(rows, key=lambda row: (row["layers"], row["kind"], row["seed"], row["layer"])):
        found.setdefault((row["net"], row["seed"]), []).append(row)
    return found
