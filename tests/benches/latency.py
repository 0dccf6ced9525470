"""ResNet-50 as we export it against other roads from the same net to a CPU: Keras's converter, ONNX Runtime, torch."""

import os
import tempfile

import numpy as np
from benches.rounds import ROUNDS, absent, answer, child, report

import keras_resnet
from export import pipeline

NET = "ResNet50"
SECONDS = 0.4  # of calls in each turn
CALIBRATION_IMAGES = 10  # of noise: the ranges do not change how long a call takes
INT8_AT_LEAST = 3.3  # times as fast as float32
TIE = 1.02  # a file timed against its own copy differed by up to 0.7 % here, on a machine that others used too


class Caller:
    """A process that calls one file, and the seconds a call that it answered, one number a turn."""

    def __init__(self, runtime, file, threads):
        self.process = child("calls", runtime, file, threads)
        self.seconds = []

    def take_turn(self):
        print(SECONDS, file=self.process.stdin, flush=True)
        self.seconds.append(float(self.process.stdout.readline()))

    def close(self):
        self.process.communicate()


def race(rivals, threads):
    """Seconds a call of each file, in rounds in which all take turns; on one thread the processor's.

    Args:
        rivals: dict from a title to (runtime, file) of `calls`.
        threads: of each.
    Returns:
        dict from the title to a list of ROUNDS seconds.
    """
    callers = {title: Caller(*rival, threads) for title, rival in rivals.items()}
    for _ in range(ROUNDS):
        for caller in callers.values():
            caller.take_turn()
    for caller in callers.values():
        caller.close()
    return {title: caller.seconds for title, caller in callers.items()}


def write_ours(model, images, folder, formats):
    """Files as the exporter makes them: dict from the format to the path."""
    staged = pipeline.stage(model, folder, images, 1)
    paths = {name: os.path.join(folder, f"ours_{name}.tflite") for name in formats}
    for name, path in paths.items():
        pipeline.make(name, staged, path)
    return paths


def rivals_of(folder):
    """Files of everyone who is installed: dicts from a title to (runtime, file), of float32 and of int8."""
    images = np.random.default_rng(0).integers(0, 256, (CALIBRATION_IMAGES, 224, 224, 3)).astype("uint8")
    np.save(os.path.join(folder, "images.npy"), images)
    ours = write_ours(keras_resnet.build(NET, weights=None), images, folder, ("float32", "int8_cpu"))
    answer("converter", f"applications.{NET}", folder, "float32,int8", os.path.join(folder, "images.npy"))
    floats = {
        "ours": ("litert", ours["float32"]),
        "TFLiteConverter": ("litert", os.path.join(folder, "float32.tflite")),
    }
    int8s = {"ours": ("litert", ours["int8_cpu"]), "TFLiteConverter": ("litert", os.path.join(folder, "int8.tflite"))}
    if not absent("torch"):
        floats["torch"] = ("torch", NET)
    if not absent("torch", "onnx", "onnxruntime"):
        onnx = [os.path.join(folder, f"{name}.onnx") for name in ("float32", "int8")]
        answer("torch_nets", NET, *onnx)
        floats["ONNX Runtime"], int8s["ONNX Runtime"] = (("onnx_runtime", file) for file in onnx)
    return floats, int8s


def latency():
    """A call on one image, on one thread and on two."""
    with tempfile.TemporaryDirectory() as folder:
        floats, int8s = rivals_of(folder)
        for threads in (1, 2):
            both = {f"float32 {title}": rival for title, rival in floats.items()}
            both |= {f"int8 {title}": rival for title, rival in int8s.items()}
            seconds = race(both, threads)
            where = f"{NET}, threads: {threads}"
            for kind, titles in (("float32", floats), ("int8", int8s)):
                for title in [title for title in titles if title != "ours"]:
                    rows = seconds[f"{kind} ours"], seconds[f"{kind} {title}"]
                    report(f"{where}, {kind} against {title}", *rows, limit=TIE if kind == "float32" else None)
            rows = seconds["int8 ours"], seconds["float32 ours"]
            report(f"{where}, our int8_cpu against our float32", *rows, limit=1 / INT8_AT_LEAST)
