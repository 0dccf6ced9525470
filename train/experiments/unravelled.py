"""Is a ResNet many shallow nets, and why is its shortcut the identity? Veit et al. 2016; He et al. 2016, table 1."""

import itertools

import numpy as np
from matplotlib import pyplot as plt

from train.experiments import lesions, pages, seeds
from train.experiments.nets import NO_SHORTCUT
from train.experiments.pages import CIFAR10, Fact
from train.experiments.paper import CIFAR10_ERROR, SHORTCUT_ERROR

TITLE = "Unravelled: dropped blocks, and shortcuts other than the identity"
IDENTITY, GATES = "A", ("gated", "gated_shortcut")
SHORTCUTS = {  # by `Net.option`
    IDENTITY: "identity (option A)", "B": "1x1 convolution where dimensions change (option B)",
    "scaled": "constant scaling, 0.5 and 0.5", "gated": "exclusive gating", "gated_shortcut": "shortcut-only gating",
    "C": "1x1 convolution (option C)", "dropout": "dropout 0.5",
}  # fmt: skip


def measure(runs, settings):
    """A row a run with its test error; for nets with their own shortcut, or none, those of `lesions.score`.

    Args:
        runs: list of `Run`, trained.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    rows = []
    for run in runs:
        model = run.model()
        own = {"net": run.net.title, "layers": run.net.depth, "seed": run.config.seed, "shortcut": run.net.option}
        rows.append(own | {"kind": "whole", "block": 0, "name": ""} | run.tester(model)())
        if not run.net.shortcut:
            rows += [own | row for row in lesions.score(model, run.source(), run.net.is_plain)]
    return rows


def draw(rows):
    """Left the error without one block, dotted lines are of whole nets; right the error by shortcut."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", width_ratios=(3, 2))
    first = min(row["seed"] for row in rows)
    nets = seeds.by_net([row for row in rows if row["seed"] == first and row["kind"] != "whole"])
    for place, (net, own) in enumerate(nets.items()):
        colour, (intact, *dropped) = pages.colour(place), own
        # Each begins elsewhere, so that lines at one height are seen beside each other.
        left.axhline(intact["test_error"], color=colour, linewidth=1.5, linestyle=(2 * place, (2, 4)))
        share = [(row["block"] - 0.5) / max(row["block"] for row in dropped) for row in dropped]
        label = f"{net} (whole: {intact['test_error']:.1f} %)"
        left.plot(share, [row["test_error"] for row in dropped], "o-", color=colour, label=label)
    left.set(xlabel="place of the dropped block in the net (0: first, 1: last)", ylabel="error (%)", ylim=(-3, 100))
    left.grid(alpha=0.3)
    left.set_visible(bool(nets))
    if nets:
        left.legend(**pages.BELOW, ncols=2, title="one block dropped; dotted: none")
    found = _by_shortcut(rows)
    for place, errors in enumerate(found.values()):
        right.barh(place, seeds.mean(errors), color=pages.COLOURS[1], height=0.6)
        right.text(seeds.mean(errors), place, f" {pages.spread(errors)}", va="center", fontsize=9)
    right.set_yticks(range(len(found)), [SHORTCUTS[shortcut] for shortcut in found])
    right.invert_yaxis()
    right.set(xlabel="test error (%)")
    right.margins(x=0.3)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, sentences, rises = [], [], {True: [], False: []}
    for net, own in seeds.by_net(rows).items():
        facts.append(Fact(f"{net}: test error (%)", CIFAR10_ERROR.get(net, ""), _of_kind(own, "whole"), CIFAR10))
        if {row["kind"] for row in own} == {"whole"}:
            continue
        without, is_plain = _of_kind(own, "dropped"), own[0]["shortcut"] == NO_SHORTCUT
        rise = seeds.minus(without, _of_kind(own, "intact"))
        paper = "chance (Veit et al., figure 3)" if is_plain else "little changed (figure 3)"
        facts.append(Fact(f"{net}: without one block, median (%)", paper, without))
        rises[is_plain].append(seeds.mean(rise))
        sentences.append(f"Without one block {net} makes {rises[is_plain][-1]:+.2f} points of errors in the median.")
    found = _by_shortcut(rows)
    against = {shortcut: seeds.minus(errors, found[IDENTITY]) for shortcut, errors in found.items()
               if IDENTITY in found and shortcut != IDENTITY}  # fmt: skip
    for shortcut, differences in against.items():
        paper = SHORTCUT_ERROR.get(shortcut, "")
        paper = paper if isinstance(paper, str) else paper - SHORTCUT_ERROR[IDENTITY]
        words = f"{SHORTCUTS[shortcut]} minus identity (points; the paper: ResNet-110)"
        facts.append(Fact(words, paper, differences, CIFAR10))
    sentences += [*_veit(rises, rows), *_untrained(rows)]
    if against:
        num_images = rows[0]["test_images"]
        shown = {shortcut: seeds.compared(found[shortcut], found[IDENTITY], num_images) for shortcut in against}
        sentences += [*_readings(shown), seeds.doubt(rows)]
    return facts, " ".join(sentences)


