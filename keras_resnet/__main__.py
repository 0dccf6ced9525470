"""The best classes of photographs: `python -m keras_resnet classify photo.jpg --model=ResNet50 --weights=FILE`."""

import argparse
import csv
import os
import sys
import warnings

import keras

from keras_resnet import importers, predictions
from keras_resnet.resnet import build
from keras_resnet.weights import preprocessor

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
BATCH_SIZE = 32


def main(arguments=None):
    """Runs the command; a user's mistake is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m keras_resnet", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="classify")
    command = commands.add_parser("classify", help="print the best classes of photographs")
    command.add_argument("images", nargs="+", help="image files, or folders of them")
    command.add_argument("--model", default="ResNet50", help="one of keras_resnet.list_models() (default: %(default)s)")
    command.add_argument(
        "--weights", default="imagenet", help="a tag of keras_resnet.list_weights(), or a file (default: %(default)s)"
    )
    command.add_argument("--top", type=int, default=5, help="classes an image (default: %(default)s)")
    command.add_argument("--class_index", help="imagenet_class_index.json; default: downloaded once")
    command.add_argument("--csv", help="file to write image, rank, wnid, name, probability to")
    options = parser.parse_args(arguments)
    try:
        rows, skipped = classify(options)
        report(rows, options)
    except (ValueError, OSError, ImportError, importers.AdaptedWeights) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    for line in skipped:
        print(f"Skipped: {line}", file=sys.stderr)
    return 1 if skipped else 0


def classify(options):
    """Best classes of each image.

    Args:
        options: parsed arguments of `main`.
    Returns:
        list of (path, rank, wnid, name, probability), and a list of messages of files that are not images.
    """
    paths = find_images(options.images)
    if options.top < 1:
        raise ValueError(f"Expected --top to be at least 1. Received: {options.top}.")
    names = predictions.read_class_index(options.class_index)
    with warnings.catch_warnings():
        warnings.simplefilter("error", importers.AdaptedWeights)  # a new classifier has nothing to say
        model = build(options.model, weights=options.weights, classes=len(names))
    prepare = preprocessor(model)
    rows, skipped = [], []
    for start in range(0, len(paths), BATCH_SIZE):
        inputs, found = [], []
        for path in paths[start : start + BATCH_SIZE]:
            try:
                inputs.append(prepare(path)[0])
                found.append(path)
            except ValueError as error:
                skipped.append(str(error))
        if not inputs:
            continue
        scores = keras.ops.convert_to_numpy(model(keras.ops.stack(inputs), training=False))
        decoded = predictions.best_classes(scores, names, options.top)
        for path, classes in zip(found, decoded, strict=True):
            rows += [(path, rank, *best) for rank, best in enumerate(classes, start=1)]
    return rows, skipped


def find_images(arguments):
    """Paths of image files: each argument, or the images in it if it is a folder, by name."""
    paths = []
    for argument in arguments:
        found = [argument]
        if os.path.isdir(argument):
            found = [os.path.join(folder, name) for folder, _, names in os.walk(argument) for name in names]
            found = sorted(path for path in found if path.lower().endswith(EXTENSIONS))
        if not found or not os.path.exists(found[0]):
            raise ValueError(f"Expected an image or a folder with images in it. Received: {argument!r}.")
        paths += found
    return paths


def report(rows, options):
    """Prints the table, and writes the CSV file aside before it is renamed."""
    for path, rank, wnid, name, probability in rows:
        if rank == 1:
            print(path)
        print(f"  {probability:7.2%}  {name} ({wnid})")
    if options.csv:
        with open(f"{options.csv}.part", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("image", "rank", "wnid", "name", "probability"))
            writer.writerows((*row[:-1], f"{row[-1]:.6f}") for row in rows)
        os.replace(f"{options.csv}.part", options.csv)
        print(f"Wrote {options.csv}")


if __name__ == "__main__":
    sys.exit(main())
