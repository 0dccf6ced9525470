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


def load(path, num_threads=NUM_THREADS):
    """Opens a `.keras` or `.tflite` file for prediction.

    Args:
        path: the file.
        num_threads: threads of the LiteRT interpreter.
    Returns:
        `Predictor`.
    Raises:
        ValueError: if the file is absent, damaged, of another kind, or not an image classifier.
    """
    if not os.path.isfile(path):
        raise ValueError(f"The model file does not exist. Expected a .keras or .tflite file. Received: {path!r}.")
    if path.endswith(".keras"):
        return from_keras(load_keras(path))
    if path.endswith(".tflite"):
        return from_tflite(path, num_threads)
    raise ValueError(f"The model file is of an unknown kind. Expected .keras or .tflite. Received: {path!r}.")


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


def from_tflite(path, num_threads=NUM_THREADS):
    """`Predictor` of a LiteRT file: quantizes the input and dequantizes the output where the file asks for it."""
    interpreter = open_tflite(path, num_threads)
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


def open_tflite(path, num_threads=NUM_THREADS):
    """LiteRT interpreter of an image classifier, tensors allocated.

    Raises:
        ValueError: if the file is damaged or has not one image input and one output.
    """
    from ai_edge_litert.interpreter import Interpreter

    try:
        with train.quiet_stderr():  # LiteRT announces its CPU delegate
            interpreter = Interpreter(model_path=path, num_threads=num_threads)
            interpreter.allocate_tensors()
        shapes = [tuple(d["shape"]) for d in (*interpreter.get_input_details(), *interpreter.get_output_details())]
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"The LiteRT file does not load. Expected a .tflite model. Received: {path!r} ({error})."
        ) from error
    if [*map(len, shapes)] != [4, 2]:
        raise ValueError(
            f"Expected an image classifier: one image in, scores out. Received: shapes {shapes} in {path!r}."
        )
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
