"""Norms of the gradient by layer, at the start and during training: He 2015, section 4.1.

The paper argues that the optimization difficulty of plain nets is "unlikely to be caused by vanishing gradients".
"""

import numpy as np
import tensorflow as tf
from matplotlib import pyplot as plt

from train import checkpoints, input_pipeline, loop, strategies
from train.experiments import pages
from train.experiments.pages import Fact
from train.experiments.runs import forget
from train.losses import cross_entropy, one_hot

TITLE = "Gradients layer by layer: do they vanish in plain nets?"
MOST_CHECKPOINTS = 6  # of a run that are measured, evenly spread


def measure(runs, settings):
    """A row a 3x3 layer at each moment: the norm of the gradient of its kernel on the first training batch.

    Args:
        runs: list of `Run`, trained; of each the checkpoints that are kept are measured.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    return [row for run in runs for row in _of_run(run)]


def _of_run(run):
    forget()
    source, strategy = run.source(), strategies.make(run.config)
    state = loop.build_state(strategy, source, run.config)
    batch = next(iter(input_pipeline.training_batches(source, run.config, epoch=0)))
    layers = [layer for layer in state.model.layers if getattr(layer, "kernel_size", None) == (3, 3)]
    norms_of = _make_norms(state.model, [layer.kernel.value for layer in layers], batch)
    rows, steps = [], input_pipeline.num_training_batches(source, run.config)
    for path in (None, *_spread(checkpoints.paths(run.config))):
        progress = checkpoints.load(path, state.variables) if path else {"epoch": 0, "step": 0}
        norms = norms_of().numpy()
        for place, (layer, norm) in enumerate(zip(layers, norms, strict=True), start=1):
            rows.append(
                run.columns
                | {"iteration": progress["epoch"] * steps + progress["step"]}
                | {"layer": place, "name": layer.name, "gradient_norm": float(norm)}
            )
    return rows


def _make_norms(model, kernels, batch):
    """Compiled function without arguments: norms of the loss's gradient, in training mode, float32 (layers,)."""

    @tf.function
    def norms():
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            loss = tf.reduce_mean(cross_entropy(one_hot(batch, logits), logits))
        return tf.stack([tf.norm(gradient) for gradient in tape.gradient(loss, kernels)])

    return norms


def _spread(paths):
    """At most so many of the paths, the first and the last among them."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_CHECKPOINTS)).astype(int))
    return [paths[place] for place in places]


def draw(rows):
    """A panel a net: the norm over the layers, a line a moment from light to dark."""
    nets = pages.by_net(rows)
    figure, panels = plt.subplots(
        1, len(nets), figsize=(4.2 * len(nets), 4), sharey=True, layout="constrained", squeeze=False
    )
    for axes, (net, of_all_seeds) in zip(panels[0], nets.items(), strict=True):
        own = [row for row in of_all_seeds if row["seed"] == of_all_seeds[0]["seed"]]
        moments = sorted({row["iteration"] for row in own})
        for place, moment in enumerate(moments):
            line = [row for row in own if row["iteration"] == moment]
            colour = plt.get_cmap("viridis")(1 - place / max(1, len(moments) - 1))
            axes.plot([row["layer"] for row in line], [row["gradient_norm"] for row in line], color=colour,
                      label=f"{moment:,}" if moment else "start")  # fmt: skip
        axes.set(title=net, xlabel="3x3 layer", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(title="iteration", fontsize=8)
    panels[0, 0].set(ylabel="norm of the kernel's gradient")
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, of_plain = [], {}
    for net, own in pages.by_net(rows).items():
        moments = sorted({row["iteration"] for row in own})
        ratios = {now: _first_over_last([row for row in own if row["iteration"] == now]) for now in moments}
        smallest = min(ratios, key=ratios.get)
        for now, words in ((0, ""), (moments[-1], ""), (smallest, ", the smallest seen")):
            what = f"{net} after {now:,} iterations: first layers' norm over the last layers'{words}"
            facts.append(Fact(what, "not vanishing", ratios[now]))
        if net.startswith("plain"):
            of_plain[net] = (ratios[0], ratios[smallest])
    return facts, " ".join([*(_reading(net, *found) for net, found in of_plain.items()), ARGUMENT])


ARGUMENT = (
    "First and last are the medians of the first and the last quarter of the layers. The paper argues that batch "
    "normalization keeps forward and backward signals alive, so that plain nets train worse for another reason; it "
    "conjectures exponentially low convergence rates."
)
GROWS = 10  # times, from which on the page says so


def _reading(net, at_start, smallest):
    """What the ratios of a plain net show."""
    verdict = "they do not vanish" if smallest > 1 / GROWS**2 else "they nearly vanish, unlike in the paper"
    sentence = f"In {net} the first layers' norm is never below {smallest:.2g} times the last layers': {verdict}."
    if at_start < GROWS:
        return sentence
    return (
        f"{sentence} At the start it is {at_start:,.0f} times as large: batch normalization does the opposite to a "
        "deep plain net, its gradients explode towards the image (Yang et al. 2019, arXiv 1902.08129)."
    )


def _first_over_last(rows):
    """Median norm of the first quarter of the layers over that of the last quarter."""
    depth = max(row["layer"] for row in rows)
    quarter = max(1, depth // 4)
    first = [row["gradient_norm"] for row in rows if row["layer"] <= quarter]
    last = [row["gradient_norm"] for row in rows if row["layer"] > depth - quarter]
    return float(np.median(first) / np.median(last))
