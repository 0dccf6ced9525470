"""How strongly layers respond: standard deviations behind each 3x3 layer, He 2015, figure 7."""

import re

import keras
import numpy as np
from matplotlib import pyplot as plt

from train import input_pipeline
from train.experiments import pages
from train.experiments.pages import Fact

TITLE = "Layer responses: residual functions are closer to zero"
IMAGES = 1000  # of the test split, over which the deviation is taken
BATCH = 100
# Batch normalizations that follow a 3x3 convolution of the CIFAR nets: all but those of projections.
AFTER_3X3 = r"(stem_bn|stage\d+_block\d+_bn[12])$"


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
        names = [layer.name for layer in model.layers if re.match(AFTER_3X3, layer.name)]
        images, _, _ = input_pipeline.arrays(run.source(), "test", IMAGES)
        for place, (name, value) in enumerate(zip(names, deviations(model, names, images), strict=True), start=1):
            rows.append(run.columns | {"layer": place, "name": name, "standard_deviation": value})
    return rows


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
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 7), layout="constrained")
    depths = sorted({row["layers"] for row in rows})
    for (net, _), own in _of_each_run(rows).items():
        values = [row["standard_deviation"] for row in own]
        style = {"color": pages.COLOURS[depths.index(own[0]["layers"]) % len(pages.COLOURS)], "linewidth": 1.5}
        style |= {"linestyle": "--" if own[0]["kind"] == "plain" else "-", "label": net}
        top.plot(range(1, len(values) + 1), values, **style)
        bottom.plot(range(1, len(values) + 1), sorted(values, reverse=True), **style)
    top.set(xlabel="layer index (original)", ylabel="standard deviation", ylim=(0, None))
    bottom.set(xlabel="layer index (sorted by magnitude)", ylabel="standard deviation", ylim=(0, None))
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    top.legend(ncols=2)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    means = {}
    for net, own in pages.by_net(rows).items():
        means[net] = pages.mean([row["standard_deviation"] for row in own])
    facts = [Fact(f"{net}, mean standard deviation", "picture alone", value) for net, value in means.items()]
    sentences = []
    for layers in sorted({row["layers"] for row in rows}):
        plain, residual = means.get(f"plain-{layers}"), means.get(f"ResNet-{layers}")
        if plain and residual:
            facts.append(Fact(f"ResNet-{layers} over plain-{layers}", "below 1", residual / plain))
            relation = "below" if residual < plain else "not below"
            sentences.append(f"ResNet-{layers} responds {relation} plain-{layers} in the mean.")
    residual = sorted({row["layers"] for row in rows if row["kind"] == "residual"})
    if len(residual) > 1:
        ratio = means[f"ResNet-{residual[-1]}"] / means[f"ResNet-{residual[0]}"]
        facts.append(Fact(f"ResNet-{residual[-1]} over ResNet-{residual[0]}", "below 1", ratio))
        relation = "weaker" if ratio < 1 else "not weaker"
        sentences.append(f"The responses of the deeper ResNet are {relation} than the shallower one's.")
    return facts, " ".join(
        [*sentences, f"Over {IMAGES:,} test images (all, where there are fewer), positions and channels. The paper: "
         "residual nets lie below plain nets, and the deeper the net the less each layer changes the signal."]
    )  # fmt: skip


def _of_each_run(rows):
    found = {}
    for row in sorted(rows, key=lambda row: (row["layers"], row["kind"], row["seed"], row["layer"])):
        found.setdefault((row["net"], row["seed"]), []).append(row)
    return found