def _of_kind(rows, kind):
    """Median error of the rows of a kind: list, one a seed."""
    found = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        if row["kind"] == kind:
            found.setdefault(row["seed"], []).append(row["test_error"])
    return [float(np.median(errors)) for errors in found.values()]


def _veit(rises, rows):
    """What the points that plain nets (True) and residual nets (False) lose with a block say of them."""
    scored = [row["test_images"] for row in rows if row["kind"] == "dropped"]
    sentences = [f"Scored on {scored[0]:,} test images, with and without the block."] if scored else []
    if rises[True] and rises[False]:
        sentences.append(
            "Every plain net loses more than every residual net, as Veit et al. see it: a residual net without one "
            "block is one of the many shallower nets in it, a plain net has one path, and each layer is needed."
            if max(rises[False]) < min(rises[True])
            else "Not every plain net loses more than every residual net, unlike in Veit et al."
        )
    return sentences


def _untrained(rows):
    """The sentences on residual nets that are worse than a shallower one: list."""
    nets = seeds.by_net([row for row in rows if row["kind"] == "whole" and row["shortcut"] == IDENTITY])
    nets = sorted(nets.items(), key=lambda item: item[1][0]["layers"])
    sentences = []
    for (shallow, ones), (deep, others) in itertools.pairwise(nets):
        errors = [seeds.of_seeds(own, "test_error") for own in (others, ones)]
        if seeds.compared(*errors, rows[0]["test_images"]) > 0:
            deeps, shallows = map(pages.spread, errors)
            sentences.append(
                f"{deep} is worse than {shallow} as a whole ({deeps} and {shallows} %): it is not trained out, and "
                "what it loses with a block says little."
            )
    return sentences


def _readings(shown):
    """What the differences to the identity show: of a dict from the shortcut to their `seeds.direction`."""
    sentences = []
    for sign, words in ((1, "Worse than the identity"), (0, "Level with it"), (-1, "Better than it")):
        names = [SHORTCUTS[shortcut] for shortcut in shown if shown[shortcut] == sign]
        sentences += [f"{words}: {', '.join(names)}."] if names else []
    sentences.append(
        "The paper's are of ResNet-110, trained for 64,000 steps: what fails at 110 layers need not fail at fewer."
    )
    if {*GATES} & {*shown}:
        sentences.append("A gate starts nearly closed, as the paper's best, and needs steps to open.")
    if "dropout" in shown:
        sentences.append(
            "Dropout here is Keras's, which doubles what it keeps, so that the shortcut's expectation stays 1; the "
            "paper's halves it."
        )
    return sentences


def _by_shortcut(rows):
    """Test errors, a list with one a seed, of the residual nets of the depth with most shortcuts, by shortcut."""
    whole = [row for row in rows if row["kind"] == "whole" and row["shortcut"] in SHORTCUTS]
    at_depth = {}
    for row in whole:
        at_depth.setdefault(row["layers"], set()).add(row["shortcut"])
    layers = max(at_depth, key=lambda depth: (len(at_depth[depth]), -depth), default=None)
    own = [row for row in whole if row["layers"] == layers]
    return {
        shortcut: seeds.of_seeds([row for row in own if row["shortcut"] == shortcut], "test_error")
        for shortcut in SHORTCUTS
        if shortcut in at_depth.get(layers, ())
    }
