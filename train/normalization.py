"""Batch normalization by TensorFlow's fused kernels: faster than Keras's, the same bits in every run, any replicas.

Keras 3 composes the layer of a dozen operations, whose sums over a batch are not the same from run to run on a CPU
(BUILD_NOTES.md, "Speed"). The layer here has the same variables and the same definition.
"""

import keras
import tensorflow as tf

from train.replicas import sum_over_replicas

FUSED = ("float16", "bfloat16", "float32")  # dtypes of the kernels; float64 is composed, for tests of the loop


@keras.saving.register_keras_serializable(package="keras_resnet")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, computed by FusedBatchNormV3.

    With `synchronized` the statistics are those of the global batch, whatever the number of images on each replica.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalizes: float (n, h, w, c), same shape and dtype out."""
        gamma, beta, mean, variance = map(
            tf.convert_to_tensor, (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        if not (training and self.trainable):
            return _apply(inputs, gamma, beta, mean, variance, self.epsilon)
        if self.synchronized or inputs.dtype.name not in FUSED:
            statistics = _statistics(inputs, self.synchronized)
            outputs = _normalize(inputs, gamma, beta, statistics, self.epsilon, self.synchronized)
            batch_mean, batch_variance, _ = statistics
        else:
            outputs, batch_mean, batch_variance = _fused(inputs, gamma, beta, self.epsilon)
        self.moving_mean.assign(mean * self.momentum + batch_mean * (1 - self.momentum))
        self.moving_variance.assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return outputs


def _fused(x, gamma, beta, epsilon):
    """One kernel forward and one backward: outputs, mean and variance of the batch (divided by n, as in Keras)."""
    empty = tf.zeros((0,), gamma.dtype)
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=empty, variance=empty, epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.size(x) // x.shape[-1], gamma.dtype)
    return outputs, tf.stop_gradient(mean), tf.stop_gradient(variance * ((count - 1) / count))  # theirs: by n - 1


def _statistics(x, synchronized):
    """Mean and variance of the batch over all replicas, and its number of pixels."""
    floats = tf.cast(x, tf.float64 if x.dtype == tf.float64 else tf.float32)
    count = tf.cast(tf.size(x) // x.shape[-1], floats.dtype)
    if x.dtype.name in FUSED:
        ones = tf.ones((x.shape[-1],))
        _, mean, variance = _fused(x, ones, 0 * ones, 1e-5)
    else:
        mean, variance = tf.nn.moments(floats, [0, 1, 2])
    if synchronized:
        total_mean, total = sum_over_replicas([mean * count, count])
        total_mean /= total
        # About the common mean, so that nothing cancels.
        variance = sum_over_replicas([(variance + (mean - total_mean) ** 2) * count])[0] / total
        mean, count = total_mean, total
    return tf.stop_gradient(mean), tf.stop_gradient(variance), count


def _normalize(x, gamma, beta, statistics, epsilon, synchronized):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, whose gradient knows what the statistics depend on.

    Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3, with the sums of the gradient taken over all replicas.
    """
    mean, variance, count = statistics

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        def gradient(upstream):
            inverse = tf.math.rsqrt(variance + epsilon)
            by_gamma, by_beta = _gradient_sums(upstream, x, mean, variance, epsilon)
            sums = sum_over_replicas([by_gamma, by_beta]) if synchronized else (by_gamma, by_beta)
            mean_by_gamma, mean_by_beta = (total / count for total in sums)
            # gamma / sigma (dy - mean(dy) - x^ mean(dy x^)) as a line in dy and x: two passes over the image.
            slope = -gamma * inverse * inverse * mean_by_gamma
            shift = -gamma * inverse * mean_by_beta - slope * mean
            scale, slope, shift = (tf.cast(values, x.dtype) for values in (gamma * inverse, slope, shift))
            return upstream * scale + x * slope + shift, by_gamma, by_beta

        return _apply(x, gamma, beta, mean, variance, epsilon), gradient

    return normalize(x, gamma, beta)


def _gradient_sums(upstream, x, mean, variance, epsilon):
    """Sums over this replica's pixels of dy x^ and of dy: the gradients of gamma and beta."""
    if x.dtype.name in FUSED:
        _, by_gamma, by_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=upstream, x=x, scale=tf.ones_like(mean), reserve_space_1=mean, reserve_space_2=variance,
            reserve_space_3=tf.zeros((0,)), epsilon=epsilon, is_training=False,
        )  # fmt: skip
        return by_gamma, by_beta
    normalized = (x - mean) * tf.math.rsqrt(variance + epsilon)
    return tf.reduce_sum(upstream * normalized, [0, 1, 2]), tf.reduce_sum(upstream, [0, 1, 2])


def _apply(x, gamma, beta, mean, variance, epsilon):
    if x.dtype.name in FUSED:
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        )[0]
    return (x - mean) * (tf.math.rsqrt(variance + epsilon) * gamma) + beta
