"""What the exporter takes: seconds against plain converter calls, memory, a whole call on CIFAR-10."""

import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from benches.rounds import DATA, ROOT, answer, bounded, report, unpack_weights

import keras_resnet
from export.formats import BASIC, FORMATS

CONVERSION_ROUNDS = 3  # each takes a minute or two
CALIBRATION_IMAGES = 100
POST_TRAINING = [name for name, row in FORMATS.items() if not row.preparation]
AGAIN = ("float32", "float16", "dynamic", "int8")  # made a second time, to see whether memory grows
CIFAR_TEST_IMAGES = 5000


def exporting():
    """The five basic formats of ResNet-50, 100 calibration images, against a SavedModel and four converter calls."""
    with tempfile.TemporaryDirectory() as folder:
        model, images = os.path.join(folder, "model.keras"), os.path.join(folder, "images.npy")
        keras_resnet.ResNet50(weights=None, include_preprocessing=True).save(model)
        rng = np.random.default_rng(0)
        np.save(images, rng.integers(0, 256, (CALIBRATION_IMAGES, 224, 224, 3)).astype("uint8"))
        ours, theirs = [], []
        for _ in range(CONVERSION_ROUNDS):
            ours.append(answer("five_formats", model, folder, images))
            theirs.append(answer("converter", model, folder, "saved_model,float32,float16,dynamic,int8", images))
    for field, limit in (("seconds", 0.2), ("processor_seconds", None)):  # the second is disturbed less by other work
        rows = [[run[field] for run in runs] for runs in (ours, theirs)]
        report(f"five formats of ResNet50 against TFLiteConverter, {field}", *rows, limit=limit)
    bounded("  peak memory of ours", max(run["peak_mb"] for run in ours) * 2**20 / 1e6, 2000, "MB")
    print(f"  of theirs: {max(run['peak_mb'] for run in theirs) * 2**20 / 1e6:,.0f} MB", flush=True)


def memory():
    """Every post-training format of ResNet-152 in one call of export/main.py, some of them twice."""
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.keras")
        keras_resnet.ResNet152(weights=None, classes=10, include_preprocessing=True).save(model)
        flags = [f"--model={model}", f"--output_dir={folder}/out", "--eval_data=synthetic", "--eval_images=4"]
        flags += ["--calibration_data=synthetic", "--calibration_images=32", "--max_top1_drop=100"]
        found = answer("watched_export", *flags, f"--formats={','.join([*POST_TRAINING, *AGAIN])}")
    for name, held in found["held"]:
        print(f"  after {name:<17} {held:7.0f} MiB", flush=True)
    bounded("peak memory of all formats of ResNet152", found["peak_mb"] * 2**20 / 1e6, 6000, "MB")
    first, last = (found["held"][number][1] for number in (len(POST_TRAINING) - 1, -1))
    bounded(f"  grown by making {len(AGAIN)} of them again", (last - first) * 2**20 / 1e6, 20, "MB")


def cifar():
    """The whole call, five formats of ResNet-20, each examined on the 5,000 test images of CIFAR-10."""
    if not os.path.isdir(DATA):
        print(f"left out for lack of CIFAR-10 and trained weights at {DATA}: set KERAS_RESNET_TEST_DATA")
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack_weights(folder)
        flags = ["--model=ResNet20", f"--weights={folder}/cifar10_resnet20.safetensors", f"--data_dir={DATA}/tfds"]
        flags += ["--eval_data=tfds:cifar10", "--calibration_data=tfds:cifar10", f"--eval_images={CIFAR_TEST_IMAGES}"]
        flags += [f"--formats={','.join(BASIC)}", f"--output_dir={folder}/out"]
        start = time.perf_counter()
        command = [sys.executable, os.path.join(ROOT, "export/main.py"), *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        seconds = time.perf_counter() - start
    print(f"export/main.py, five formats of ResNet20 on {CIFAR_TEST_IMAGES:,} images: {seconds:.1f} s", flush=True)
