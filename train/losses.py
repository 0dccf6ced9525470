"""Losses of each image, and the targets that mixing and smoothing make of labels."""

import keras
import tensorflow as tf


def one_hot(batch, logits):
    """Targets float (n, classes) in `keras.config.floatx()`; of mixed images both classes have their share."""
    depth, dtype = logits.shape[-1], keras.config.floatx()
    targets = tf.one_hot(batch["label"], depth, dtype=dtype)
    if "share" not in batch:
        return targets
    share = tf.cast(batch["share"], dtype)[:, None]
    return share * targets + (1 - share) * tf.one_hot(batch["other_label"], depth, dtype=dtype)


def cross_entropy(targets, logits, label_smoothing=0.0):
    """Cross entropy of each image: float (n, classes) twice -> (n,) in `keras.config.floatx()`."""
    logits = tf.cast(logits, keras.config.floatx())
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def binary_cross_entropy(targets, logits, label_smoothing=0.0, threshold=0.0):
    """Binary cross entropy, its mean over the classes (arXiv 2110.00476).

    Args:
        targets: float (n, classes), as of `one_hot`.
        logits: float (n, classes).
        label_smoothing: from 0 to 1.
        threshold: share above which a class mixed in is a target, and a whole one.
    Returns:
        (n,) in `keras.config.floatx()`.
    """
    logits = tf.cast(logits, keras.config.floatx())
    targets = tf.cast(targets > threshold, logits.dtype) * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


# By name: functions of (targets, logits, `train.config.Config`).
LOSSES = {
    "cross_entropy": lambda targets, logits, config: cross_entropy(targets, logits, config.label_smoothing),
    "bce": lambda targets, logits, config: binary_cross_entropy(
        targets, logits, config.label_smoothing, config.bce_threshold
    ),
}
