"""A net of the lab: what the command line and the papers call it, and what it is built of."""

import dataclasses
import re

import keras_resnet
import train
from keras_resnet import blocks
from keras_resnet.variants import VARIANTS

NO_SHORTCUT = "none"


@dataclasses.dataclass(frozen=True)
class Net:
    """One net to train.

    Attributes:
        model: one of `keras_resnet.list_models()`.
        shortcut: as `--shortcut`; "" is the net's own.
    """

    model: str
    shortcut: str = ""

    @property
    def title(self):
        """As the paper calls it: ResNet-20, plain-56, ResNet-50V2; with its shortcut where that is chosen."""
        name = re.sub(r"(\d+)", r"-\1", self.model, count=1).replace("PlainNet", "plain")
        return f"{name} ({self.shortcut})" if self.shortcut else name

    @property
    def depth(self):
        """Weighted layers, the number in its name."""
        return int(re.search(r"\d+", self.model)[0])

    @property
    def option(self):
        """What it has for a shortcut: A, B, C, another of `--shortcut`, or "none"."""
        return self.shortcut or VARIANTS[self.model].shortcuts[0] or NO_SHORTCUT

    @property
    def is_plain(self):
        """Whether it has no shortcuts."""
        return self.option == NO_SHORTCUT

    @property
    def has_basic_blocks(self):
        """Whether its blocks are two 3x3 layers, each followed by batch normalization."""
        return VARIANTS[self.model].block is blocks.basic_block

    @property
    def image_size(self):
        """Side in pixels of the images it was designed for."""
        return VARIANTS[self.model].image_size

    def build(self, image_shape=(32, 32, 3), classes=10):
        """The net with random weights, of logits."""
        shortcut = {"shortcut": self.shortcut} if self.shortcut else {}
        return keras_resnet.build(
            self.model, weights=None, input_shape=image_shape, classes=classes, classifier_activation=None, **shortcut
        )


def parse_net(text):
    """`Net` from MODEL or MODEL:SHORTCUT; a shortcut that is the net's own is left out, so that they are one run.

    Raises:
        ValueError: if there is no such net or shortcut; for a net the nearest names are given.
    """
    model, _, shortcut = text.partition(":")
    if model not in VARIANTS:
        hint = train.nearest(model, VARIANTS)
        raise ValueError(
            f"There is no such net. Expected names such as ResNet20,ResNet20:B,PlainNet56. Received: {text!r}.{hint}"
        )
    allowed = [choice for choice in VARIANTS[model].shortcuts if choice]
    if shortcut and shortcut not in allowed:
        expected = f"one of {', '.join(f'{model}:{choice}' for choice in allowed)}" if allowed else f"{model} alone"
        raise ValueError(f"{model} has no such shortcut. Expected {expected}. Received: {text!r}.")
    return Net(model, "" if allowed and shortcut == allowed[0] else shortcut)
