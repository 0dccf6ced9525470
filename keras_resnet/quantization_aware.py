"""Quantization-aware nets: float32 nets that compute with the numbers of their int8 file, and can be trained so.

Batch normalization is folded into the convolutions, as it is deployed; kernels are rounded to 8 bits with a scale an
output channel, activations to 8 bits with one scale, by a moving average of each batch's smallest and largest value
(Jacob et al. 2018, arXiv 1712.05877). Gradients pass the rounding as if it were not there.
"""

import keras
import numpy as np
from keras import ops

LEVELS = 127  # of symmetric 8-bit weights
MOMENTUM = 0.99  # of the moving average of ranges, per batch (arXiv 1712.05877, section 3.1: "close to 1")
LEAST = 1e-9  # length of a range in which nothing was seen


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose kernel is rounded to 8 bits.

    What it computes with is the kernel times the scales of inputs and outputs. Trained is the kernel alone, at the size
    that it had among preprocessing and batch normalization; one that had them folded in would explode.

    Weights: `kernel`, `bias`, and `output_scale` (filters,), which is not trained.

    Args:
        input_scale: list with a number an input channel, or one for all.
        **options: those of `keras.layers.Conv2D`.
    """

    def __init__(self, *arguments, input_scale=(1.0,), **options):
        super().__init__(*arguments, **options)
        self.input_scale = list(input_scale)

    def build(self, input_shape):
        """Makes kernel, bias and scale."""
        super().build(input_shape)
        self.output_scale = self.add_weight(
            shape=(self.filters,), initializer="ones", trainable=False, name="output_scale"
        )

    # Keras's convolutions save kernel and bias alone.
    save_own_variables = keras.layers.Layer.save_own_variables
    load_own_variables = keras.layers.Layer.load_own_variables

    @property
    def deployed_kernel(self):
        """The kernel that is rounded."""
        input_scale = ops.convert_to_tensor(self.input_scale, self.kernel.dtype)[:, None]
        return self.kernel * input_scale * self.output_scale

    def call(self, inputs):
        """(n, h, w, c) -> (n, h, w, filters)."""
        outputs = ops.conv(
            inputs,
            rounded_kernel(self.deployed_kernel),
            strides=list(self.strides),
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        return outputs + self.bias

    def get_config(self):
        """Configuration, for saving."""
        return super().get_config() | {"input_scale": self.input_scale}


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedDense(keras.layers.Dense):
    """`keras.layers.Dense` whose kernel is rounded to 8 bits."""

    def call(self, inputs, training=None):
        """(n, c) -> (n, units)."""
        return ops.matmul(inputs, rounded_kernel(self.kernel)) + self.bias


@keras.saving.register_keras_serializable(package="keras_resnet")
class ActivationRange(keras.layers.Layer):
    """Rounds an activation to the 256 numbers of its range; in training the range follows the batches, then freezes.

    A batch is rounded to the range of the batches before it (the first one to its own), so that what a replica computes
    does not depend on which images it has.

    Weights, none of them trainable: `range_low`, at most 0; `range_high`, at least 0; `range_updates`, batches seen.

    Args:
        freeze_after: batches after which the range stays as it is.
        name: name of the layer.
    """

    def __init__(self, freeze_after, name=None, **options):
        super().__init__(name=name, **options)
        self.freeze_after = freeze_after

    def build(self, input_shape):
        """Makes the range."""
        for name in ("range_low", "range_high", "range_updates"):
            setattr(self, name, self.add_weight(shape=(), initializer="zeros", trainable=False, name=name))

    def call(self, inputs, training=None):
        """Any shape, which the outputs have too."""
        low, high, seen = map(ops.convert_to_tensor, (self.range_low, self.range_high, self.range_updates))
        if not (training and self.trainable):
            return rounded_activation(inputs, low, high)
        share = ops.where(seen == 0, 1.0, ops.where(seen < self.freeze_after, 1.0 - MOMENTUM, 0.0))
        share = ops.cast(share, low.dtype)
        new_low = low + share * (ops.stop_gradient(ops.minimum(ops.min(inputs), 0.0)) - low)
        new_high = high + share * (ops.stop_gradient(ops.maximum(ops.max(inputs), 0.0)) - high)
        self.range_low.assign(new_low)
        self.range_high.assign(new_high)
        self.range_updates.assign(seen + 1.0)
        return rounded_activation(inputs, ops.where(seen == 0, new_low, low), ops.where(seen == 0, new_high, high))

    def get_config(self):
        """Configuration, for saving."""
        return super().get_config() | {"freeze_after": self.freeze_after}


def rounded_kernel(kernel):
    """A kernel (..., channels) rounded to 8 bits, symmetric, with a scale a channel; the gradient is the kernel's."""
    scale = ops.stop_gradient(_kernel_scale(kernel))
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)


