"""Deeper plain nets train worse, deeper residual nets better: He 2015, figures 1, 4 and 6, table 2."""

from matplotlib import pyplot as plt

from train import input_pipeline
from train.experiments import pages
from train.experiments.pages import Fact
from train.experiments.paper import CIFAR10_ERROR

TITLE = "Degradation: plain nets against residual nets"


def measure(runs, settings):
    """A row an epoch: errors in per cent over iterations; the last one has the test error.

    Args:
        runs: list of `Run`, trained.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    rows = []
    for run in runs:
        steps = input_pipeline.num_training_batches(run.source(), run.config)
        own = [
            run.columns
            | {
                "epoch": int(row["epoch"]),
                "iteration": int(row["epoch"]) * steps,
                "training_error": 100 * (1 - row["accuracy"]),
                "validation_error": 100 * (1 - row["val_accuracy"]),
                "learning_rate": row["learning_rate"],
            }
            for row in run.history()
        ]
        own[-1]["test_error"] = run.test_error()
        rows += own
    return rows


def draw(rows):
    """Two panels, plain nets left and residual nets right: training error dashed, validation error solid."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    colours = dict(zip(sorted({row["layers"] for row in rows}), pages.COLOURS, strict=False))
    for axes, kind in zip(panels, ("plain", "residual"), strict=True):
        for (title, seed), curve in _curves(rows, kind).items():
            colour, iterations = colours[curve[0]["layers"]], [row["iteration"] / 1000 for row in curve]
            label = title if seed == min(row["seed"] for row in rows) else None
            axes.plot(iterations, [row["training_error"] for row in curve], "--", color=colour, linewidth=1)
            axes.plot(iterations, [row["validation_error"] for row in curve], color=colour, linewidth=2, label=label)
            axes.annotate(f"{curve[0]['layers']}-layer", (iterations[-1], curve[-1]["validation_error"]), color=colour,
                          xytext=(4, 0), textcoords="offset points", va="center", fontsize=9)  # fmt: skip
        axes.set(title=f"{kind} nets", xlabel="iterations (thousands)", xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.margins(x=0.12)
        if axes.lines:
            axes.legend(loc="upper right")
    top = max(sorted(row["validation_error"] for row in rows)[int(0.9 * len(rows))], 20)
    panels[0].set(ylabel="error (%)", ylim=(0, min(100, top)))
    figure.suptitle("dashed: training error, solid: error on held-out images", fontsize=10)
    return figure


def tell(rows):
    """Facts and a paragraph.

    Args:
        rows: of `measure`.
    Returns:
        list of `Fact`, and str.
    """
    facts, trained, last = [], {}, _last_rows(rows)
    for title, ends in last.items():
        paper = CIFAR10_ERROR.get(title, "")
        facts.append(Fact(f"{title}, test error (%)", paper, pages.mean([row["test_error"] for row in ends])))
        trained[title] = [row["training_error"] for row in ends]
    sentences = []
    for kind, expected, reads in (
        ("plain", "above 0 (figure 6, left)", lambda gap: gap > 0),
        ("residual", "below 0 (figure 6, middle)", lambda gap: gap <= 0),
    ):
        titles = sorted((t for t in last if last[t][0]["kind"] == kind), key=lambda t: last[t][0]["layers"])
        if len(titles) < 2:
            continue
        shallow, deep = titles[0], titles[-1]
        gap = pages.mean(trained[deep]) - pages.mean(trained[shallow])
        facts.append(Fact(f"training error of {deep} minus {shallow} (points)", expected, gap))
        sentences.append(_reading(shallow, deep, gap, reads(gap)))
    return facts, " ".join([*sentences, LIMITS])


LIMITS = (
    "The training error is the running one, of augmented images, as in the paper; the solid curves are of the held-out "
    "training images, the paper's of the test images, which are scored once here, at the end."
)


def _reading(shallow, deep, gap, as_paper):
    relation = "above" if gap > 0 else "below"
    sentence = f"{deep} ends {abs(gap):.2f} points {relation} {shallow} in training error"
    if as_paper:
        return f"{sentence}, as in the paper."
    return f"{sentence}, unlike in the paper: so few epochs of these images do not show it."


def _curves(rows, kind):
    """Rows of each (net, seed) of a kind, in order of depth."""
    curves = {}
    for row in sorted(rows, key=lambda row: (row["layers"], row["seed"], row["epoch"])):
        if row["kind"] == kind:
            curves.setdefault((row["net"], row["seed"]), []).append(row)
    return curves


def _last_rows(rows):
    """The rows with a test error, by net."""
    last = {}
    for row in rows:
        if "test_error" in row:
            last.setdefault(row["net"], []).append(row)
    return last
