"""Classifies photographs with the nets in this folder, and proves that this device computes what the exporter did.

    python classify.py photo.jpg                    the most likely classes
    python classify.py photo.jpg --model=FILE       by one of the other files
    python classify.py --check                      all files on the golden images; exit code 1 if one is off

Needs three packages: pip install ai-edge-litert numpy pillow
"""

import argparse
import hashlib
import json
import pathlib
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).resolve().parent
MOST_PIXELS = 2**26  # of a resized photograph
PIXEL_LEVELS = 2.0  # of 255: mean difference between two decoders of one JPEG


def main():
    """Classifies or checks; returns the exit code: 0, 1 where a check fails, 2 where the input is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", help="JPEG, PNG or other images")
    parser.add_argument("--model", help="one of the .tflite files; default: the first one for photos, all for --check")
    parser.add_argument("--top", type=int, default=5, help="classes to show")
    parser.add_argument("--check", action="store_true", help="compare with the golden outputs")
    given = parser.parse_args()
    try:
        if given.check == bool(given.photos) or given.top < 1:
            raise ValueError("Expected photographs, or --check, and --top of 1 or more. See --help.")
        bundle = read_bundle()
        files = list(bundle["files"])
        if given.model and pathlib.Path(given.model).name not in files:
            raise ValueError(f"Expected --model to be one of {', '.join(files)}. Received: {given.model}.")
        files = [pathlib.Path(given.model).name] if given.model else files
        return check(bundle, files) if given.check else show(bundle, files[0], given.photos, given.top)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def read_bundle():
    """What `bundle.json` says of the files, with "labels" from `labels.txt`: dict.

    Raises:
        ValueError: if either is missing or they do not fit each other.
    """
    for name in ("bundle.json", "labels.txt"):
        if not (HERE / name).is_file():
            raise ValueError(f"{name} is missing. Expected it beside classify.py, in {HERE}. Copy the whole bundle.")
    bundle = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    labels = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()
    if len(labels) != bundle["num_classes"]:
        raise ValueError(
            f"labels.txt does not fit the nets. Expected {bundle['num_classes']} lines. Received: {len(labels)}. "
            "Copy the bundle's own."
        )
    return bundle | {"labels": labels}


def show(bundle, name, photos, top):
    """Prints the most likely classes of each photograph; returns 0."""
    run = open_model(bundle, name)
    for photo in photos:
        scores = run(read_photo(photo, bundle))
        print(photo)
        for number in np.argsort(-scores, kind="stable")[:top]:
            print(f"  {scores[number]:7.2%}  {bundle['labels'][number]}")
    return 0


def open_model(bundle, name):
    """Function from uint8 pixels (h, w, c) to float32 probabilities (classes,), also where they are stored as int8.

    Raises:
        ValueError: if the file is missing, not the bundle's, or not a classifier of these classes.
    """
    path = HERE / name
    if not path.is_file():
        raise ValueError(f"{name} is missing. Expected it in {HERE}. Copy it from the bundle, or pass another --model.")
    check_hash(name, bundle["files"][name]["sha256"])
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = scores["quantization"]

    def run(pixels):
        interpreter.set_tensor(image["index"], pixels[None].astype(image["dtype"]))
        interpreter.invoke()
        stored = interpreter.get_tensor(scores["index"])[0].astype("float32")
        return scale * (stored - zero_point) if scale else stored

    return run


def check_hash(name, expected):
    """Raises ValueError unless a file of the folder is, byte for byte, what the exporter wrote."""
    path = HERE / name
    if not path.is_file():
        raise ValueError(f"{name} is missing. Expected it in {HERE}. Copy it again.")
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(f"{name} is not the file that was exported: its hash is another. Copy it again.")


def read_photo(path, bundle):
    """Pixels of a photograph as the net was scored: shorter side resized, centre cropped.

    Args:
        path: image file; EXIF rotation is applied, transparency laid on white.
        bundle: dict of `read_bundle`.
    Returns:
        uint8 array (h, w, c).
    Raises:
        ValueError: if it is not an image.
    """
    try:
        image = Image.open(path)
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"Expected an image file. Received: {path} ({error}).") from error
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I;16", "I"):  # grey of 16 bits; Pillow itself would clip it to white
        image = Image.fromarray((np.asarray(image).astype("int64") // 257).clip(0, 255).astype("uint8"))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    height, width, channels = bundle["image_shape"]
    image = image.convert("RGB" if channels == 3 else "L")
    if image.size != (width, height):
        image = resized(image, bundle)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image).reshape(height, width, channels)


def resized(image, bundle):
    """The image with the bundle's shorter side."""
    short, (width, height) = bundle["resize"], image.size
    size = (short, short * height // width) if width <= height else (short * width // height, short)
    if size[0] * size[1] > MOST_PIXELS:
        raise ValueError(f"Expected an image of usual proportions. Received: {width} x {height} pixels.")
    return image if image.size == size else image.resize(size, Image.Resampling[bundle["interpolation"].upper()])


def check(bundle, names):
    """Compares hashes, runs files on the golden images, prints how far each is off; returns 0, or 1 where one fails."""
    golden, failed = bundle["golden"], False
    for name, digest in bundle["sha256"].items():
        try:
            check_hash(name, digest)
        except ValueError as error:
            failed |= report(name, False, error)
    images = [read_photo(HERE / name, bundle) for name in golden["images"]]
    photo, expected = (read_photo(HERE / golden[name], bundle).astype("int64") for name in ("photo", "photo_pixels"))
    off = float(np.abs(photo - expected).mean())
    failed |= report("preprocessing", off <= PIXEL_LEVELS, f"off by {off:.2g}, at most {PIXEL_LEVELS} levels of 255")
    for name in names:
        try:
            run = open_model(bundle, name)
            scores = np.stack([run(image) for image in images])
        except (ValueError, RuntimeError) as error:
            failed |= report(name, False, error)
            continue
        failed |= report(name, *compare(scores, bundle["files"][name], bundle["labels"]))
    if failed:
        print("FAILED: this device does not compute what the exporter did.", file=sys.stderr)
        return 1
    print("All golden outputs came out.")
    return 0


def compare(scores, row, labels):
    """Whether probabilities are what other kernels may give, and in words how far they are off.

    Args:
        scores: float32 (n, classes), what this device gives for the golden images.
        row: dict, the file's entry in `bundle.json`.
        labels: list of str, by class.
    Returns:
        (bool, str).
    """
    expected, factor = np.array(row["scores"]), np.exp(row["tolerance"])
    lowest = expected / (expected + (1 - expected) * factor) - row["resolution"]
    highest = expected / (expected + (1 - expected) / factor) + row["resolution"]
    off = np.abs(scores - expected)
    used = float((off / np.where(scores > expected, highest - expected, expected - lowest)).max())
    text = f"off by {float(off.max()):.2g} of probability, {used:.0%} of what other kernels may be off"
    for image, (got, best) in enumerate(zip(scores.argmax(axis=1), expected.argmax(axis=1), strict=True)):
        if expected[image, got] * factor + row["resolution"] < expected[image, best]:
            return False, f"{text}; golden image {image} is {labels[got]}, expected {labels[best]}"
    return used <= 1, text


def report(name, is_kept, text):
    """Prints one comparison; returns whether it failed."""
    print(f"{'ok' if is_kept else 'FAILED':6}  {name}: {text}", file=sys.stdout if is_kept else sys.stderr)
    return not is_kept


if __name__ == "__main__":
    sys.exit(main())