def _kernel_scale(kernel):
    largest = ops.max(ops.abs(kernel), axis=[*range(len(kernel.shape) - 1)], keepdims=True)
    return ops.where(largest > 0, largest, 1.0) / LEVELS


def _activation_scale(low, high):
    return ops.maximum(high - low, LEAST) / 255


def rounded_activation(x, low, high):
    """An activation rounded to 256 numbers from `low` to `high`, 0 among them; beyond them the gradient is 0."""
    scale = _activation_scale(low, high)
    zero_point = ops.clip(ops.round(-128 - low / scale), -128, 127)
    x = ops.clip(x, scale * (-128 - zero_point), scale * (127 - zero_point))
    return x + ops.stop_gradient(ops.round(x / scale) * scale - x)


def is_quantization_aware(model):
    """Whether a model was made by `convert`."""
    return any(isinstance(layer, ActivationRange) for layer in model.layers)


def round_biases(model):
    """Rounds the biases of a trained net to what its int8 file keeps of them: 32 bits at both scales' product.

    Finer than the steps of the outputs by far, it still decides ties: without it one score in 700 of ResNet-20 differed
    by two steps from its file's, with it none by more than one.

    Args:
        model: `keras.Model` of `convert`; changed in place.
    """
    makers = {id(layer.output): layer for layer in model.layers}
    for layer in model.layers:
        if isinstance(layer, (QuantizedConv2D, QuantizedDense)):
            before = makers[id(layer.input)]
            while not isinstance(before, ActivationRange):  # padding and pooling keep the scale
                before = makers[id(before.input)]
            of_inputs = np.float64(_activation_scale(*before.get_weights()[:2]))
            kernel = layer.deployed_kernel if isinstance(layer, QuantizedConv2D) else layer.kernel
            step = of_inputs * np.ravel(_kernel_scale(kernel)).astype("float64")
            layer.bias.assign(np.round(np.asarray(layer.bias) / step) * step)


def convert(model, images, freeze_after):
    """The quantization-aware form of a trained net of the zoo.

    Args:
        model: `keras.Model` of this package, post-activation, with trained weights, that ends in logits.
        images: float32 (n, h, w, c), inputs of the model, whose activations are the first ranges.
        freeze_after: batches after which the ranges of activations freeze.
    Returns:
        `keras.Model` in float32 with the same input and output.
    Raises:
        ValueError: for a layer that has no quantization-aware form.
    """
    consumers = _consumers(model)
    rescaling = next((layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling)), None)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))

    def remade(layer):
        _check_layer(layer, model)
        config = layer.get_config() | {"dtype": keras.config.floatx()}
        if isinstance(layer, keras.layers.Conv2D):
            scale = np.ravel(rescaling.scale).tolist() if layer is first and rescaling is not None else [1.0]
            return QuantizedConv2D.from_config(config | {"use_bias": True, "input_scale": scale})
        if isinstance(layer, keras.layers.Dense):
            return QuantizedDense.from_config(config | {"use_bias": True})
        if isinstance(layer, keras.layers.Rescaling):
            return keras.layers.Rescaling(1.0, _rounded_offset(layer), dtype=keras.config.floatx(), name=layer.name)
        return layer.from_config(config)

    def called(layer, *inputs, **options):
        is_folded = isinstance(layer, keras.layers.BatchNormalization)
        outputs = inputs[0] if is_folded else layer(*inputs, **options)
        if _has_range(layer, consumers):
            outputs = ActivationRange(freeze_after, name=f"{layer.name}_range", dtype=keras.config.floatx())(outputs)
        return outputs

    new = keras.models.clone_model(model, clone_function=remade, call_function=called)
    _set_weights(new, model, consumers)
    new(images, training=True)
    return new


