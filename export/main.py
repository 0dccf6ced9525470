"""Exports a trained model: `python export/main.py --model=runs/NAME/model.keras --output_dir=exports/NAME`."""

import dataclasses
import os
import sys

from absl import flags

import train
from export import metadata, staging, targets
from export.formats import BASIC, FORMATS, QAT

flags.DEFINE_string("model", None, "a .keras file, or a net's name for --weights", required=True)
flags.DEFINE_string("weights", "imagenet", "with a net's name: a tag of keras_resnet.list_weights(), or a file")
flags.DEFINE_string("output_dir", None, "folder for the files and the card", required=True)
flags.DEFINE_list(
    "formats",
    None,
    f"some of {', '.join(FORMATS)}; default: {','.join(BASIC)}, of a model trained with --qat {','.join(QAT)}",
)
flags.DEFINE_string("calibration_data", None, "data whose training images set int8's ranges; default: the run's own")
flags.DEFINE_string("eval_data", None, "data whose test images check every file; default: the run's own")
flags.DEFINE_string("data_dir", None, "folder of prepared TFDS data sets; default: the run's own")
flags.DEFINE_string("class_index", None, "file with ImageNet's classes, for folder: data; default: the run's own")
flags.DEFINE_string("labels", None, "text file that names the classes, a line each; default: the data's own names")
flags.DEFINE_integer("calibration_images", 100, "training images for calibration", lower_bound=1)
flags.DEFINE_integer("eval_images", 5000, "most test images to check a file on", lower_bound=1)
flags.DEFINE_integer("batch_size", 1, "images a call of the .tflite files", lower_bound=1)
flags.DEFINE_float("max_top1_drop", 0.5, "points of top-1, in percent, that a file may lose", lower_bound=0)
flags.DEFINE_float("min_agreement", None, "share of images, 0 to 1, that a file must class as the Keras model", 0, 1)
flags.DEFINE_float("max_size_mb", None, "largest size of a file, in 10^6 bytes", lower_bound=0)
flags.DEFINE_float("max_latency_ms", None, "largest median latency on one thread, in milliseconds", lower_bound=0)
flags.DEFINE_enum(
    "target",
    None,
    [*targets.TARGETS],
    "hardware that every file, also in the bundle, must run on as a whole; without --formats, what fits is made: "
    + "; ".join(f"{name}: {','.join(row.formats)}" for name, row in targets.TARGETS.items()),
)
flags.DEFINE_bool("bundle", False, "also make a folder for the app developer: metadata, labels, golden outputs, code")
flags.DEFINE_integer("finetune_epochs", 3, "passes over the training images for formats that are fine-tuned", 1)
flags.DEFINE_string(
    "finetune_data", None, "data whose training images fine-tune; default: the run's own or calibration_data"
)
flags.DEFINE_float("sparsity", 0.7, "share of a kernel's weights that pruned files have at zero (arXiv 1710.01878)")
flags.DEFINE_float(
    "channel_sparsity", 0.5, "share of a block's inner channels that channel_pruned files lack (arXiv 1608.08710)"
)
flags.DEFINE_integer("clusters", 32, "distinct values of a kernel in clustered nets (arXiv 1510.00149)", lower_bound=2)
flags.DEFINE_bool(
    "overwrite", False, "replace an earlier export in output_dir; not where a format that it has fails now, or all fail"
)


def main(argv):
    """Exports, verifies, and publishes what kept its promise; returns the exit code."""
    values = flags.FLAGS
    check_flags(argv, values)
    staging.listen()
    with staging.opened(values.output_dir, values.overwrite) as folder:
        train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
        return export(values, folder)


