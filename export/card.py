"""The report card: what was exported from what, measured how, kept or failed which promise."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import os
import platform
import shlex
import sys

from export import measure, pictures, verify
from export.formats import FORMATS

NAMED = 20  # classes that card.md names; card.json has all
PACKAGES = ("tensorflow", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def make(model_path, model, examination, results, data_facts, batch_size):
    """The card as plain data, for `card.json`.

    Args:
        model_path: the Keras file.
        model: the float32 `keras.Model` that was exported.
        examination: `pipeline.Examination`.
        results: dict from format to `pipeline.Result`.
        data_facts: dict of what images were used, and what was suspicious about them.
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
        "command": " ".join(shlex.quote(word) for word in ("python", *sys.argv)),
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
        f"From `{model['file']}` ({model['parameters']:,} parameters, {model['bytes']:,} bytes). Takes images "
        f"{' x '.join(map(str, model['input'][1:]))} with pixels 0 to 255, uint8; gives {model['outputs']} scores.",
        "",
        f"Scored on {images['num_images']:,} test images of {images['eval_data']}: the Keras model has "
        f"top-1 {model['top1']:.2%}.",
        _calibration(images),
        "",
        f"Classes, by score: {', '.join(images['labels'][:NAMED])}{', ...' * (len(images['labels']) > NAMED)}.",
        "",
        *table(card),
        "",
        f"Latency: one call of {card['batch_size']} image{'s' * (card['batch_size'] > 1)} (saved_model: one image, all "
        f"cores), median and 90th percentile of up to {measure.TIMED_RUNS} calls on {card['machine']}. Memory: what "
        "opening and running the file adds to a process. XNNPACK: share of the operators that LiteRT's fast kernels "
        "run. gzip: bytes of the file compressed. Agreement: share of images with the Keras model's best class. "
        "Difference: of scores, largest.",
        "",
        f"![top-1 against size and latency]({pictures.CARD})",
        "",
    ]
    if "bundle" in card:
        lines += [
            f"`bundle/` has {len(card['bundle'])} of these files for the app developer; its README.md tells how.",
            "",
        ]
    lines += _details(card)
    packages = ", ".join(f"{package} {version}" for package, version in card["versions"].items())
    lines += ["", f"`{card['command']}`", "", packages, ""]
    return "\n".join(lines)


def _details(card):
    """Lines on what is in the files and how they came about: operators, fine-tuning, scans, noise."""
    lines = []
    for name, artifact in card["artifacts"].items():
        if artifact["operators"]:
            operators = ", ".join(f"{count} {operator}" for operator, count in artifact["operators"].items())
            lines.append(f"- {name}: {operators}; Flex operators: {len(artifact['custom_operators'])}")
    for name, artifact in card["artifacts"].items():
        if artifact["preparation"]:
            lines.append(f"- {name}: {_told(artifact['preparation'])}")
    for name, artifact in card["artifacts"].items():
        if artifact["scan"]:
            lines += ["", *_scan(name, artifact["scan"], card["data"]["held_out_data"])]
    noisy = {name: artifact["noise"] for name, artifact in card["artifacts"].items() if artifact["noise"]}
    lines += ["", "Layers with the lowest signal-to-noise ratio, in decibels:", ""] if noisy else []
    for name, noise in noisy.items():
        lines.append(f"- {name}: " + ", ".join(f"{layer} {ratio:.1f}" for layer, ratio in noise.items()))
    return lines


