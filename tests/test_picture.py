"""summary_picture: every layer a box with the paper's words, every shortcut solid or dotted as it is."""

import itertools
import re
import xml.etree.ElementTree

import keras
import pytest
from conftest import ROOT

import keras_resnet
from keras_resnet import blocks
from keras_resnet.variants import VARIANTS

pytestmark = pytest.mark.contract
SVG = "{http://www.w3.org/2000/svg}"
CONVOLUTIONS = {blocks.basic_block: 2, blocks.bottleneck_block: 3, blocks.preactivation_block: 3}


def parsed(picture):
    """Texts of the layers' boxes from top to bottom, and how many shortcuts are (solid, dotted); none are dashed."""
    tree = xml.etree.ElementTree.fromstring(picture)
    (group,) = tree.iter(f"{SVG}g")
    inside = {float(box.get("y")): box for box in group.iter(f"{SVG}rect")}
    words = {float(text.get("y")) - 14: text for text in group.iter(f"{SVG}text") if text.get("font-size") == "12"}
    assert [*words] == [*inside] == sorted(inside)  # a text in each box, in order
    arcs = [(path.get("class"), path.get("stroke-dasharray")) for path in group.iter(f"{SVG}path")]
    assert {dots is not None for kind, dots in arcs if kind == "dimensions"} <= {True}
    assert {dots for kind, dots in arcs if kind != "dimensions"} == {None}
    kinds = [kind for kind, _ in arcs]
    assert {*kinds} <= {"arrow", "identity", "dimensions"}
    return [text.text for text in words.values()], (kinds.count("identity"), kinds.count("dimensions"))


def dotted(name):
    """Shortcuts across which the dimensions change: the first of each stage but where a stage keeps them."""
    row = VARIANTS[name]
    if None in row.shortcuts[:1]:
        return 0
    stages = len(row.depths)
    if row.preactivation:  # the channels in the first block of each stage, the size in the last of all but one
        return stages + stages - 1
    return stages if row.block is blocks.bottleneck_block else stages - 1


@pytest.mark.parametrize("name", VARIANTS)
def test_every_net_is_drawn_with_all_its_layers_and_shortcuts(name):
    row, picture = VARIANTS[name], keras_resnet.summary_picture(name)
    layers, (solid, dots) = parsed(picture)
    stem = 3 if row.stem is blocks.deep_stem else 1
    convolutions = [text for text in layers if " conv, " in text]
    assert len(convolutions) == stem + CONVOLUTIONS[row.block] * sum(row.depths)
    assert sum(text.startswith("squeeze") for text in layers) == (sum(row.depths) if row.squeeze else 0)
    halvings = len(row.depths) - 1 + (row.stem_strides == 4) * 2
    assert sum("/2" in text for text in layers) == halvings
    assert layers[-2:] == ["avg pool", f"fc {row.classes}"]
    assert dots == dotted(name)
    assert solid == (sum(row.depths) - dots if row.shortcuts[0] else 0)
    keras.backend.clear_session()


def test_the_34_layers_read_as_in_figure_3():
    expected = ["7x7 conv, 64, /2", "3x3 max pool, /2", *["3x3 conv, 64"] * 6]
    for filters, convolutions in ((128, 8), (256, 12), (512, 6)):
        expected += [f"3x3 conv, {filters}, /2", *[f"3x3 conv, {filters}"] * (convolutions - 1)]
    for name, shortcuts in (("ResNet34", (13, 3)), ("PlainNet34", (0, 0))):
        picture = keras_resnet.summary_picture(name)
        assert parsed(picture) == ([*expected, "avg pool", "fc 1000"], shortcuts)
        assert re.findall(r"output size: (\d+)", picture) == ["112", "56", "28", "14", "7"]
        assert len(set(re.findall(r'class="layer".*?fill="(.*?)"', picture))) == 6  # stem, four stages, grey