def export(values, folder):
    """Makes the files in the staging folder, and publishes them; returns the exit code."""
    from export import bundle, card, inputs, pictures, pipeline, publication, subjects, verify
    from keras_resnet.quantization_aware import is_quantization_aware

    file, model = inputs.open_model(values)
    has_ranges = is_quantization_aware(model)
    formats = [*dict.fromkeys(values.formats or targets.default_formats(values.target, has_ranges))]
    staging.check_space(values.output_dir, formats, model.count_params(), values.bundle)
    tuning = inputs.open_training(model, preparations(formats), values) if preparations(formats) else None
    images = inputs.open_images(model, formats, values, has_ranges)
    examination = images.examination
    subject = subjects.choose(model.name, images.source, examination) if values.bundle else None
    print(f"{model.name}: top-1 {examination.top1:.2%} on {len(examination.labels):,} test images", flush=True)
    gate = verify.Gate(**{field.name: values[field.name].value for field in dataclasses.fields(verify.Gate)})
    if coarse := verify.too_coarse(gate.max_top1_drop, len(examination.labels)):
        print(f"Warning: test images: {coarse}.", file=sys.stderr)
    staged = pipeline.stage(model, folder, images.calibration, values.batch_size, images.held_out)
    results = produce(formats, staged, tuning, examination, gate)
    report = card.make(file, staged.model, examination, results, images.facts, values.batch_size, gate)
    kept = bundle.fastest_first(results)
    if subject and kept:
        print("making and checking the bundle", flush=True)
        files = bundle.make(subject, kept, os.path.join(folder, bundle.FOLDER), values.target)["files"]
        report["bundle"] = {name: {key: row[key] for key in ("sha256", "tolerance")} for name, row in files.items()}
    pictures.draw(report, folder)
    lost = publication.lost(results, model.name, values.output_dir)
    if not lost:
        staging.check_replaceable(values.output_dir, values.overwrite)
        staging.ignore_signals()
        publication.publish(folder, results, report, card.to_markdown(report), values.output_dir)
    print("\n".join(["", *card.table(report), "", card.end(report, lost, values.output_dir)]))
    return 1 if any(result.failures for result in results.values()) else 0


def produce(formats, staged, tuning, examination, gate):
    """Makes and judges a file of each format, a net after the other: dict from format to `pipeline.Result`."""
    from export import finetune, pipeline

    results = dict.fromkeys(formats)
    for kind in (None, *preparations(formats)):
        net = staged
        if kind:
            print(f"fine-tuning: {kind}, epochs: {tuning.epochs}", flush=True)
            net = finetune.prepared(kind, staged, tuning, examination.images)
        for name in (name for name in formats if FORMATS[name].preparation == kind):
            print(f"converting and verifying {name}", flush=True)
            results[name] = pipeline.produce(name, net, examination, gate)
        net.shared.clear()  # the activations of a net whose files are made
    return results


def check_flags(argv, values):
    """Raises ValueError for what can be refused before anything is loaded."""
    train.refuse_positional(argv)
    unknown = [name for name in values.formats or () if name not in FORMATS]
    if unknown or values.formats == []:
        raise ValueError(f"Expected formats among {', '.join(FORMATS)}. Received: {', '.join(unknown) or 'none'}.")
    for name in ("sparsity", "channel_sparsity"):
        if not 0 < values[name].value < 1:
            raise ValueError(f"Expected {name} to be a share between 0 and 1. Received: --{name}={values[name].value}.")
    if values.labels:
        metadata.read_labels(values.labels)
    if not values.output_dir:
        raise ValueError("Expected --output_dir to name a folder, such as exports/NAME. Received: nothing.")
    if os.path.exists(values.output_dir) and not os.path.isdir(values.output_dir):
        raise ValueError(f"Expected output_dir to be a folder. Received: a file, {values.output_dir}.")
    formats = values.formats or BASIC
    if values.bundle and (values.batch_size != 1 or not any(FORMATS[name].scheme for name in formats)):
        raise ValueError(
            "Expected --bundle with --batch_size=1 and at least one format that is a .tflite file. Received: "
            f"--batch_size={values.batch_size} --formats={','.join(formats)}."
        )


def preparations(formats):
    """The ways in which the net is fine-tuned for the formats asked for, each once."""
    return [*dict.fromkeys(FORMATS[name].preparation for name in formats if FORMATS[name].preparation)]


if __name__ == "__main__":
    train.run(main)
