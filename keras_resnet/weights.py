"""Published weights: the table of them, and where `weights=` leads to."""

import dataclasses
import os

import keras

from keras_resnet import downloads
from keras_resnet.preprocessing import CAFFE, RAW, SLIM, TORCHVISION, Preprocessing, Preprocessor
from keras_resnet.variants import VARIANTS, list_models


@dataclasses.dataclass(frozen=True)
class Weights:
    """Facts about one published weights file; a row of `WEIGHTS`.

    Attributes:
        variant: name of the net, a key of `VARIANTS`.
        tag: what `weights=` takes; timm's tags for files on its hub.
        location: "hub:REPOSITORY/FILE" on the Hugging Face hub, or a URL.
        digest: hexadecimal sha256 or md5 of the file; "" where no publication states it: then the hub's own
            sha256, under which it stores the file, is what the file must have.
        preprocessing: with which it was evaluated.
        stride_in: of the net it was trained with.
        top1: per cent of ImageNet's validation images, one crop.
        top5: likewise.
        source: who states the scores.
        licence: SPDX name of the weights' licence.
        recipe: how it was trained.
    """

    variant: str
    tag: str
    location: str
    digest: str
    preprocessing: Preprocessing
    stride_in: str | None
    top1: float
    top5: float
    source: str
    licence: str
    recipe: str

    @property
    def url(self):
        """Where a person fetches the file."""
        if not self.location.startswith("hub:"):
            return self.location
        repository, _, file = self.location.removeprefix("hub:").rpartition("/")
        return f"https://huggingface.co/{repository}/resolve/main/{file}"


# timm's resize is floor(crop / crop_pct) of its default_cfgs.
_TV1, _TV2, _CAFFE, _SLIM = TORCHVISION, Preprocessing(232, 224), CAFFE, SLIM
_A1, _BICUBIC = Preprocessing(235, 224, "bicubic"), Preprocessing(256, 224, "bicubic")
_RA256 = Preprocessing(269, 256, "bicubic")

_TV, _TIMM, _KERAS = "torchvision", "timm's model cards", "keras.io/api/applications"
_BSD, _APACHE, _MIT = "BSD-3-Clause", "Apache-2.0", "MIT"
_REFERENCES = "github.com/pytorch/vision/tree/main/references/classification"
_NEW_RECIPE = "github.com/pytorch/vision/issues/3995"
_RSB, _TIMM_RECIPES = "arXiv 2110.00476", "huggingface.co/timm"
_HE, _TF_SLIM = "github.com/KaimingHe/deep-residual-networks", "github.com/tensorflow/models/tree/master/research/slim"
_HUB, _STORAGE = "hub:timm/{}/model.safetensors", "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
_H5 = _STORAGE + "{}_weights_tf_dim_ordering_tf_kernels.h5"

