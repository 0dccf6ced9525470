"""Exports a trained model: `python export/main.py --model=runs/NAME/model.keras --output_dir=exports/NAME`."""

import dataclasses
import json
import os
import sys
import tempfile

from absl import flags

import train
from export.formats import BASIC, FORMATS, QAT
from export.targets import TARGETS

flags.DEFINE_string("model", None, "a .keras file, or a net's name for --weights", required=True)
flags.DEFINE_string("weights", "imagenet", "with a net's name: a tag of keras_resnet.list_weights(), or a file")
flags.DEFINE_string("output_dir", None, "folder for the files and the card", required=True)
flags.DEFINE_list(
    "formats",
    None,
    f"some of {', '.join(FORMATS)}; default: {','.join(BASIC)}, of a model trained with --qat {','.join(QAT)}",
)
flags.DEFINE_string(
    "calibration_data", None, "data whose training images set int8's ranges; default: the run's own or eval_data"
)
flags.DEFINE_string("eval_data", None, "data whose test images check every file; default: the run's own")
flags.DEFINE_string("data_dir", None, "folder of prepared TFDS data sets; default: the run's own")
flags.DEFINE_string("class_index", None, "file with ImageNet's classes, for folder: data; default: the run's own")
flags.DEFINE_integer("calibration_images", 100, "training images for calibration", lower_bound=1)
flags.DEFINE_integer("eval_images", 5000, "most test images to check a file on", lower_bound=1)
flags.DEFINE_integer("batch_size", 1, "images a call of the .tflite files", lower_bound=1)
flags.DEFINE_float("max_top1_drop", 0.5, "points of top-1, in percent, that a file may lose", lower_bound=0)
flags.DEFINE_float("min_agreement", None, "share of images, 0 to 1, that a file must class as the Keras model", 0, 1)
flags.DEFINE_float("max_size_mb", None, "largest size of a file, in 10^6 bytes", lower_bound=0)
flags.DEFINE_float("max_latency_ms", None, "largest median latency on one thread, in milliseconds", lower_bound=0)
flags.DEFINE_enum("target", None, [*TARGETS], "hardware that every file must run on as a whole; sets --formats")
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
    "overwrite", False, "replace an earlier export in output_dir, also by nothing where a format fails now"
)


def main(argv):
    """Exports, verifies, and publishes what kept its promise; returns the exit code."""
    values = flags.FLAGS
    check_flags(argv, values)
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    from export import bundle, card, finetune, pipeline, verify
    from keras_resnet.quantization_aware import is_quantization_aware

    file, model = open_model(values)
    usual = QAT if is_quantization_aware(model) else BASIC
    formats = values.formats or (TARGETS[values.target].formats if values.target else usual)
    tuning = open_training(model, values) if preparations(formats) else None
    source, examination, calibration_images, facts = open_images(model, formats, values)
    subject = bundle.choose(model.name, source, examination) if values.bundle else None
    print(f"{model.name}: top-1 {examination.top1:.2%} on {len(examination.labels):,} test images", flush=True)
    limits = {field.name: values[field.name].value for field in dataclasses.fields(verify.Gate)}
    parent = os.path.dirname(os.path.abspath(values.output_dir))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=parent) as folder:
        staged = pipeline.stage(model, folder, calibration_images, values.batch_size)
        nets, results = {None: staged}, {}
        for kind in preparations(formats):
            print(f"fine-tuning: {kind}, epochs: {values.finetune_epochs}", flush=True)
            nets[kind] = finetune.prepared(kind, staged, tuning, examination.images)
        for name in formats:
            print(f"converting and verifying {name}", flush=True)
            net = nets[FORMATS[name].preparation]
            results[name] = pipeline.produce(name, net, examination, verify.Gate(**limits))
        report = card.make(file, staged.model, examination, results, facts, values.batch_size)
        kept = bundle.fastest_first(results)
        if subject and kept:
            print("making and checking the bundle", flush=True)
            files = bundle.make(subject, kept, os.path.join(folder, bundle.FOLDER))["files"]
            report["bundle"] = {name: {key: row[key] for key in ("sha256", "tolerance")} for name, row in files.items()}
        publish(folder, results, report, card.to_markdown(report), values.output_dir)
    print("\n".join(["", *card.table(report), "", f"The files lie in {values.output_dir}; card.md tells of them."]))
    return 1 if any(result.failures for result in results.values()) else 0


def check_flags(argv, values):
    """Raises ValueError for what can be refused before anything is loaded."""
    train.refuse_positional(argv)
    unknown = [name for name in values.formats or () if name not in FORMATS]
    if unknown or values.formats == []:
        raise ValueError(f"Expected formats among {', '.join(FORMATS)}. Received: {', '.join(unknown) or 'none'}.")
    for name in ("sparsity", "channel_sparsity"):
        if not 0 < values[name].value < 1:
            raise ValueError(f"Expected {name} to be a share between 0 and 1. Received: --{name}={values[name].value}.")
    if os.path.exists(values.output_dir) and not os.path.isdir(values.output_dir):
        raise ValueError(f"Expected output_dir to be a folder. Received: a file, {values.output_dir}.")
    if os.path.isdir(values.output_dir) and os.listdir(values.output_dir) and not values.overwrite:
        raise ValueError(
            f"The output folder is not empty. Expected a new or empty one. Received: {values.output_dir}. "
            "Pass --overwrite to replace the earlier export in it."
        )
    formats = values.formats or BASIC
    if values.bundle and (values.batch_size != 1 or not any(FORMATS[name].scheme for name in formats)):
        raise ValueError(
            "Expected --bundle with --batch_size=1 and at least one format that is a .tflite file. Received: "
            f"--batch_size={values.batch_size} --formats={','.join(formats)}."
        )


