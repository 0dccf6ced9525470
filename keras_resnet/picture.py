"""A net as a picture: every layer a box, every shortcut an arc, as in figure 3 of He et al. 2015."""

from xml.sax.saxutils import escape, quoteattr

import keras

from keras_resnet.inspection import count_flops
from keras_resnet.outline import CHANGED, DIMENSIONS, IDENTITY, boxes, shortcuts
from keras_resnet.resnet import build

BOX_WIDTH, BOX_HEIGHT, GAP = 168, 20, 24  # pixels; a gap holds the arrow between two boxes
ARC = 58  # how far a shortcut leans out, as the handle of a Bezier curve
LEFT, RIGHT, TOP = 112, 60, 88  # beside and above a column of boxes
FONT = 'font-family="Helvetica, Arial, sans-serif"'
# Fill and edge by stage, the stem first: the hues of figure 3, which has violet, green, red and blue.
COLOURS = (
    ("#f4e3c3", "#b9924a"), ("#ddd0ea", "#8464a8"), ("#d3e8c8", "#5f9a4a"), ("#f6cfca", "#c0605a"),
    ("#cbdff3", "#4f83ba"),
)  # fmt: skip
PLAIN_BOX = ("#f0f0f0", "#8a8a8a")  # of pooling and of the classifier
LEGEND_LINE = 18  # pixels
JOINS, LEAVES = 6, 14  # pixels below a box at which a shortcut ends, and the next one begins
# Thickness and dashes of a line by its kind, and the words of the legend.
LINES = {
    "arrow": (1, "", ""),
    IDENTITY: (1.5, "", "identity"),
    CHANGED: (1.5, "7 4", "projection, gate, scale or dropout"),
    DIMENSIONS: (2, "1 5", "dimensions change"),
}


def summary_picture(*nets):
    """Draws nets side by side, in the manner of He et al. 2015, figure 3.

    Boxes are the layers that have weights, and pooling; a stage has a colour. Shortcuts are solid where they are the
    identity, dotted where the dimensions change, and dashed where a layer stands in them otherwise.

    Args:
        *nets: names as in `list_models`, or models that this package built, or both.
    Returns:
        str, the text of an SVG file.
    Raises:
        ValueError: if there is none, or no such net, or the model is not of this package.
    """
    if not nets:
        raise ValueError("Expected the name of a net, such as summary_picture('ResNet34'). Received: none.")
    others = [net for net in nets if not isinstance(net, (str, keras.Model))]
    if others:
        raise ValueError(
            f"Expected names of nets or models, each an argument: summary_picture('PlainNet34', 'ResNet34'). "
            f"Received: {others[0]!r}."
        )
    models = [net if isinstance(net, keras.Model) else build(net, weights=None) for net in nets]
    titles = [net.name if isinstance(net, keras.Model) else net for net in nets]
    columns = [boxes(model) for model in models]
    pairs, width = zip(titles, models, columns, strict=True), LEFT + BOX_WIDTH + RIGHT
    height = TOP + max(map(len, columns)) * (BOX_HEIGHT + GAP) + 24 + 3 * LEGEND_LINE
    parts = [_column(title, model, column, place * width) for place, (title, model, column) in enumerate(pairs)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(models)}" height="{height}" '
        f'viewBox="0 0 {width * len(models)} {height}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0.8 L8 4 L0 7.2 Z" fill="#444"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
        *(line for part in parts for line in part),
        *_legend(height, {kind for model in models for _, kind in shortcuts(model)}),
        "</svg>\n",
    ])  # fmt: skip


def _column(title, model, column, left):
    """Lines of SVG of one net: heading, boxes with arrows, output sizes, shortcuts."""
    middle = left + LEFT + BOX_WIDTH / 2
    lines = [_text(middle, 22, title, size=16, weight="bold"), _text(middle, 40, _costs(model), size=10)]
    lines.append(f'<g class="net" data-name={quoteattr(title)}>')
    size, sides = None, " x ".join("?" if side is None else str(side) for side in model.input_shape[1:])
    lines += [
        _text(middle, TOP - GAP - 3, f"image, {sides}", size=11),
        _line(f"M{middle} {TOP - GAP} V{TOP - 1}", "arrow"),
    ]
    for row, box in enumerate(column):
        y = TOP + row * (BOX_HEIGHT + GAP)
        lines += _drawn_box(box, left + LEFT, y)
        if box.size and box.size != size:
            lines.append(_text(left + LEFT - 10, y + 14, f"output size: {box.size}", size=11, anchor="end"))
            size = box.size
        if row:
            lines.append(_line(f"M{middle} {y - GAP} V{y - 1}", "arrow"))
    lines += _arcs(model, column, middle)
    return [*lines, "</g>"]


def _drawn_box(box, x, y):
    fill, edge = PLAIN_BOX if box.stage is None else COLOURS[box.stage % len(COLOURS)]
    rectangle = f'<rect class="layer" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="3"'
    return [f'{rectangle} fill="{fill}" stroke="{edge}"/>', _text(x + BOX_WIDTH / 2, y + 14, box.text, size=12)]


def _arcs(model, column, middle):
    """Shortcuts, from the arrow above a block's first box to the one below its last."""
    rows, lines = {}, []
    for row, box in enumerate(column):
        rows.setdefault(box.block, []).append(row)
    for block, kind in shortcuts(model):
        edge, top = middle + BOX_WIDTH / 2, _below(rows[block][0] - 1) + LEAVES
        bottom = _below(rows[block][-1]) + JOINS
        path = f"M{middle} {top} H{edge} C{edge + ARC} {top} {edge + ARC} {bottom} {edge} {bottom} H{middle + 1}"
        lines.append(_line(path, kind))
    return lines


def _below(row):
    """Lower edge of a row of boxes, in pixels."""
    return TOP + (row + 1) * (BOX_HEIGHT + GAP) - GAP


def _line(path, kind):
    thickness, dashes, _ = LINES[kind]
    dots = f' stroke-dasharray="{dashes}" stroke-linecap="round"' if dashes else ""
    stroke = f'fill="none" stroke="#444" stroke-width="{thickness}"{dots} marker-end="url(#tip)"'
    return f'<path class="{kind}" d="{path}" {stroke}/>'


def _text(x, y, text, *, size, anchor="middle", weight="normal"):
    return (
        f'<text x="{x}" y="{y}" {FONT} font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="#222">{escape(text)}</text>'
    )


def _costs(model):
    """Parameters, and multiply-adds where the size of the image is known."""
    parameters = sum(int(keras.ops.size(weight)) for weight in model.trainable_weights)
    if None in model.input_shape[1:]:
        return f"{parameters:,} parameters"
    return f"{parameters / 1e6:.3g}M parameters, {count_flops(model) / 1e9:.3g}G multiply-adds"


def _legend(height, kinds):
    """Lines of SVG: what the shortcuts' lines mean, one below the other, as far as these kinds are drawn."""
    lines, shown = [], [kind for kind in LINES if kind in kinds]
    for place, kind in enumerate(shown):
        y = height - 18 - LEGEND_LINE * (len(shown) - 1 - place)
        lines += [_line(f"M16 {y} H52", kind), _text(60, y + 4, LINES[kind][2], size=11, anchor="start")]
    return lines
