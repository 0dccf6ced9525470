"""Scores a model: `python train/evaluate.py --model=runs/NAME/model.keras --data=digits`."""

import dataclasses
import os

from absl import flags

import train

flags.DEFINE_string("model", None, "a .keras or .tflite file, or a net's name for --weights", required=True)
flags.DEFINE_string("weights", "imagenet", "with a net's name: a tag of keras_resnet.list_weights(), or a file")
flags.DEFINE_string("data", None, "digits, synthetic, tfds:NAME or folder:PATH; default: the run's own")
flags.DEFINE_string("data_dir", None, "folder of prepared TFDS data sets; default: the run's own")
flags.DEFINE_string("class_index", None, "file with ImageNet's classes, for folder: data; default: the run's own")
flags.DEFINE_string("split", "test", "train, validation or test")
flags.DEFINE_enum(
    "crops", None, ["1", "10"], "1, the default: the centre; 10: corners, centre and mirror images (He 2015, table 3)"
)
flags.DEFINE_list(
    "scales", [], "shorter sides in pixels at which whole images are scored: 224,256,384,480,640 (He 2015, table 4)"
)
flags.DEFINE_string("real_labels", None, "real.json of ImageNet-ReaL (arXiv 2006.07159), to score on it too")
flags.DEFINE_bool("per_class", False, "also print a table of the classes")
flags.DEFINE_string(
    "output_dir", None, "folder for scores.json, per_class.csv, confusion.png and worst.png; earlier ones are replaced"
)


def main(argv):
    """Prints top-1, top-5 and loss of the model, and writes a report if asked to."""
    values = flags.FLAGS
    crops, scales = check_flags(argv, values)
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    from train import data, input_pipeline, real_labels, scoring, views

    model, preprocessing = open_model(values)
    options = {"data_dir": values.data_dir, "class_index": values.class_index, "preprocessing": preprocessing}
    source = data.load_for_model(values.model, model.image_shape, values.data, **options)
    acceptable = None
    if values.real_labels:  # both before the work that it would be a pity to lose
        acceptable = real_labels.read(values.real_labels, input_pipeline.names(source, values.split), model.num_classes)
    if values.output_dir:
        os.makedirs(values.output_dir, exist_ok=True)
    outputs, labels = views.predict(model, source, values.split, crops, scales)
    facts = describe(values, crops, scales, source) | dataclasses.asdict(scoring.score(outputs, labels))
    print(
        "{model} on {data}, {split} split, {views}: top-1 {top1:.2%}, top-5 {top5:.2%}, "
        "loss {loss:.4f}, {num_images:,} images".format(**facts)
    )
    if acceptable:
        facts["real_top1"], facts["real_num_images"] = real_labels.score(scoring.answers(outputs), acceptable)
        print("on the real labels: top-1 {real_top1:.2%}, {real_num_images:,} images".format(**facts))
    if values.per_class:
        for name, num_images, top1 in scoring.per_class(outputs, labels, source.titles):
            print(f"{name:>20} {num_images:>7,} images  top-1 {top1:.2%}")
    if values.output_dir:
        from train import report  # brings matplotlib, a second of import

        report.write(values.output_dir, facts, outputs, labels, source, values.split)


def check_flags(argv, values):
    """The number of crops and the scales, after refusing what can be refused before anything is loaded.

    Raises:
        ValueError: if a flag is wrong.
    """
    train.refuse_positional(argv)
    if not all(scale.isdecimal() and int(scale) > 0 for scale in values.scales):
        raise ValueError(
            "Expected --scales in whole pixels, such as 224,256,384,480,640. Received: "
            f"--scales={','.join(values.scales)}."
        )
    if values.crops and values.scales:
        raise ValueError(
            "Expected --crops or --scales, which are two ways to score. Received: "
            f"--crops={values.crops} and --scales={','.join(values.scales)}. Leave one out."
        )
    if values.output_dir and os.path.exists(values.output_dir) and not os.path.isdir(values.output_dir):
        raise ValueError(f"Expected output_dir to be a folder. Received: a file, {values.output_dir}.")
    return int(values.crops or 1), tuple(map(int, values.scales))


def open_model(values):
    """The `Predictor` that `--model` names, and the `Preprocessing` of its weights if they are published ones."""
    from keras_resnet import list_models
    from train import network, predictor

    if values.model not in list_models():
        return predictor.load(values.model, any_size=bool(values.scales)), None
    model = network.published(values.model, values.weights)
    return predictor.from_keras(predictor.for_any_size(model) if values.scales else model), model.preprocessing


def describe(values, crops, scales, source):
    """The settings that a score depends on, as plain data."""
    from keras_resnet import list_models

    steps = source.preprocessing
    return {
        "model": values.model,
        "weights": values.weights if values.model in list_models() else None,
        "data": source.name,
        "split": values.split,
        "views": f"scales {','.join(map(str, scales))}" if scales else f"{crops} crop{'s' if crops > 1 else ''}",
        "num_views": len(scales) or crops,
        "resize": None if scales else steps.resize,
        "crop": None if scales else list(source.image_shape[:2]),
        "interpolation": steps.interpolation,
    }


if __name__ == "__main__":
    train.run(main)
