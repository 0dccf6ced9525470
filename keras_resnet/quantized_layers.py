"""Layers that compute with the numbers of int8 files and pass gradients as if they did not.

Kernels are rounded to 8 bits with a scale an output channel, activations to 8 bits with one scale, by a moving average
of each batch's smallest and largest value (Jacob et al. 2018, arXiv 1712.05877). In training they compute with the
rounded numbers in float32. A layer that was told the scales around it (`steps`) infers with the stored integers, in the
arithmetic of XNNPACK (github.com/google/XNNPACK), so that ties are rounded the same way.
"""

import keras
import numpy as np
from keras import ops

LEVELS = 127  # of symmetric 8-bit weights
MOMENTUM = 0.99  # of the moving average of ranges, per batch (arXiv 1712.05877, section 3.1: "close to 1")
LEAST = 1e-9  # length of a range in which nothing was seen
ADDITION_BITS = 21  # of the larger factor by which XNNPACK's addition multiplies its inputs
ADDITION_SHIFTS = range(13, 31)  # by which it divides: of ratios of scales from 2^-10 to 2^8


class _Stepped:
    """A layer that may be told the scales of its stored inputs and outputs, and then infers with integers.

    Args:
        *arguments: the layer's own.
        steps: list of the scale of each input and of the output, see `quantization_aware.settled`; None if not told.
        **options: the layer's own.
    """

    def __init__(self, *arguments, steps=None, **options):
        super().__init__(*arguments, **options)
        self.steps = steps

    def call(self, inputs, training=None):
        """Shapes are those of the layer without rounding."""
        if training or self.steps is None:
            return self.in_float(inputs)
        return self.in_integers(inputs, *self.steps)

    def in_float(self, inputs):
        """The outputs, not rounded to their scale."""
        return super().call(inputs)

    def get_config(self):
        """Configuration, for saving."""
        return super().get_config() | {"steps": self.steps}


