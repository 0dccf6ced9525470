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


def make(model_path, model, examination, results, data_facts, batch_size, gate):
    """The card as plain data, for `card.json`.

    Args:
        model_path: the Keras file.
        model: the float32 `keras.Model` that was exported.
        examination: `pipeline.Examination`.
        results: dict from format to `pipeline.Result`.
        data_facts: dict of what images were used, and what was suspicious about them.
        batch_size: images a call of the `.tflite` files.
        gate: `verify.Gate`.
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
        "gate": dataclasses.asdict(gate),
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
        f"top-1 {model['top1']:.2%}.{_coarse(card)}",
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
            lines += ["", *_scan(name, artifact["scan"], card["data"])]
    noisy = {name: artifact["noise"] for name, artifact in card["artifacts"].items() if artifact["noise"]}
    lines += ["", "Layers with the lowest signal-to-noise ratio, in decibels:", ""] if noisy else []
    for name, noise in noisy.items():
        lines.append(f"- {name}: " + ", ".join(f"{layer} {ratio:.1f}" for layer, ratio in noise.items()))
    return lines


def _scan(name, scan, data):
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
        f"{name}: {found} ({asked} on {scan['held_out_images']:,} {data['held_out_data']}, where the Keras model has "
        f"{scan['held_out_top1']:.2%}). Blocks are ordered on {scan['scanned_images']} calibration images; none of "
        f"these images is scored above.{_warned(data['held_out_warnings'])}",
        "",
        f"![blocks in float against accuracy]({pictures.SCAN.format(name)})",
        "",
        *_aligned(errors),
        "",
        *_aligned(steps),
    ]


def table(card):
    """The table of artifacts, in Markdown with aligned columns, and below it why some are not written."""
    header = ("format", "written", "bytes", "gzip", "top-1", "agreement", "difference", *_TIMES, "MB", "XNNPACK", "for")
    failed = {name: artifact["failures"] for name, artifact in card["artifacts"].items() if artifact["failures"]}
    told = [f"- {name} NOT WRITTEN: {'; '.join(failures)}" for name, failures in failed.items()]
    rows = _aligned((header, *(_row(name, artifact) for name, artifact in card["artifacts"].items())))
    return [*rows, "", *told] if told else rows


def end(card, lost, output_dir):
    """The last line of the console: how many files were written, which not, and where they lie.

    Args:
        card: dict of `make`.
        lost: formats that failed of which an earlier export has the file, `publication.lost`.
        output_dir: the output folder.
    """
    failed = [name for name, artifact in card["artifacts"].items() if artifact["failures"]]
    if lost:
        return (
            f"Nothing was written: {output_dir} stays as it was, with the earlier {', '.join(lost)} that would be "
            "lost. Choose another --output_dir, or other --formats."
        )
    written, number = len(card["artifacts"]) - len(failed), len(card["artifacts"])
    which = f", not {', '.join(failed)}" if failed else ""
    return f"{written} of {number} formats written to {output_dir}{which}; card.md there tells of all."


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
    written = "NO" if artifact["failures"] else "yes"
    if artifact["bytes"] is None:
        return (name, written, *["-"] * (7 + len(_TIMES)), artifact["suits"])
    compressed, memory, delegated = (artifact[field] for field in ("compressed_bytes", "peak_memory_mb", "delegated"))
    return (
        name,
        written,
        f"{artifact['bytes']:,}",
        "-" if compressed is None else f"{compressed:,}",
        f"{artifact['top1']:.2%}",
        f"{artifact['agreement']:.2%}",
        f"{artifact['max_difference']:.1e}",
        *_times(artifact["latency_ms"]),
        "-" if memory is None else f"{memory:.1f}",
        "-" if delegated is None else f"{delegated:.0%}",
        artifact["suits"],
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
    return (
        f"Activations calibrated on {len(images['calibration_indices'])} training images of "
        f"{images['calibration_data']}, none of them scored; their numbers stand in `card.json`."
        + _warned(images["calibration_warnings"])
    )


def _warned(texts):
    return "".join(f" Warning: {text}." for text in texts)


def _coarse(card):
    coarse = verify.too_coarse(card["gate"]["max_top1_drop"], card["data"]["num_images"])
    return _warned([coarse]) if coarse else ""
