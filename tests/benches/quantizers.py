"""Our quantizer against litert-quantizer's and TFLiteConverter's, on trained nets and real images."""

import dataclasses
import glob
import json
import os
import tempfile

import numpy as np
from benches import latency
from benches.rounds import DATA, answer, judged, unpack_weights

import keras_resnet
from export import flatbuffer, walk
from keras_resnet.preprocessing import open_image
from train import data, input_pipeline, predictor, views

OURS = ("float32", "float16", "dynamic", "int8", "int16x8", "int4")
CONVERTERS = ("float16", "dynamic", "int8", "int16x8")
CALIBRATION_IMAGES, TEST_IMAGES = 100, 5000  # of CIFAR-10
AT_ONCE = 100  # images that the Keras model scores
IMAGES = "images.npy"  # those to calibrate on, in a folder of files
FEWEST_AGREED = 0.95  # of ImageNet answers in int8
MOST_BEHIND = 0.5  # decibels of the logits' signal-to-noise ratio that another quantizer may be ahead


@dataclasses.dataclass
class Tally:
    """What one quantizer's files did, summed over all images.

    Attributes:
        hits: right answers.
        agreed: images with the Keras model's answer.
        signal: squares of the Keras model's logits.
        error: squares of the differences from them.
        bytes: size of the file.
        milliseconds: median of a call on one thread.
    """

    hits: int = 0
    agreed: int = 0
    signal: float = 0.0
    error: float = 0.0
    bytes: int = 0
    milliseconds: float = 0.0

    @property
    def decibels(self):
        return 10 * np.log10(self.signal / self.error) if self.error else np.inf

    def add(self, scores, expected, labels):
        best = scores.argmax(axis=1)
        self.hits += int(np.sum(best == labels))
        self.agreed += int(np.sum(best == expected.argmax(axis=1)))
        self.signal += float(np.sum(np.square(expected, dtype="float64")))
        self.error += float(np.sum(np.square(scores.astype("float64") - expected)))


def cifar10(model):
    """One fold: training images to calibrate on, the test images, their labels."""
    source = data.load("tfds:cifar10", data_dir=os.path.join(DATA, "tfds"))
    images, labels, _ = input_pipeline.arrays(source, "test", TEST_IMAGES)
    return [(input_pipeline.arrays(source, "train", CALIBRATION_IMAGES)[0], images, labels)]


def imagenet(model):
    """Two folds of the 100 photographs: each half is calibrated on the other."""
    with open(os.path.join(DATA, "imagenet_class_index.json"), encoding="utf-8") as file:
        numbers = {wnid: int(number) for number, (wnid, _) in json.load(file).items()}
    files = photographs()
    images = keras_resnet.preprocessor(model).crops(files)
    labels = np.array([numbers[os.path.basename(os.path.dirname(file))] for file in files])
    return [(images[1::2], images[::2], labels[::2]), (images[::2], images[1::2], labels[1::2])]


def photographs():
    """Files of the 100 labelled photographs."""
    return sorted(glob.glob(os.path.join(DATA, "imagenet_sample/validation/*/*")))


NETS = {
    "ResNet20": ("cifar10_resnet20", cifar10),
    "ResNet18": ("imagenet_resnet18", imagenet),
    "ResNet50": ("imagenet_resnet50", imagenet),
}


def write_converters(model, images, folder, formats):
    """TFLiteConverter's files, dict from the format to the path; the images stay in the folder as IMAGES."""
    saved, array = os.path.join(folder, "model.keras"), os.path.join(folder, IMAGES)
    model.save(saved)
    np.save(array, images)
    answer("converter", saved, folder, ",".join(formats), array)
    return {name: os.path.join(folder, f"{name}.tflite") for name in formats}


def write_all(model, images, folder):
    """Everyone's files; also prints what was refused."""
    files = {(name, "ours"): path for name, path in latency.write_ours(model, images, folder, OURS).items()}
    theirs = write_converters(model, images, folder, CONVERTERS)
    files |= {(name, "TFLiteConverter"): path for name, path in theirs.items()}
    plain = os.path.join(folder, "plain.tflite")
    with open(plain, "wb") as file:
        file.write(flatbuffer.to_bytes(walk.from_keras(model, 1)))
    os.makedirs(os.path.join(folder, "litert"))
    refused = answer("litert_quantizer", plain, os.path.join(folder, "litert"), os.path.join(folder, IMAGES))
    for name, reason in refused.items():
        print(f"litert-quantizer refuses {name}: {reason}", flush=True)
    for path in sorted(glob.glob(os.path.join(folder, "litert/*"))):
        row, _, algorithm = os.path.splitext(os.path.basename(path))[0].partition(" ")
        files[row, f"litert-quantizer, {algorithm}"] = path
    return files


