"""Scores a model file: `python train/evaluate.py --model=runs/NAME/model.keras --data=digits`."""

from absl import flags

import train

flags.DEFINE_string("model", None, "a .keras or .tflite file", required=True)
flags.DEFINE_string("data", None, "digits, synthetic, tfds:NAME or folder:PATH; default: the run's own")
flags.DEFINE_string("data_dir", None, "folder of prepared TFDS data sets; default: the run's own")
flags.DEFINE_string("class_index", None, "file with ImageNet's classes, for folder: data; default: the run's own")
flags.DEFINE_string("split", "test", "train, validation or test")
flags.DEFINE_bool("per_class", False, "also print a table of the classes")


def main(argv):
    """Prints top-1, top-5 and loss of the model."""
    if len(argv) > 1:
        raise ValueError(f"Expected flags only, as --name=value. Received: {' '.join(argv[1:])}.")
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    from train import data, predictor, scoring

    values = flags.FLAGS
    model = predictor.load(values.model)
    options = {"data_dir": values.data_dir, "class_index": values.class_index}
    source = data.load_for_model(values.model, model.image_shape, values.data, **options)
    outputs, labels = scoring.predict(model, source, values.split)
    scores = scoring.score(outputs, labels)
    print(
        f"{values.model} on {source.name}, {values.split} split: top-1 {scores.top1:.2%}, top-5 {scores.top5:.2%}, "
        f"loss {scores.loss:.4f}, {scores.num_images:,} images"
    )
    if values.per_class:
        for name, num_images, top1 in scoring.per_class(outputs, labels, source.class_names):
            print(f"{name:>20} {num_images:>7,} images  top-1 {top1:.2%}")


if __name__ == "__main__":
    train.run(main)
