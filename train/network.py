"""The network of a run: pixels in, a ResNet from the zoo, logits out; and its optimizer."""

import warnings

import keras

import keras_resnet
from keras_resnet import importers
from train import loop


def build(config, source):
    """The model of a run: pixels 0 to 255 (n, h, w, c) -> logits (n, classes).

    The preprocessing is its first layer, so that a saved model is complete.

    Args:
        config: `train.config.Config`.
        source: `train.data.Source`.
    Returns:
        `keras.Model` with new random weights, or those of `config.weights`.
    Raises:
        ValueError: if the images have neither 1 nor 3 channels or are too small for the net, or the weights do not fit.
    """
    model = keras_resnet.build(
        config.model,
        weights=config.weights or None,
        input_shape=source.image_shape,
        classes=len(source.class_names),
        classifier_activation=None,
        include_preprocessing=True,
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = config.synchronized_bn
        if config.freeze_backbone and layer.name != "predictions":
            layer.trainable = False  # which keeps batch normalization at its stored statistics
    return model


def published(name, weights):
    """A net with published weights, from pixels 0 to 255 (n, h, w, 3) to logits (n, classes), ready to export.

    Args:
        name: one of `keras_resnet.list_models()`.
        weights: a tag of `keras_resnet.list_weights`, or a file.
    Returns:
        `keras.Model`.
    Raises:
        ValueError: if the weights do not fit, or have other classes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", importers.AdaptedWeights)  # a new classifier is nothing to deploy
        try:
            return keras_resnet.build(name, weights=weights, classifier_activation=None, include_preprocessing=True)
        except importers.AdaptedWeights as error:
            raise ValueError(str(error)) from error


def build_optimizer(config, model, steps_per_epoch):
    """SGD with momentum; its learning rate follows the schedule (coupled L2 is the loop's).

    Args:
        config: `train.config.Config`.
        model: `keras.Model` to train.
        steps_per_epoch: whole number.
    Returns:
        `keras.optimizers.SGD` whose variables exist.
    """
    optimizer = keras.optimizers.SGD(
        loop.learning_rate_schedule(config, steps_per_epoch),
        momentum=config.momentum,
        nesterov=config.nesterov,
    )
    optimizer.build(model.trainable_variables)
    return optimizer
