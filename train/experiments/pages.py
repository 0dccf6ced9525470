"""What an experiment leaves behind: NAME.csv, NAME.png, and NAME.md with the paper's figures beside ours."""

import csv
import dataclasses
import os

import matplotlib

from train.experiments.seeds import mean
from train.run_folder import written_aside

matplotlib.use("Agg")

from matplotlib import pyplot as plt

CIFAR10, IMAGENET = "tfds:cifar10", "ImageNet"  # data that the papers' figures are of
IMAGENET_IMAGES = 50_000  # of its validation set
# One colour a depth, as long as there are; the paper draws a net's training error dashed and its test error solid.
COLOURS = ("#e0a100", "#00a0b0", "#2e8b3d", "#c0392b", "#30343f", "#7d3c98")
BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.15), "fontsize": 9}  # where a legend covers no curve


@dataclasses.dataclass(frozen=True)
class Fact:
    """One figure beside the paper's.

    Attributes:
        what: in words, with unit.
        paper: a number, or words where the paper shows it in a picture alone; "" where it says nothing.
        ours: a number, a list with one a seed, or words.
        data: that the paper's number is of; "" where it depends on none.
    """

    what: str
    paper: float | str
    ours: float | list | str
    data: str = ""

    def difference(self, data):
        """Ours minus the paper's, where both are numbers of the same data."""
        if isinstance(self.paper, str) or isinstance(self.ours, str) or self.data not in ("", data):
            return ""
        ours = mean(self.ours) if isinstance(self.ours, list) else self.ours
        return f"{round(ours - self.paper, 2) + 0.0:+,.2f}"  # + 0.0: no minus before nothing


def data_of(settings, rows):
    """What our figures are of: `--data`, or ImageNet where all of its validation images were scored.

    Args:
        settings: `Settings`.
        rows: of the experiment.
    Returns:
        str.
    """
    is_imagenet = settings.weights and {row["num_images"] for row in rows} == {IMAGENET_IMAGES}
    return IMAGENET if is_imagenet else settings.data


def number(value):
    """A figure of a table: whole numbers by thousands, small ones to two digits, others to two places."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return spread(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:,.2f}"


def spread(values):
    """The mean, with the extremes where there are several: "8.75 (8.60 to 8.91, n=3)"."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(mean(values))} ({number(min(values))} to {number(max(values))}, n={len(values)})"


def colour(place):
    """The colour of the so-manieth curve; after the last the first comes again."""
    return COLOURS[place % len(COLOURS)]


def colours(rows):
    """A colour for each net, the same for plain-20 and ResNet-20, another for ResNet-20 (C): dict by title."""
    ordered = sorted(rows, key=lambda row: (row["layers"], row["net"].partition("-")[2]))
    places = list(dict.fromkeys(row["net"].partition("-")[2] for row in ordered))
    return {row["net"]: colour(places.index(row["net"].partition("-")[2])) for row in ordered}


def write(folder, name, rows, draw, text, data):
    """Writes the three files, each whole or not at all; earlier ones are replaced.

    Args:
        folder: made if need be.
        name: of the experiment.
        rows: list of dicts with the same keys, or of fewer: a missing value is empty.
        draw: function of the rows that returns a matplotlib figure.
        text: of the Markdown file.
        data: that the picture is headed with; "" for none.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with written_aside(os.path.join(folder, f"{name}.csv")) as aside, open(aside, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    figure = draw(rows)
    heading = ", ".join(part for part in (figure.get_suptitle(), data) if part)
    if heading:
        figure.suptitle(heading, fontsize=10)
    with written_aside(os.path.join(folder, f"{name}.png")) as aside:
        figure.savefig(aside, dpi=120)
    plt.close(figure)
    with written_aside(os.path.join(folder, f"{name}.md")) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(text)


def page(title, source, picture, data, facts, paragraphs):
    """The Markdown text: picture, table of facts, paragraphs.

    Args:
        title: of the experiment.
        source: where the paper has it.
        picture: file name of the picture beside the page.
        data: that our figures are of.
        facts: list of `Fact`.
        paragraphs: list of str; empty ones are left out.
    Returns:
        str.
    """
    lines = [f"# {title}", "", f"{source}.", "", f"![{title}]({picture})", ""]
    lines += ["| | paper | ours | difference |", "| --- | --: | --: | --: |"]
    lines += [
        f"| {fact.what} | {number(fact.paper)} | {number(fact.ours)} | {fact.difference(data)} |" for fact in facts
    ]
    return "\n".join([*lines, *(line for text in paragraphs if text for line in ("", text)), ""])


def drawn_table(header, cells, height=0.35):
    """A table as a picture.

    Args:
        header: list of str, one a column.
        cells: list of rows.
        height: of a row, in inches.
    Returns:
        matplotlib figure.
    """
    figure, axes = plt.subplots(figsize=(1.9 * len(header), height * (len(cells) + 1)), layout="constrained")
    axes.axis("off")
    table = axes.table(cells, colLabels=header, loc="center", cellLoc="center", bbox=(0, 0, 1, 1))
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, column), cell in table.get_celld().items():
        cell.set_height(cell.get_height() * (0.5 if row == 0 and height > 0.5 else 1))
        cell.set_edgecolor("#b0b0b0")
        cell.set_facecolor("#e8eef4" if row == 0 or column == 0 else "white")
    return figure
