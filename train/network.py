"""The network of a run: pixels in, a ResNet from the zoo, logits out; made for training, and made to deploy."""

import warnings

import keras

import keras_resnet
from keras_resnet import importers, quantization_aware
from keras_resnet.variants import VARIANTS
from train import input_pipeline
from train.normalization import FusedBatchNormalization

RANGE_IMAGES = 64  # training images whose activations are the first ranges of --qat


def build(config, source):
    """The model of a run: pixels 0 to 255 (n, h, w, c) -> logits (n, classes).

    The preprocessing is its first layer, so that a saved model is complete.

    Batch normalization is `FusedBatchNormalization`, the precision that of `config.mixed_precision`. With `config.qat`
    it is folded, and the net computes with the numbers of its int8 file; ranges freeze at half of the run.

    Args:
        config: `train.config.Config`.
        source: `train.data.Source`.
    Returns:
        `keras.Model` with new random weights, or those of `config.weights`.
    Raises:
        ValueError: if the images have neither 1 nor 3 channels or are too small for the net, or the weights do not fit.
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Expected image_data_format to be channels_last, in which tf.data gives images. Received: channels_first. "
            "Change it in ~/.keras/keras.json."
        )
    height, width, channels = source.image_shape
    smallest = VARIANTS[config.model].total_strides
    if 0 < config.training_size < smallest:
        raise ValueError(
            f"The training images are too small for {config.model}. Expected at least {smallest} pixels. Received: "
            f"--training_size={config.training_size}."
        )
    if config.training_size not in (0, height):
        height = width = None
    if config.mixed_precision != "none":
        keras.config.set_dtype_policy(f"mixed_{config.mixed_precision}")
    stock = keras_resnet.build(
        config.model,
        weights=config.weights or None,
        input_shape=(height, width, channels),
        classes=len(source.class_names),
        classifier_activation=None,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        include_preprocessing=True,
        shortcut=config.shortcut or VARIANTS[config.model].shortcuts[0],
    )

    if config.qat:
        images, _, _ = input_pipeline.arrays(source, "train", RANGE_IMAGES)
        freeze_after = config.epochs * input_pipeline.num_training_batches(source, config) // 2
        return quantization_aware.convert(stock, images.astype("float32"), freeze_after)
    model = for_training(stock, config)
    for layer in model.layers:
        if config.freeze_backbone and layer.name != "predictions":
            layer.trainable = False  # which keeps batch normalization at its stored statistics
    return model


def for_training(stock, config):
    """A copy of a net of stock layers whose batch normalization is `FusedBatchNormalization`.

    Args:
        stock: `keras.Model`.
        config: `train.config.Config`, of which synchronized_bn applies.
    Returns:
        `keras.Model` with the same weights.
    """

    def fused(layer):
        if not isinstance(layer, keras.layers.BatchNormalization):
            return layer.from_config(layer.get_config())
        return FusedBatchNormalization.from_config(layer.get_config() | {"synchronized": config.synchronized_bn})

    model = keras.models.clone_model(stock, clone_function=fused)
    model.set_weights(stock.get_weights())
    return model


def deployable(model, image_shape, weights):
    """The same net of stock Keras layers in float32, which loads without this package; of --qat with our own layers.

    Args:
        model: `keras.Model` of `build`.
        image_shape: (h, w, c) of the images that it will get.
        weights: arrays in the order of `model.weights`, such as the moving average's.
    Returns:
        `keras.Model`.
    """

    def stock(layer):
        config = layer.get_config() | {"dtype": "float32", "trainable": True}
        if not isinstance(layer, FusedBatchNormalization):
            return layer.from_config(config)
        return keras.layers.BatchNormalization.from_config(config | {"synchronized": False})

    inputs = keras.Input(image_shape, name=model.inputs[0].name)
    copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=stock)
    copy = keras.Model(copy.inputs[0], copy.outputs[0], name=model.name)
    copy.set_weights(weights)
    return quantization_aware.settled(copy) if quantization_aware.is_quantization_aware(copy) else copy


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
