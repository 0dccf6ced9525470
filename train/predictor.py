"""A deployable file as a function from pixels to class scores, whatever its kind."""

import dataclasses
import os
import sys
import zipfile
from collections.abc import Callable

import numpy as np

import train

NUM_THREADS = 2  # of the LiteRT interpreter
RECURSION_LIMIT = 30_000  # ResNet-1202: Keras walks a net by recursion, see keras_resnet.resnet.allow_depth


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A model that scores uint8 images.

    Attributes:
        predict: function from uint8 (n, h, w, c) to float32 scores (n, classes).
        image_shape: (h, w, c) that it takes; h and w may be None.
        num_classes: number of scores an image.
    """

    predict: Callable
    image_shape: tuple
    num_classes: int


def load(path, num_threads=NUM_THREADS, any_size=False):
    """Opens a `.keras` or `.tflite` file for prediction.

    Args:
        path: the file.
        num_threads: threads of the LiteRT interpreter.
        any_size: whether to rebuild the net for images of any height and width.
    Returns:
        `Predictor`.
    Raises:
        ValueError: if the file is absent, damaged, of another kind, not an image classifier, or tied to one size.
    """
    _check_is_file(path)
    if path.endswith(".keras"):
        model = load_keras(path)
        return from_keras(for_any_size(model) if any_size else model)
    if path.endswith(".tflite"):
        found = from_tflite(path, num_threads)
        if any_size:
            raise ValueError(
                "A .tflite file takes images of one size. Expected a .keras file for --scales. Received: "
                f"{path!r}, {found.image_shape[0]} x {found.image_shape[1]} pixels. Use --crops=10, or its .keras file."
            )
        return found
    raise ValueError(f"The model file is of an unknown kind. Expected .keras or .tflite. Received: {path!r}.")


def _check_is_file(path):
    if os.path.isfile(path):
        return
    expected = "Expected a .keras or .tflite file, or one of keras_resnet.list_models()"
    problem, received, hint = "The model file does not exist", repr(path), ""
    if os.path.exists(os.path.join(path, "saved_model.pb")):
        problem, hint = (
            "A SavedModel is not scored",
            " Score the .keras file it was exported from, or a .tflite beside it.",
        )
        received += ", a SavedModel folder"
    elif os.path.isdir(path):
        problem, received = "The model is a folder", f"{path!r}, a folder"
        models = sorted(name for name in os.listdir(path) if name.endswith((".keras", ".tflite")))
        hint = f" Pass {os.path.join(path, models[0])}." if models else ""
    raise ValueError(f"{problem}. {expected}. Received: {received}.{hint}")


def load_keras(path):
    """Loads a `.keras` image classifier; layers that carry code are refused.

    Args:
        path: the file.
    Returns:
        `keras.Model` from images (n, h, w, c) to scores (n, classes).
    Raises:
        ValueError: if it cannot be loaded or is not such a model.
    """
    import keras

    import keras_resnet.quantized_layers  # noqa: F401 - its layers load by name

    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))
    expected = "Expected a .keras file of an image classifier"
    if not os.path.isfile(path):
        raise ValueError(f"The model file does not exist. {expected}. Received: {path!r}.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"The file is not a Keras model. {expected}. Received: {path!r}.")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever the damaged part happens to trip over
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if "ambda" in str(error):
            reason = "it has a Lambda layer, whose code travels in the file; replace it by a layer of Keras"
        raise ValueError(
            f"The file does not load. {expected} without custom layers. Received: {path!r}: {reason}."
        ) from error
    if any(isinstance(layer, keras.layers.Lambda) for layer in model.layers):
        raise ValueError(f"The model has a Lambda layer. {expected} of Keras's own layers. Received: {path!r}.")
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or [*map(len, shapes)] != [4, 2]:
        raise ValueError(f"{expected}: (n, h, w, c) in, (n, classes) out. Received: shapes {shapes} in {path!r}.")
    return model


def for_any_size(model):
    """A copy of a fully convolutional model that takes images of any height and width, with the same weights.

    Args:
        model: `keras.Model` from (n, h, w, c) to (n, classes).
    Returns:
        `keras.Model` from (n, None, None, c).
    Raises:
        ValueError: if a layer, such as a flattening one, needs the model's own size.
    """
    import keras

    (inputs,) = model.inputs
    if inputs.shape[1:3] == (None, None):
        return model
    anywhere = keras.Input((None, None, inputs.shape[-1]), dtype=inputs.dtype, name=inputs.name)
    try:
        copy = keras.models.clone_model(model, input_tensors=anywhere)
        copy.set_weights(model.get_weights())
    except (ValueError, TypeError) as error:
        raise ValueError(
            "The model is tied to one size of image. Expected convolutions up to a global pooling. Received: "
            f"{model.name}, {inputs.shape[1]} x {inputs.shape[2]} pixels. Leave out --scales."
        ) from error
    return copy


def from_keras(model):
    """`Predictor` of a Keras model, compiled once a batch size."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def forward(images):
        return tf.cast(model(images, training=False), tf.float32)

    return Predictor(
        lambda images: forward(tf.convert_to_tensor(images)).numpy(),
        tuple(model.inputs[0].shape[1:]),
        model.outputs[0].shape[-1],
    )


