"""The table of networks: one row a variant. Adding a variant is adding a row."""

import dataclasses
import fnmatch
from collections.abc import Callable

from keras_resnet import blocks


@dataclasses.dataclass(frozen=True)
class Variant:
    """Facts about one network.

    Attributes:
        block: block function of `blocks`.
        stem: stem function of `blocks`.
        width: filters of the first stage's 3x3 convolutions; each later stage doubles them.
        depths: blocks in each stage.
        shortcuts: allowed values of `shortcut`, the default first.
        strides_in: allowed values of `stride_in`, the default first.
        classes: default number of classes.
        image_size: default side of the input, in pixels.
        source: where the numbers stand.
        preactivation: V2: each stage halves the size in its last block, and BN and ReLU end the net.
        padding: "symmetric" or "same", on strided layers.
    """

    block: Callable
    stem: Callable
    width: int
    depths: tuple
    shortcuts: tuple
    strides_in: tuple
    classes: int
    image_size: int
    source: str
    preactivation: bool = False
    padding: str = "symmetric"

    def strides(self, stage, block):
        """Strides of a block; stages and blocks count from 1."""
        if self.preactivation:
            return 2 if block == self.depths[stage - 1] and stage < len(self.depths) else 1
        return 2 if block == 1 and stage > 1 else 1

    @property
    def total_strides(self):
        """Input pixels per pixel of the last feature map: 32 or 4."""
        return (1 if self.stem is blocks.cifar_stem else 4) * 2 ** (len(self.depths) - 1)


_BASIC, _BOTTLENECK, _PREACT = blocks.basic_block, blocks.bottleneck_block, blocks.preactivation_block
_IMAGENET, _IMAGENET_V2, _CIFAR = blocks.imagenet_stem, blocks.imagenet_v2_stem, blocks.cifar_stem

# Shortcuts. ImageNet nets: B by default, as in the paper's table 4 and in all published weights.
# CIFAR nets: A "in all cases" (section 4.2).
_B, _A, _PLAIN, _V2 = ("B", "A", "C", None), ("A", "B", "C", None), (None,), ("B",)
# Stride: the paper's nets have it in the first 1x1, "v1.5" and V2 in the 3x3.
_PAPER, _IN_3X3, _NO_1X1 = ("1x1", "3x3"), ("3x3",), (None,)

# fmt: off
VARIANTS = {
    # He et al. 2015, table 1.
    "ResNet18":     Variant(_BASIC,      _IMAGENET,    64, (2, 2, 2, 2),    _B,     _NO_1X1, 1000, 224, "He 2015, table 1"),
    "ResNet34":     Variant(_BASIC,      _IMAGENET,    64, (3, 4, 6, 3),    _B,     _NO_1X1, 1000, 224, "He 2015, table 1"),
    "ResNet50":     Variant(_BOTTLENECK, _IMAGENET,    64, (3, 4, 6, 3),    _B,     _PAPER,  1000, 224, "He 2015, table 1"),
    "ResNet101":    Variant(_BOTTLENECK, _IMAGENET,    64, (3, 4, 23, 3),   _B,     _PAPER,  1000, 224, "He 2015, table 1"),
    "ResNet152":    Variant(_BOTTLENECK, _IMAGENET,    64, (3, 8, 36, 3),   _B,     _PAPER,  1000, 224, "He 2015, table 1"),
    # He et al. 2015, section 4.2: 6n + 2 layers.
    "ResNet20":     Variant(_BASIC,      _CIFAR,       16, (3,) * 3,        _A,     _NO_1X1, 10,   32,  "He 2015, section 4.2, n = 3"),
    "ResNet32":     Variant(_BASIC,      _CIFAR,       16, (5,) * 3,        _A,     _NO_1X1, 10,   32,  "He 2015, section 4.2, n = 5"),
    "ResNet44":     Variant(_BASIC,      _CIFAR,       16, (7,) * 3,        _A,     _NO_1X1, 10,   32,  "He 2015, section 4.2, n = 7"),
    "ResNet56":     Variant(_BASIC,      _CIFAR,       16, (9,) * 3,        _A,     _NO_1X1, 10,   32,  "He 2015, section 4.2, n = 9"),
    "ResNet110":    Variant(_BASIC,      _CIFAR,       16, (18,) * 3,       _A,     _NO_1X1, 10,   32,  "He 2015, section 4.2, n = 18"),
    "ResNet1202":   Variant(_BASIC,      _CIFAR,       16, (200,) * 3,      _A,     _NO_1X1, 10,   32,  "He 2015, section 4.2, n = 200"),
    # The same without shortcuts (He et al. 2015, figures 3 and 6).
    "PlainNet18":   Variant(_BASIC,      _IMAGENET,    64, (2, 2, 2, 2),    _PLAIN, _NO_1X1, 1000, 224, "He 2015, table 2"),
    "PlainNet34":   Variant(_BASIC,      _IMAGENET,    64, (3, 4, 6, 3),    _PLAIN, _NO_1X1, 1000, 224, "He 2015, table 2"),
    "PlainNet20":   Variant(_BASIC,      _CIFAR,       16, (3,) * 3,        _PLAIN, _NO_1X1, 10,   32,  "He 2015, figure 6"),
    "PlainNet32":   Variant(_BASIC,      _CIFAR,       16, (5,) * 3,        _PLAIN, _NO_1X1, 10,   32,  "He 2015, figure 6"),
    "PlainNet44":   Variant(_BASIC,      _CIFAR,       16, (7,) * 3,        _PLAIN, _NO_1X1, 10,   32,  "He 2015, figure 6"),
    "PlainNet56":   Variant(_BASIC,      _CIFAR,       16, (9,) * 3,        _PLAIN, _NO_1X1, 10,   32,  "He 2015, figure 6"),
    "PlainNet110":  Variant(_BASIC,      _CIFAR,       16, (18,) * 3,       _PLAIN, _NO_1X1, 10,   32,  "He 2015, figure 6"),
    # He et al. 2016 in the layout of keras.applications.resnet_v2.
    "ResNet50V2":   Variant(_PREACT,     _IMAGENET_V2, 64, (3, 4, 6, 3),    _V2,    _IN_3X3, 1000, 224, "He 2016, keras.applications", preactivation=True),
    "ResNet101V2":  Variant(_PREACT,     _IMAGENET_V2, 64, (3, 4, 23, 3),   _V2,    _IN_3X3, 1000, 224, "He 2016, keras.applications", preactivation=True),
    "ResNet152V2":  Variant(_PREACT,     _IMAGENET_V2, 64, (3, 8, 36, 3),   _V2,    _IN_3X3, 1000, 224, "He 2016, keras.applications", preactivation=True),
    # MLPerf Tiny v1.0, image classification: one block a stage, projections, TensorFlow's padding.
    "ResNet8":      Variant(_BASIC,      _CIFAR,       16, (1,) * 3,        _B,     _NO_1X1, 10,   32,  "Banbury et al. 2021, arXiv 2106.07597", padding="same"),
}
# fmt: on


def list_models(pattern="*"):
    """Names of the variants that match a shell-style wildcard, in the table's order.

    Args:
        pattern: for instance "ResNet*", "*V2"; case does not count.
    Returns:
        list of str, empty where nothing matches.
    """
    return [name for name in VARIANTS if fnmatch.fnmatchcase(name.lower(), pattern.lower())]