# fmt: off
_ROWS = (
    # torchvision's files, in the copies that timm keeps as .safetensors.
    ("ResNet18",         "tv_in1k",    _HUB.format("resnet18.tv_in1k"),          "", _TV1,     None,  69.758, 89.078, _TV,    _BSD,    _REFERENCES),
    ("ResNet34",         "tv_in1k",    _HUB.format("resnet34.tv_in1k"),          "", _TV1,     None,  73.314, 91.420, _TV,    _BSD,    _REFERENCES),
    ("ResNet50",         "tv_in1k",    _HUB.format("resnet50.tv_in1k"),          "", _TV1,     "3x3", 76.130, 92.862, _TV,    _BSD,    _REFERENCES),
    ("ResNet101",        "tv_in1k",    _HUB.format("resnet101.tv_in1k"),         "", _TV1,     "3x3", 77.374, 93.546, _TV,    _BSD,    _REFERENCES),
    ("ResNet152",        "tv_in1k",    _HUB.format("resnet152.tv_in1k"),         "", _TV1,     "3x3", 78.312, 94.046, _TV,    _BSD,    _REFERENCES),
    ("ResNet50",         "tv2_in1k",   _HUB.format("resnet50.tv2_in1k"),         "", _TV2,     "3x3", 80.858, 95.434, _TV,    _BSD,    _NEW_RECIPE),
    ("ResNet101",        "tv2_in1k",   _HUB.format("resnet101.tv2_in1k"),        "", _TV2,     "3x3", 81.886, 95.780, _TV,    _BSD,    _NEW_RECIPE),
    ("ResNet152",        "tv2_in1k",   _HUB.format("resnet152.tv2_in1k"),        "", _TV2,     "3x3", 82.284, 96.002, _TV,    _BSD,    _NEW_RECIPE),
    ("ResNeXt50_32x4d",  "tv_in1k",    _HUB.format("resnext50_32x4d.tv_in1k"),   "", _TV1,     "3x3", 77.618, 93.698, _TV,    _BSD,    _REFERENCES),
    ("ResNeXt50_32x4d",  "tv2_in1k",   _HUB.format("resnext50_32x4d.tv2_in1k"),  "", _TV2,     "3x3", 81.198, 95.340, _TV,    _BSD,    _NEW_RECIPE),
    ("ResNeXt101_32x8d", "tv_in1k",    _HUB.format("resnext101_32x8d.tv_in1k"),  "", _TV1,     "3x3", 79.312, 94.526, _TV,    _BSD,    _REFERENCES),
    ("ResNeXt101_32x8d", "tv2_in1k",   _HUB.format("resnext101_32x8d.tv2_in1k"), "", _TV2,     "3x3", 82.834, 96.228, _TV,    _BSD,    _NEW_RECIPE),
    ("ResNeXt101_64x4d", "tv_in1k",    _HUB.format("resnext101_64x4d.tv_in1k"),  "", _TV2,     "3x3", 83.246, 96.454, _TV,    _BSD,    _NEW_RECIPE),
    ("WideResNet50_2",   "tv_in1k",    _HUB.format("wide_resnet50_2.tv_in1k"),   "", _TV1,     "3x3", 78.468, 94.086, _TV,    _BSD,    _REFERENCES),
    ("WideResNet50_2",   "tv2_in1k",   _HUB.format("wide_resnet50_2.tv2_in1k"),  "", _TV2,     "3x3", 81.602, 95.758, _TV,    _BSD,    _NEW_RECIPE),
    ("WideResNet101_2",  "tv_in1k",    _HUB.format("wide_resnet101_2.tv_in1k"),  "", _TV1,     "3x3", 78.848, 94.284, _TV,    _BSD,    _REFERENCES),
    ("WideResNet101_2",  "tv2_in1k",   _HUB.format("wide_resnet101_2.tv2_in1k"), "", _TV2,     "3x3", 82.510, 96.020, _TV,    _BSD,    _NEW_RECIPE),
    # timm's own, "ResNet strikes back" procedure A1 and earlier ones.
    ("ResNet18",         "a1_in1k",    _HUB.format("resnet18.a1_in1k"),          "", _A1,      None,  71.49,  90.07,  _TIMM,  _APACHE, _RSB),
    ("ResNet34",         "a1_in1k",    _HUB.format("resnet34.a1_in1k"),          "", _A1,      None,  76.42,  92.87,  _TIMM,  _APACHE, _RSB),
    ("ResNet50",         "a1_in1k",    _HUB.format("resnet50.a1_in1k"),          "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
                                                                                     _A1,      "3x3", 80.38,  94.60,  _TIMM,  _APACHE, _RSB),
    ("ResNet101",        "a1_in1k",    _HUB.format("resnet101.a1_in1k"),         "", _A1,      "3x3", 81.50,  95.16,  _TIMM,  _APACHE, _RSB),
    ("ResNet152",        "a1_in1k",    _HUB.format("resnet152.a1_in1k"),         "", _A1,      "3x3", 81.97,  95.24,  _TIMM,  _APACHE, _RSB),
    ("ResNeXt50_32x4d",  "a1_in1k",    _HUB.format("resnext50_32x4d.a1_in1k"),   "", _A1,      "3x3", 80.53,  94.46,  _TIMM,  _APACHE, _RSB),
    ("ResNet50D",        "a1_in1k",    _HUB.format("resnet50d.a1_in1k"),         "", _A1,      "3x3", 80.68,  94.71,  _TIMM,  _APACHE, _RSB),
    ("SEResNet50",       "a1_in1k",    _HUB.format("seresnet50.a1_in1k"),        "", _A1,      "3x3", 80.02,  94.71,  _TIMM,  _APACHE, _RSB),
    ("ResNet101D",       "ra2_in1k",   _HUB.format("resnet101d.ra2_in1k"),       "", _RA256,   "3x3", 82.26,  96.07,  _TIMM,  _APACHE, _TIMM_RECIPES),
    ("ResNet26",         "bt_in1k",    _HUB.format("resnet26.bt_in1k"),          "", _BICUBIC, "3x3", 75.30,  92.58,  _TIMM,  _APACHE, _TIMM_RECIPES),
    # keras.applications; md5 from its source, resnet.py.
    ("ResNet50",         "keras_in1k", _H5.format("resnet50"),    "2cb95161c43110f7111970584f804107", _CAFFE, "1x1", 74.9, 92.1, _KERAS, _MIT,    _HE),
    ("ResNet101",        "keras_in1k", _H5.format("resnet101"),   "f1aeb4b969a6efcfb50fad2f0c20cfc5", _CAFFE, "1x1", 76.4, 92.8, _KERAS, _MIT,    _HE),
    ("ResNet152",        "keras_in1k", _H5.format("resnet152"),   "100835be76be38e30d865e96f2aaae62", _CAFFE, "1x1", 76.6, 93.1, _KERAS, _MIT,    _HE),
    ("ResNet50V2",       "keras_in1k", _H5.format("resnet50v2"),  "3ef43a0b657b3be2300d5770ece849e0", _SLIM,  "3x3", 76.0, 93.0, _KERAS, _APACHE, _TF_SLIM),
    ("ResNet101V2",      "keras_in1k", _H5.format("resnet101v2"), "6343647c601c52e1368623803854d971", _SLIM,  "3x3", 77.2, 93.8, _KERAS, _APACHE, _TF_SLIM),
    ("ResNet152V2",      "keras_in1k", _H5.format("resnet152v2"), "a49b44d1979771252814e80f8ec446f9", _SLIM,  "3x3", 78.0, 94.2, _KERAS, _APACHE, _TF_SLIM),
)
# fmt: on
WEIGHTS = {f"{row[0]}.{row[1]}": Weights(*row) for row in _ROWS}