def from_tflite(path, num_threads=NUM_THREADS, uses_xnnpack=True):
    """`Predictor` of a LiteRT file: quantizes the input and dequantizes the output where the file asks for it."""
    interpreter = open_tflite(path, num_threads, uses_xnnpack)
    (inputs,), (outputs,) = interpreter.get_input_details(), interpreter.get_output_details()
    batch_size = inputs["shape"][0]

    def predict(images):
        scores = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            missing = batch_size - len(batch)
            padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            interpreter.set_tensor(inputs["index"], _quantized(padded, inputs))
            interpreter.invoke()
            scores.append(_dequantized(interpreter.get_tensor(outputs["index"]), outputs)[: len(batch)])
        return np.concatenate(scores)

    return Predictor(predict, tuple(int(side) for side in inputs["shape"][1:]), int(outputs["shape"][-1]))


def open_tflite(path, num_threads=NUM_THREADS, uses_xnnpack=True):
    """LiteRT interpreter of an image classifier, tensors allocated.

    Raises:
        ValueError: if the file is damaged or has not one image input and one output.
    """
    interpreter = open_interpreter(path, num_threads, uses_xnnpack)
    shapes = [tuple(d["shape"]) for d in (*interpreter.get_input_details(), *interpreter.get_output_details())]
    if [*map(len, shapes)] != [4, 2]:
        raise ValueError(
            f"Expected an image classifier: one image in, scores out. Received: shapes {shapes} in {path!r}."
        )
    return interpreter


def open_interpreter(file, num_threads=NUM_THREADS, uses_xnnpack=True):
    """LiteRT interpreter of any file, tensors allocated.

    Args:
        file: path, or the bytes of the file.
        num_threads: threads to run on.
        uses_xnnpack: whether its fast kernels run what they can, or LiteRT's own run all.
    Raises:
        ValueError: if the file is damaged.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN if uses_xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    given = {"model_content": file} if isinstance(file, bytes) else {"model_path": file}
    try:
        with train.quiet_stderr():  # LiteRT announces its CPU delegate
            interpreter = Interpreter(**given, num_threads=num_threads, experimental_op_resolver_type=kernels)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        title = f"{len(file)} bytes" if isinstance(file, bytes) else repr(file)
        raise ValueError(
            f"The LiteRT file does not load. Expected a .tflite model. Received: {title} ({error})."
        ) from error
    return interpreter


def _quantized(images, details):
    """Pixels in the input's type: value = scale * (stored - zero point)."""
    scale, zero_point = details["quantization"]
    dtype = details["dtype"]
    if scale == 0:
        return images.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(images / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantized(scores, details):
    scale, zero_point = details["quantization"]
    return scores.astype("float32") if scale == 0 else scale * (scores.astype("float32") - zero_point)
