"""Calls of one file, or of one net of torch, timed: `python -m benches.calls RUNTIME FILE THREADS` in tests/.

Reads seconds from its input, a line each: that long it makes calls, one at least, and answers with the median of their
seconds; on one thread the processor's, which other work disturbs less. A process of its own for each rival, so that the
rounds of bench.py can take turns between libraries that cannot share one.
"""

import statistics
import sys
import time

import numpy as np

SIDE = 224


def litert(file, threads):
    """Function that calls a `.tflite` file on noise."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=file, num_threads=threads)
    interpreter.allocate_tensors()
    for given in interpreter.get_input_details():
        noise = np.random.default_rng(0).integers(0, 127, given["shape"]).astype(given["dtype"])
        interpreter.set_tensor(given["index"], noise)
    return interpreter.invoke


def onnx_runtime(file, threads):
    """The same of an `.onnx` file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    noise = np.random.default_rng(0).standard_normal(image.shape).astype("float32")
    return lambda: session.run(None, {image.name: noise})


def torch_eager(name, threads):
    """The same of a net of torch, channels last, as it is recommended for CPUs."""
    import torch
    from benches import torch_nets

    torch.set_num_threads(threads)
    net = torch_nets.build(name).to(memory_format=torch.channels_last)
    noise = torch.randn(1, 3, SIDE, SIDE).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def call():
        return net(noise)

    return call


RUNTIMES = {"litert": litert, "onnx_runtime": onnx_runtime, "torch": torch_eager}

if __name__ == "__main__":
    runtime, given, num_threads = sys.argv[1:]
    once = RUNTIMES[runtime](given, int(num_threads))
    clock = time.process_time if num_threads == "1" else time.perf_counter
    once()
    for line in sys.stdin:
        end, times = time.perf_counter() + float(line), []
        while not times or time.perf_counter() < end:
            start = clock()
            once()
            times.append(clock() - start)
        print(statistics.median(times), flush=True)
