"""Fine-tunes a net under tensorflow-model-optimization: pruned, clustered, or aware of its quantization.

tfmot knows Keras 2 alone, so the net is mirrored layer by layer into a twin of tf_keras, fine-tuned there, and its
weights carried back (DESIGN.md, decision 6). The one file that imports either package. As a command,
`python twin.py REQUEST.json` fine-tunes once and ends: what these packages set for a process (TF_USE_LEGACY_KERAS,
a second Keras) must not be the exporter's.
"""

import json
import os
import sys

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from export import training
from train import input_pipeline, predictor

QAT, SPARSITY, CLUSTERING = (getattr(tfmot, name).keras for name in ("quantization", "sparsity", "clustering"))
MIRROR_TOLERANCE = 1e-4  # of the largest score; ResNet-50's twin differs by 0.0 to 2e-6
PRUNING_UPDATES = 20  # of the masks, while sparsity rises
RISE = 0.4  # share of the steps in which sparsity rises, from a half of what is asked; in the others the net recovers
KERNELS = ("Conv2D", "Dense")

# Layer class -> the fields of its configuration that its twin is built from; a new kind of layer is a new row.
_POOL = ("pool_size", "strides", "padding", "data_format")
LAYERS = {
    "Rescaling": ("scale", "offset"),
    "ZeroPadding2D": ("padding", "data_format"),
    "Conv2D": ("filters", "kernel_size", "strides", "padding", "dilation_rate", "groups", "use_bias", "activation"),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Activation": ("activation",),
    "MaxPooling2D": _POOL,
    "AveragePooling2D": _POOL,
    "GlobalAveragePooling2D": ("keepdims", "data_format"),
    "GlobalMaxPooling2D": ("keepdims", "data_format"),
    "Add": (),
    "Multiply": (),
    "Dense": ("units", "use_bias", "activation"),
    "Dropout": ("rate", "noise_shape"),
}


def mirror(model):
    """The tf_keras twin of a functional Keras 3 model, with its weights.

    A softmax at the end is left out: fine-tuning is on logits.

    Args:
        model: `keras.Model` with one input and one output, of the layers in `LAYERS`.
    Returns:
        `tf_keras.Model`.
    Raises:
        ValueError: for a layer without a twin.
    """
    (image,), (scores,) = model.inputs, model.outputs
    inputs = tf_keras.Input(image.shape[1:], name=image.name)
    tensors = {id(image): inputs}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        given = [tensors[id(tensor)] for tensor in keras.tree.flatten(layer.input)]
        is_last = layer.output is scores
        if is_last and isinstance(layer, (keras.layers.Activation, keras.layers.Softmax)):
            tensors[id(layer.output)] = given[0]
        else:
            made = _twin_layer(layer, is_last)
            tensors[id(layer.output)] = made(given if len(given) > 1 else given[0])
    twin = tf_keras.Model(inputs, tensors[id(scores)], name=model.name)
    stored = {(layer.name, weight.name): weight.numpy() for layer in model.layers for weight in layer.weights}
    found = variables(twin)
    if found.keys() != stored.keys():
        raise ValueError(f"The twin's weights are not the model's: {sorted(found.keys() ^ stored.keys())}.")
    for key, variable in found.items():
        variable.assign(stored[key])
    return twin


def _twin_layer(layer, is_last):
    kind = type(layer).__name__
    if kind not in LAYERS or type(layer) is not getattr(keras.layers, kind):
        raise ValueError(
            f"Fine-tuning knows the layers of this package's nets alone. Expected layers among {', '.join(LAYERS)}. "
            f"Received: {layer.name!r}, a {kind}."
        )
    config = layer.get_config()
    chosen = {field: config[field] for field in LAYERS[kind]}
    if is_last and chosen.get("activation") == "softmax":
        chosen["activation"] = "linear"
    return getattr(tf_keras.layers, kind)(name=layer.name, **chosen)


def variables(twin):
    """dict from (layer, weight), by the names that Keras 3 gives them, to the variable; tfmot's own are left out."""
    found = {}
    for layer in twin.layers:
        inner = getattr(layer, "layer", layer)
        own = _weight_names(inner)
        for variable in layer.weights:
            name = variable.name.partition(":")[0].rpartition("/")[2]
            if name in own:
                found[inner.name, name] = variable
    return found


def _weight_names(layer):
    kernel = ("kernel", "bias") if layer.__class__.__name__ in KERNELS else ()
    norm = ("gamma", "beta", "moving_mean", "moving_variance")
    return kernel or (norm if isinstance(layer, tf_keras.layers.BatchNormalization) else ())


def weights_of(twin):
    """dict from (layer, weight) to its array."""
    return {key: variable.numpy() for key, variable in variables(twin).items()}


