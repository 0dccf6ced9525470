"""Shortcuts other than the identity, to see why it is the one: functions of both paths of a block.

He et al. 2016 (arXiv 1603.05027), section 3 and table 1, on the post-activation block. Where a block changes the
dimensions, the shortcut that they change is option A's. "1x1 conv shortcut" of the table is option C.
"""

import keras

SCALE = 0.5  # of both paths: the only scaling of table 1 that converged
GATE_BIAS = -6.0  # at the start, with which the best gates of table 1 began: nearly closed
DROPOUT_RATE = 0.5


def scaled(shortcut, branch, options, name):
    """Half of both: float (n, h, w, c) twice -> the same shapes."""
    layer = keras.layers.Rescaling
    return layer(SCALE, name=f"{name}_shortcut_scale")(shortcut), layer(SCALE, name=f"{name}_branch_scale")(branch)


def gated(shortcut, branch, options, name):
    """Exclusive gating, as in highway networks: 1 - g of the shortcut and g of the branch.

    Float (n, h, w, c) twice -> the same shapes.
    """
    gate = _gate(shortcut, options, name)
    branch = keras.layers.Multiply(name=f"{name}_branch_gated")([branch, gate])
    return _without(shortcut, gate, name), branch


def gated_shortcut(shortcut, branch, options, name):
    """Shortcut-only gating, 1 - g of the shortcut and all of the branch: (n, h, w, c) twice -> the same shapes."""
    return _without(shortcut, _gate(shortcut, options, name), name), branch


def dropout(shortcut, branch, options, name):
    """Half of the shortcut's values, drawn anew for every image in training, are left out: (n, h, w, c) twice -> same.

    Keras's dropout is inverted: it doubles what it keeps, so that the expectation stays. The paper's halves it.
    """
    return keras.layers.Dropout(DROPOUT_RATE, name=f"{name}_shortcut_dropout")(shortcut), branch


def _gate(x, options, name):
    """g = sigmoid(W x + b), a 1x1 convolution, a share in (0, 1) for each value: (n, h, w, c) -> (n, h, w, c)."""
    gate = keras.layers.Conv2D(
        x.shape[-1 if keras.config.image_data_format() == "channels_last" else 1],
        1,
        kernel_initializer=options.kernel_initializer(),
        bias_initializer=keras.initializers.Constant(GATE_BIAS),
        name=f"{name}_shortcut_gate",
    )(x)
    return keras.layers.Activation("sigmoid", name=f"{name}_shortcut_sigmoid")(gate)


def _without(shortcut, gate, name):
    """The share 1 - g of the shortcut: (n, h, w, c) twice -> (n, h, w, c)."""
    rest = keras.layers.Rescaling(-1.0, 1.0, name=f"{name}_shortcut_rest")(gate)
    return keras.layers.Multiply(name=f"{name}_shortcut_gated")([shortcut, rest])


CHANGES = {"scaled": scaled, "gated": gated, "gated_shortcut": gated_shortcut, "dropout": dropout}
