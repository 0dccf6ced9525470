"""What hardware accepts: pinned for every format, held against the hardware's own tools where they are installed."""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess

import golden
import keras
import numpy as np
import pytest
from conftest import run

from export import bundle, calibration, flatbuffer, microcontroller, quantization, targets, walk
from export.formats import BASIC, FORMATS
from train import predictor

TFLITE = [
    name for name, row in FORMATS.items() if row.scheme and not row.preparation
]  # a fine-tuned file has the operators of another
TFLM = os.environ.get("KERAS_RESNET_TFLM_PYTHON", "")  # an interpreter that has tflite-micro
VELA = os.environ.get("KERAS_RESNET_VELA", "")  # the command of ethos-u-vela


def graph_of(case, batch_size=1):
    return walk.from_keras(golden.build(case), batch_size)


def file_of(graph, name):
    images = np.random.default_rng(0).integers(0, 256, (4, *graph.image.shape[1:])).astype("uint8")
    scheme = FORMATS[name].scheme
    return flatbuffer.to_bytes(quantization.quantize(graph, scheme, calibration.observe(graph, images)))


@pytest.fixture(scope="module")
def files():
    """Every format of ResNet8: dict from format to bytes."""
    graph = graph_of("ResNet8")
    return {name: file_of(graph, name) for name in TFLITE}


# Kinds of operators that a target refuses of ResNet8's files, by the documents named in the table. Whether a file is
# refused at all is held against TensorFlow Lite Micro's runtime and Vela below; the kinds are not: the runtime names
# the first alone.
_ALL = {"CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED"}
REFUSED = {
    "cpu": {},
    "gpu": {
        "float32": {"CAST"},
        "float16": {"CAST"},
        "dynamic": {"CAST"},  # whose last layer is small enough to stay in float
        "int16x8": {"CAST", "DEQUANTIZE", *_ALL},
        "int4": {"CAST", "CONV_2D"},
    },
    "edgetpu": {
        "float32": {"CAST", *_ALL},
        "float16": {"CAST", "DEQUANTIZE", *_ALL},
        "float16_float_io": {"DEQUANTIZE", *_ALL},
        "dynamic": {"CAST", *_ALL},
        "int8": {"FULLY_CONNECTED"},
        "int8_float_io": {"QUANTIZE", "DEQUANTIZE", "FULLY_CONNECTED"},
        "int8_cpu": {"FULLY_CONNECTED"},  # these nets are without preprocessing
        "int8_mixed": {"DEQUANTIZE", "FULLY_CONNECTED"},  # here with no block in float
        "int16x8": {"CAST", "QUANTIZE", "DEQUANTIZE", *_ALL},
        "int4": {"CAST", *_ALL},
    },
    "ethos_u": {
        "float32": {"CAST", *_ALL},
        "float16": {"CAST", "DEQUANTIZE", *_ALL},
        "float16_float_io": {"DEQUANTIZE", *_ALL},
        "dynamic": {"CAST", *_ALL},
        "int8_float_io": {"QUANTIZE", "DEQUANTIZE"},
        "int8_mixed": {"DEQUANTIZE"},
        "int16x8": {"CAST", "QUANTIZE", "DEQUANTIZE"},
        "int4": {"CAST", *_ALL},
    },
    "tflm": {
        "float32": {"CAST"},
        "float16": {"CAST", "DEQUANTIZE"},
        "float16_float_io": {"DEQUANTIZE"},
        "dynamic": {"CAST", "CONV_2D"},
        "int16x8": {"CAST"},
        "int4": {"CAST", "CONV_2D"},
    },
}


@pytest.mark.contract
@pytest.mark.parametrize("target", targets.TARGETS)
@pytest.mark.parametrize("name", TFLITE)
def test_what_a_target_refuses_of_a_format(files, target, name):
    found = targets.check(files[name], target)
    kinds = {
        kind
        for text in found
        for kind in re.findall(r"\b(?:[A-Z]+(?:_[A-Z0-9]+)+|ADD|CAST|MEAN|(?:DE)?QUANTIZE)\b", text)
    }
    assert kinds == REFUSED[target].get(name, set())
    assert all(text.startswith(targets.TARGETS[target].title) and text.endswith(".") for text in found)
    assert all("Use --formats=" in text for text in found)


@pytest.mark.contract
@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_target_takes_the_formats_it_advises(files, target):
    for name in targets.TARGETS[target].formats:
        assert targets.check(files[name], target) == []


@pytest.mark.contract
@pytest.mark.parametrize("target", targets.TARGETS)
def test_formats_for_cpus_alone_are_what_the_cpu_is_advised_first(target):
    """They are the fastest there (README.md), and hardware of other kinds may refuse them."""
    schemes = [FORMATS[name].scheme for name in targets.TARGETS[target].formats]
    assert schemes[0].is_for_cpu == (target == "cpu")
    assert target == "cpu" or not any(scheme.is_for_cpu for scheme in schemes)


