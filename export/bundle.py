"""The folder for the app developer: files that show probabilities, labels, golden outputs, code that runs them.

bundle/  NAME_FORMAT.tflite  labels.txt  bundle.json  golden/  classify.py  classify.cc  Classify.kt  README.md
"""

import hashlib
import json
import os
import shutil

import numpy as np

from export import card, convert, metadata, probabilities, targets, templates
from export.formats import FORMATS
from train import predictor

FOLDER = "bundle"
MANIFEST = "bundle.json"
# Tolerances: how far other kernels may move the difference of two logits. As far as LiteRT's own kernels move it,
# beside XNNPACK's; at least as if each logit were stored one step away; where logits are floats, at least these, by
# what the file computes with: other processors sum in another order, integers round elsewhere (BUILD_NOTES.md).
FLOORS = {"float32": 2e-3, "int8": 0.2}
STEPS = 2.0  # one a logit
ROUNDING = 1e-3  # of a logit: float32 sums, and the digits in bundle.json
DIGITS = 7  # after the point, of probabilities in bundle.json
SEEN = 0.02  # of a net that gives probabilities: smaller ones are of too few steps to tell logits by


def fastest_first(results):
    """The `.tflite` files that kept their promises, the fastest first: dict from format to path.

    Args:
        results: dict from format to `pipeline.Result`.
    """
    kept = {name: one for name, one in results.items() if FORMATS[name].scheme and not one.failures}
    order = sorted(kept, key=lambda name: kept[name].evidence.latency_ms["1"]["median"])
    return {name: kept[name].path for name in order}


def make(subject, paths, folder, target=None):
    """Writes the bundle and runs its own check in a child process.

    Args:
        subject: `subjects.Subject`.
        paths: dict from format to a verified `.tflite` file, at least one, of one image a call; the first is what
            `classify.py` and the snippets run.
        folder: where to write; new.
        target: one of `targets.TARGETS` that every file must run on as a whole, or None.
    Returns:
        dict: the content of `bundle.json`.
    Raises:
        ValueError: if the labels are not the classes', a file does not rank the classes as before, the target does not
            run it with probabilities, or the check fails.
    """
    os.makedirs(os.path.join(folder, "golden"))
    files = {os.path.basename(path): _file(subject, name, path, folder, target) for name, path in paths.items()}
    _write_golden(subject, folder)
    _write(folder, metadata.LABELS, metadata.labels_text(subject.labels))
    images = [f"golden/{number}.png" for number in range(len(subject.images))]
    photo, photo_pixels = "golden/photo.jpg", "golden/photo.png"
    manifest = {
        "name": subject.name,
        "num_classes": len(subject.labels),
        "image_shape": list(subject.images.shape[1:]),
        "resize": subject.resize,
        "interpolation": subject.interpolation,
        "golden": {
            "images": images,
            "photo": photo,
            "photo_pixels": photo_pixels,
            "data": subject.data,
        },
        "sha256": {
            name: card.sha256(os.path.join(folder, name)) for name in (metadata.LABELS, photo, photo_pixels, *images)
        },
        "files": files,
    }
    _write(folder, MANIFEST, json.dumps(manifest, indent=1) + "\n")
    words = templates.words(manifest)
    for name in ("README.md", "classify.cc", "Classify.kt"):
        _write(folder, name, templates.filled(name, words))
    shutil.copyfile(templates.path("classify.py"), os.path.join(folder, "classify.py"))
    try:
        convert.run_child(os.path.join(folder, "classify.py"), "--check")
    except RuntimeError as error:
        raise ValueError(
            "The bundle does not pass its own check here. Expected `python classify.py --check` to end well. "
            f"Received: {error} Leave out --bundle to get the files alone."
        ) from error
    return manifest


def with_probabilities(content, name, target):
    """A file with a softmax at its end, in integers where the target runs no other.

    Args:
        content: bytes of a `.tflite` file that the target runs.
        name: its format.
        target: one of `targets.TARGETS`, or None.
    Returns:
        bytes.
    Raises:
        ValueError: if the target runs no softmax.
    """
    shown = probabilities.append(content)
    if target is None or not targets.check(shown, target, name):
        return shown
    shown = probabilities.append(content, in_integers=True)
    found = targets.check(shown, target, name)
    if found:
        raise ValueError(
            f"The {name} file cannot show probabilities on its target. Expected a softmax that runs there. Received: "
            f"{' '.join(found)} Leave out --bundle, or {name}; the file without softmax passed."
        )
    return shown


def _file(subject, name, path, folder, target):
    """Writes one file with probabilities and metadata; returns its entry in the manifest."""
    with open(path, "rb") as file:
        verified = file.read()
    content = metadata.attach(with_probabilities(verified, name, target), subject.name, subject.labels)
    bundled = os.path.join(folder, os.path.basename(path))
    with open(bundled, "wb") as file:
        file.write(content)
    before, scores = (predictor.from_tflite(one).predict(subject.images) for one in (path, bundled))
    best = before.argmax(axis=1)  # in steps of 1/256 several may share the first place
    if np.any(scores[np.arange(len(best)), best] < scores.max(axis=1)) or not np.all(np.isfinite(scores)):
        raise ValueError(
            f"{os.path.basename(path)} with probabilities ranks the classes of the golden images in another way. "
            f"Expected {best}. Received: {scores.argmax(axis=1)}. Leave out the format {name}."
        )
    interpreter = predictor.open_tflite(bundled)
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    return {
        "format": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "input": np.dtype(image["dtype"]).name,
        "output": np.dtype(output["dtype"]).name,
        "tolerance": round(tolerance(FORMATS[name].scheme, verified, subject.images), DIGITS),
        "resolution": float(output["quantization"][0]) or 10.0 ** (1 - DIGITS),
        "scores": [[round(float(score), DIGITS) for score in row] for row in scores],
    }


def tolerance(scheme, verified, images):
    """How far the difference of two logits may be off on other kernels.

    Args:
        scheme: the file's `formats.Scheme`.
        verified: bytes of the file without its softmax.
        images: uint8 (n, h, w, c).
    """
    ran = [predictor.from_tflite(verified, uses_xnnpack=uses).predict(images) for uses in (True, False)]
    logits, others = [np.log(np.maximum(one, SEEN)) for one in ran] if probabilities.has(verified) else ran
    observed = float(np.ptp(others - logits, axis=1).max())
    computes = "float32" if {scheme.weights, scheme.activations} <= {"float32", "float16"} else "int8"
    return max(STEPS * probabilities.logit_step(verified) or FLOORS[computes], observed) + ROUNDING


def _write_golden(subject, folder):
    import tensorflow as tf

    pictures = {f"{number}.png": image for number, image in enumerate(subject.images)}
    for name, image in (pictures | {"photo.png": subject.photo_pixels}).items():
        tf.io.write_file(os.path.join(folder, "golden", name), tf.io.encode_png(image))
    with open(os.path.join(folder, "golden", "photo.jpg"), "wb") as file:
        file.write(subject.photo)


def _write(folder, name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)
