"""Our MLPerf Tiny ResNet-8 against the peers' file."""

import glob
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from benches.rounds import DATA, ROOT, judged, report, timed

from train import data, input_pipeline, predictor


def resnet8():
    """Our MLPerf Tiny ResNet-8 against the peers' file: size, top-1 on 5,000 test images of CIFAR-10, latency.

    Both from the pixels that a camera gives: our file takes them as they are, theirs less 128 as int8.
    """
    theirs = os.path.join(DATA, "weights/mlperf_tiny_resnet8_int8.tflite")
    if not os.path.exists(theirs):
        print(f"resnet8: left out, no {theirs}")
        return
    flags = ["--eval_data=tfds:cifar10", "--calibration_data=tfds:cifar10", f"--data_dir={DATA}/tfds"]
    flags += [f"--model={ROOT}/docs/cifar10_resnet8.keras", "--formats=float32,int8_cpu"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "export/main.py", *flags, f"--output_dir={folder}"]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        with open(f"{folder}/card.json", encoding="utf-8") as file:
            found = {name: row["top1"] for name, row in json.load(file)["artifacts"].items()}
        (ours,) = glob.glob(f"{folder}/*_int8_cpu.tflite")
        source = data.load("tfds:cifar10", data_dir=f"{DATA}/tfds")
        pixels, labels, _ = input_pipeline.arrays(source, "test")
        their_top1 = np.mean(predictor.from_tflite(theirs).predict(pixels).argmax(axis=1) == labels)
        size, their_size = os.path.getsize(ours), os.path.getsize(theirs)
        drop = found["float32"] - found["int8_cpu"]
        verdict = judged(size <= their_size and found["float32"] >= 0.872 and drop <= 0.003)
        print(
            f"ResNet-8: ours {size:,} bytes, top-1 {found['float32']:.2%} float, {found['int8_cpu']:.2%} int8; "
            f"theirs {their_size:,} bytes, {their_top1:.2%} int8; limits 87.2 %, 0.3 points lost  {verdict}",
            flush=True,
        )
        for threads in (1, 2):
            calls = [_call_of(path, threads, pixels[:1]) for path in (ours, theirs)]
            rounds = [[min(timed(call) for _ in range(20)) for call in calls] for _ in range(300)]
            title = f"ResNet-8 in int8, {threads} thread{'s' * (threads > 1)}, from uint8 pixels"
            report(title, *zip(*rounds, strict=True), limit=1.0)


def _call_of(path, threads, pixels):
    """Function that writes one image into a file's input and runs it."""
    interpreter = predictor.open_tflite(path, threads)
    (given,) = interpreter.get_input_details()

    def call():
        shifted = pixels if given["dtype"] is np.uint8 else (pixels ^ 128).view(np.int8)
        interpreter.set_tensor(given["index"], shifted)
        interpreter.invoke()

    for _ in range(500):
        call()
    return call