def _scan(name, scan, held_out_data):
    """Which blocks stay in float, and why these."""
    in_float, drop = scan["float_blocks"], scan["max_top1_drop"]
    asked = f"at most {drop} points of top-1 lost"
    if scan["min_agreement"] is not None:
        asked += f", agreement of at least {scan['min_agreement']:.1%}"
    found = (
        f"in float {', '.join(in_float)}, the most sensitive"
        if in_float
        else "no block in float: all in int8 is enough"
    )
    errors = (
        ("block", "error of the scores where it alone is int8"),
        *((block, f"{error:.2%}") for block, error in scan["errors"].items()),
    )
    steps = (
        ("blocks in float", "bytes", "top-1", "agreement"),
        *(
            (str(step["num_float"]), f"{step['bytes']:,}", f"{step['top1']:.2%}", f"{step['agreement']:.2%}")
            for step in scan["steps"]
        ),
    )
    return [
        f"{name}: {found} ({asked} on {scan['held_out_images']:,} {held_out_data}, where the Keras model has "
        f"{scan['held_out_top1']:.2%}). Blocks are ordered on {scan['scanned_images']} calibration images; none of "
        "these images is scored above.",
        "",
        f"![blocks in float against accuracy]({pictures.SCAN.format(name)})",
        "",
        *_aligned(errors),
        "",
        *_aligned(steps),
    ]


def table(card):
    """Rows of the table of artifacts, in Markdown with aligned columns."""
    header = ("format", "bytes", "gzip", "top-1", "agreement", "difference", *_TIMES, "MB", "XNNPACK", "for")
    return _aligned((header, *(_row(name, artifact) for name, artifact in card["artifacts"].items())))


def _aligned(rows):
    """Lines of a table in Markdown, of tuples of str, the header first."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    header, *others = rows
    rows = [header, tuple("-" * width for width in widths), *others]
    return ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]


_TIMES = tuple(f"ms, {threads} thread{'s' * (threads > 1)}" for threads in measure.THREADS)


def _artifact(name, result):
    fields = [field.name for field in dataclasses.fields(verify.Evidence)]
    measured = dataclasses.asdict(result.evidence) if result.evidence else dict.fromkeys(fields)
    row = FORMATS[name]
    return {
        "file": None if result.failures else os.path.basename(result.path),
        "sha256": sha256(result.path) if result.path and os.path.isfile(result.path) else None,
        "failures": result.failures,
        "preparation": result.preparation,
        "scan": result.scan,
        "promise": {
            "min_agreement": row.min_agreement,
            "max_relative_difference": row.max_difference,
            "max_size": row.max_size,
        },
        "scheme": dataclasses.asdict(row.scheme) if row.scheme else None,
        "suits": row.suits,
    } | measured


def _row(name, artifact):
    failed = "NOT WRITTEN: " + "; ".join(artifact["failures"])
    if artifact["bytes"] is None:
        return (name, *["-"] * (7 + len(_TIMES)), failed)
    compressed, memory, delegated = (artifact[field] for field in ("compressed_bytes", "peak_memory_mb", "delegated"))
    return (
        name,
        f"{artifact['bytes']:,}",
        "-" if compressed is None else f"{compressed:,}",
        f"{artifact['top1']:.2%}",
        f"{artifact['agreement']:.2%}",
        f"{artifact['max_difference']:.1e}",
        *_times(artifact["latency_ms"]),
        "-" if memory is None else f"{memory:.1f}",
        "-" if delegated is None else f"{delegated:.0%}",
        failed if artifact["failures"] else artifact["suits"],
    )


def _told(preparation):
    """How a net was fine-tuned, in a line, and what its files were before."""
    rounded = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in preparation.items()}
    before = rounded.pop("before", {})
    told = [f"{name.replace('_', ' ')} {value}" for name, value in rounded.items() if name != "history"]
    for name, value in before.items():
        if name == "parameters":
            told.append(f"before: {value:,} parameters")
        else:
            told.append(f"{name} {value['bytes']:,} bytes, ms {'; '.join(_times(value['latency_ms']))} on 1; 2 threads")
    return "fine-tuned, " + ", ".join(told)


def _times(latency):
    texts = [f"{found['median']:.3f}, {found['p90']:.3f}" for found in latency.values()]
    return texts if len(texts) == len(_TIMES) else ["-"] * (len(_TIMES) - len(texts)) + texts


def _calibration(images):
    if not images["calibration_indices"]:
        return "No format was calibrated."
    warned = "".join(f" Warning: {text}." for text in images["calibration_warnings"])
    return (
        f"Activations calibrated on {len(images['calibration_indices'])} training images of "
        f"{images['calibration_data']}, none of them scored; their numbers stand in `card.json`.{warned}"
    )
