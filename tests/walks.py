"""Our float32 file of a net held against TFLiteConverter's.

    python tests/walks.py [CASE ...]    every row of VARIANTS and every other case of golden.py, a child process each

Prints a table in Markdown and ends with code 1 if a file is not the converter's. tests/test_walk.py does the same with
a net of each family; all of them take a quarter of an hour.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import train

train.import_tensorflow_quietly()

import golden  # noqa: E402
import numpy as np  # noqa: E402
from ai_edge_litert import schema_py_generated as schema  # noqa: E402

from export import convert, flatbuffer, saved_model, verify, walk  # noqa: E402
from keras_resnet.variants import VARIANTS  # noqa: E402
from train import predictor  # noqa: E402

MOST_BYTES = 1.02  # of ours over theirs


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two files of one net.

    Attributes:
        differences: of our scores and theirs from the Keras model's, as a share of the largest of these.
        operators: of ours and theirs, dicts from operator to how many.
        versions: of ours and theirs, sorted lists of [operator, version].
        bytes: of ours and theirs.
    """

    differences: tuple
    operators: tuple
    versions: tuple
    bytes: tuple

    def failures(self):
        """What is not as it should be, in words; empty where all is."""
        checks = (
            (max(self.differences) < golden.TOLERANCE, f"scores differ by {self.differences}"),
            (self.operators[0] == self.operators[1], f"operators {self.operators}"),
            (self.versions[0] == self.versions[1], f"versions {self.versions}"),
            (self.bytes[0] < MOST_BYTES * self.bytes[1], f"bytes {self.bytes}"),
        )
        return [text for holds, text in checks if not holds]


def compared(case, folder):
    """`Comparison` of a case of golden.py, or of a row of VARIANTS, at its size there.

    Args:
        case: its name.
        folder: empty folder for the files.
    """
    model = golden.build(case)
    if case == "ResNet1202":  # 600 branches, each added at full strength, leave float32
        for layer in model.layers:
            if layer.name.endswith("_bn2"):
                layer.gamma.assign(0.1 * layer.gamma)
    images = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
    expected = predictor.from_keras(model).predict(images)
    files = [os.path.join(folder, f"{whose}.tflite") for whose in ("ours", "theirs")]
    saved_model.write_fixed(model, os.path.join(folder, convert.FIXED_BATCH), 1)
    contents = flatbuffer.to_bytes(walk.from_keras(model, 1)), convert.CONVERTERS["float32"](folder)
    for path, content in zip(files, contents, strict=True):
        with open(path, "wb") as file:
            file.write(content)
    return Comparison(
        tuple(_relative(predictor.from_tflite(path).predict(images), expected) for path in files),
        tuple(verify.count_operators(path)[0] for path in files),
        tuple(_versions(content) for content in contents),
        tuple(map(len, contents)),
    )


def _relative(scores, expected):
    return float(np.abs(scores - expected).max() / np.abs(expected).max())


def _versions(content):
    codes = schema.ModelT.InitFromPackedBuf(content).operatorCodes
    return sorted([code.builtinCode, code.version] for code in codes)


def _in_child(case):
    """The converter leaks memory and can abort its process."""
    done = subprocess.run([sys.executable, __file__, "--child", case], capture_output=True, text=True, check=False)
    if done.returncode:
        return None, [done.stderr.strip().splitlines()[-1]]
    found = Comparison(**json.loads(done.stdout.splitlines()[-1]))
    return found, found.failures()


def main(cases):
    """Prints a row a case; returns the exit code."""
    print("| net | operators | ours | theirs | bytes of ours | ratio | |\n| --- | --: | --: | --: | --: | --: | --- |")
    is_bad = False
    for case in cases:
        found, failures = _in_child(case)
        is_bad |= bool(failures)
        cells = ["-"] * 5
        if found:
            ours, theirs = found.bytes
            cells = [sum(found.operators[0].values()), *(f"{one:.1e}" for one in found.differences)]
            cells += [f"{ours:,}", f"{ours / theirs:.4f}"]
        print("|", " | ".join(map(str, [case, *cells, "; ".join(failures) or "same"])), "|", flush=True)
    return int(is_bad)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(dataclasses.asdict(compared(sys.argv[2], folder))))
    else:
        sys.exit(main(sys.argv[1:] or dict.fromkeys([*VARIANTS, *golden.CASES])))
