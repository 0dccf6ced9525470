"""What the additions of shortcuts cost a float32 ResNet-50: `python -m benches.additions` in tests/.

Milliseconds of the processor's that LiteRT takes for each of its sixteen additions with their ReLU, alone, on one
thread; and how many convolutions of ONNX Runtime's optimized model add a shortcut themselves.
"""

import os
import statistics
import tempfile

import train

train.import_tensorflow_quietly()

import tensorflow as tf  # noqa: E402
from benches import latency  # noqa: E402
from benches.rounds import absent, answer  # noqa: E402

STAGES = {56: (256, 3), 28: (512, 4), 14: (1024, 6), 7: (2048, 3)}  # side -> (channels, additions), ResNet-50
ADDITION_INPUT = 4  # of a FusedConv: inputs, kernel, bias, and what is added


def write_addition(side, channels, folder):
    """A file that adds two tensors (1, side, side, channels): its path."""
    spec = tf.TensorSpec((1, side, side, channels), tf.float32)
    summed = tf.function(lambda x, y: tf.nn.relu(x + y))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([summed.get_concrete_function(spec, spec)], summed)
    path = os.path.join(folder, f"{side}.tflite")
    with open(path, "wb") as file:
        file.write(converter.convert())
    return path


def additions():
    """Prints milliseconds of each size, and of all."""
    with tempfile.TemporaryDirectory() as folder:
        rivals = {side: ("litert", write_addition(side, STAGES[side][0], folder)) for side in STAGES}
        milliseconds = {side: 1e3 * statistics.median(seconds) for side, seconds in latency.race(rivals, 1).items()}
    for side, (channels, number) in STAGES.items():
        print(f"{number} additions ({side}, {side}, {channels}): {milliseconds[side]:.3f} ms each")
    print(f"all: {sum(STAGES[side][1] * milliseconds[side] for side in STAGES):.2f} ms")


def fused_additions():
    """Prints how many convolutions ONNX Runtime's optimized ResNet-50 has, and how many of them add a shortcut."""
    if absent("torch", "onnx", "onnxruntime"):
        return
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        given, integers, optimized = (os.path.join(folder, f"{name}.onnx") for name in ("given", "int8", "optimized"))
        answer("torch_nets", latency.NET, given, integers)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = optimized
        onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(optimized).graph.node
    convolutions = [node for node in nodes if node.op_type in ("Conv", "FusedConv")]
    adding = sum(len(node.input) == ADDITION_INPUT for node in convolutions)
    print(f"ONNX Runtime: of {len(convolutions)} convolutions, {adding} add a shortcut")


if __name__ == "__main__":
    additions()
    fused_additions()
