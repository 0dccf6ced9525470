"""Norms of the gradient by layer, at the start and during training: He 2015, section 4.1.

The paper argues that the optimization difficulty of plain nets is "unlikely to be caused by vanishing gradients".
"""

import numpy as np
from matplotlib import pyplot as plt

from train.experiments import gradient_norms, pages, seeds
from train.experiments.pages import Fact

TITLE = "Gradients layer by layer: do they vanish in plain nets?"


def measure(runs, settings):
    """A row a 3x3 layer at each moment: the norm of the gradient of its kernel on the first training batch.

    Args:
        runs: list of `Run`, trained; of each the checkpoints that are kept are measured.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    return [row for run in runs for row in gradient_norms.of_run(run)]


def draw(rows):
    """A panel a net: the norm over the layers, a line a moment from light to dark."""
    nets = seeds.by_net(rows)
    figure, panels = plt.subplots(
        1, len(nets), figsize=(4.5 * len(nets), 5), sharey=True, layout="constrained", squeeze=False
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
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(**pages.BELOW, title="iteration", ncols=4)
    panels[0, 0].set(ylabel="norm of the kernel's gradient")
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, found = [], {}
    for net, own in seeds.by_net(rows).items():
        found[net] = {words: _over_time(own, ratio) for words, ratio in RATIOS.items()}
        last = max(row["iteration"] for row in own)
        moments = [("at the start", lambda values: values[0])]
        if last:
            moments.append((f"after {last:,} iterations", lambda values: values[-1]))
            moments.append(("the smallest while it trained", lambda values: min(values[1:])))
        for words, of_seeds in found[net].items():
            for when, pick in moments:
                facts.append(Fact(f"{net}: {words}, {when}", "not vanishing", [pick(values) for values in of_seeds]))
    kinds, depths = ({row["net"]: row[name] for row in rows} for name in ("kind", "layers"))
    sentences = []
    for plain in (net for net in found if kinds[net] == "plain"):
        residual = [net for net in found if kinds[net] == "residual" and depths[net] == depths[plain]]
        sentences += _reading(plain, found[plain], residual[:1], found)
    return facts, " ".join([*sentences, *_missing(rows), ARGUMENT])


ARGUMENT = (
    "Whether such gradients vanish depends on the measure, and the paper names none: it argues that batch "
    "normalization keeps forward and backward signals alive, so that plain nets train worse for another reason, and "
    "conjectures exponentially low convergence rates."
)


def _first_over_last(norms):
    """Median norm of the first quarter of the layers over that of the last quarter."""
    quarter = max(1, len(norms) // 4)
    return float(np.median(norms[:quarter]) / np.median(norms[-quarter:]))


def _least_over_most(norms):
    """The weakest layer's norm over the strongest's, wherever they are."""
    return min(norms) / max(norms)


def _median_over_last(norms):
    """The layers' median norm over that of the last, which the loss reaches first."""
    return float(np.median(norms)) / norms[-1]


MEDIANS = "median of the first quarter of the layers over that of the last"
RATIOS = {
    MEDIANS: _first_over_last,
    "median of all layers over the last layer": _median_over_last,
    "weakest layer over strongest": _least_over_most,
}


def _over_time(own, ratio):
    """A ratio of a net's norms at each moment: list, one a seed, of lists."""
    norms = {}
    for row in sorted(own, key=lambda row: (row["seed"], row["iteration"], row["layer"])):
        norms.setdefault(row["seed"], {}).setdefault(row["iteration"], []).append(row["gradient_norm"])
    return [[ratio(of_layers) for of_layers in moments.values()] for moments in norms.values()]


def _least_in_training(of_seeds):
    """The smallest value after the start, at which alone a net without checkpoints was measured; of any seed."""
    return min(min(values[1:] or values) for values in of_seeds)


def _reading(plain, own, residual, found):
    """What the ratios of a plain net show beside those of the residual net of its depth, where there is one."""
    sentences, smaller = [], []
    for words, of_seeds in own.items():
        least = _least_in_training(of_seeds)
        beside = [_least_in_training(found[net][words]) for net in residual]
        smaller += [least < value for value in beside]
        other = "".join(f" ({net}: {value:.2g})" for net, value in zip(residual, beside, strict=True))
        sentences.append(f"{plain}, {words}: while it trained never below {least:.2g}{other}.")
    if smaller:
        which = {0: "none", len(smaller): "all"}.get(sum(smaller), f"{sum(smaller)}")
        sentences.append(
            f"By {which} of the {len(smaller)} measures the gradients of {plain} are spread wider than those of "
            f"{residual[0]}."
        )
    start = seeds.mean([values[0] for values in own[MEDIANS]])
    if start > 1:
        sentences.append(
            f"At the start its first layers' norm is {start:,.1f} times the last layers': gradients grow towards the "
            "image, as batch normalization without shortcuts makes them (Yang et al. 2019, arXiv 1902.08129)."
        )
    return sentences


def _missing(rows):
    """The sentence on checkpoints that were not kept, in a list; else none."""
    epochs = {net: {row["epoch"] for row in own} - {0} for net, own in seeds.by_net(rows).items()}
    late = [f"{net} before epoch {min(kept)}" if kept else net for net, kept in epochs.items() if 1 not in kept]
    if not late:
        return []
    return [f"No checkpoints were kept of {', '.join(late)}: run gradients before other experiments, it keeps all."]