@pytest.mark.contract
@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_target_makes_every_basic_format_that_fits(files, target):
    fitting = {name for name in BASIC if name in files and not targets.check(files[name], target)}
    assert fitting == {*targets.TARGETS[target].formats} & {*BASIC}


@pytest.mark.contract
def test_a_quantization_aware_model_gets_formats_that_round_as_it_does():
    for target, row in targets.TARGETS.items():
        assert targets.default_formats(target, has_ranges=False) == row.formats
        made = targets.default_formats(target, has_ranges=True)
        assert made
        assert {FORMATS[name].scheme.activations for name in made} == {"int8"}


@pytest.mark.contract
@pytest.mark.parametrize("name", TFLITE)
def test_what_suits_phone_gpus_runs_there_as_a_whole(files, name):
    """A row's text is no promise that the check of the GPU breaks."""
    hint = FORMATS[name].suits.replace("float16_float_io for phone GPUs", "")
    assert "GPU" not in hint or not targets.check(files[name], "gpu")


@pytest.mark.contract
@pytest.mark.parametrize(("target", "name"), [(key, name) for key in targets.TARGETS for name in TFLITE])
def test_a_file_that_shows_probabilities_runs_where_the_bare_one_does(files, target, name):
    """What lies in the bundle is held against the target too: float softmax where it runs, int8 elsewhere."""
    if targets.check(files[name], target):
        return
    shown = bundle.with_probabilities(files[name], name, target)
    assert targets.check(shown, target) == []
    interpreter = predictor.open_interpreter(shown)
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    is_integer = target in ("edgetpu", "ethos_u")
    assert output["dtype"] == (np.int8 if is_integer else np.float32)
    assert output["quantization"] == ((1 / 256, -128) if is_integer else (0.0, 0))
    images = np.random.default_rng(1).integers(0, 256, (3, *image["shape"][1:])).astype("uint8")
    logits, found = (predictor.from_tflite(one).predict(images) for one in (files[name], shown))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert np.abs(found - expected).max() <= (1 / 256 if is_integer else 1e-6)  # int8 ends at 255/256


@pytest.mark.unit
def test_a_softmax_that_its_target_refuses_is_told(files, monkeypatch):
    rows = dict(targets.TARGETS["edgetpu"].operators)
    del rows["SOFTMAX"]
    monkeypatch.setitem(targets.TARGETS, "edgetpu", dataclasses.replace(targets.TARGETS["edgetpu"], operators=rows))
    with pytest.raises(ValueError, match=r"cannot show probabilities .* SOFTMAX: not among its operators\. Leave out"):
        bundle.with_probabilities(files["int8_edgetpu"], "int8_edgetpu", "edgetpu")


@pytest.mark.unit
def test_a_softmax_over_many_classes_is_found():
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(image))
    for classes, found in ((16_000, []), (16_001, ["16,001 scores; it may be over 16,000"])):
        net = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(pooled))
        texts = targets.check(file_of(walk.from_keras(net, 1), "int8_edgetpu"), "edgetpu")
        assert [text for text in texts if "SOFTMAX" in text] == texts
        assert all(part in text for part, text in zip(found, texts, strict=True))


@pytest.mark.unit
def test_advice_is_not_what_was_done(files):
    for target, row in targets.TARGETS.items():
        for name in row.formats:
            bare = flatbuffer.unpack(files[name])
            for code in bare.operatorCodes:
                code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"FlexAll"
            texts = targets.check(flatbuffer.pack(bare), target, name)
            assert texts
            assert not any(re.search(rf"--formats=.*\b{name}\b", text) for text in texts)


@pytest.mark.contract
@pytest.mark.parametrize("case", golden.CASES)
def test_every_net_of_the_zoo_runs_on_the_cpu_and_on_microcontrollers(case):
    graph = graph_of(case)
    content = flatbuffer.to_bytes(graph)
    assert targets.check(content, "cpu") == []
    kinds = {operator.kind for operator in graph.operators}
    assert kinds <= targets.TARGETS["tflm"].operators.keys() | {"CAST"}


@pytest.mark.unit
def test_padded_channels_are_found():
    graph = graph_of("ResNet20")  # option A
    (text,) = (text for text in targets.check(file_of(graph, "int16x8"), "edgetpu") if "pads channels" in text)
    assert "2 PAD: pads channels; it may pad height and width alone. Build the net with shortcut='B'" in text
    assert targets.check(file_of(graph, "int8_edgetpu"), "edgetpu") == []  # as convolutions: `export.equivalents`


