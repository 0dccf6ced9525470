"""Options A, B and C for the shortcut, and none, at equal depth: He 2015, table 3."""

from matplotlib import pyplot as plt

from train.experiments import pages, seeds, table6
from train.experiments.nets import NO_SHORTCUT
from train.experiments.pages import IMAGENET, Fact
from train.experiments.paper import CIFAR10_SPREAD, EPOCHS, TEN_CROP_ERROR

TITLE = "Shortcuts: options A, B, C and none"
OPTIONS = {
    NO_SHORTCUT: "no shortcuts: plain",
    "A": "A: identity, zeros where channels are added",
    "B": "B: projections where dimensions change",
    "C": "C: projections everywhere",
}
_PAPER = {NO_SHORTCUT: TEN_CROP_ERROR["plain-34"]} | {option: TEN_CROP_ERROR[f"ResNet-34 {option}"] for option in "ABC"}


def measure(runs, settings):
    """A row a run, as of `table6`, with its option."""
    rows = table6.measure(runs, settings)
    return [{"option": run.net.option} | row for run, row in zip(runs, rows, strict=True)]


def draw(rows):
    """Errors of each option, and what it costs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    found = _by_option(rows)
    names = [OPTIONS.get(option, option) for option in found]
    for place, (option, own) in enumerate(found.items()):
        colour = pages.colour([*OPTIONS, option].index(option))
        for name, marker in (("test_error", "o"), ("training_error", "x")):
            left.plot([row[name] for row in own], [place] * len(own), marker, color=colour, markersize=9)
        right.barh(place, own[0]["parameters"] / 1e3, color=colour, height=0.5)
        right.text(own[0]["parameters"] / 1e3, place, f" {own[0]['multiply_adds'] / 1e6:.2f}e6 multiply-adds",
                   va="center", fontsize=9)  # fmt: skip
    left.set_yticks(range(len(names)), names)
    right.set_yticks([])
    left.set(xlabel="error (%): o test, x training")
    right.set(xlabel="parameters (thousands)")
    right.set_xlim(0, 1.7 * max(row["parameters"] for row in rows) / 1e3)
    for axes in (left, right):
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle(f"{rows[0]['layers']} layers", fontsize=10)
    return figure


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    found = _by_option(rows)
    errors = {option: seeds.of_seeds(own, "test_error") for option, own in found.items()}
    facts = [Fact(f"{OPTIONS.get(option, option)}: test error (%)", "", value) for option, value in errors.items()]
    for one, other in (("A", NO_SHORTCUT), ("B", "A"), ("C", "B")):
        if {one, other} <= {*errors}:
            words = f"{one} minus {other} (points; the paper: 34 layers, ImageNet)"
            facts.append(Fact(words, _PAPER[one] - _PAPER[other], seeds.minus(errors[one], errors[other]), IMAGENET))
    for option, own in found.items():
        facts.append(Fact(f"{option}: parameters", "", own[0]["parameters"]))
        facts.append(Fact(f"{option}: multiply-adds (1e6)", "", own[0]["multiply_adds"] / 1e6))
    order = ", ".join(sorted(errors, key=lambda option: seeds.mean(errors[option])))
    return facts, " ".join([
        f"From the lowest test error: {order}.", *_readings(errors, rows[0]["test_images"]), seeds.doubt(rows),
        _limits(rows),
    ])  # fmt: skip


def _readings(errors, num_images):
    """What the errors of the options, lists with one a seed, show: list of sentences."""
    sentences, options = [], [option for option in errors if option != NO_SHORTCUT]
    if NO_SHORTCUT in errors:
        shown = {option: seeds.compared(errors[option], errors[NO_SHORTCUT], num_images) for option in options}
        for sign, words in (
            (-1, "better than no shortcut, as in the paper"),
            (0, "level with no shortcut; the paper has gains"),
            (1, "worse than no shortcut, unlike in the paper"),
        ):
            of_sign = [option for option in options if shown[option] == sign]
            sentences += [f"{_listed(of_sign)} {words}."] if of_sign else []
    for place, one in enumerate(options):
        for other in options[place + 1 :]:
            sentences.append(f"{other} is {seeds.relation(errors[other], errors[one], num_images)} {one}.")
    return sentences


def _listed(options):
    return f"{options[0]} is" if len(options) == 1 else f"{', '.join(options[:-1])} and {options[-1]} are"


def _limits(rows):
    """What these runs cannot show."""
    epochs = rows[0]["epochs"]
    sentences = [
        f"The paper's differences are of 34 layers on ImageNet, ten crops (table 3), these of {rows[0]['layers']} "
        f"layers; between A, B and C the paper has {_PAPER['B'] - _PAPER['C']:.2f} to "
        f"{_PAPER['A'] - _PAPER['C']:.2f} points."
    ]
    if len({row["seed"] for row in rows}) == 1:
        sentences.append(
            f"One seed and {rows[0]['test_images']:,} test images cannot show differences so small: five runs of the "
            f"paper's ResNet-110 are {CIFAR10_SPREAD}, on 10,000 images."
        )
    if epochs < EPOCHS:
        sentences.append(f"{epochs} epochs of the paper's {EPOCHS} do not show where the nets end either.")
    return " ".join(sentences)


def _by_option(rows):
    found = {}
    for option in sorted({row["option"] for row in rows}, key=lambda option: [*OPTIONS, option].index(option)):
        found[option] = [row for row in rows if row["option"] == option]
    return found