def open_model(values):
    """The model that `--model` names, and the file that its weights come from."""
    from keras_resnet import list_models, weights
    from train import network, predictor

    if values.model not in list_models():
        return values.model, predictor.load_keras(values.model)
    file, _ = weights.resolve(values.model, values.weights)
    return file, network.published(values.model, values.weights)


def preparations(formats):
    """The ways in which the net is fine-tuned for the formats asked for, each once."""
    return [*dict.fromkeys(FORMATS[name].preparation for name in formats if FORMATS[name].preparation)]


def open_training(model, values):
    """`finetune.Settings`, whose training images are there and the model's.

    Raises:
        ValueError: if they are missing or not the model's.
    """
    from export import finetune, pipeline
    from train import data, predictor, scoring

    preprocessing = getattr(model, "preprocessing", None)
    options = {
        "model_path": values.model,
        "image_shape": pipeline.check_static(model),
        "spec": values.finetune_data or values.calibration_data,
        "data_dir": values.data_dir,
        "class_index": values.class_index,
    }
    source = data.load_for_model(**options, preprocessing=preprocessing)
    data.find_split(source, "train")
    scoring.check_fits(predictor.from_keras(model), source)
    options["preprocessing"] = preprocessing and dataclasses.asdict(preprocessing)
    shares = (values.sparsity, values.clusters, values.channel_sparsity)
    return finetune.Settings(values.finetune_epochs, *shares, options)


def open_images(model, formats, values):
    """Test images with the Keras model's answers, and calibration images that are none of them.

    Returns:
        `train.data.Source` of the test images, `pipeline.Examination`, uint8 calibration images or None, dict of
        facts for the card.
    Raises:
        ValueError: if images are missing or not the model's.
    """
    from export import calibration, pipeline
    from keras_resnet.quantization_aware import is_quantization_aware
    from train import data, input_pipeline, scoring

    shape = pipeline.check_static(model)
    options = {"data_dir": values.data_dir, "class_index": values.class_index}
    options["preprocessing"] = getattr(model, "preprocessing", None)  # of published weights
    source = data.load_for_model(values.model, shape, values.eval_data, **options)
    examination = pipeline.examine_keras(model, source, values.eval_images)
    tested = source
    resized = options["preprocessing"] and dataclasses.asdict(options["preprocessing"])
    facts = {
        "preprocessing": resized,
        "eval_data": source.name,
        "num_images": len(examination.labels),
        "calibration_indices": [],
        "calibration_warnings": [],
    }
    if not any(FORMATS[name].needs_images(is_quantization_aware(model)) for name in formats):
        return tested, examination, None, facts
    source = data.load_for_model(values.model, shape, values.calibration_data, **options)
    scoring.check_images_fit(shape, source)
    images, labels, indices = input_pipeline.arrays(source, "train", values.calibration_images)
    if len(images) < values.batch_size:
        raise ValueError(
            "Expected at least one batch of calibration images. Received: "
            f"{len(images)} images with --batch_size={values.batch_size}."
        )
    suspicious = calibration.doctor(images, labels)
    for text in suspicious:
        print(f"Warning: calibration images: {text}.", file=sys.stderr)
    facts |= {"calibration_data": source.name, "calibration_indices": indices.tolist()}
    return tested, examination, images, facts | {"calibration_warnings": suspicious}


def publish(folder, results, report, page, output_dir):
    """Moves what kept its promise into the output folder, and writes the card beside it.

    Args:
        folder: the staging folder, on the same disk.
        results: dict from format to `pipeline.Result`.
        report: the card as plain data.
        page: the card in Markdown.
        output_dir: the folder, made if need be.
    """
    from export import microcontroller
    from export.bundle import FOLDER
    from train.run_folder import CONFIG, written_aside

    os.makedirs(output_dir, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".replaced-", dir=output_dir) as replaced:
        earlier = [f"{report['model']['name']}{row.suffix}" for row in FORMATS.values()]
        earlier += [f"{os.path.splitext(name)[0]}{suffix}" for name in earlier for suffix in microcontroller.SUFFIXES]
        for name in (*earlier, FOLDER):  # of which the new card does not tell
            if os.path.exists(os.path.join(output_dir, name)):
                os.replace(os.path.join(output_dir, name), os.path.join(replaced, name))
        for result in results.values():
            for path in () if result.failures else (result.path, *result.companions):
                os.replace(path, os.path.join(output_dir, os.path.basename(path)))
        if os.path.exists(os.path.join(folder, FOLDER)):
            os.replace(os.path.join(folder, FOLDER), os.path.join(output_dir, FOLDER))
    texts = {"card.json": json.dumps(report, indent=2) + "\n", "card.md": page}
    config = os.path.join(os.path.dirname(report["model"]["file"]), CONFIG)
    if os.path.exists(config):  # so that evaluate.py scores these files on the run's data, split as it was
        with open(config, encoding="utf-8") as file:
            texts[CONFIG] = file.read()
    for name, text in texts.items():
        with (
            written_aside(os.path.join(output_dir, name)) as aside,
            open(aside, "w", encoding="utf-8") as file,
        ):
            file.write(text)


if __name__ == "__main__":
    train.run(main)
