"""The trained model, made ready to deploy: float32 throughout."""

import keras
import numpy as np


def in_float32(model):
    """The model in float32, with the same weights: itself where it computes so already, else a copy.

    A mixed-precision model converts into a file that does not load (tensorflow#46380).

    Args:
        model: `keras.Model` of any dtype policy.
    Returns:
        `keras.Model`.
    """
    if all(layer.compute_dtype == layer.variable_dtype == "float32" for layer in model.layers):
        return model

    def cast(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=cast, recursive=True)
    copy.set_weights([np.asarray(weight, "float32") for weight in model.get_weights()])
    return copy
