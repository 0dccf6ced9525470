"""The trained model, made ready to deploy: float32 throughout, preprocessing folded."""

import keras
import numpy as np


def in_float32(model):
    """A copy of the model that computes in float32, with the same weights.

    A mixed-precision model converts into a file that does not load (tensorflow#46380).

    Args:
        model: `keras.Model` of any dtype policy.
    Returns:
        `keras.Model`.
    """

    def cast(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=cast, recursive=True)
    copy.set_weights([np.asarray(weight, "float32") for weight in model.get_weights()])
    return copy


def fold_preprocessing(model):
    """A copy whose preprocessing is one subtraction: its scale goes into the first kernel.

    x * scale + offset = (x + offset / scale) * scale, and the zero padding around it stays zero, so that
    the outputs are equal. Models without this package's layers are returned as they are.

    Args:
        model: float32 `keras.Model`.
    Returns:
        `keras.Model`.
    """
    names = [layer.name for layer in model.layers]
    first = next((name for name in names if name in ("stem_conv", "stem_conv1")), None)
    if "preprocessing" not in names or first is None or np.ndim(model.get_layer("preprocessing").scale) != 1:
        return model
    scale = np.asarray(model.get_layer("preprocessing").scale, "float64")
    offset = np.asarray(model.get_layer("preprocessing").offset, "float64")

    def shift_only(layer):
        config = layer.get_config()
        if layer.name == "preprocessing":
            config |= {"scale": 1.0, "offset": (offset / scale).tolist()}
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=shift_only)
    copy.set_weights(model.get_weights())
    stem = copy.get_layer(first)
    kernel, *bias = stem.get_weights()
    stem.set_weights([(kernel * scale[:, None]).astype("float32"), *bias])
    return copy