@pytest.mark.unit
def test_several_images_a_call_are_found():
    content = file_of(graph_of("ResNet8", batch_size=2), "int8_edgetpu")
    for target in ("edgetpu", "ethos_u"):
        (text,) = targets.check(content, target)
        assert "takes 1 image a call; this file takes 2. Export with --batch_size=1." in text
    assert targets.check(content, "tflm") == []


def changed(content, change):
    model = flatbuffer.unpack(content)
    change(model)
    return flatbuffer.pack(model)


@pytest.mark.unit
@pytest.mark.parametrize("target", targets.TARGETS)
def test_open_shapes_newer_versions_and_foreign_operators_are_found(files, target):
    content = files[targets.TARGETS[target].formats[0]]

    def open_shape(model):
        model.subgraphs[0].tensors[0].shapeSignature = np.array([-1, 32, 32, 3], "int32")

    (text,) = targets.check(changed(content, open_shape), target)
    assert "no fixed shape" in text

    def flex(model):
        code = model.operatorCodes[model.subgraphs[0].operators[-1].opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"FlexConv2D"

    assert any("FlexConv2D: not among its operators" in text for text in targets.check(changed(content, flex), target))

    def newer(model):
        for code in model.operatorCodes:
            code.version = 99

    versions = {version for version, _ in targets.TARGETS[target].operators.values()} - {None}
    found = targets.check(changed(content, newer), target)
    assert any("is of version 99; it knows up to" in text for text in found) == bool(versions)


@pytest.mark.unit
def test_a_cpu_refuses_what_the_table_says_it_refuses(files):
    """The versions in the table are the newest that the installed LiteRT takes."""
    for name in ("float32", "float16", "int8", "int16x8"):
        for number, code in enumerate(flatbuffer.unpack(files[name]).operatorCodes):
            kind = flatbuffer.KINDS[max(code.builtinCode, code.deprecatedBuiltinCode)]
            newest = targets.TARGETS["cpu"].operators[kind][0]
            for version, is_taken in ((newest, True), (newest + 1, False)):

                def ask(model, number=number, version=version):
                    model.operatorCodes[number].version = version

                content = changed(files[name], ask)
                assert (targets.check(content, "cpu") == []) == is_taken
                if is_taken:
                    predictor.open_interpreter(content)
                else:
                    with pytest.raises(ValueError, match="does not load"):
                        predictor.open_interpreter(content)


@pytest.mark.unit
def test_wrong_questions_are_refused(files):
    with pytest.raises(ValueError, match=r"Expected a target among cpu, gpu, edgetpu, ethos_u, tflm\. Received: 'tpu'"):
        targets.check(files["int8"], "tpu")
    with pytest.raises(ValueError, match=r"not a \.tflite file"):
        targets.check(b"TFL3", "cpu")
    with pytest.raises(ValueError, match="damaged"):
        targets.check(files["int8"][:40], "cpu")


@pytest.mark.smoke
def test_a_file_that_its_target_refuses_is_not_written(digits_run, tmp_path):
    flags = [f"--model={digits_run}/model.keras", f"--output_dir={tmp_path}/out", "--target=tflm", "--max_top1_drop=9"]
    done = run("export/main.py", *flags, "--formats=saved_model,float32,int8", code=1)
    assert "NOT WRITTEN: TensorFlow Lite Micro: CAST: reads uint8" in done.stdout
    sources = [f"resnet8_int8{suffix}" for suffix in microcontroller.SUFFIXES]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == sorted(["card.json", "card.md", "card.png", "config.json", "resnet8_int8.tflite", *sources])
    artifacts = json.loads((tmp_path / "out" / "card.json").read_text())["artifacts"]
    assert artifacts["saved_model"]["failures"] == [
        "TensorFlow Lite Micro runs .tflite files: leave saved_model out of --formats"
    ]
    assert artifacts["float32"]["file"] is None
    run("export/main.py", *flags, "--overwrite")  # the target's own formats
    names = {path.name for path in (tmp_path / "out").glob("*.tflite")}
    assert names == {"resnet8_int8.tflite", "resnet8_int8_float_io.tflite"}
    run("export/main.py", *flags[:2], "--formats=int8", "--max_top1_drop=9", "--overwrite")
    assert not [*(tmp_path / "out").glob("*_model_data.*")]


@pytest.mark.contract
def test_every_operator_of_microcontrollers_has_its_method():
    assert microcontroller.METHODS.keys() == targets.TARGETS["tflm"].operators.keys()


RESOLVER = """#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
#define TF_LITE_ENSURE_STATUS(a) do { if ((a) != kTfLiteOk) return kTfLiteError; } while (0)
namespace tflite {
template <unsigned n> struct MicroMutableOpResolver {
  unsigned added = 0;
  TfLiteStatus Add() { return added++ < n ? kTfLiteOk : kTfLiteError; }
%s
};
}"""
MAIN = """#include <cstdio>
#include <cstdint>
#include "STEM_model_data.h"
#include "STEM_op_resolver.h"
int main() {
  KINDOpResolver resolver;
  if (AddOperators(resolver) != kTfLiteOk || reinterpret_cast<uintptr_t>(g_SYMBOL) % 16) return 1;
  return std::fwrite(g_SYMBOL, 1, g_SYMBOL_size, stdout) != g_SYMBOL_size;
}"""


@pytest.mark.smoke
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the sources with")
@pytest.mark.parametrize(
    ("stem", "symbol", "kind"), [("net", "net", "Net"), ("2-näts", "model_2_n_ts", "Model2NTs")], ids=["plain", "digit"]
)
def test_the_array_holds_the_file_and_the_resolver_fits(stem, symbol, kind, files, tmp_path):
    """Compiled and run; the resolver against a stand-in with the methods of the real one."""
    for name, text in microcontroller.sources(files["int8"], stem).items():
        (tmp_path / name).write_text(text)
    header = tmp_path / "tensorflow/lite/micro/micro_mutable_op_resolver.h"
    header.parent.mkdir(parents=True)
    methods = (f"  TfLiteStatus {name}() {{ return Add(); }}" for name in microcontroller.METHODS.values())
    header.write_text(RESOLVER % "\n".join(methods))
    (tmp_path / "main.cc").write_text(MAIN.replace("STEM", stem).replace("SYMBOL", symbol).replace("KIND", kind))
    command = ["g++", "-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}", tmp_path / "main.cc"]
    subprocess.run([*command, tmp_path / f"{stem}_model_data.cc", "-o", tmp_path / "net"], check=True)
    assert subprocess.run([tmp_path / "net"], capture_output=True, check=True).stdout == files["int8"]


RUN_ON_TFLM = """
import sys
import numpy as np
from tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=20_000_000)
details = interpreter.get_input_details(0)
image = np.load(sys.argv[2]).astype(details["dtype"])
interpreter.set_input(image, 0)
interpreter.invoke()
np.save(sys.argv[3], interpreter.get_output(0))
"""


@pytest.mark.slow
@pytest.mark.skipif(not TFLM, reason="KERAS_RESNET_TFLM_PYTHON names no interpreter that has tflite-micro")
@pytest.mark.parametrize("case", ["ResNet8", "ResNet20", "ResNet50D", "SEResNet50", "ResNet50V2"])
@pytest.mark.parametrize("name", TFLITE)
def test_the_runtime_of_microcontrollers_agrees_with_the_check(tmp_path, case, name):
    graph = graph_of(case)
    (tmp_path / "net.tflite").write_bytes(file_of(graph, name))
    image = np.random.default_rng(1).integers(0, 256, graph.image.shape).astype("uint8")
    np.save(tmp_path / "image.npy", image)
    command = [TFLM, "-c", RUN_ON_TFLM, tmp_path / "net.tflite", tmp_path / "image.npy", tmp_path / "scores.npy"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = targets.check((tmp_path / "net.tflite").read_bytes(), "tflm")
    assert (done.returncode == 0) == (not found), f"{found}\n{done.stderr[-1000:]}"
    if not found:
        interpreter = predictor.open_tflite(str(tmp_path / "net.tflite"))
        (details,) = interpreter.get_output_details()
        (expected,) = predictor.from_tflite(str(tmp_path / "net.tflite")).predict(image)
        (scores,) = np.load(tmp_path / "scores.npy")
        scale, zero_point = details["quantization"]
        scores = scale * (scores.astype("float32") - zero_point) if scale else scores
        assert np.abs(scores - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.slow
@pytest.mark.skipif(not VELA, reason="KERAS_RESNET_VELA names no command of ethos-u-vela")
@pytest.mark.parametrize("case", ["ResNet8", "ResNet20", "ResNet50D", "SEResNet50", "ResNet50V2"])
@pytest.mark.parametrize("name", ["int8", "int8_edgetpu", "int8_float_io", "int16x8"])
def test_the_compiler_of_ethos_u_agrees_with_the_check(tmp_path, case, name):
    path = pathlib.Path(tmp_path / "net.tflite")
    content = file_of(graph_of(case), name)
    path.write_bytes(content)
    left = left_to_the_cpu(path, tmp_path)
    assert bool(left) == bool(targets.check(content, "ethos_u"))
    if not left:
        path.write_bytes(bundle.with_probabilities(content, name, "ethos_u"))
        assert left_to_the_cpu(path, tmp_path) == 0


def left_to_the_cpu(path, tmp_path):
    """How many operators of a file Vela leaves to the CPU."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [VELA, path, "--output-dir", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(re.search(r"CPU operators = (\d+)", done.stdout).group(1))
