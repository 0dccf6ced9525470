"""The zoo: building and loading a net, and what importing the package costs."""

import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
from benches.rounds import ROUNDS, judged, report

import keras_resnet


def building():
    """Building a net with random weights against keras.applications, each in a fresh process."""
    script = (
        "import train; train.import_tensorflow_quietly(); import keras, keras_resnet, time\n"
        "keras.layers.Dense(1).build((1, 1)); start = time.perf_counter()\n"
        "{}(weights=None); print(time.perf_counter() - start)"
    )

    def fresh(call):
        done = subprocess.run([sys.executable, "-c", script.format(call)], capture_output=True, text=True, check=True)
        return float(done.stdout)

    for name in ("ResNet50", "ResNet152"):
        rounds = [(fresh(f"keras_resnet.{name}"), fresh(f"keras.applications.{name}")) for _ in range(ROUNDS)]
        report(f"building {name} against keras.applications", *zip(*rounds, strict=True), limit=1.0)


def loading():
    """ResNet-152 from .safetensors against keras.applications from its own .h5, each in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.path.join(folder, "ours.safetensors"), os.path.join(folder, "theirs.h5")
        keras_resnet.export_weights(keras_resnet.ResNet152(weights=None), ours)
        keras.applications.ResNet152(weights=None).save(theirs)
        script = (
            "import train; train.import_tensorflow_quietly(); import keras, keras_resnet, re, time\n"
            "keras.layers.Dense(1).build((1, 1))\n"
            "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
            "before, start = peak(), time.perf_counter()\n"
            "{}; print(time.perf_counter() - start, peak() - before)"
        )
        calls = (
            f"keras_resnet.ResNet152(weights={ours!r})",
            f"keras.applications.ResNet152(weights=None).load_weights({theirs!r})",
        )
        runs = [[_fresh(script.format(call)) for call in calls] for _ in range(ROUNDS)]
        seconds = [[run[0] for run in row] for row in runs]
        report("loading ResNet152, .safetensors against their .h5", *zip(*seconds, strict=True), limit=1.3)
        grown, size = np.median([row[0][1] for row in runs]), os.path.getsize(ours) / 2**20
        verdict = judged(grown / size <= 2.2)
        print(f"peak memory of loading: {grown / size:.2f} times the file's {size:.0f} MiB, limit 2.2  {verdict}")


def _fresh(script):
    """Numbers that a new process prints."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()[-2:]]


def importing():
    """What `import keras_resnet` adds to `import keras`."""
    script = (
        "import train; train.import_tensorflow_quietly(); import keras, time; start = time.perf_counter()\n"
        "import keras_resnet; print(time.perf_counter() - start)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(5)
    ]
    added = sorted(1000 * float(done.stdout) for done in runs)
    verdict = judged(added[2] <= 50)
    print(f"import keras_resnet adds {added[2]:.1f} ms ({added[0]:.1f} to {added[-1]:.1f}), limit 50, n=5  {verdict}")