# What stays as it is, beside what `convert` makes anew.
KEPT = (
    keras.layers.InputLayer,
    keras.layers.BatchNormalization,
    keras.layers.ReLU,
    keras.layers.Add,
    keras.layers.Multiply,
    keras.layers.Activation,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Dropout,
)
# Whose outputs int8 kernels round to a scale of their own, unless a ReLU or a folded normalization comes before that.
RANGED = (
    keras.layers.Rescaling,
    keras.layers.Conv2D,
    keras.layers.BatchNormalization,
    keras.layers.ReLU,
    keras.layers.Add,
    keras.layers.Multiply,
    keras.layers.Activation,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Dense,
)


def _check_layer(layer, model):
    expected = "Expected a post-activation net of the zoo that ends in logits"
    if isinstance(layer, keras.layers.BatchNormalization):
        before = next(other for other in model.layers if other.output is layer.input)
        if not isinstance(before, keras.layers.Conv2D) or len(_consumers(model)[before.name]) > 1:
            raise ValueError(
                f"{expected}, in which a convolution comes before each batch normalization. Received: "
                f"{model.name}, whose {layer.name!r} follows {before.name!r}. V2 nets are quantized after training."
            )
    elif isinstance(layer, (keras.layers.Activation, keras.layers.Dense)):
        allowed = keras.activations.linear if isinstance(layer, keras.layers.Dense) else keras.activations.sigmoid
        if layer.activation is not allowed:
            raise ValueError(f"{expected}. Received: {layer.name!r} with {layer.activation.__name__}.")
    elif not isinstance(layer, (*KEPT, *RANGED)):
        raise ValueError(f"{expected}. Received: {layer.name!r}, a {type(layer).__name__}.")


def _consumers(model):
    """Dict from a layer's name to the layers that take its output."""
    found = {layer.name: [] for layer in model.layers}
    makers = {id(layer.output): layer.name for layer in model.layers}
    for layer in model.layers:
        for tensor in [] if isinstance(layer, keras.layers.InputLayer) else keras.tree.flatten(layer.input):
            found[makers[id(tensor)]].append(layer)
    return found


def _has_range(layer, consumers):
    if isinstance(layer, keras.layers.ReLU):
        return True
    later = consumers[layer.name]
    takes_over = (keras.layers.ReLU, keras.layers.BatchNormalization)
    return isinstance(layer, RANGED) and not (len(later) == 1 and isinstance(later[0], takes_over))


def _rounded_offset(rescaling):
    """What is added to pixels, in the 8 bits that the file keeps it in; the scale goes into the first kernel."""
    offset = np.asarray(rescaling.offset / np.asarray(rescaling.scale), "float32")
    low, high = min(offset.min(), 0.0), max(offset.max(), 0.0)
    return np.asarray(rounded_activation(ops.convert_to_tensor(offset), low, high)).tolist()


def _set_weights(new, model, consumers):
    """Folds the trained weights into the quantization-aware net."""
    for layer in model.layers:
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            kernel = np.asarray(layer.kernel)
            weights = [kernel, np.asarray(layer.bias) if layer.use_bias else np.zeros(kernel.shape[-1])]
            later = consumers[layer.name]
            if later and isinstance(later[0], keras.layers.BatchNormalization):
                scale, shift = _scale_and_shift(later[0])
                weights = [kernel, weights[1] * scale + shift, scale]
            elif isinstance(layer, keras.layers.Conv2D):
                weights.append(np.ones(kernel.shape[-1]))
            new.get_layer(layer.name).set_weights(weights)
        elif isinstance(layer, keras.layers.Activation):  # int8 kernels fix a sigmoid's scale
            new.get_layer(f"{layer.name}_range").set_weights([0.0, 255 / 256, np.inf])


def _scale_and_shift(norm):
    """What a batch normalization multiplies by and adds: two float64 arrays (channels,)."""
    gamma = np.asarray(norm.gamma, "float64") if norm.scale else 1.0
    beta = np.asarray(norm.beta, "float64") if norm.center else 0.0
    scale = gamma / np.sqrt(np.asarray(norm.moving_variance, "float64") + norm.epsilon)
    return scale, beta - scale * np.asarray(norm.moving_mean, "float64")
