"""The table of training recipes: one row a recipe, in which only what is used stands; flags override its fields."""

import dataclasses


def _field(text, default=dataclasses.MISSING):
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides how well a net learns. Every field is a flag of train/main.py; a default means "not used"."""

    epochs: int = _field("passes over the training images")
    batch_size: int = _field("images a step over all replicas together")
    learning_rate: float = _field("highest learning rate")
    schedule: str = _field("cosine: to zero over the run; one_cycle: the same from 1/25 of it (arXiv 1708.07120); "
                           "steps: divided by 10 at 1/2 and 3/4 of it; plateau: divided by 10 where val_loss stays; "
                           "constant", "cosine")  # fmt: skip
    warmup_epochs: float = _field("epochs of linear rise from 0 to learning_rate (arXiv 1706.02677)", 0.0)
    warmup_rate: float = _field("constant learning rate in these epochs instead of a rise (He 2015, section 4.2)", 0.0)
    plateau_epochs: int = _field("epochs without a smaller val_loss after which plateau divides", 5)
    optimizer: str = _field("sgd, adamw, lamb or muon", "sgd")
    momentum: float = _field("of sgd", 0.9)
    nesterov: bool = _field("Nesterov's form of momentum", False)
    weight_decay: float = _field("of kernels", 0.0)
    decoupled_decay: bool = _field("take learning_rate x weight_decay off the weights (arXiv 1711.05101) instead of "
                                   "adding L2 to the gradients (He 2015, section 3.4)", False)  # fmt: skip
    decay_all: bool = _field("weight decay on biases and batch normalization too", False)
    clip_norm: float = _field("largest norm of the global batch's gradient over all weights; 0: no limit", 0.0)
    accumulation: int = _field("parts that a batch is worked through in, one after the other, to save memory", 1)
    ema: float = _field("decay a step of the moving average of weights that is scored and kept, at most "
                        "(1 + n) / (10 + n) in step n, as tf.train.ExponentialMovingAverage; 0: none", 0.0)  # fmt: skip
    loss: str = _field("cross_entropy, or bce: binary, every class mixed in is a target (arXiv 2110.00476)",
                       "cross_entropy")  # fmt: skip
    bce_threshold: float = _field("share of a mixed image above which bce takes its class for a target (timm's "
                                  "--bce-target-thresh: 0.2 for arXiv 2110.00476)", 0.0)  # fmt: skip
    label_smoothing: float = _field("share of the target spread over all classes (arXiv 1512.00567)", 0.0)
    dropout: float = _field("rate before the classifier", 0.0)
    stochastic_depth: float = _field("rate at which the last residual branch is dropped (arXiv 1603.09382)", 0.0)
    training_size: int = _field("side of the training images in pixels; 0: as in testing (arXiv 1906.06423)", 0)
    crop: str = _field("padded: of the image with crop_padding around it; resized: of random area and aspect "
                       "(arXiv 1409.4842); scale_jitter: shorter side 256 to 480 (He 2015, section 3.4); center",
                       "center")  # fmt: skip
    crop_padding: int = _field("pixels around an image before a padded crop", 0)
    min_area: float = _field("smallest share of the image in a resized crop", 0.08)
    flip: bool = _field("mirror half of the training images", False)
    colour_jitter: float = _field("largest change of brightness, contrast and saturation, as a share", 0.0)
    pca_colour: bool = _field("colour augmentation of AlexNet, which He 2015 uses", False)
    auto_augment: str = _field("trivial (arXiv 2103.10158), rand (arXiv 1909.13719) or none", "none")
    rand_magnitude: int = _field("strength of rand, 0 to 10", 7)
    erasing: float = _field("share of the images in which a box is erased (arXiv 1708.04896)", 0.0)
    mixup: float = _field("alpha of mixup (arXiv 1710.09412); 0: none", 0.0)
    cutmix: float = _field("alpha of cutmix (arXiv 1905.04899); 0: none", 0.0)
    repeats: int = _field("times that an image is drawn for one epoch, each augmented anew, out of as many fewer "
                          "(arXiv 1902.05509)", 1)  # fmt: skip


_STRIKES_BACK = {
    "batch_size": 2048, "warmup_epochs": 5, "optimizer": "lamb", "loss": "bce", "bce_threshold": 0.2,
    "crop": "resized", "flip": True, "auto_augment": "rand", "cutmix": 1.0,
}  # fmt: skip

# fmt: off
RECIPES = {
    # Greyscale handwriting of 8 x 8 pixels: shifted by a pixel, never mirrored. Ours: 99.4 % (BUILD_NOTES.md, "Demo").
    "digits": Recipe(
        epochs=25, batch_size=64, learning_rate=0.1, warmup_epochs=2, nesterov=True, weight_decay=5e-4,
        label_smoothing=0.1, crop="padded", crop_padding=1,
    ),
    # He 2015, section 4.2, cut from 182 epochs to ten, one warm rise and cosine fall in the manner of Smith and Topin
    # 2018 (arXiv 1708.07120). Ours: ResNet-20 86.9 % on CIFAR-10 (BUILD_NOTES.md, "CIFAR-10 in ten epochs").
    "cifar_fast": Recipe(
        epochs=10, batch_size=128, learning_rate=0.2, warmup_epochs=2, nesterov=True, weight_decay=5e-4,
        crop="padded", crop_padding=4, flip=True,
    ),
    # He 2015, section 4.2 and table 6: CIFAR-10 error 8.75 % (ResNet-20) to 6.97 % (56). 64k steps are 182 epochs of
    # 351 steps (45,000 images), the rate falls at 32k and 48k.
    "paper_cifar": Recipe(
        epochs=182, batch_size=128, learning_rate=0.1, schedule="steps", weight_decay=1e-4,
        crop="padded", crop_padding=4, flip=True,
    ),
    # The same for n = 18: "we use 0.01 to warm up the training until the training error is below 80 % (about 400
    # iterations)": 400 / 351 epochs. 6.43 %, mean of five 6.61 %.
    "paper_cifar_deep": Recipe(
        epochs=182, batch_size=128, learning_rate=0.1, schedule="steps", weight_decay=1e-4,
        crop="padded", crop_padding=4, flip=True, warmup_epochs=400 / 351, warmup_rate=0.01,
    ),
    # For ResNet-8, MLPerf Tiny's net (arXiv 2106.07597: 87.2 % after 500 epochs of Adam): the CIFAR recipe above with
    # the cosine fall of arXiv 1608.03983; 78,000 weights underfit, so that nothing is smoothed or mixed.
    "cifar_tiny": Recipe(
        epochs=120, batch_size=128, learning_rate=0.1, warmup_epochs=2, nesterov=True, weight_decay=2e-4,
        crop="padded", crop_padding=4, flip=True,
    ),
    # He 2015, section 3.4: at most 60e4 steps of 256 images are 120 epochs; 10-crop top-1 77.15 % (ResNet-50, table 3).
    "paper_imagenet": Recipe(
        epochs=120, batch_size=256, learning_rate=0.1, schedule="plateau", weight_decay=1e-4, crop="scale_jitter",
        flip=True, pca_colour=True,
    ),
    # Goyal et al. 2017 (arXiv 1706.02677) with a cosine fall and smoothing, as NVIDIA's and TF Model Garden's 90
    # epochs: ResNet-50 77.0 and 76.1 %.
    "imagenet_baseline": Recipe(
        epochs=90, batch_size=256, learning_rate=0.1, warmup_epochs=5, nesterov=True, weight_decay=1e-4,
        label_smoothing=0.1, crop="resized", flip=True,
    ),
    # pytorch/vision#3995: ResNet-50 80.858 %. Its average takes every 32nd step at 0.00109: 0.99997 a step.
    "torchvision_v2": Recipe(
        epochs=600, batch_size=1024, learning_rate=0.5, warmup_epochs=5, weight_decay=2e-5, label_smoothing=0.1,
        training_size=176, crop="resized", flip=True, auto_augment="trivial", erasing=0.1, mixup=0.2, cutmix=1.0,
        repeats=4, ema=0.99997,
    ),
    # "ResNet strikes back" (arXiv 2110.00476), table 2: ResNet-50 80.4, 79.8 and 78.1 % at 224 pixels. Keras's LAMB
    # takes its weight decay off beside the trust ratio, timm's within it.
    "strikes_back_a1": Recipe(
        epochs=600, learning_rate=5e-3, weight_decay=0.01, decoupled_decay=True, label_smoothing=0.1,
        stochastic_depth=0.05, repeats=3, mixup=0.2, rand_magnitude=7, **_STRIKES_BACK,
    ),
    "strikes_back_a2": Recipe(
        epochs=300, learning_rate=5e-3, weight_decay=0.02, decoupled_decay=True, stochastic_depth=0.05, repeats=3,
        mixup=0.1, rand_magnitude=7, **_STRIKES_BACK,
    ),
    "strikes_back_a3": Recipe(
        epochs=100, learning_rate=8e-3, weight_decay=0.02, decoupled_decay=True, training_size=160, mixup=0.1,
        rand_magnitude=6, **_STRIKES_BACK,
    ),
    # From published weights to one's own photographs, in the manner of Kornblith et al. 2019 (arXiv 1805.08974, A.5).
    "finetune": Recipe(
        epochs=20, batch_size=64, learning_rate=0.01, warmup_epochs=1, nesterov=True, weight_decay=1e-4,
        label_smoothing=0.1, crop="resized", min_area=0.25, flip=True, ema=0.99,
    ),
}
# fmt: on

# What --qat changes in the data's recipe: a short run at a small rate, from weights that no decay need hold back.
QAT = {"epochs": 5, "learning_rate": 0.005, "warmup_epochs": 0.0, "weight_decay": 0.0, "label_smoothing": 0.0}

# Recipe where none is asked for, by the kind of data source; cifar_fast for all others.
DEFAULT_RECIPES = {"digits": "digits", "synthetic": "digits", "folder": "imagenet_baseline"}

# He 2015, section 4.2: nets of n = 18 and more blocks a stage need the warm-up.
DEEP_RECIPES = {
    ("paper_cifar", model): "paper_cifar_deep"
    for model in ("ResNet110", "ResNet1202", "PlainNet110")
}  # fmt: skip
