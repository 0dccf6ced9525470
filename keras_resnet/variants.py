"""The table of networks: one row a variant. Adding a variant is adding a row."""

import dataclasses
import fnmatch
from collections.abc import Callable

from keras_resnet import blocks, shortcuts


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
        groups: of a bottleneck's 3x3.
        inner_width: filters of a bottleneck's 3x3, in multiples of the stage's.
        squeeze: channels per hidden unit of a squeeze-and-excitation gate; 0: none.
        pooled_shortcut: ResNet-D's.
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
    groups: int = 1
    inner_width: int = 1
    squeeze: int = 0
    pooled_shortcut: bool = False
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
        return self.stem_strides * 2 ** (len(self.depths) - 1)

    @property
    def stem_strides(self):
        """Input pixels per pixel of the stem's output: 4 or 1."""
        return 1 if self.stem is blocks.cifar_stem else 4

    @property
    def output_strides(self):
        """Allowed values of `output_stride`, the default first."""
        return (32, 16, 8) if self.total_strides == 32 else (self.total_strides,)


_BASIC, _BOTTLENECK, _PREACT = blocks.basic_block, blocks.bottleneck_block, blocks.preactivation_block
_IMAGENET, _IMAGENET_V2, _DEEP = blocks.imagenet_stem, blocks.imagenet_v2_stem, blocks.deep_stem
_CIFAR = blocks.cifar_stem

# Shortcuts. ImageNet nets: B by default, as in the paper's table 4 and in all published weights.
# CIFAR nets: A "in all cases" (section 4.2); the others, to compare them with it, are He 2016's, table 1.
_B, _A, _PLAIN, _ONLY_B = ("B", "A", "C", None), ("A", "B", "C", None, *shortcuts.CHANGES), (None,), ("B",)
# Stride: the paper's nets have it in the first 1x1, "v1.5" and all later nets in the 3x3.
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
    # Later nets of the same blocks; sizes as in torchvision and timm, whose weights fit.
    "ResNet26":     Variant(_BOTTLENECK, _IMAGENET,    64, (2, 2, 2, 2),    _ONLY_B, _IN_3X3, 1000, 224, "timm resnet26"),
    "ResNet200":    Variant(_BOTTLENECK, _IMAGENET,    64, (3, 24, 36, 3),  _ONLY_B, _IN_3X3, 1000, 224, "He 2016, table 5, in timm's post-activation form"),
    "ResNet50D":    Variant(_BOTTLENECK, _DEEP,        64, (3, 4, 6, 3),    _ONLY_B, _IN_3X3, 1000, 224, "He 2018, arXiv 1812.01187", pooled_shortcut=True),
    "ResNet101D":   Variant(_BOTTLENECK, _DEEP,        64, (3, 4, 23, 3),   _ONLY_B, _IN_3X3, 1000, 224, "He 2018, arXiv 1812.01187", pooled_shortcut=True),
    "SEResNet50":   Variant(_BOTTLENECK, _IMAGENET,    64, (3, 4, 6, 3),    _ONLY_B, _IN_3X3, 1000, 224, "Hu 2018, arXiv 1709.01507", squeeze=16),
    "ResNeXt50_32x4d":  Variant(_BOTTLENECK, _IMAGENET, 64, (3, 4, 6, 3),   _ONLY_B, _IN_3X3, 1000, 224, "Xie 2017, arXiv 1611.05431, table 1", groups=32, inner_width=2),
    "ResNeXt101_32x8d": Variant(_BOTTLENECK, _IMAGENET, 64, (3, 4, 23, 3),  _ONLY_B, _IN_3X3, 1000, 224, "Xie 2017; torchvision", groups=32, inner_width=4),
    "ResNeXt101_64x4d": Variant(_BOTTLENECK, _IMAGENET, 64, (3, 4, 23, 3),  _ONLY_B, _IN_3X3, 1000, 224, "Xie 2017, table 4", groups=64, inner_width=4),
    "WideResNet50_2":   Variant(_BOTTLENECK, _IMAGENET, 64, (3, 4, 6, 3),   _ONLY_B, _IN_3X3, 1000, 224, "Zagoruyko 2016, arXiv 1605.07146", inner_width=2),
    "WideResNet101_2":  Variant(_BOTTLENECK, _IMAGENET, 64, (3, 4, 23, 3),  _ONLY_B, _IN_3X3, 1000, 224, "Zagoruyko 2016; torchvision", inner_width=2),
    # He et al. 2016 in the layout of keras.applications.resnet_v2.
    "ResNet50V2":   Variant(_PREACT,     _IMAGENET_V2, 64, (3, 4, 6, 3),    _ONLY_B, _IN_3X3, 1000, 224, "He 2016, keras.applications", preactivation=True),
    "ResNet101V2":  Variant(_PREACT,     _IMAGENET_V2, 64, (3, 4, 23, 3),   _ONLY_B, _IN_3X3, 1000, 224, "He 2016, keras.applications", preactivation=True),
    "ResNet152V2":  Variant(_PREACT,     _IMAGENET_V2, 64, (3, 8, 36, 3),   _ONLY_B, _IN_3X3, 1000, 224, "He 2016, keras.applications", preactivation=True),
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