def difference(twin, model):
    """Largest difference between a twin and its model on random pixels, as a share of the largest logit."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    theirs = twin(pixels, training=False).numpy()
    ours = training.logits(model)(pixels, training=False).numpy()
    return float(np.abs(theirs - ours).max() / np.abs(ours).max())


# ---------------------------------------------------------------------------------------------------------------------
# Preparations: function(model, settings, num_steps) -> student, callbacks, function that ends it.


def _wrapped(model, wrap):
    return tf_keras.models.clone_model(mirror(model), clone_function=wrap)


def pruned(model, settings, num_steps):
    """Kernels but the first, whose smallest weights become zero (tfmot's prune_low_magnitude)."""
    steps = max(1, int(RISE * num_steps))
    schedule = SPARSITY.PolynomialDecay(
        settings["sparsity"] / 2, settings["sparsity"], 0, steps, frequency=max(1, steps // PRUNING_UPDATES)
    )
    return _pruned(model, {"pruning_schedule": schedule})


def pruned_2_of_4(model, settings, num_steps):
    """Of four weights in a row along a kernel's inputs, the two smallest become zero, from the first step on."""
    schedule = SPARSITY.ConstantSparsity(0.5, 0, frequency=max(1, num_steps // PRUNING_UPDATES))
    return _pruned(model, {"pruning_schedule": schedule, "sparsity_m_by_n": (2, 4)})


def _pruned(model, options):
    first = next(layer.name for layer in model.layers if type(layer).__name__ in KERNELS)

    def wrap(layer):
        if layer.__class__.__name__ not in KERNELS or layer.name == first:
            return layer
        return SPARSITY.prune_low_magnitude(layer, **options)

    return _wrapped(model, wrap), [SPARSITY.UpdatePruningStep()], SPARSITY.strip_pruning


def clustered(model, settings, num_steps):
    """Kernels of few distinct values (tfmot's cluster_weights)."""
    options = {
        "number_of_clusters": settings["clusters"],
        "cluster_centroids_init": CLUSTERING.CentroidInitialization.KMEANS_PLUS_PLUS,
    }

    def wrap(layer):
        is_large = layer.__class__.__name__ in KERNELS
        return CLUSTERING.cluster_weights(layer, **options) if is_large else layer

    return _wrapped(model, wrap), [], CLUSTERING.strip_clustering


class _AsInFile(QAT.QuantizeConfig):
    """What the int8 file rounds in a layer: kernels with a scale a channel, the output in its fixed range."""

    def __init__(self, has_kernel, edges):
        self.has_kernel, self.edges = has_kernel, edges

    def get_weights_and_quantizers(self, layer):
        if not self.has_kernel:
            return []
        return [(layer.kernel, _KernelQuantizer(8, per_axis=True, symmetric=True, narrow_range=True))]

    def set_quantize_weights(self, layer, quantize_weights):
        if self.has_kernel:
            (layer.kernel,) = quantize_weights

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return [_FixedQuantizer(8, *self.edges, narrow_range=False)] if self.edges else []

    def get_config(self):
        return {"has_kernel": self.has_kernel, "edges": self.edges}


class _KernelQuantizer(QAT.quantizers.LastValueQuantizer):
    """With a range for each output channel; tfmot's own gives dense layers one for all."""

    def build(self, tensor_shape, name, layer):
        return self._add_range_weights(layer, name, True, tensor_shape)


class _FixedQuantizer(QAT.quantizers.FixedQuantizer):
    """In the range that the file has; tfmot's own forgets to say that it has no variables."""

    def build(self, tensor_shape, name, layer):
        return {}


def aware(model, settings, num_steps):
    """Computes in training as the int8 file will: tfmot's wrappers, told by the file's graph what is rounded."""

    def wrap(layer):
        has_kernel = layer.__class__.__name__ in KERNELS
        edges = settings["ranges"].get(layer.name, settings["ranges"].get(f"{layer.name}/logits"))
        return QAT.QuantizeWrapperV2(layer, _AsInFile(has_kernel, edges)) if has_kernel or edges else layer

    return _wrapped(model, wrap), [], _settle_kernel_ranges


def _settle_kernel_ranges(student):
    """tfmot notes a kernel's range before a step changes the kernel: notes it once more."""
    for layer in student.layers:
        if getattr(layer, "_weight_vars", None):
            ((kernel, _, edges),) = layer._weight_vars
            largest = tf.reduce_max(tf.abs(kernel), axis=[*range(len(kernel.shape) - 1)])
            edges["min_var"].assign(-largest)
            edges["max_var"].assign(largest)
    return student


def _set_norms(student, is_frozen, num_steps):
    """Batch normalization as deployed, with its stored statistics; or with ones of the last tenth of the steps."""
    for layer in student.layers:
        norm = getattr(layer, "layer", layer)
        if isinstance(norm, tf_keras.layers.BatchNormalization):
            norm.trainable = not is_frozen
            norm.momentum = max(norm.momentum, 1 - 10 / num_steps)


PREPARATIONS = {"pruned": pruned, "pruned_2_of_4": pruned_2_of_4, "clustered": clustered, "qat": aware}


def even_scale(model):
    """Gives a net's preprocessing one scale for all channels, and the first kernel what the channels differ by.

    The file has the whole scale in the first kernel; one number there leaves the grid of its 8-bit weights alone.

    Args:
        model: `keras.Model`, changed in place; its scores stay.
    Returns:
        name of the first convolution and float array (channels,) that its kernel was multiplied by; or None, None.
    """
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if len(layers) < 3 or not isinstance(layers[0], keras.layers.Rescaling):
        return None, None
    conv = layers[2] if isinstance(layers[1], keras.layers.ZeroPadding2D) else layers[1]
    scale = np.ravel(layers[0].scale).astype("float64")
    if not isinstance(conv, keras.layers.Conv2D) or conv.kernel.shape[2] not in (len(scale), 1) or not np.all(scale):
        return None, None
    even = float(np.exp(np.mean(np.log(np.abs(scale)))))
    layers[0].offset = (np.ravel(layers[0].offset) * even / scale).tolist()
    layers[0].scale = even
    ratio = scale / even
    conv.kernel.assign(conv.kernel.numpy() * ratio[:, None])
    return conv.name, ratio


def fine_tune(model, batches_of, num_steps, request):
    """Prepares and trains the twin.

    Args:
        model: `keras.Model`.
        batches_of: function from an epoch's number to a `tf.data.Dataset` of {"image", "label"}.
        num_steps: steps an epoch.
        request: dict as of `main`.
    Returns:
        the tf_keras student at its end, dict of facts.
    """
    tf_keras.utils.set_random_seed(request["seed"])
    teacher = mirror(model)
    facts = {"mirror_difference": difference(teacher, model)}
    if not facts["mirror_difference"] < MIRROR_TOLERANCE:
        raise ValueError(f"The twin does not compute what the model does: it differs by {facts['mirror_difference']}.")
    steps = num_steps * request["epochs"]
    student, callbacks, end = PREPARATIONS[request["preparation"]](model, request, steps)
    _set_norms(student, request["frozen_norm"], steps)
    rate = tf_keras.optimizers.schedules.CosineDecay(request["learning_rate"], steps)
    optimizer = tf_keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    student.compile(optimizer, tf_keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

    def pair(batch):
        pixels = tf.cast(batch["image"], tf.float32)
        targets = tf.one_hot(batch["label"], model.output_shape[-1])
        share = request["teacher_share"]
        if share:
            targets = share * tf.nn.softmax(teacher(pixels, training=False)) + (1 - share) * targets
        return pixels, targets

    history = []
    for epoch in range(request["epochs"]):
        batches = batches_of(epoch).map(pair).prefetch(2)
        seen = student.fit(batches, epochs=epoch + 1, initial_epoch=epoch, callbacks=callbacks, verbose=0).history
        history.append({name: values[0] for name, values in seen.items()})
    return end(student), facts | {"history": history}


def main(path):
    """Works off a request; prints facts as JSON.

    Args:
        path: JSON file with "model" (.keras), "preparation", "epochs", "learning_rate", "teacher_share",
            "frozen_norm", "seed", "data" (`training.open_images`), "images" (.npy whose scores are
            wanted), "weights" and "scores" (.npz and .npy to write), and what the preparation needs: "sparsity",
            "clusters", "ranges".
    """
    with open(path, encoding="utf-8") as file:
        request = json.load(file)
    model = predictor.load_keras(request["model"])
    source, config = training.open_images(request["data"])
    evened, ratio = even_scale(model) if request["preparation"] == "qat" else (None, None)
    if evened:
        name = model.layers[1].name
        if name in request["ranges"]:
            request["ranges"][name] = [edge * model.layers[1].scale for edge in request["ranges"][name]]
    student, facts = fine_tune(
        model,
        lambda epoch: input_pipeline.training_batches(source, config, epoch=epoch),
        input_pipeline.num_training_batches(source, config),
        request,
    )
    images = np.load(request["images"])
    scores = [student(np.float32(images[start : start + 64]), training=False) for start in range(0, len(images), 64)]
    arrays = weights_of(student)
    if evened:
        arrays[evened, "kernel"] = (arrays[evened, "kernel"] / ratio[:, None]).astype("float32")
    named = {f"{layer}/{weight}": array for (layer, weight), array in arrays.items()}
    np.savez(request["weights"], **named)
    np.save(request["scores"], np.concatenate(scores))
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv[1])