def compared(model, folds):
    """Tallies of everyone's files: dict from (row, quantizer), and how many images they are of."""
    tallies, keras_model = {}, predictor.from_keras(model)
    for images, tested, labels in folds:
        with tempfile.TemporaryDirectory() as folder:
            files = write_all(model, images, folder)
            starts = range(0, len(tested), AT_ONCE)
            expected = np.concatenate([keras_model.predict(tested[start : start + AT_ONCE]) for start in starts])
            for key, path in files.items():
                tally = tallies.setdefault(key, Tally(bytes=os.path.getsize(path)))
                tally.add(predictor.from_tflite(path).predict(tested), expected, labels)
            if tested is folds[-1][1]:
                seconds = latency.race({key: ("litert", path) for key, path in files.items()}, threads=1)
                for key, times in seconds.items():
                    tallies[key].milliseconds = 1000 * float(np.median(times))
    return tallies, sum(len(labels) for _, _, labels in folds)


def print_table(net, tallies, num_images):
    """A Markdown table, and for each row of FORMATS whether ours is as near to float as the best."""
    print(f"\n{net}, {num_images:,} images\n")
    print("| row | quantizer | top-1 | agreement | dB | bytes | ms, 1 thread |")
    print("| --- | --- | --: | --: | --: | --: | --: |")
    for (row, quantizer), one in sorted(tallies.items(), key=lambda item: (OURS.index(item[0][0]), item[0][1])):
        shares = [f"{100 * count / num_images:.2f}" for count in (one.hits, one.agreed)]
        print("|", " | ".join([row, quantizer, *shares, f"{one.decibels:.1f}", f"{one.bytes:,}",
                               f"{one.milliseconds:.3f}"]), "|")  # fmt: skip
    for row in OURS:
        others = {whose: one.decibels for (name, whose), one in tallies.items() if name == row and whose != "ours"}
        if others:
            behind = max(others.values()) - tallies[row, "ours"].decibels
            verdict = judged(behind <= MOST_BEHIND)
            print(f"{net} {row}: ours is {-behind:+.1f} dB from {max(others, key=others.get)}  {verdict}", flush=True)


def load(net):
    """One of NETS with its trained weights, from pixels to logits; None, and a line, where these are absent."""
    if not os.path.isdir(DATA):
        print(f"left out for lack of trained weights and images at {DATA}: set KERAS_RESNET_TEST_DATA")
        return None
    with tempfile.TemporaryDirectory() as folder:
        unpack_weights(folder)
        path = os.path.join(folder, f"{NETS[net][0]}.safetensors")
        return keras_resnet.build(net, weights=path, include_preprocessing=True, classifier_activation=None)


def quantizers(net):
    """Prints the table of one of NETS."""
    if model := load(net):
        print_table(net, *compared(model, NETS[net][1](model)))


def agreement(net):
    """How often int8 gives the Keras model's answer on ten crops of the 100 photographs.

    Of 100 answers three or four hang on a hair; of 1,000 fewer do. Each half is calibrated on the other's centres.
    """
    if not (model := load(net)):
        return
    keras_model, files, tallies = predictor.from_keras(model), photographs(), {}
    preprocessor, size = keras_resnet.preprocessor(model), model.input_shape[1:3]
    for calibrated, tested in ((files[1::2], files[::2]), (files[::2], files[1::2])):
        rows = [views.ten_crops(np.asarray(open_image(file)), size, preprocessor.preprocessing) for file in tested]
        with tempfile.TemporaryDirectory() as folder:
            writers = {"TFLiteConverter": write_converters, "ours": latency.write_ours}
            images = preprocessor.crops(calibrated)
            files_of = {whose: write(model, images, folder, ("int8",)) for whose, write in writers.items()}
            runs = {whose: predictor.from_tflite(made["int8"]) for whose, made in files_of.items()}
            for crops in map(np.stack, rows):
                expected = keras_model.predict(crops)
                for whose, run in runs.items():
                    tally = tallies.setdefault(whose, Tally())
                    tally.add(run.predict(crops), expected, expected.argmax(axis=1))
    for whose, tally in tallies.items():
        share = tally.agreed / (10 * len(files))
        verdict = f"limit {FEWEST_AGREED:.0%}  {judged(share >= FEWEST_AGREED)}" if whose == "ours" else ""
        print(f"{net} int8, {whose}: {share:.1%} of {10 * len(files):,} answers, {tally.decibels:.1f} dB  {verdict}")
