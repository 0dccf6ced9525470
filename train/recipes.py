"""The table of training recipes: one row a recipe; flags override a row's fields."""

import dataclasses


def _field(text):
    return dataclasses.field(metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides how well a net learns. Every field is a flag of train/main.py."""

    epochs: int = _field("passes over the training images")
    batch_size: int = _field("images a step over all replicas together")
    learning_rate: float = _field("highest learning rate")
    schedule: str = _field("cosine: to zero over the run; steps: divided by 10 at 1/2 and 3/4 of it; constant")
    warmup_epochs: float = _field("epochs of linear rise from 0 to learning_rate (arXiv 1706.02677)")
    momentum: float = _field("of SGD")
    nesterov: bool = _field("Nesterov's form of momentum")
    weight_decay: float = _field("coupled L2 on kernels, added to their gradients (He 2015, section 3.4)")
    label_smoothing: float = _field("share of the target spread over all classes (arXiv 1512.00567)")
    crop_padding: int = _field("pixels around an image before a random crop of its size; 0: no crop")
    flip: bool = _field("mirror half of the training images")


# fmt: off
RECIPES = {
    #                             epochs batch  lr    schedule   warm  mom. nest. decay smooth. pad flip
    # Greyscale handwriting of 8 x 8 pixels: shifted by a pixel, never mirrored. Ours, BUILD_NOTES.md, "Demo".
    "digits":             Recipe(25,     64,    0.1,  "cosine",  2,    0.9, True,  5e-4, 0.1,    1,  False),
    # He 2015, section 4.2, cut from 182 epochs to ten: Nesterov, one warm rise and cosine fall in the manner of
    # Smith and Topin 2018 (arXiv 1708.07120). Ours, BUILD_NOTES.md, "CIFAR-10 in ten epochs".
    "cifar_fast":         Recipe(10,     128,   0.2,  "cosine",  2,    0.9, True,  5e-4, 0.0,    4,  True),
    # Goyal et al. 2017 (arXiv 1706.02677) with a cosine fall; random resized crops are not here yet.
    "imagenet_baseline":  Recipe(90,     256,   0.1,  "cosine",  5,    0.9, True,  1e-4, 0.1,    16, True),
}
# fmt: on

# Recipe where none is asked for, by the kind of data source; cifar_fast for all others.
DEFAULT_RECIPES = {"digits": "digits", "synthetic": "digits", "folder": "imagenet_baseline"}
