"""Latency, memory and delegation of a `.tflite` file, in a process that has nothing but LiteRT in it.

As a command, `python measure.py FILE` prints them as JSON.
"""

import json
import os
import resource
import sys
import time

import numpy as np

WARMUP_SECONDS, WARMUP_RUNS = 0.2, 5  # a core that rested needs a while to reach its clock
TIMED_RUNS = 50  # calls. The median of 50 moved by under 5 % from run to run on the machine of BUILD_NOTES.md
MOST_SECONDS = 10  # of timed calls, for files that take seconds a call
THREADS = (1, 2)
STATUS = "/proc/self/status"


def measure(path):
    """What a device would ask of a file.

    Args:
        path: `.tflite` file.
    Returns:
        dict: "latency_ms", a dict from the number of threads to median, p90 and calls; "peak_memory_mb", what opening
        the file and running it on one thread adds to the process, in 10^6 bytes; "delegated", the share of the
        operators that XNNPACK runs.
    """
    from ai_edge_litert.interpreter import Interpreter

    before, latencies, delegated = _resident(), {}, None
    for threads in THREADS:
        interpreter = Interpreter(model_path=path, num_threads=threads)
        interpreter.allocate_tensors()
        latencies[str(threads)] = summary(timed(interpreter.invoke))
        if delegated is None:
            peak, delegated = _resident() - before, delegated_share(interpreter)
    return {"latency_ms": latencies, "peak_memory_mb": peak / 1e6, "delegated": delegated}


def timed(call):
    """Seconds of each of up to TIMED_RUNS calls, after some that are not counted."""
    start, runs = time.perf_counter(), 0
    while runs < WARMUP_RUNS and (runs == 0 or time.perf_counter() - start < WARMUP_SECONDS):
        call()
        runs += 1
    seconds = []
    while len(seconds) < TIMED_RUNS and sum(seconds) < MOST_SECONDS:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def summary(seconds):
    """Median, 90th percentile in milliseconds, and number of calls."""
    median, high = np.percentile(np.array(seconds) * 1000, (50, 90))
    return {"median": float(median), "p90": float(high), "calls": len(seconds)}


def delegated_share(interpreter):
    """Share of a file's operators that a delegate computes."""
    details = interpreter._get_ops_details()  # LiteRT has no public list of its nodes
    nodes = [node for node in details if node["op_name"] != "DELEGATE"]
    makers = {output: node["index"] for node in nodes for output in node["outputs"]}
    inputs_of = {node["index"]: node["inputs"] for node in nodes}
    inside = set()
    for delegate in details:
        if delegate["op_name"] == "DELEGATE":
            given, pending = {*delegate["inputs"]}, [*delegate["outputs"]]
            while pending:
                tensor = pending.pop()
                if tensor not in given and makers.get(tensor, -1) not in inside | {-1}:
                    inside.add(makers[tensor])
                    pending += [*inputs_of[makers[tensor]]]
    return len(inside) / len(nodes)


def _resident():
    if not os.path.exists(STATUS):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
    with open(STATUS, encoding="ascii") as status:  # Linux's ru_maxrss is handed down from the parent process
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
