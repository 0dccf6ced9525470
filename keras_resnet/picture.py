"""A net as a picture: every layer a box, every shortcut an arc, as in figure 3 of He et al. 2015."""

import dataclasses
import re
from xml.sax.saxutils import escape

import keras

from keras_resnet.blocks import channel_axis
from keras_resnet.inspection import count_flops
from keras_resnet.resnet import build

BOX_WIDTH, BOX_HEIGHT, GAP = 168, 20, 18  # pixels; a gap holds the arrow between two boxes
ARC = 58  # how far a shortcut leans out, as the handle of a Bezier curve
LEFT, RIGHT, TOP = 112, 60, 88  # beside and above a column of boxes
FONT = 'font-family="Helvetica, Arial, sans-serif"'
# Fill and edge by stage, the stem first: the hues of figure 3, which has violet, green, red and blue.
COLOURS = (
    ("#f4e3c3", "#b9924a"), ("#ddd0ea", "#8464a8"), ("#d3e8c8", "#5f9a4a"), ("#f6cfca", "#c0605a"),
    ("#cbdff3", "#4f83ba"),
)  # fmt: skip
PLAIN_BOX = ("#f0f0f0", "#8a8a8a")  # of pooling and of the classifier
DOTS = "1 5"


@dataclasses.dataclass(frozen=True)
class Box:
    """One layer.

    Attributes:
        text: as the paper writes it: "3x3 conv, 64, /2".
        stage: 0 for the stem, from 1 for the stages, None for pooling and the classifier.
        block: name of its residual block, or None.
        size: height of its output, or None where it has none.
    """

    text: str
    stage: int | None
    block: str | None
    size: int | None


def summary_picture(*nets):
    """Draws nets side by side, in the manner of He et al. 2015, figure 3.

    Boxes are the layers that have weights, and pooling; a stage has a colour. Shortcuts are solid where they are the
    identity and dotted where the dimensions change.

    Args:
        *nets: names as in `list_models`, or models that this package built, or both.
    Returns:
        str, the text of an SVG file.
    Raises:
        ValueError: if there is none, or no such net, or the model is not of this package.
    """
    if not nets:
        raise ValueError("Expected the name of a net, such as summary_picture('ResNet34'). Received: none.")
    models = [net if isinstance(net, keras.Model) else build(net, weights=None) for net in nets]
    titles = [net.name if isinstance(net, keras.Model) else net for net in nets]
    columns = [boxes(model) for model in models]
    pairs, width = zip(titles, models, columns, strict=True), LEFT + BOX_WIDTH + RIGHT
    height = TOP + max(map(len, columns)) * (BOX_HEIGHT + GAP) + 48
    parts = [_column(title, model, column, place * width) for place, (title, model, column) in enumerate(pairs)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(models)}" height="{height}" '
        f'viewBox="0 0 {width * len(models)} {height}">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0.8 L8 4 L0 7.2 Z" fill="#444"/></marker></defs>',
        '<rect width="100%" height="100%" fill="white"/>',
        *(line for part in parts for line in part),
        *_legend(height),
        "</svg>\n",
    ])  # fmt: skip


def boxes(model):
    """The layers of a net's main path, in order.

    Args:
        model: `keras.Model` of this package.
    Returns:
        list of `Box`.
    Raises:
        ValueError: if its layers are not named as this package names them.
    """
    found = [box for box in map(_box, model.layers) if box]
    if not any(box.block for box in found):
        raise ValueError(f"Expected a net of keras_resnet.list_models(). Received: model {model.name!r}.")
    return found


def _box(layer):
    """`Box` of a layer of the main path, or None."""
    place = re.match(r"(?:stem|stage(\d+)_(block\d+))_conv\d*$", layer.name)
    if place:
        block = f"stage{place[1]}_{place[2]}" if place[1] else None
        return Box(_conv_text(layer), int(place[1] or 0), block, _size(layer))
    gated = re.match(r"(stage(\d+)_block\d+)_se_conv1$", layer.name)
    if gated:
        return Box(f"squeeze and excite, {layer.filters}", int(gated[2]), gated[1], None)
    if layer.name == "stem_pool":
        return Box(f"{layer.pool_size[0]}x{layer.pool_size[0]} max pool, /{layer.strides[0]}", None, None, _size(layer))
    if layer.name in ("avg_pool", "max_pool"):
        return Box(layer.name.replace("_", " "), None, None, None)
    if layer.name == "predictions":
        return Box(f"fc {layer.units}", None, None, None)
    return None


def _conv_text(layer):
    kernel = "x".join(map(str, layer.kernel_size))
    strides = f", /{layer.strides[0]}" if layer.strides[0] > 1 else ""
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    dilation = f", rate {layer.dilation_rate[0]}" if layer.dilation_rate[0] > 1 else ""
    return f"{kernel} conv, {layer.filters}{groups}{strides}{dilation}"


def _size(layer):
    """Height of a layer's output, or None where it is not known."""
    return layer.output.shape[1 if channel_axis() == -1 else 2]


def shortcuts(model):
    """The shortcuts of a net.

    Args:
        model: `keras.Model` of this package.
    Returns:
        list of (name of the block, whether the dimensions change), in order.
    """
    found = []
    for layer in model.layers:
        block = re.match(r"(stage\d+_block\d+)_(add|out)$", layer.name)
        if block and isinstance(layer, keras.layers.Add):
            first = model.get_layer(f"{block[1]}_conv1")
            source = first.input.shape
            strides = [getattr(other, "strides", (1,))[0] for other in model.layers if _is_main(other, block[1])]
            changes = max(strides) > 1 or source[channel_axis()] != layer.output.shape[channel_axis()]
            found.append((block[1], changes))
    return found


def _is_main(layer, block):
    return re.match(rf"{block}_conv\d$", layer.name) is not None


def _column(title, model, column, left):
    """Lines of SVG of one net: heading, boxes with arrows, output sizes, shortcuts."""
    middle = left + LEFT + BOX_WIDTH / 2
    lines = [_text(middle, 22, title, size=16, weight="bold"), _text(middle, 40, _costs(model), size=10)]
    lines.append(f'<g class="net" data-name="{escape(title)}">')
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
    for block, changes in shortcuts(model):
        edge, top = middle + BOX_WIDTH / 2, _below(rows[block][0] - 1) + 3
        bottom = _below(rows[block][-1]) - 3
        path = f"M{middle} {top} H{edge} C{edge + ARC} {top} {edge + ARC} {bottom} {edge} {bottom} H{middle + 1}"
        lines.append(_line(path, "dimensions" if changes else "identity"))
    return lines


def _below(row):
    """Middle of the gap below a row of boxes, in pixels."""
    return TOP + (row + 1) * (BOX_HEIGHT + GAP) - GAP / 2


def _line(path, kind):
    dots = f' stroke-dasharray="{DOTS}" stroke-linecap="round"' if kind == "dimensions" else ""
    thickness = {"arrow": 1, "identity": 1.5, "dimensions": 2}[kind]
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


def _legend(height):
    y = height - 18
    return [
        _line(f"M16 {y} H52", "identity"), _text(60, y + 4, "identity", size=11, anchor="start"),
        _line(f"M122 {y} H158", "dimensions"), _text(166, y + 4, "dimensions change", size=11, anchor="start"),
    ]  # fmt: skip
