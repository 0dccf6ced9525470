"""Pictures of the card: accuracy against size and latency, and how mixed formats chose their blocks.

Drawn from the card's plain data alone, without pyplot's state.
"""

import os

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

CARD, SCAN = "card.png", "{}.png"  # of all files; of the format of that name
WRITTEN, FAILED, LINE = "#1f5fa8", "#c0392b", "#777777"
MOST_BARS = 40  # blocks that can be read
LEAST_SPAN = 2  # points of top-1 that the axis shows below the Keras model, so that nothing looks steep that is not
# Where a label may stand beside its point, in typographic points: near before far.
OFFSETS = [
    (distance * x, distance * y)
    for distance in (9, 18, 30, 44, 60, 78, 98, 120)
    for x, y in ((0, 1), (0, -1), (1, 0), (-1, 0), (0.8, 0.8), (0.8, -0.8), (-0.8, 0.8), (-0.8, -0.8))
]


def draw(report, folder):
    """Draws what the card shows.

    Args:
        report: dict of `card.make`.
        folder: where the pictures go.
    """
    _draw_card(report).savefig(os.path.join(folder, CARD), dpi=120)
    for name, artifact in report["artifacts"].items():
        if artifact["scan"]:
            _draw_scan(report, name).savefig(os.path.join(folder, SCAN.format(name)), dpi=120)


def _draw_card(report):
    made = {name: artifact for name, artifact in report["artifacts"].items() if artifact["bytes"] is not None}
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    size, latency = figure.subplots(1, 2, sharey=True)
    expected, images = 100 * report["model"]["top1"], report["data"]["num_images"]
    drops = [expected - 100 * artifact["top1"] for artifact in made.values() if not artifact["failures"]]
    bottom = max(expected - max(LEAST_SPAN, 1.3 * max(drops, default=0)), 0)
    rises = [100 * artifact["top1"] - expected for artifact in made.values()]
    size.set(xlabel="size of the file, MB (10⁶ bytes)", ylabel=f"top-1 on {images:,} test images, %")
    size.set_ylim(bottom - 0.6, expected + max(max(rises, default=0), 0) + 0.6)
    latency.set(xlabel=f"latency of a call, median, one thread, ms (images a call: {report['batch_size']})")
    sizes = {name: artifact["bytes"] / 1e6 for name, artifact in made.items()}
    times = {name: a["latency_ms"]["1"]["median"] for name, a in made.items() if "1" in a["latency_ms"]}
    for axes, values in ((size, sizes), (latency, times)):
        axes.axhline(expected, color=LINE, linestyle="--", linewidth=1, label=f"Keras model, {expected:.2f} %")
        _scale(axes, [*values.values()])
    size.legend(loc="lower right", frameon=False)
    unmade = ", ".join(name for name in report["artifacts"] if name not in made)
    title = f"{report['model']['name']}: {len(made)} files, scored on {report['data']['eval_data']}"
    figure.suptitle(title + (f". Not made: {unmade}" if unmade else "") + ". Red: failed, not written")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed by what is where now
    for axes, values in ((size, sizes), (latency, times)):
        _label(axes, [_point(name, made[name], value, bottom) for name, value in values.items()])
    return figure


def _point(name, artifact, x, bottom):
    """(x, y, text, colour, marker); what lies below the axis stands at its edge with its value."""
    top1, failed = 100 * artifact["top1"], bool(artifact["failures"])
    is_below = top1 < bottom
    text = f"{name}, {top1:.2f} %" if is_below else name
    return (
        x,
        max(top1, bottom),
        text,
        FAILED if failed else WRITTEN,
        "v" if is_below else "X" if failed else "o",
    )


