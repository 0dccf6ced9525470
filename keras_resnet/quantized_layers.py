"""Layers that compute with the numbers of int8 files and pass gradients as if they did not.

Kernels are rounded to 8 bits with a scale an output channel, activations to 8 bits with one scale, by a moving average
of each batch's smallest and largest value (Jacob et al. 2018, arXiv 1712.05877).
"""

import keras
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
    scale = ops.stop_gradient(kernel_scale(kernel))
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)


def kernel_scale(kernel):
    """Scale of each output channel of a kernel (..., channels): (1, ..., channels), the largest value over 127."""
    largest = ops.max(ops.abs(kernel), axis=[*range(len(kernel.shape) - 1)], keepdims=True)
    return ops.where(largest > 0, largest, 1.0) / LEVELS


def activation_scale(low, high):
    """Scale of an activation whose range is cut into 256 numbers."""
    return ops.maximum(high - low, LEAST) / 255


def rounded_activation(x, low, high):
    """An activation rounded to 256 numbers from `low` to `high`, 0 among them; beyond them the gradient is 0."""
    scale = activation_scale(low, high)
    zero_point = ops.clip(ops.round(-128 - low / scale), -128, 127)
    x = ops.clip(x, scale * (-128 - zero_point), scale * (127 - zero_point))
    return x + ops.stop_gradient(ops.round(x / scale) * scale - x)
