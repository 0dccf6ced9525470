"""What the additions of shortcuts cost a float32 ResNet-50: `python -m benches.additions` in tests/.

Milliseconds of the processor's that LiteRT takes for each of its sixteen additions with their ReLU, alone, on one
thread; and how many convolutions of ONNX Runtime's optimized model add a shortcut themselves.
"""

import os
import subprocess
import sys
import tempfile
import time

import train

train.import_tensorflow_quietly()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from train import predictor  # noqa: E402

STAGES = {56: (256, 3), 28: (512, 4), 14: (1024, 6), 7: (2048, 3)}  # side -> (channels, additions), ResNet-50
WARM_UP, CALLS = 50, 250
ADDITION_INPUT = 4  # of a FusedConv: inputs, kernel, bias, and what is added


def milliseconds(side, channels):
    """Median of one addition (1, side, side, channels)."""
    spec = tf.TensorSpec((1, side, side, channels), tf.float32)
    summed = tf.function(lambda x, y: tf.nn.relu(x + y))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([summed.get_concrete_function(spec, spec)], summed)
    interpreter = predictor.open_interpreter(converter.convert(), 1)
    for given in interpreter.get_input_details():
        interpreter.set_tensor(given["index"], np.random.default_rng(0).random(spec.shape, "float32"))
    seconds = []
    for _ in range(WARM_UP + CALLS):
        start = time.thread_time()
        interpreter.invoke()
        seconds.append(time.thread_time() - start)
    return 1e3 * float(np.median(seconds[WARM_UP:]))


def fused_additions():
    """Convolutions of ONNX Runtime's optimized ResNet-50, and those of them that add a shortcut."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        given, integers, optimized = (os.path.join(folder, f"{name}.onnx") for name in ("given", "int8", "optimized"))
        subprocess.run([sys.executable, "-m", "benches.torch_nets", "ResNet50", given, integers], check=True)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = optimized
        onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(optimized).graph.node
    convolutions = [node for node in nodes if node.op_type in ("Conv", "FusedConv")]
    return len(convolutions), sum(len(node.input) == ADDITION_INPUT for node in convolutions)


if __name__ == "__main__":
    total = 0.0
    for side, (channels, number) in STAGES.items():
        one = milliseconds(side, channels)
        total += number * one
        print(f"{number} additions ({side}, {side}, {channels}): {one:.3f} ms each")
    print(f"all: {total:.2f} ms")
    print("ONNX Runtime: of {} convolutions, {} add a shortcut".format(*fused_additions()))
