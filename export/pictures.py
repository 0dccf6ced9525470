"""Pictures of the card: accuracy against size and latency, and how mixed formats chose their blocks.

Drawn from the card's plain data alone, without pyplot's state.
"""

import os

import numpy as np
from matplotlib.figure import Figure

CARD, SCAN = "card.png", "{}.png"  # of all files; of the format of that name
WRITTEN, FAILED, LINE = "#1f5fa8", "#c0392b", "#777777"
MOST_BARS = 40  # blocks that can be read
LEAST_SPAN = 1  # points of top-1 that the axis shows below the Keras model, so that nothing looks steep that is not
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
    span = max(LEAST_SPAN, 1.3 * max(drops, default=0))
    bottom, top = max(expected - span, 0), max([expected, *(100 * artifact["top1"] for artifact in made.values())])
    size.set(xlabel="size of the file, MB (10⁶ bytes)", ylabel=f"top-1 on {images:,} test images, %")
    size.set_ylim(bottom - 0.2 * span, top + 0.5 * span)
    size.set_yticks([tick for tick in size.get_yticks() if bottom <= tick <= 100])
    latency.set(xlabel=f"latency of a call, median, one thread, ms (images a call: {report['batch_size']})")
    sizes = {name: artifact["bytes"] / 1e6 for name, artifact in made.items()}
    times = {name: a["latency_ms"]["1"]["median"] for name, a in made.items() if "1" in a["latency_ms"]}
    for axes, values in ((size, sizes), (latency, times)):
        axes.axhline(expected, color=LINE, linestyle="--", linewidth=1, label=f"Keras model, {expected:.2f} %")
        _scale(axes, [*values.values()])
    size.legend(loc="lower right", frameon=False)
    unmade = ", ".join(name for name in report["artifacts"] if name not in made)
    title = f"{report['model']['name']}: {len(made)} files, scored on {report['data']['eval_data']}"
    failed = ". Red: failed, not written" if any(artifact["failures"] for artifact in made.values()) else ""
    figure.suptitle(title + failed + (f". Not made: {unmade}" if unmade else ""))
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
    shown = dict([*scan["errors"].items()][:MOST_BARS])
    figure = Figure(figsize=(13, max(5.5, 1.5 + 0.22 * len(shown))), layout="constrained")
    bars, curve = figure.subplots(1, 2)
    _draw_errors(bars, scan, shown)
    points = _draw_steps(curve, scan)
    figure.suptitle(f"{report['model']['name']}, {name}: blocks in float against accuracy")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    _label(curve, points)
    return figure


def _draw_errors(bars, scan, shown):
    """A bar for each of the blocks shown, dict from its name to its error."""
    colours = [FAILED if block in scan["float_blocks"] else WRITTEN for block in shown]
    bars.barh(range(len(shown)), [100 * error for error in shown.values()], color=colours)
    bars.set_yticks(range(len(shown)), [*shown])
    bars.invert_yaxis()
    bars.set(xlabel="error of the scores where this block alone is int8, % (root mean square)")
    bars.set_title(
        f"{len(shown)} of {len(scan['errors'])} blocks, on {scan['scanned_images']} calibration images. "
        "Red: stays in float",
        fontsize=10,
    )


def _draw_steps(curve, scan):
    """Size against accuracy as more and more blocks stay in float; returns the points to mark, as of `_label`."""
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
    return [
        (x, y, str(step["num_float"]), FAILED if step["num_float"] == chosen else WRITTEN, "o")
        for step, x, y in zip(steps, sizes, top1, strict=True)
    ]


def _scale(axes, values):
    """From zero, or logarithmic where the largest is over ten times the smallest."""
    if values and max(values) > 10 * min(values):
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 2)
        axes.xaxis.set_major_formatter("{x:g}")
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
    lines = [line.get_window_extent().extents for line in axes.lines if np.ptp(line.get_ydata()) == 0]
    taken += [(left, bottom - 2, right, top + 2) for left, bottom, right, top in lines]
    for x, y, text, colour, marker in points:
        axes.plot(x, y, marker, color=colour, markersize=7)
        offset, box = _free_place(axes, (x, y, text), taken)
        taken.append(box)
        axes.annotate(
            text,
            (x, y),
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            color=colour,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
            arrowprops={"arrowstyle": "-", "color": LINE, "linewidth": 0.5, "shrinkB": 4},
        )


def _free_place(axes, note, taken):
    """Offset from its point, in typographic points, where a note covers least, the nearest first; and its box there."""
    text = axes.text(*note, ha="center", va="center")
    box = text.get_window_extent().extents
    text.remove()
    dots, found = axes.figure.dpi / 72, []
    for x, y in OFFSETS:
        shift = np.array([x * dots + np.sign(x) * (box[2] - box[0]) / 2, y * dots])
        moved = box + np.tile(shift, 2)
        covered = sum(_overlap(moved, other) for other in taken) + _outside(moved, axes.bbox.extents)
        found.append((covered, len(found), shift / dots, moved))
        if covered == 0:
            break
    return min(found, key=lambda one: one[:2])[2:]


def _overlap(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0) * max(height, 0)


def _outside(box, frame):
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