def list_weights(name="*"):
    """Prints the table of published weights, the best of each net marked: that one is `weights="imagenet"`.

    Args:
        name: a net, or a shell-style wildcard, as in `list_models`.
    """
    print(f"{'model':<17} {'weights':<11} {'top-1':>6} {'top-5':>6}  {'input':<22} {'licence':<12} where")
    for row in WEIGHTS.values():
        if row.variant not in list_models(name):
            continue
        steps = row.preprocessing
        shape = f"{steps.resize} > {steps.crop} {steps.interpolation} {steps.channel_order}"
        mark = "*" if row is best(row.variant) else " "
        print(
            f"{row.variant:<17} {row.tag:<10}{mark} {row.top1:>6.2f} {row.top5:>6.2f}  {shape:<22} {row.licence:<12} "
            f"{row.url}"
        )


def best(variant):
    """The row with the highest top-1 score of a net, or None where none is published."""
    rows = [row for row in WEIGHTS.values() if row.variant == variant]
    return max(rows, key=lambda row: row.top1, default=None)


def find(variant, weights):
    """The row that `weights=` names, or None if it is not a name.

    Args:
        variant: name of the net.
        weights: "imagenet", a tag, or anything else.
    Returns:
        `Weights` or None.
    Raises:
        ValueError: if the tag is another net's, or "imagenet" has no row for this net.
    """
    tags = [row.tag for row in WEIGHTS.values() if row.variant == variant]
    if weights == "imagenet" and not tags:
        raise ValueError(
            f"There are no published ImageNet weights of {variant}. Expected None or a file. Received: "
            "weights='imagenet'. keras_resnet.list_weights() prints which nets have some."
        )
    if weights == "imagenet":
        return best(variant)
    if weights in tags:
        return WEIGHTS[f"{variant}.{weights}"]
    if weights in {row.tag for row in WEIGHTS.values()}:
        raise ValueError(
            f"There are no weights {weights!r} of {variant}. Expected one of {', '.join(tags) or 'none'}, "
            f"None or a file. Received: weights={weights!r}."
        )
    return None


