"""Architectures with parameters and multiply-adds, counted on the built nets: He 2015, tables 1 and 6."""

import re

import keras
import numpy as np

import keras_resnet
from keras_resnet.variants import VARIANTS
from train.experiments import pages
from train.experiments.nets import parse_net
from train.experiments.pages import Fact
from train.experiments.paper import CIFAR10_PARAMETERS, MULTIPLY_ADDS

TITLE = "Architectures, parameters and multiply-adds"
IMAGENET = ("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152", "PlainNet34")
CIFAR = ("ResNet20", "ResNet32", "ResNet44", "ResNet56", "ResNet110", "ResNet1202")
DRAWN = 5  # columns of the paper's table 1
PAPERS_NAMES = {"stem": "conv1", "stage1": "conv2_x", "stage2": "conv3_x", "stage3": "conv4_x", "stage4": "conv5_x"}


def measure(runs, settings):
    """A row a net: its layers by stage as the paper writes them, parameters and multiply-adds.

    Args:
        runs: none are needed.
        settings: `Settings`; the smoke budget leaves the largest net out.
    Returns:
        list of dicts.
    """
    names = settings.nets or (IMAGENET + CIFAR[:-1] if settings.is_smoke else IMAGENET + CIFAR)
    return [_row(name) for name in names]


def _row(name):
    net = parse_net(name)
    size = VARIANTS[net.model].image_size
    model = net.build((size, size, 3), VARIANTS[net.model].classes)
    row = {"net": net.title, "image_size": size}
    row |= {
        "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
        "multiply_adds": keras_resnet.count_flops(model),
    }
    keras.backend.clear_session()
    return row | _stages(model)


def _stages(model):
    """Each stage's output size and blocks, from the layers: {"stage1": "56x56: [3x3, 64; 3x3, 64] x 2", ...}."""
    found, stages = {}, {}
    for layer in model.layers:
        place = re.match(r"(stem|stage\d+)_?(block\d+)?_?conv\d*$", layer.name)
        if place and hasattr(layer, "kernel"):
            found.setdefault(place[1], {}).setdefault(place[2], []).append(layer)
    for stage, blocks in found.items():
        layers = next(iter(blocks.values()))
        kernels = "; ".join(f"{layer.kernel_size[0]}x{layer.kernel_size[0]}, {layer.filters}" for layer in layers)
        side = layers[-1].output.shape[1]
        stages[stage] = f"{side}x{side}: [{kernels}] x {len(blocks)}"
    return stages


def draw(rows):
    """The paper's table 1, as far as these nets are among the rows, else those there are."""
    shown = [row for row in rows if row["net"] in MULTIPLY_ADDS][:DRAWN] or rows[:DRAWN]
    stages = list(dict.fromkeys(key for row in shown for key in row if key.startswith(("stem", "stage"))))
    cells = []
    for stage in stages:
        size = shown[0].get(stage, "").partition(":")[0]
        cells.append([f"{stage} ({PAPERS_NAMES[stage]})\n{size}", *(_stacked(row.get(stage, "")) for row in shown)])
    cells.append(["multiply-adds\nparameters", *(
        f"{row['multiply_adds'] / 1e9:.3g}e9{_of_paper(row['net'])}\n{row['parameters']:,}" for row in shown
    )])  # fmt: skip
    return pages.drawn_table(["stage, output size", *(row["net"] for row in shown)], cells, height=0.75)


def _of_paper(net):
    return f" (paper: {MULTIPLY_ADDS[net]}e9)" if net in MULTIPLY_ADDS else ""


def _stacked(stage):
    """The blocks of a stage over several lines, as a cell of the paper's table."""
    blocks, _, count = stage.partition("[")[2].partition("] x ")
    return "\n".join([*blocks.split("; "), *([f"x {count}"] if count not in ("", "1") else [])])


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts = []
    for row in rows:
        flops, millions = row["multiply_adds"] / 1e9, row["parameters"] / 1e6
        if row["net"] in CIFAR10_PARAMETERS:
            facts.append(Fact(f"{row['net']}, parameters (1e6)", CIFAR10_PARAMETERS[row["net"]], millions))
        else:
            facts.append(Fact(f"{row['net']}, multiply-adds (1e9)", MULTIPLY_ADDS.get(row["net"], ""), flops))
    return facts, (
        "Counted on the built nets, a multiply-add a weight of a convolution or dense layer and output position. The "
        "paper gives two or three digits. ResNet-34 here has option B; plain nets have the parameters of residual nets "
        "with option A."
    )
