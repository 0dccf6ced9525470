"""Options A, B and C for the shortcut, and none, at equal depth: He 2015, table 3."""

from matplotlib import pyplot as plt

from train.experiments import pages, table6
from train.experiments.pages import Fact
from train.experiments.paper import TEN_CROP_ERROR

TITLE = "Shortcuts: options A, B, C and none"
OPTIONS = {
    "none": "no shortcuts: plain",
    "A": "A: identity, zeros where channels are added",
    "B": "B: projections where dimensions change",
    "C": "C: projections everywhere",
}
_PAPER = {"none": TEN_CROP_ERROR["plain-34"]} | {option: TEN_CROP_ERROR[f"ResNet-34 {option}"] for option in "ABC"}


def measure(runs, settings):
    """A row a run, as of `table6`, with its option."""
    rows = table6.measure(runs, settings)
    options = ["none" if run.net.is_plain else run.net.shortcut or "A" for run in runs]
    return [{"option": option} | row for option, row in zip(options, rows, strict=True)]


def draw(rows):
    """Errors of each option, and what it costs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    found = _by_option(rows)
    names = [OPTIONS.get(option, option) for option in found]
    for place, own in enumerate(found.values()):
        colour = pages.COLOURS[place % len(pages.COLOURS)]
        for name, marker in (("test_error", "o"), ("training_error", "x")):
            left.plot([row[name] for row in own], [place] * len(own), marker, color=colour, markersize=9)
        right.barh(place, own[0]["parameters"] / 1e3, color=colour, height=0.5)
        right.text(own[0]["parameters"] / 1e3, place, f" {own[0]['multiply_adds'] / 1e6:.2f}e6 multiply-adds",
                   va="center", fontsize=9)  # fmt: skip
    left.set_yticks(range(len(names)), names)
    right.set_yticks([])
    left.set(xlabel="error (%): o test, x training")
    right.set(xlabel="parameters (thousands)")
    right.set_xlim(0, 1.6 * max(row["parameters"] for row in rows) / 1e3)
    for axes in (left, right):
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{rows[0]['layers']} layers", fontsize=10)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    found = _by_option(rows)
    means = {option: pages.mean([row["test_error"] for row in own]) for option, own in found.items()}
    facts = [Fact(f"{OPTIONS.get(option, option)}: test error (%)", "", error) for option, error in means.items()]
    for one, other in (("A", "none"), ("B", "A"), ("C", "B")):
        if {one, other} <= {*means}:
            paper = _PAPER[one] - _PAPER[other]
            facts.append(Fact(f"{one} minus {other} (points)", paper, means[one] - means[other]))
    for option, own in found.items():
        facts.append(Fact(f"{option}: parameters", "", own[0]["parameters"]))
    order = ", ".join(sorted(means, key=means.get))
    seeds = len({row["seed"] for row in rows})
    return facts, (
        f"From the best: {order}. The paper's differences are of 34-layer nets on ImageNet, ten crops (table 3): any "
        "shortcut is far better than none, and what projections add to the identity is small. "
        f"With {seeds} seed{'s' if seeds > 1 else ''} differences of half a point between A, B and C mean nothing: "
        "five runs of the paper's ResNet-110 spread over 0.3 points."
    )


def _by_option(rows):
    found = {}
    for option in sorted({row["option"] for row in rows}, key=lambda option: [*OPTIONS, option].index(option)):
        found[option] = [row for row in rows if row["option"] == option]
    return found
