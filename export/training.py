"""What fine-tuning starts from, in whatever process: training images as the net's own run saw them, and logits."""

import dataclasses
import os

import keras

from keras_resnet.preprocessing import Preprocessing
from train import config as configs
from train import data

LARGEST_BATCH = 128  # images a step; smaller where the run's recipe has fewer


def open_images(asked):
    """Training images, with the crops and flips of the run that trained the net, or else of the data's recipe.

    What mixes labels is left out: the teacher sees the same image.

    Args:
        asked: dict of the arguments of `train.data.load_for_model`, "preprocessing" as a dict or None.
    Returns:
        `train.data.Source` and `train.config.Config`.
    Raises:
        ValueError: if there are no such images.
    """
    resized = asked["preprocessing"] and Preprocessing(**asked["preprocessing"])
    source = data.load_for_model(**asked | {"preprocessing": resized})
    beside = os.path.join(os.path.dirname(asked["model_path"]), "config.json")
    is_run = asked["spec"] is None and os.path.exists(beside)
    config = configs.make(configs.read(beside) if is_run else {"data": asked["spec"]})
    num_images = data.find_split(source, "train").num_images
    plain = {"mixup": 0.0, "cutmix": 0.0, "repeats": 1, "accumulation": 1, "training_size": 0, "fill_last_batch": False}
    return source, dataclasses.replace(config, batch_size=min(config.batch_size, LARGEST_BATCH, num_images), **plain)


def logits(model):
    """A Keras model without the softmax at its end."""
    last = model.layers[-1]
    if isinstance(last, (keras.layers.Activation, keras.layers.Softmax)):
        return keras.Model(model.inputs, last.input, name=model.name)
    if getattr(last, "activation", None) is not keras.activations.softmax:
        return model
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.layers[-1].activation = keras.activations.linear
    return copy