def _draw_scan(report, name):
    scan = report["artifacts"][name]["scan"]
    shown = [*scan["errors"].items()][:MOST_BARS]
    figure = Figure(figsize=(13, max(5.5, 1.5 + 0.22 * len(shown))), layout="constrained")
    bars, curve = figure.subplots(1, 2)
    colours = [FAILED if block in scan["float_blocks"] else WRITTEN for block, _ in shown]
    bars.barh(range(len(shown)), [100 * error for _, error in shown], color=colours)
    bars.set_yticks(range(len(shown)), [block for block, _ in shown])
    bars.invert_yaxis()
    bars.set(xlabel="error of the scores where this block alone is int8, % (root mean square)")
    bars.set_title(
        f"{len(shown)} of {len(scan['errors'])} blocks, on {scan['scanned_images']} calibration images. "
        "Red: stays in float",
        fontsize=10,
    )
    steps, expected = scan["steps"], 100 * scan["held_out_top1"]
    sizes, top1 = [step["bytes"] / 1e6 for step in steps], [100 * step["top1"] for step in steps]
    allowed = expected - scan["max_top1_drop"]
    curve.plot(sizes, top1, color=WRITTEN, linewidth=1)
    curve.axhline(expected, color=LINE, linestyle="--", linewidth=1, label=f"Keras model, {expected:.2f} %")
    curve.axhline(allowed, color=LINE, linestyle=":", linewidth=1.5, label=f"lowest allowed, {allowed:.2f} %")
    curve.set(xlabel="size of the file, MB (10⁶ bytes)")
    curve.set_ylabel(f"top-1 on {scan['held_out_images']:,} held-out images, %")
    span = max(max(top1) - min(*top1, allowed), 0.5)
    curve.set_ylim(min(*top1, allowed) - 0.2 * span, max(*top1, expected) + 0.25 * span)
    curve.margins(x=0.12)
    curve.legend(loc="lower right", frameon=False)
    chosen = len(scan["float_blocks"])
    curve.set_title(f"number of blocks in float at each point; chosen: {chosen}", fontsize=10)
    figure.suptitle(f"{report['model']['name']}, {name}: blocks in float against accuracy")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    points = [
        (x, y, str(step["num_float"]), FAILED if step["num_float"] == chosen else WRITTEN, "o")
        for step, x, y in zip(steps, sizes, top1, strict=True)
    ]
    _label(curve, points)
    return figure


def _scale(axes, values):
    """From zero, or logarithmic where the largest is over ten times the smallest."""
    if values and max(values) > 10 * min(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 2)
    elif values:
        axes.set_xlim(0, 1.15 * max(values))


def _label(axes, points):
    """Marks points, and writes beside each its text where no other text or mark stands.

    Args:
        axes: whose limits and place in the figure no longer change.
        points: list of (x, y, text, colour, marker).
    """
    places = axes.transData.transform([(x, y) for x, y, *_ in points]).reshape(-1, 2)
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    if axes.get_legend():
        taken.append(axes.get_legend().get_window_extent().extents)
    for x, y, text, colour, marker in points:
        axes.plot(x, y, marker, color=colour, markersize=7)
        note = axes.annotate(
            text,
            (x, y),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": LINE, "linewidth": 0.5, "shrinkB": 4},
        )
        taken.append(_place(note, taken, axes.bbox.extents))


def _place(note, taken, frame):
    """Moves a note to the first free place, or to where it covers least; returns (left, bottom, right, top)."""
    found = []
    # The text's own extents: the note's include its arrow.
    left, bottom, right, top = Text.get_window_extent(note).extents
    width = (right - left) / 2
    dots = note.figure.dpi / 72
    for x, y in OFFSETS:
        shift = np.array([x * dots + np.sign(x) * width, y * dots, x * dots + np.sign(x) * width, y * dots])
        box = np.array([left, bottom, right, top]) + shift
        covered = sum(_overlap(box, other) for other in taken) + _outside(box, frame)
        found.append((covered, len(found), box, (shift[0] / dots, shift[1] / dots)))
        if covered == 0:
            break
    _, _, box, offset = min(found, key=lambda one: one[:2])
    note.set_position(offset)
    return box


def _overlap(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0)


def _outside(box, frame):
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