class _Weighted(_Stepped):
    """A layer with `bias` and a `deployed_kernel` (..., channels), which is rounded to 8 bits, to `multiply` by."""

    def in_float(self, inputs):
        """With a gradient for the kernel."""
        return self.multiply(inputs, rounded_kernel(self.deployed_kernel)) + self.bias

    def in_integers(self, inputs, of_inputs, of_outputs):
        """As XNNPACK's qs8-qc8w kernels, which scale the sums in float32."""
        kernel = self.deployed_kernel
        scale = kernel_scale(kernel)
        product = of_inputs * ops.reshape(scale, (-1,))
        sums = self.multiply(_stored(inputs, of_inputs), ops.round(kernel / scale)) + ops.round(self.bias / product)
        return ops.round(sums * _quotient(product, of_outputs)) * of_outputs


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedConv2D(_Weighted, keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose kernel is rounded to 8 bits.

    What it computes with is the kernel times the scales of inputs and outputs. Trained is the kernel alone, at the size
    that it had among preprocessing and batch normalization; one that had them folded in would explode.

    Weights: `kernel`, `bias`, and `output_scale` (filters,), which is not trained.

    Args:
        input_scale: list with a number an input channel, or one for all.
        **options: `steps`, and those of `keras.layers.Conv2D`.
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

    def multiply(self, inputs, kernel):
        """(n, h, w, c) -> (n, h, w, filters)."""
        return ops.conv(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def get_config(self):
        """Configuration, for saving."""
        return super().get_config() | {"input_scale": self.input_scale}


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedDense(_Weighted, keras.layers.Dense):
    """`keras.layers.Dense` whose kernel is rounded to 8 bits: (n, c) -> (n, units)."""

    multiply = staticmethod(ops.matmul)

    @property
    def deployed_kernel(self):
        """The kernel that is rounded."""
        return ops.convert_to_tensor(self.kernel)


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedRescaling(_Stepped, keras.layers.Rescaling):
    """`keras.layers.Rescaling` of pixels, by 1: it adds an offset that is stored in 8 bits."""

    def in_integers(self, inputs, of_inputs, of_outputs):
        """As `QuantizedAdd`."""
        offset = np.ravel(self.offset)
        of_offset = stored_scale(min(0.0, *offset), max(0.0, *offset))
        offset = ops.convert_to_tensor(offset, self.compute_dtype)
        return _fixed_point_sum([inputs, offset], of_inputs, of_offset, of_outputs)


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedAdd(_Stepped, keras.layers.Add):
    """`keras.layers.Add` of two stored activations."""

    def in_integers(self, inputs, *steps):
        """In fixed point."""
        return _fixed_point_sum(inputs, *steps)


def _fixed_point_sum(inputs, *steps):
    """As XNNPACK's qs8-vadd kernels; what they do not take, sums as good as always 0, is LiteRT's and not rounded."""
    of_inputs, of_outputs = np.float32(steps[:-1]), np.float32(steps[-1])
    ratios = of_inputs / of_outputs
    shift = ADDITION_BITS - int(np.frexp(ratios.max())[1])
    if shift not in ADDITION_SHIFTS:
        return sum(inputs)
    total = 2 ** (shift - 1)  # so that the shift rounds to the nearest, ties upwards
    for x, of_input, factor in zip(inputs, of_inputs, np.rint(np.ldexp(ratios, shift)), strict=True):
        total += ops.cast(_stored(x, of_input), "int32") * int(factor)
    return ops.cast(ops.right_shift(total, shift), inputs[0].dtype) * of_outputs


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedMultiply(_Stepped, keras.layers.Multiply):
    """`keras.layers.Multiply` of two stored activations."""

    def in_integers(self, inputs, *steps):
        """As XNNPACK's qs8-vmul kernels."""
        first, second, of_outputs = np.float32(steps)
        # In float32, TensorFlow's graphs would multiply the smaller input by the factor first.
        products = ops.cast(_stored(inputs[0], first), "int32") * ops.cast(_stored(inputs[1], second), "int32")
        return ops.round(ops.cast(products, self.compute_dtype) * (first * second / of_outputs)) * of_outputs


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedGlobalAveragePooling2D(_Stepped, keras.layers.GlobalAveragePooling2D):
    """`keras.layers.GlobalAveragePooling2D` of a stored activation."""

    def in_integers(self, inputs, of_inputs, of_outputs):
        """As XNNPACK, which scales the sum in float32."""
        _, height, width, _ = ops.shape(inputs)
        sums = ops.sum(_stored(inputs, of_inputs), axis=(1, 2), keepdims=self.keepdims)
        return ops.round(sums * (of_inputs / (ops.cast(height * width, sums.dtype) * of_outputs))) * of_outputs


@keras.saving.register_keras_serializable(package="keras_resnet")
class QuantizedAveragePooling2D(_Stepped, keras.layers.AveragePooling2D):
    """`keras.layers.AveragePooling2D` of a stored activation that is never below 0, so that -128 stands for 0."""

    def in_integers(self, inputs, step):
        """As LiteRT's own kernel, which rounds ties of what is stored away from 0."""
        stored = self.in_float(_stored(inputs, step)) - 128
        return (ops.sign(stored) * ops.floor(ops.abs(stored) + 0.5) + 128) * step


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


def _stored(x, step):
    """Integers, less their zero point, as which an activation is stored."""
    return ops.round(x / step)


def rounded_kernel(kernel):
    """A kernel (..., channels) rounded to 8 bits, symmetric, with a scale a channel; the gradient is the kernel's."""
    scale = ops.stop_gradient(kernel_scale(kernel))
    return kernel + ops.stop_gradient(ops.round(kernel / scale) * scale - kernel)


def kernel_scale(kernel):
    """Scale of each output channel of a kernel (..., channels): (1, ..., channels), the largest value over 127."""
    largest = ops.max(ops.abs(kernel), axis=[*range(len(kernel.shape) - 1)], keepdims=True)
    return _quotient(ops.where(largest > 0, largest, 1.0), LEVELS)


def _quotient(x, number):
    """x / number to the last bit, by which ties go their way; TensorFlow's graphs would multiply by 1 / number."""
    return ops.cast(ops.cast(x, "float64") / number, x.dtype)


def activation_scale(low, high):
    """Scale of an activation whose range is cut into 256 numbers."""
    return ops.maximum(high - low, LEAST) / 255


def stored_scale(low, high):
    """The same scale to the last bit of float32, of two numbers, as files have it: float."""
    return float(np.float32(max(float(high) - float(low), LEAST) / 255))


def rounded_activation(x, low, high):
    """An activation rounded to 256 numbers from `low` to `high`, 0 among them; beyond them the gradient is 0."""
    scale = activation_scale(low, high)
    zero_point = ops.clip(ops.round(-128 - low / scale), -128, 127)
    x = ops.clip(x, scale * (-128 - zero_point), scale * (127 - zero_point))
    return x + ops.stop_gradient(ops.round(x / scale) * scale - x)
