"""More views of a photograph: one crop, ten crops, several scales: He 2015, tables 3 and 4."""

import numpy as np
from matplotlib import pyplot as plt

from train import data, network, predictor, scoring, views
from train.experiments import pages, seeds
from train.experiments.nets import Net
from train.experiments.pages import IMAGENET, Fact
from train.experiments.paper import MULTI_SCALE_ERROR, ONE_CROP_ERROR, TEN_CROP_ERROR

TITLE = "Testing with one crop, ten crops and several scales"
ONE, TEN, SCALES = "1 crop", "10 crops", "scales"
PAPER, REFERENCE = {ONE: ONE_CROP_ERROR, TEN: TEN_CROP_ERROR, SCALES: MULTI_SCALE_ERROR}, "ResNet-50"
RATIOS = (1, 256 / 224, 384 / 224, 480 / 224, 640 / 224)  # He 2015, section 3.4: {224, 256, 384, 480, 640}


def measure(runs, settings):
    """A row a net and way of testing: top-1 and top-5 error in per cent.

    Args:
        runs: list of `Run`, trained; where there are published weights, none.
        settings: `Settings`; its weights replace the runs.
    Returns:
        list of dicts.
    """
    if settings.weights:
        return [row for net, weights in settings.weights.items() for row in _of_published(net, weights, settings)]
    return [row for run in runs for row in _rows((run.net.title, run.config.seed), run.model(), run.source())]


def _of_published(net, weights, settings):
    model = network.published(net, weights)
    options = {"data_dir": settings.data_dir, "class_index": settings.class_index}
    source = data.load_for_model(
        net, model.input_shape[1:], settings.data, preprocessing=model.preprocessing, **options
    )
    return _rows((Net(net).title, ""), model, source)


def _rows(which, model, source):
    scales = tuple(round(source.image_shape[0] * ratio) for ratio in RATIOS)
    rows = []
    for way, options in ((ONE, {}), (TEN, {"crops": 10}), (SCALES, {"scales": scales})):
        found = predictor.from_keras(predictor.for_any_size(model) if way == SCALES else model)
        outputs, labels = views.predict(found, source, "test", **options)
        scores = scoring.score(outputs, labels)
        rows.append(
            dict(zip(("net", "seed"), which, strict=True))
            | {"views": way, "num_views": {ONE: 1, TEN: 10, SCALES: len(scales)}[way]}
            | {"scales": " ".join(map(str, scales)) if way == SCALES else ""}
            | {"top1_error": 100 * (1 - scores.top1), "top5_error": 100 * (1 - scores.top5)}
            | {"loss": scores.loss, "num_images": scores.num_images}
        )
    return rows


def draw(rows):
    """Bars of the error, a group a net."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    nets = _errors(rows)
    for place, way in enumerate(PAPER):
        errors = [seeds.mean(of_net[way]) for of_net in nets.values()]
        bars = axes.bar(np.arange(len(nets)) + 0.25 * (place - 1), errors, 0.23, color=pages.COLOURS[place], label=way)
        axes.bar_label(bars, fmt="%.1f", fontsize=9)
    axes.set_xticks(range(len(nets)), list(nets))
    axes.set(ylabel="top-1 error (%)")
    axes.margins(y=0.15)
    axes.legend(**pages.BELOW, ncols=3)
    return figure


def _errors(rows):
    """Top-1 errors, lists with one a seed, by net and way of testing."""
    found = {}
    for net, own in seeds.by_net(rows).items():
        found[net] = {way: seeds.of_seeds([row for row in own if row["views"] == way], "top1_error") for way in PAPER}
    return found


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, nets = [], _errors(rows)
    for net, errors in nets.items():
        for way, of_paper in PAPER.items():
            paper = of_paper.get(net, of_paper.get(f"{net} B", ""))  # option B is the default of the ImageNet nets
            facts.append(Fact(f"{net}, {way}: top-1 error (%)", paper, errors[way], IMAGENET))
    gains = [(TEN, ONE, TEN_CROP_ERROR[REFERENCE] - ONE_CROP_ERROR[REFERENCE]),
             (SCALES, TEN, MULTI_SCALE_ERROR[REFERENCE] - TEN_CROP_ERROR[REFERENCE])]  # fmt: skip
    for net, errors in nets.items():
        for one, other, paper in gains:
            words = f"{net}: {one} minus {other} (points; the paper's {REFERENCE})"
            data = IMAGENET if net == REFERENCE else f"{IMAGENET}, {REFERENCE}"
            facts.append(Fact(words, paper, seeds.minus(errors[one], errors[other]), data))
    count = rows[0]["num_images"]
    chance = 100 * np.sqrt(0.25 * 0.75 / count)
    readings = [
        f"{net}: {one} {seeds.relation(errors[one], errors[other], count)} {other}."
        for net, errors in nets.items()
        for one, other, _ in gains
    ]
    return facts, " ".join(readings) + (
        f" Scored on {count:,} images, where one standard error of a top-1 error of 25 % is {chance:.1f} points: "
        "read gains smaller than that as nothing. The views' softmax is averaged, as by Krizhevsky et al. 2012. "
        f"The paper's one crop is that of the released {REFERENCE}."
    )