def test_blocks_that_differ_say_so():
    assert parsed(keras_resnet.summary_picture("ResNet50"))[0][2:5] == ["1x1 conv, 64", "3x3 conv, 64", "1x1 conv, 256"]
    assert "3x3 conv, 128, 32 groups" in parsed(keras_resnet.summary_picture("ResNeXt50_32x4d"))[0]
    assert parsed(keras_resnet.summary_picture("SEResNet50"))[0][5] == "squeeze and excite, 16"
    dilated = keras_resnet.ResNet50(weights=None, output_stride=16, input_shape=(None, None, 3))
    layers, _ = parsed(keras_resnet.summary_picture(dilated))
    assert "3x3 conv, 512, rate 2" in layers
    assert "multiply-adds" not in keras_resnet.summary_picture(dilated)


@pytest.mark.parametrize("shortcut", ["C", "scaled", "gated", "gated_shortcut", "dropout"])
def test_a_shortcut_with_a_layer_in_it_is_dashed_where_the_dimensions_stay(shortcut):
    picture = keras_resnet.summary_picture(keras_resnet.ResNet20(weights=None, shortcut=shortcut))
    tree = xml.etree.ElementTree.fromstring(picture)
    (group,) = tree.iter(f"{SVG}g")
    arcs = [(path.get("class"), path.get("stroke-dasharray")) for path in group.iter(f"{SVG}path")]
    assert [arc for arc in arcs if arc[0] != "arrow"] == [
        ("dimensions", "1 5") if place in (3, 6) else ("changed", "7 4") for place in range(9)
    ]
    assert "projection, gate, scale or dropout" in picture
    assert ">identity<" not in picture  # nothing in the legend that is not in the picture


def test_the_legend_says_what_is_drawn():
    picture = keras_resnet.summary_picture("ResNet20")
    assert ">identity<" in picture
    assert ">dimensions change<" in picture
    assert "projection" not in picture
    assert "dimensions" not in keras_resnet.summary_picture("PlainNet20")


def test_the_ends_of_shortcuts_stand_apart_from_each_other_and_from_the_boxes():
    tree = xml.etree.ElementTree.fromstring(keras_resnet.summary_picture("ResNet20"))
    edges = sorted(
        float(box.get("y")) + side for box in tree.iter(f"{SVG}rect") if box.get("class") for side in (0, 20)
    )
    paths = [path.get("d") for path in tree.iter(f"{SVG}path") if path.get("class") in ("identity", "dimensions")]
    ends = []
    for path in (path for path in paths if "C" in path):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path)]
        ends += [numbers[1], numbers[-2]]
    assert len(ends) == 18
    for end in ends:
        assert min(abs(end - edge) for edge in edges) >= 6
    assert min(later - earlier for earlier, later in itertools.pairwise(sorted(ends))) >= 8


def test_a_name_with_quotes_is_written_as_one():
    model = keras_resnet.ResNet20(weights=None)
    model = keras.Model(model.inputs, model.outputs, name='a_"net"_<1>')
    (group,) = xml.etree.ElementTree.fromstring(keras_resnet.summary_picture(model)).iter(f"{SVG}g")
    assert group.get("data-name") == 'a_"net"_<1>'


def test_several_nets_stand_side_by_side():
    tree = xml.etree.ElementTree.fromstring(keras_resnet.summary_picture("PlainNet20", "ResNet20"))
    assert [group.get("data-name") for group in tree.iter(f"{SVG}g")] == ["PlainNet20", "ResNet20"]
    lefts = [{box.get("x") for box in group.iter(f"{SVG}rect")} for group in tree.iter(f"{SVG}g")]
    assert [*map(len, lefts)] == [1, 1]
    assert lefts[0] != lefts[1]


def test_what_is_no_net_is_refused():
    with pytest.raises(ValueError, match="Received: none"):
        keras_resnet.summary_picture()
    with pytest.raises(ValueError, match="Nearest: ResNet34"):
        keras_resnet.summary_picture("ResNet3")
    with pytest.raises(ValueError, match=r"each an argument.* Received: \['ResNet34'\]"):
        keras_resnet.summary_picture(["ResNet34"])
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="other")
    with pytest.raises(ValueError, match="Received: model 'other'"):
        keras_resnet.summary_picture(other)


def test_the_picture_in_the_documentation_is_what_is_drawn():
    kept = (ROOT / "docs" / "resnet34.svg").read_text()
    assert kept == keras_resnet.summary_picture("PlainNet34", "ResNet34")
