"""The network of a run: preprocessing, a ResNet from the zoo, logits out; and its optimizer."""

import keras

import keras_resnet
from train import loop

# Mean and standard deviation of ImageNet's RGB pixels in [0, 1] (torchvision's and timm's weights; the
# CIFAR nets that people share use them too), and their means for grey images.
CHANNEL_MEAN = {3: (0.485, 0.456, 0.406), 1: (0.449,)}
CHANNEL_STD = {3: (0.229, 0.224, 0.225), 1: (0.226,)}


def build(config, source):
    """The model of a run: pixels 0 to 255 (n, h, w, c) -> logits (n, classes).

    The preprocessing is its first layer, so that a saved model is complete.

    Args:
        config: `train.config.Config`.
        source: `train.data.Source`.
    Returns:
        `keras.Model` with new random weights.
    Raises:
        ValueError: if the images have neither 1 nor 3 channels, or are too small for the net.
    """
    channels = source.image_shape[-1]
    if channels not in CHANNEL_MEAN:
        raise ValueError(f"Expected images with 1 or 3 channels. Received: {source.image_shape} in {source.name}.")
    image = keras.Input(source.image_shape, name="image")
    x = keras.layers.Rescaling(
        scale=[1 / (255 * std) for std in CHANNEL_STD[channels]],
        offset=[-mean / std for mean, std in zip(CHANNEL_MEAN[channels], CHANNEL_STD[channels], strict=True)],
        dtype=keras.config.floatx(),
        name="preprocessing",
    )(image)
    model = keras_resnet.build(
        config.model,
        weights=None,
        input_tensor=x,
        classes=len(source.class_names),
        classifier_activation=None,
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = config.synchronized_bn
    return model


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
