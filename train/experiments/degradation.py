"""Deeper plain nets train worse, deeper residual nets better: He 2015, figures 1, 4 and 6, table 2."""

from matplotlib import pyplot as plt

from train import input_pipeline
from train.experiments import moments, pages, seeds
from train.experiments.pages import CIFAR10, Fact
from train.experiments.paper import CIFAR10_ERROR, STEPS

TITLE = "Degradation: plain nets against residual nets"
KINDS = ("plain", "residual")
MOST_TESTED = 24  # epochs after which test images are scored, evenly spread


def measure(runs, settings):
    """A row an epoch: errors in per cent over iterations; the test error where the checkpoint was kept, and at the end.

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
        for epoch, error in _test_errors(run).items():
            own[epoch - 1]["test_error"] = error
        rows += own
    return rows


def _test_errors(run):
    """Test error in per cent by the number of epochs done."""
    model = run.model()
    tested = run.tester(model)
    errors = {run.config.epochs: tested()["test_error"]}
    for epoch in moments.visit(run, model.variables, MOST_TESTED):
        if epoch not in errors:  # the last checkpoint is the model
            errors[epoch] = tested()["test_error"]
    return errors


def draw(rows):
    """Two panels, plain nets left and residual nets right: training error dashed, test or held-out error solid.

    Seeds after the first are faint.
    """
    figure, panels = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    colours, first = pages.colours(rows), min(row["seed"] for row in rows)
    solid = ("test_error", "-", "test") if _has_curves(rows) else ("validation_error", "-", "held-out")
    for axes, kind in zip(panels, KINDS, strict=True):
        for (title, seed), curve in _curves(rows, kind).items():
            style = {"color": colours[title], "linewidth": 1.5, "alpha": 1 if seed == first else 0.35}
            for name, line, words in (("training_error", "--", "training"), solid):
                label, drawn = f"{title}, {words}" if seed == first else None, [row for row in curve if name in row]
                points = [row["iteration"] / 1000 for row in drawn], [row[name] for row in drawn]
                axes.plot(*points, line, label=label, **style)
        axes.set(title=f"{kind} nets", xlabel="iterations (thousands)", ylim=(0, None))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(**pages.BELOW, ncols=2)
    panels[0].set(ylabel="error (%)")
    return figure


def tell(rows):
    """Facts and a paragraph.

    Args:
        rows: of `measure`.
    Returns:
        list of `Fact`, and str.
    """
    facts, sentences, nets = [], [], seeds.by_net(rows)
    for title, own in nets.items():
        ends = [row for row in own if row["epoch"] == own[-1]["epoch"]]
        facts.append(Fact(f"{title}, training error (%)", "", seeds.of_seeds(ends, "training_error")))
        errors = seeds.of_seeds(ends, "test_error")
        facts.append(Fact(f"{title}, test error (%)", CIFAR10_ERROR.get(title, ""), errors, CIFAR10))
    for kind, paper in (("plain", "above 0 (figure 6, left)"), ("residual", "below 0 (figure 6, middle)")):
        titles = [title for title, own in nets.items() if own[0]["kind"] == kind]
        titles.sort(key=lambda title: nets[title][0]["layers"])
        if len({nets[title][0]["layers"] for title in titles}) > 1:
            shallow, deep = nets[titles[0]], nets[titles[-1]]
            gaps = _gaps(shallow, deep, shallow[-1]["epoch"])
            facts.append(Fact(f"training error of {titles[-1]} minus {titles[0]} (points)", paper, gaps))
            sentences.append(_reading(shallow, deep, gaps))
    return facts, " ".join([*sentences, seeds.doubt(rows), *_unfinished(rows), RUNNING, *_held_out(rows)])


RUNNING = "The training error is the running one, of augmented images, as in the paper."


def _has_curves(rows):
    """Whether test images were scored after most epochs of every net, or of those that are visited."""
    curves = [curve for kind in KINDS for curve in _curves(rows, kind).values()]
    return all(2 * sum("test_error" in row for row in curve) > min(len(curve), MOST_TESTED) for curve in curves)


def _held_out(rows):
    """The sentence on test images that were scored at the end alone, in a list; else none."""
    if _has_curves(rows):
        return []
    return [
        "The solid curves are of the held-out training images, the paper's of the test images, which are scored once "
        "here, at the end: the checkpoints of these runs were not kept."
    ]


def _gaps(shallow, deep, epoch):
    """Training error of the deep net minus the shallow one's after an epoch, in points: list, one a seed."""
    ones, others = ([row for row in own if row["epoch"] == epoch] for own in (deep, shallow))
    return seeds.minus(seeds.of_seeds(ones, "training_error"), seeds.of_seeds(others, "training_error"))


def _reading(shallow, deep, gaps):
    """What the ends of two curves show, and how they came there."""
    shown, is_plain = seeds.direction(gaps), shallow[0]["kind"] == "plain"
    relation = {1: "above", -1: "below", 0: "level with"}[shown]
    verdict = {
        (True, 1): "the degradation of the paper",
        (True, 0): "unlike in the paper, no degradation is seen",
        (True, -1): "unlike in the paper, no degradation is seen",
        (False, -1): "as in the paper",
        (False, 0): "no degradation, though not yet the paper's gain",
        (False, 1): "unlike in the paper, where the deeper residual net is the better one",
    }[is_plain, shown]
    half = shallow[-1]["epoch"] // 2
    earlier = ""
    if half:
        before = seeds.mean(_gaps(shallow, deep, half))
        course = "narrower" if abs(seeds.mean(gaps)) < abs(before) else "no narrower"
        earlier = f", {before:+.2f} at half of the run, so that the gap is {course} since the rate fell"
    return (
        f"{deep[0]['net']} ends {relation} {shallow[0]['net']} in training error ({seeds.mean(gaps):+.2f} "
        f"points{earlier}): {verdict}."
    )


def _unfinished(rows):
    """The sentence that a run shorter than the paper's needs, in a list; else none."""
    steps = max(row["iteration"] for row in rows)
    if steps >= STEPS:
        return []
    return [
        f"These are {steps:,} steps of the paper's {STEPS:,}, under one schedule for all nets: how they end after "
        "all of them is not shown, and a net that is slower cannot be told from one that is worse in the end."
    ]


def _curves(rows, kind):
    """Rows of each (net, seed) of a kind, in order of depth."""
    curves = {}
    for row in sorted(rows, key=lambda row: (row["layers"], row["seed"], row["epoch"])):
        if row["kind"] == kind:
            curves.setdefault((row["net"], row["seed"]), []).append(row)
    return curves
