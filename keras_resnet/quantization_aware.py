"""Quantization-aware nets: float32 nets that compute with the numbers of their int8 file, and can be trained so.

Batch normalization is folded into the convolutions, as it is deployed (Jacob et al. 2018, arXiv 1712.05877); layers are
those of `quantized_layers`.
"""

import keras
import numpy as np
from keras import ops

from keras_resnet import quantized_layers
from keras_resnet.quantized_layers import ActivationRange, QuantizedConv2D, QuantizedDense

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
WEIGHTED = (QuantizedConv2D, QuantizedDense)
# What a layer becomes that is told the scales around it.
SETTLED = {
    QuantizedConv2D: QuantizedConv2D,
    QuantizedDense: QuantizedDense,
    keras.layers.Rescaling: quantized_layers.QuantizedRescaling,
    keras.layers.Add: quantized_layers.QuantizedAdd,
    keras.layers.Multiply: quantized_layers.QuantizedMultiply,
    keras.layers.AveragePooling2D: quantized_layers.QuantizedAveragePooling2D,
    keras.layers.GlobalAveragePooling2D: quantized_layers.QuantizedGlobalAveragePooling2D,
}


def is_quantization_aware(model):
    """Whether a model was made by `convert`."""
    return any(isinstance(layer, ActivationRange) for layer in model.layers)


def settled(model):
    """A trained net that infers with the integers of its int8 file: each layer gets the scales around it.

    Without that, sums in float32 and XNNPACK's in fixed point round some ties apart, of which deeper layers make more:
    one score in 200 of ResNet-20 differed by two steps (BUILD_NOTES.md, "Quantization-aware training in Keras 3").

    Args:
        model: `keras.Model` of `convert`.
    Returns:
        `keras.Model` whose kernels and biases have the values that the file keeps, preprocessing's and batch
        normalization's scale among them: to deploy, not to train further.
    """
    consumers = _consumers(model)
    makers = {id(layer.output): layer for layer in model.layers}

    def step_before(tensor):
        layer = makers[id(tensor)]
        while not isinstance(layer, ActivationRange):  # padding and pooling keep the scale
            if isinstance(layer, keras.layers.InputLayer):
                return 1.0
            layer = makers[id(layer.input)]
        return quantized_layers.stored_scale(layer.range_low, layer.range_high)

    def step_after(layer):
        while not isinstance(layer, ActivationRange):
            (layer,) = consumers[layer.name]
        return quantized_layers.stored_scale(layer.range_low, layer.range_high)

    def remade(layer):
        config, kind = layer.get_config(), SETTLED.get(type(layer))
        if kind is None:
            return layer.from_config(config)
        config["steps"] = [*map(step_before, keras.tree.flatten(layer.input))]
        if kind is not quantized_layers.QuantizedAveragePooling2D:  # which keeps its inputs' scale
            config["steps"].append(step_after(layer))
        if kind is QuantizedConv2D:
            config["input_scale"] = [1.0]
        return kind.from_config(config)

    new = keras.models.clone_model(model, clone_function=remade)
    for layer in model.layers:
        same = new.get_layer(layer.name)
        same.set_weights(_settled_weights(layer, same.steps[0]) if isinstance(layer, WEIGHTED) else layer.get_weights())
    return new


def _settled_weights(layer, step):
    """Kernel and bias as their stored integers tell them, of inputs that are stored with that scale."""
    kernel = layer.deployed_kernel
    product = step * np.ravel(quantized_layers.kernel_scale(kernel)).astype("float64")
    bias = np.round(np.asarray(layer.bias) / product) * product
    output_scale = [np.ones(len(bias))] if isinstance(layer, QuantizedConv2D) else []
    return [np.asarray(quantized_layers.rounded_kernel(kernel)), bias, *output_scale]


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
    elif isinstance(layer, keras.layers.Rescaling) and layer.input is not model.inputs[0]:
        raise ValueError(f"{expected}, whose pixels alone are rescaled. Received: {layer.name!r} in {model.name}.")
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
    return np.asarray(quantized_layers.rounded_activation(ops.convert_to_tensor(offset), low, high)).tolist()


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
            _fix_range(new, layer, 255 / 256)
        elif isinstance(layer, keras.layers.Rescaling) and not np.any(layer.offset):  # files keep such pixels as given
            _fix_range(new, layer, 255)


def _fix_range(new, layer, high):
    new.get_layer(f"{layer.name}_range").set_weights([*np.array([0, high, np.inf])])


def _scale_and_shift(norm):
    """What a batch normalization multiplies by and adds: two float64 arrays (channels,)."""
    gamma = np.asarray(norm.gamma, "float64") if norm.scale else 1.0
    beta = np.asarray(norm.beta, "float64") if norm.center else 0.0
    scale = gamma / np.sqrt(np.asarray(norm.moving_variance, "float64") + norm.epsilon)
    return scale, beta - scale * np.asarray(norm.moving_mean, "float64")
