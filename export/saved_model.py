"""SavedModels: written from a Keras model, and run again in a process that knows nothing of it.

As a command, `python saved_model.py FOLDER IMAGES.npy SCORES.npy` serves images from a SavedModel with
TensorFlow alone and prints its latency as JSON.
"""

import json
import os
import sys
import time

import numpy as np

WARMUP_RUNS, TIMED_RUNS = 5, 50  # as in measure.py, which this script, alone in its process, does not import
SERVED_BATCH = 128


def write(model, path):
    """Writes a SavedModel that loads without Keras or this package.

    Signatures, n free:
        serving_default: image, uint8 (n, h, w, c) -> scores, float32 (n, classes).
        serving_bytes: encoded, string (n,), JPEG or PNG files -> scores. Each is decoded, its shorter side resized
            and its centre cropped, as the trainer does it for images of another size than the model's.
        features: image -> features, float32 (n, filters), the input of the classifier. Only where the model ends in a
            pooling and a dense layer.

    Args:
        model: float32 `keras.Model` with known image sides.
        path: folder to write.
    """
    import keras
    import tensorflow as tf

    shape = tuple(model.inputs[0].shape[1:])
    image = tf.TensorSpec((None, *shape), tf.uint8, name="image")
    pooled = _pooled(model)
    both = keras.Model(model.inputs[0], [model.outputs[0], pooled]) if pooled is not None else model
    # One trace of the net serves all signatures.
    network = tf.function(lambda pixels: both(tf.cast(pixels, tf.float32), training=False), input_signature=[image])

    def scores(pixels):
        return network(pixels)[0] if pooled is not None else network(pixels)

    archive = keras.export.ExportArchive()  # finds the weights by itself; told of the model too, it writes them twice
    archive.add_endpoint("serving_default", lambda image: {"scores": scores(image)}, [image])
    encoded = tf.TensorSpec((None,), tf.string, name="encoded")
    archive.add_endpoint("serving_bytes", lambda encoded: {"scores": scores(_decoded(encoded, model))}, [encoded])
    if pooled is not None:
        archive.add_endpoint("features", lambda image: {"features": network(image)[1]}, [image])
    archive.write_out(path, verbose=False)


def _pooled(model):
    """Keras tensor (n, filters) that the model's last layer classifies, or None."""
    import keras

    last = model.layers[-1]
    while isinstance(last, (keras.layers.Activation, keras.layers.Softmax, keras.layers.Dropout)):
        last = last.input._keras_history.operation  # Keras's own record of a tensor's layer
    return last.input if isinstance(last, keras.layers.Dense) and len(last.input.shape) == 2 else None


def _decoded(encoded, model):
    """uint8 (n, h, w, c) of n files, in the graph."""
    import tensorflow as tf

    from train import decoding, sources

    shape = tuple(model.inputs[0].shape[1:])
    how = getattr(model, "preprocessing", None) or sources.DEFAULT_PREPROCESSING

    def decode(file):
        return decoding.fitted(decoding.decode_whole(file, shape[-1]), shape, how)

    return tf.map_fn(decode, encoded, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


def write_fixed(model, path, batch_size):
    """Writes a SavedModel of one batch size for the converter, which calibrates on its signature "pixels", float32.

    Args:
        model: float32 `keras.Model` with known image sides.
        path: folder to write.
        batch_size: images a call.
    """
    import keras
    import tensorflow as tf

    def serve(image):
        return {"scores": model(tf.cast(image, tf.float32), training=False)}

    shape = (batch_size, *model.inputs[0].shape[1:])
    archive = keras.export.ExportArchive()
    archive.add_endpoint("serving_default", serve, [tf.TensorSpec(shape, tf.uint8, name="image")])
    archive.add_endpoint("pixels", serve, [tf.TensorSpec(shape, tf.float32, name="image")])
    archive.write_out(path, verbose=False)


def serve_file(path, images):
    """Scores images with a SavedModel and times single ones.

    Args:
        path: folder of the SavedModel.
        images: uint8 (n, h, w, c).
    Returns:
        float32 scores (n, classes), list of seconds.
    Raises:
        RuntimeError: if "serving_bytes" gives other scores than "serving_default" for a PNG of the same pixels.
    """
    import tensorflow as tf

    signatures = tf.saved_model.load(path).signatures

    def run(batch):
        return signatures["serving_default"](image=tf.constant(batch))["scores"].numpy()

    scores = np.concatenate([run(images[i : i + SERVED_BATCH]) for i in range(0, len(images), SERVED_BATCH)])
    encoded = tf.stack([tf.io.encode_png(image) for image in images[:2]])
    if not np.allclose(signatures["serving_bytes"](encoded=encoded)["scores"], scores[:2], rtol=1e-3, atol=1e-3):
        raise RuntimeError("serving_bytes gives other scores than serving_default for the same pixels.")
    seconds = []
    for _ in range(WARMUP_RUNS + TIMED_RUNS):
        start = time.perf_counter()
        run(images[:1])
        seconds.append(time.perf_counter() - start)
    return scores, seconds[WARMUP_RUNS:]


if __name__ == "__main__":
    folder, images_file, scores_file = sys.argv[1:]
    served, latencies = serve_file(folder, np.load(images_file))
    np.save(scores_file, served)
    median, p90 = np.percentile(np.array(latencies) * 1000, (50, 90)).tolist()
    print(json.dumps({"latency_ms": {str(os.cpu_count()): {"median": median, "p90": p90, "calls": len(latencies)}}}))
