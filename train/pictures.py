"""Pictures: the confusion matrix, and contact sheets of training images and of a model's worst mistakes."""

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot as plt

MOST_NAMED = 30  # classes up to which ticks have names and cells have numbers
GAMMA = 1 / 3  # of the colours, so that mistakes of two per cent show beside a diagonal of ninety


def draw_confusion(path, counts, titles):
    """The confusion matrix: colour is the share of a class's images, numbers count them.

    Classes that neither occur nor are answered are left out.

    Args:
        path: of the picture.
        counts: int (classes, classes), of `train.scoring.confusion`.
        titles: names of the classes.
    """
    (shown,) = np.nonzero(counts.sum(axis=0) + counts.sum(axis=1))
    counts, is_named = counts[np.ix_(shown, shown)], len(shown) <= MOST_NAMED
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = np.clip(2.5 + 0.45 * len(shown), 5, 12)  # inches; 1,000 classes have a pixel each at 120 dots an inch
    figure, axes = plt.subplots(figsize=(side + 1, side), layout="constrained")
    image = axes.imshow(shares, cmap="Blues", norm=matplotlib.colors.PowerNorm(GAMMA, 0, 1), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="share of the class's images")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], labels=["0", "1%", "5%", "10%", "25%", "50%", "100%"])
    axes.set(xlabel="answer of the model", ylabel="class of the image", xticks=[], yticks=[])
    if is_named:
        names = [short(titles[label], 20) for label in shown]
        axes.set_xticks(range(len(shown)), names, rotation=90 if max(map(len, names)) > 3 else 0)
        axes.set_yticks(range(len(shown)), names)
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.2 else "black"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    right = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{counts.sum():,} images, {len(shown):,} classes, {right:.2%} right", fontsize=10)
    _save(figure, path)


def draw_worst(path, mistakes, heading):
    """Contact sheet of mistakes, each with the model's answer, its confidence, and the image's class.

    Args:
        path: of the picture.
        mistakes: list of (uint8 (h, w, c), answer's name, confidence from 0 to 1, class's name).
        heading: line above the sheet.
    """
    captioned = [
        (image, f"{short(answer, 26)}? {confidence:.0%}\nis: {short(label, 30)}")
        for image, answer, confidence, label in mistakes
    ]
    draw_sheet(path, captioned, heading, columns=5)


def draw_sheet(path, captioned, heading, columns):
    """Contact sheet of images with captions.

    Args:
        path: of the picture.
        captioned: list of (uint8 (h, w, c), caption of at most two lines).
        heading: line above the sheet.
        columns: images side by side.
    """
    rows = max(1, -(-len(captioned) // columns))
    figure, grid = plt.subplots(
        rows, columns, figsize=(2.5 * columns, 2.9 * rows + 0.5), layout="constrained", squeeze=False
    )
    for axes in grid.flat:
        axes.axis("off")
        axes.set_anchor("NW")  # captions in one line, whatever the pictures' proportions
    for axes, (image, caption) in zip(grid.flat, captioned, strict=False):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=10, loc="left")
    figure.suptitle(heading, fontsize=12)
    _save(figure, path)


def short(name, width):
    """A class's name in at most `width` characters."""
    name = name.replace("_", " ")
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _save(figure, path):
    figure.savefig(path, dpi=120)
    plt.close(figure)
