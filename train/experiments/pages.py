"""What an experiment leaves behind: NAME.csv, NAME.png, and NAME.md with the paper's figures beside ours."""

import csv
import dataclasses
import os

import matplotlib

from train.run_folder import written_aside

matplotlib.use("Agg")

from matplotlib import pyplot as plt

PAPERS_DATA = "tfds:cifar10"
# One colour a depth, as long as there are; the paper draws a net's training error dashed and its test error solid.
COLOURS = ("#e0a100", "#00a0b0", "#2e8b3d", "#c0392b", "#30343f", "#7d3c98")


@dataclasses.dataclass(frozen=True)
class Fact:
    """One figure beside the paper's.

    Attributes:
        what: in words, with unit.
        paper: a number, or words where the paper shows it in a picture alone; "" where it says nothing.
        ours: a number or words.
    """

    what: str
    paper: float | str
    ours: float | str

    @property
    def difference(self):
        """Ours minus the paper's, where both are numbers."""
        if isinstance(self.paper, str) or isinstance(self.ours, str):
            return ""
        return f"{round(self.ours - self.paper, 2) + 0.0:+,.2f}"  # + 0.0: no minus before nothing


def number(value):
    """A figure of a table: whole numbers by thousands, others to two places."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def mean(values):
    """Mean of a list of floats."""
    return sum(values) / len(values)


def spread(values):
    """The mean, with the extremes where there are several: "8.75 (8.60 to 8.91, n=3)"."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f}, n={len(values)})"


def write(folder, name, rows, draw, text):
    """Writes the three files, each whole or not at all; earlier ones are replaced.

    Args:
        folder: made if need be.
        name: of the experiment.
        rows: list of dicts with the same keys, or of fewer: a missing value is empty.
        draw: function of the rows that returns a matplotlib figure.
        text: of the Markdown file.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with written_aside(os.path.join(folder, f"{name}.csv")) as aside, open(aside, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    figure = draw(rows)
    with written_aside(os.path.join(folder, f"{name}.png")) as aside:
        figure.savefig(aside, dpi=120)
    plt.close(figure)
    with written_aside(os.path.join(folder, f"{name}.md")) as aside, open(aside, "w", encoding="utf-8") as file:
        file.write(text)


def page(title, source, picture, facts, paragraph):
    """The Markdown text: picture, table of facts, paragraph.

    Args:
        title: of the experiment.
        source: where the paper has it.
        picture: file name of the picture beside the page.
        facts: list of `Fact`.
        paragraph: what is to be seen, and what is not.
    Returns:
        str.
    """
    lines = [f"# {title}", "", f"{source}.", "", f"![{title}]({picture})", ""]
    lines += ["| | paper | ours | difference |", "| --- | --: | --: | --: |"]
    lines += [f"| {fact.what} | {number(fact.paper)} | {number(fact.ours)} | {fact.difference} |" for fact in facts]
    return "\n".join([*lines, "", paragraph, ""])


def conditions(runs):
    """The line that says how nets were trained."""
    if not runs:
        return ""
    config = runs[0].config
    seeds = sorted({run.config.seed for run in runs})
    return (
        f"Trained on {config.data} for {config.epochs} epochs (the paper: 64,000 steps of 128 images of CIFAR-10, 182 "
        f"epochs), batch {config.batch_size}, rate {config.learning_rate:g} divided by 10 at half and three quarters, "
        f"weight decay {config.weight_decay:g}, float32, seeds {', '.join(map(str, seeds))}."
        + ("" if config.data == PAPERS_DATA else f" The paper's figures are not of {config.data}.")
    )


def by_net(rows):
    """Rows of each net, in the order of their first."""
    found = {}
    for row in rows:
        found.setdefault(row["net"], []).append(row)
    return found


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
