"""SavedModels: written from a Keras model, and run again in a process that knows nothing of it.

As a command, `python saved_model.py FOLDER IMAGES.npy SCORES.npy` serves images from a SavedModel with
TensorFlow alone and prints its latencies as JSON.
"""

import json
import sys
import time

import numpy as np

WARMUP_RUNS, TIMED_RUNS = 5, 50  # as in verify.py, which this script, alone in its process, does not import


def write(model, path, batch_size=None):
    """Writes a SavedModel with the signature uint8 images (n, h, w, c) -> "scores" float32 (n, classes).

    Args:
        model: float32 `keras.Model` with known image sides.
        path: folder to write.
        batch_size: n, or None for any. With a fixed one there is a signature "pixels" too, of float32 images.
    """
    import keras
    import tensorflow as tf

    shape = (batch_size, *model.inputs[0].shape[1:])

    def serve(image):
        return {"scores": model(tf.cast(image, tf.float32), training=False)}

    archive = keras.export.ExportArchive()  # finds the weights by itself; told of the model too, it writes them twice
    archive.add_endpoint("serving_default", serve, [tf.TensorSpec(shape, tf.uint8, name="image")])
    if batch_size is not None:  # for calibration, after which the converter makes the input uint8
        archive.add_endpoint("pixels", serve, [tf.TensorSpec(shape, tf.float32, name="image")])
    archive.write_out(path, verbose=False)


def serve_file(path, images):
    """Scores images with a SavedModel and times single ones.

    Args:
        path: folder of the SavedModel.
        images: uint8 (n, h, w, c).
    Returns:
        float32 scores (n, classes), list of seconds.
    """
    import tensorflow as tf

    serve = tf.saved_model.load(path).signatures["serving_default"]

    def run(batch):
        return serve(image=tf.constant(batch))["scores"].numpy()

    scores = np.concatenate([run(images[start : start + 128]) for start in range(0, len(images), 128)])
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
    print(json.dumps(latencies))
