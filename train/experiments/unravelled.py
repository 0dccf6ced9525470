"""Is a ResNet many shallow nets, and why is its shortcut the identity? Veit et al. 2016; He et al. 2016, table 1."""

import re

import numpy as np
from matplotlib import pyplot as plt

from keras_resnet.blocks import BN_EPSILON
from train import input_pipeline, predictor, scoring
from train.experiments import pages
from train.experiments.pages import Fact
from train.experiments.paper import SHORTCUT_ERROR

TITLE = "Unravelled: dropped blocks, and shortcuts other than the identity"
BATCH = 250
IMAGES = 2000  # of the test split, on which nets with a dropped block are scored
SHORTCUTS = {
    "": "identity (option A)", "scaled": "constant scaling, 0.5 and 0.5", "gated": "exclusive gating",
    "gated_shortcut": "shortcut-only gating", "C": "1x1 convolution (option C)", "dropout": "dropout 0.5",
}  # fmt: skip


def measure(runs, settings):
    """A row a run with its test error, and for nets with their own shortcut, or none, a row a dropped block.

    Args:
        runs: list of `Run`, trained.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    rows = []
    for run in runs:
        own = {"net": run.net.title, "layers": run.net.depth, "seed": run.config.seed, "shortcut": run.net.shortcut}
        rows.append(own | {"kind": "whole", "block": 0, "name": "", "test_error": run.test_error()})
        if not run.net.shortcut:
            rows += [own | row for row in lesions(run.model(), run.source(), run.net.is_plain)]
    return rows


def lesions(model, source, is_plain):
    """Errors without one block: its residual branch is silenced; a plain net's pair of layers passes its input on.

    Args:
        model: `keras.Model` of basic blocks, from pixels to logits; its weights are as before afterwards.
        source: `train.data.Source` of its images.
        is_plain: whether it has no shortcuts; blocks that change the dimensions then cannot be dropped.
    Returns:
        list of dicts: block from 1, name, test_error in per cent.
    """
    images, labels, _ = input_pipeline.arrays(source, "test", IMAGES)
    names = [layer.name.removesuffix("_conv1") for layer in model.layers if re.fullmatch(r"stage.*_conv1", layer.name)]
    change, rows, found = _pass_on if is_plain else _silence, [], predictor.from_keras(model)
    for block, name in enumerate(names, start=1):
        first = model.get_layer(f"{name}_conv1")
        if is_plain and (first.strides != (1, 1) or first.kernel.shape[2] != first.kernel.shape[3]):
            continue
        layers = [model.get_layer(f"{name}_{part}") for part in ("conv1", "bn1", "conv2", "bn2")]
        before = [layer.get_weights() for layer in layers]
        change(*layers)
        outputs = np.concatenate([found.predict(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])
        error = 100 * (1 - scoring.score(outputs, labels).top1)
        for layer, weights in zip(layers, before, strict=True):
            layer.set_weights(weights)
        rows.append({"kind": "dropped", "block": block, "name": name, "test_error": error})
    return rows


def _silence(conv1, bn1, conv2, bn2):
    """The branch ends in zeros: the block is its shortcut."""
    bn2.gamma.assign(np.zeros(bn2.gamma.shape))
    bn2.beta.assign(np.zeros(bn2.beta.shape))


def _pass_on(conv1, bn1, conv2, bn2):
    """Both layers are the identity on what is not negative, as it is behind a ReLU."""
    for conv, norm in ((conv1, bn1), (conv2, bn2)):
        kernel = np.zeros(conv.kernel.shape)
        kernel[1, 1] = np.eye(kernel.shape[2])
        conv.kernel.assign(kernel)
        ones = np.ones(norm.gamma.shape)
        norm.set_weights([ones * np.sqrt(1 + BN_EPSILON), 0 * ones, 0 * ones, ones])


def draw(rows):
    """Left the error without one block, lines are of whole nets; right the error by shortcut."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained", width_ratios=(3, 2))
    first = min(row["seed"] for row in rows)
    nets = pages.by_net([row for row in rows if row["seed"] == first and not row["shortcut"]])
    for place, (net, own) in enumerate(nets.items()):
        colour, dropped = pages.COLOURS[place % len(pages.COLOURS)], [row for row in own if row["kind"] == "dropped"]
        left.axhline(own[0]["test_error"], color=colour, linewidth=1, linestyle=":")
        share = [(row["block"] - 0.5) / max(row["block"] for row in dropped) for row in dropped]
        left.plot(share, [row["test_error"] for row in dropped], "o-", color=colour, label=net)
    left.set(xlabel="place of the dropped block in the net (0: first, 1: last)", ylabel="error (%)", ylim=(0, 100))
    left.grid(alpha=0.3)
    left.legend(title="one block dropped; dotted: none")
    found = _by_shortcut(rows)
    for place, errors in enumerate(found.values()):
        right.barh(place, pages.mean(errors), color=pages.COLOURS[1], height=0.6)
        right.text(pages.mean(errors), place, f" {pages.spread(errors)}", va="center", fontsize=9)
    right.set_yticks(range(len(found)), [SHORTCUTS[shortcut] for shortcut in found])
    right.invert_yaxis()
    right.set(xlabel="test error (%)")
    right.margins(x=0.3)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, found = [], _by_shortcut(rows)
    for net, own in pages.by_net([row for row in rows if not row["shortcut"]]).items():
        whole = pages.mean([row["test_error"] for row in own if row["kind"] == "whole"])
        dropped = [row["test_error"] for row in own if row["kind"] == "dropped"]
        paper = "chance (Veit et al., figure 3)" if net.startswith("plain") else "little changed (figure 3)"
        facts.append(Fact(f"{net}: test error (%)", "", whole))
        facts.append(Fact(f"{net}: without one block, median (%)", paper, float(np.median(dropped))))
    identity = pages.mean(found.get("", [0.0]))
    for shortcut, errors in found.items():
        if not shortcut:
            continue
        paper = SHORTCUT_ERROR[shortcut]
        paper = paper if isinstance(paper, str) else paper - SHORTCUT_ERROR[""]
        words = f"{SHORTCUTS[shortcut]} minus identity (points; the paper: ResNet-110)"
        facts.append(Fact(words, paper, pages.mean(errors) - identity))
    return facts, (
        f"Blocks are dropped on {IMAGES:,} test images (all, where there are fewer). A residual net without one block "
        "is one of the many shallower nets in it, and goes on working; a plain net has one path, and each layer is "
        "needed. The paper's shortcuts are of ResNet-110, trained for 64,000 steps: what fails at 110 layers need not "
        "fail at 20, and a gate that starts nearly closed needs steps to open."
    )


def _by_shortcut(rows):
    """Test errors of the residual nets of the depth at which shortcuts are compared, by shortcut."""
    depths = {row["layers"] for row in rows if row["shortcut"]}
    whole = [row for row in rows if row["kind"] == "whole" and row["layers"] in depths and row["net"][0] != "p"]
    return {
        shortcut: [row["test_error"] for row in whole if row["shortcut"] == shortcut]
        for shortcut in SHORTCUTS
        if any(row["shortcut"] == shortcut for row in whole)
    }