def resolve(variant, weights):
    """The file that `weights=` leads to.

    Args:
        variant: name of the net.
        weights: None, "imagenet", a tag of `list_weights`, or the path of a file.
    Returns:
        Path or None, and the row of `WEIGHTS` or None.
    Raises:
        ValueError: if there are no such weights, or they cannot be had.
    """
    if weights is None:
        return None, None
    tags = ", ".join(row.tag for row in WEIGHTS.values() if row.variant == variant) or "none"
    expected = f"Expected None, a tag of {variant} ({tags}), or the path of a weights file"
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(f"weights names no file. {expected}. Received: weights={weights!r}.")
    row = find(variant, weights)
    if row is None and not os.path.exists(weights):
        path = os.path.abspath(weights)
        raise ValueError(f"The weights do not exist. {expected}. Received: weights={str(weights)!r}, which is {path}.")
    return (downloads.fetch(row), row) if row else (os.fspath(weights), None)


def preprocessor(weights_or_model):
    """What turns photographs into a net's input, as its weights were evaluated.

    Args:
        weights_or_model: a model as a builder made it; "MODEL.TAG" of `list_weights`, such as "ResNet50.a1_in1k"; the name
            of a net, which stands for its best weights; a row of `WEIGHTS`; or a `Preprocessing`.
    Returns:
        `Preprocessor`.
    Raises:
        ValueError: if it is none of these.
    """
    found = weights_or_model
    if isinstance(found, keras.Model):
        found = getattr(found, "preprocessing", None) or _of_loaded(found)
    elif isinstance(found, str) and found in VARIANTS:
        found = preprocessing_of(found, best(found))
    elif isinstance(found, str):
        found = WEIGHTS.get(found)
    found = found.preprocessing if isinstance(found, Weights) else found
    if not isinstance(found, Preprocessing):
        raise ValueError(
            "Expected a model of keras_resnet, or a name such as 'ResNet50.a1_in1k' (keras_resnet.list_weights() "
            f"prints them) or 'ResNet50'. Received: {weights_or_model!r}."
        )
    return Preprocessor(found)


def _of_loaded(model):
    """Of a model from a `.keras` file, which keeps nothing but its own layer "preprocessing"."""
    if not any(layer.name == "preprocessing" for layer in model.layers):
        raise ValueError(
            f"The model {model.name!r} does not know its preprocessing, which a saved file does not keep. Expected a "
            "model as a builder made it. Pass the name of its weights, such as 'ResNet50.tv2_in1k'."
        )
    return dataclasses.replace(TORCHVISION, **RAW).for_size(model.input_shape[1] or TORCHVISION.crop)


def preprocessing_of(variant, row):
    """`Preprocessing` of a row; without one torchvision's for an ImageNet net, the whole image for a CIFAR net."""
    if row:
        return row.preprocessing
    size = VARIANTS[variant].image_size
    return TORCHVISION if size == TORCHVISION.crop else Preprocessing(size, size)
