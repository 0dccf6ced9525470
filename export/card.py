"""The report card: what was exported from what, measured how, kept or failed which promise."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import os
import platform

from export import verify
from export.formats import FORMATS
from train import predictor

PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def make(model_path, model, examination, results, data_facts, batch_size):
    """The card as plain data, for `card.json`.

    Args:
        model_path: the Keras file.
        model: the float32 `keras.Model` that was exported.
        examination: `pipeline.Examination`.
        results: dict from format to `pipeline.Result`.
        data_facts: dict of what images were used.
        batch_size: images a call of the `.tflite` files.
    Returns:
        dict.
    """
    return {
        "model": {
            "file": model_path,
            "sha256": sha256(model_path),
            "name": model.name,
            "parameters": model.count_params(),
            "input": ["uint8", *model.inputs[0].shape[1:]],
            "outputs": model.outputs[0].shape[-1],
            "top1": examination.top1,
            "bytes": os.path.getsize(model_path),
        },
        "data": data_facts,
        "batch_size": batch_size,
        "artifacts": {name: _artifact(name, result) for name, result in results.items()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def sha256(path):
    """Hash of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_markdown(card):
    """The card as a page to read, for `card.md`."""
    model, images = card["model"], card["data"]
    lines = [
        f"# {model['name']}, exported {card['created'][:10]}",
        "",
        f"From `{model['file']}` ({model['parameters']:,} parameters, {model['bytes']:,} bytes). Takes uint8 images "
        f"{' x '.join(map(str, model['input'][1:]))} with pixels 0 to 255; gives {model['outputs']} scores.",
        "",
        f"Scored on {images['num_images']:,} test images of {images['eval_data']}: the Keras model has "
        f"top-1 {model['top1']:.2%}.",
        _calibration(images),
        "",
        *table(card),
        "",
        f"Latency: one call of {card['batch_size']} image{'s' * (card['batch_size'] > 1)} (saved_model: one image), "
        f"median (10th to 90th percentile) of {verify.TIMED_RUNS} calls, {predictor.NUM_THREADS} threads, on "
        f"{card['machine']}. Agreement: share of images with the Keras model's best class. "
        "Differences: of scores, largest and mean.",
        "",
    ]
    for name, artifact in card["artifacts"].items():
        if artifact["operators"]:
            operators = ", ".join(f"{count} {operator}" for operator, count in artifact["operators"].items())
            lines.append(f"- {name}: {operators}")
    lines += ["", ", ".join(f"{package} {version}" for package, version in card["versions"].items()), ""]
    return "\n".join(lines)


def table(card):
    """Rows of the table of artifacts, in Markdown with aligned columns."""
    header = ("format", "size", "top-1", "agreement", "difference", "latency (ms)", "for")
    rows = [header, *(_row(name, artifact) for name, artifact in card["artifacts"].items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    rows.insert(1, tuple("-" * width for width in widths))
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]


def _artifact(name, result):
    if result.evidence is None:
        measured = dict.fromkeys(("bytes", "top1", "agreement", "operators"))
    else:
        measured = dataclasses.asdict(result.evidence)
    row = FORMATS[name]
    return {
        "file": None if result.failures else os.path.basename(result.path),
        "failures": result.failures,
        "promise": {"min_agreement": row.min_agreement, "max_relative_difference": row.max_difference},
        "weights": row.weights,
        "activations": row.activations,
        "suits": row.suits,
    } | measured


def _row(name, artifact):
    if artifact["bytes"] is None:
        return (name, "-", "-", "-", "-", "-", "NOT WRITTEN: " + "; ".join(artifact["failures"]))
    latency = artifact["latency_ms"]
    failed = "NOT WRITTEN: " + "; ".join(artifact["failures"])
    return (
        name,
        f"{artifact['bytes']:,}",
        f"{artifact['top1']:.2%}",
        f"{artifact['agreement']:.2%}",
        f"{artifact['max_difference']:.1e}, {artifact['mean_difference']:.1e}",
        f"{latency['median']:.3f} ({latency['p10']:.3f} to {latency['p90']:.3f})",
        failed if artifact["failures"] else artifact["suits"],
    )


def _calibration(images):
    if not images["calibration_indices"]:
        return "No format was calibrated."
    return (
        f"Activations calibrated on {len(images['calibration_indices'])} training images of "
        f"{images['calibration_data']}, none of them scored; their numbers stand in `card.json`."
    )
