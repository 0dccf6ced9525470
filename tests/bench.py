"""Us against the peers, interleaved in one process, as ratios: `make bench`, or tests/bench.py NAME ...

Every row is the median over rounds of the ratio ours / theirs within a round, with the smallest and largest,
so that a machine whose speed drifts does not decide. The limit stands beside it.
"""

import os
import subprocess
import sys
import tempfile
import time

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import keras_resnet  # noqa: E402
from train import config, data, loop, network  # noqa: E402

ROUNDS = 7
OVER = []  # a bool a row: whether its limit is exceeded


def timed(function):
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def judged(holds):
    """A verdict, counted for the exit code."""
    OVER.append(not holds)
    return "ok" if holds else "OVER"


def report(title, ours, theirs, limit):
    """Prints one row from the seconds of each round."""
    ratios = np.array(ours) / np.array(theirs)
    verdict = judged(np.median(ratios) <= limit)
    print(
        f"{title:<58} ours {np.median(ours) * 1000:8.1f} ms  theirs {np.median(theirs) * 1000:8.1f} ms  "
        f"ratio {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}), limit {limit}  {verdict}, "
        f"n={len(ratios)}",
        flush=True,
    )


def step():
    """A training step of ResNet-20 at batch 128 against `Model.fit` of the same Keras model."""
    options = config.make({"data": "tfds:cifar10", "batch_size": 128, "epochs": 3, "weight_decay": 1e-4})
    rng = np.random.default_rng(0)
    steps, images, labels = 40, rng.integers(0, 256, (128, 32, 32, 3)).astype("uint8"), rng.integers(0, 10, 128)
    batches = tf.data.Dataset.from_tensors({"image": images, "label": labels}).repeat()
    without_autotuner = tf.data.Options()  # its thread makes every `fit` wait at the end: BUILD_NOTES.md, "Traps"
    without_autotuner.autotune.enabled = False
    batches = batches.with_options(without_autotuner)
    source = type("Source", (), {"image_shape": (32, 32, 3), "class_names": range(10), "name": "random"})
    model, theirs = network.build(options, source), network.build(options, source)
    optimizer = network.build_optimizer(options, model, 1000)
    train_steps = loop.make_train_steps(
        tf.distribute.get_strategy(), model, optimizer, weight_decay=options.weight_decay, label_smoothing=0.0
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs.compile(network.build_optimizer(options, theirs, 1000), loss, metrics=["accuracy"])
    pairs = batches.map(lambda batch: (batch["image"], batch["label"]))
    iterator = iter(batches)

    def run_ours():
        train_steps(iterator, tf.constant(steps))

    def run_theirs():
        theirs.fit(pairs, steps_per_epoch=steps, epochs=1, verbose=0, shuffle=False)

    run_ours(), run_theirs()
    rounds = [(timed(run_ours) / steps, timed(run_theirs) / steps) for _ in range(ROUNDS)]
    report("step, ResNet-20, batch 128, against keras fit", *zip(*rounds, strict=True), limit=1.0)
    before = resident_mb()
    for _ in range(5):
        run_ours()
    grown = resident_mb() - before
    verdict = judged(grown <= 20)  # a leak of one batch a step would be 80 MB
    print(f"memory after 200 further steps: {grown:+.0f} MB of {before:.0f} MB, limit 20  {verdict}", flush=True)


def resident_mb():
    """Resident memory of this process in MB."""
    with open("/proc/self/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS"))


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


def images():
    """Augmented CIFAR-sized batches a second, against tf.image one by one."""
    source = data.load("synthetic")
    options = {"seed": 0, "epoch": 0, "crop_padding": 4, "flip": True}

    def one_by_one(element):
        image = tf.image.resize_with_crop_or_pad(element["image"], 40, 40)
        return tf.image.random_flip_left_right(tf.image.random_crop(image, (32, 32, 3)))

    def run_ours():
        for _ in range(10):
            sum(1 for _ in data.training_batches(source, 128, **options))

    def run_theirs():
        for _ in range(10):
            elements = source.splits["train"].elements.shuffle(512).map(one_by_one, tf.data.AUTOTUNE)
            sum(1 for _ in elements.batch(128, drop_remainder=True).prefetch(1))

    run_ours(), run_theirs()
    rounds = [(timed(run_ours), timed(run_theirs)) for _ in range(ROUNDS)]
    report("10 x 384 images, crop and flip, against tf.image one by one", *zip(*rounds, strict=True), limit=1.0)


BENCHES = {"step": step, "building": building, "loading": loading, "importing": importing, "images": images}

if __name__ == "__main__":
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs")
    for bench in sys.argv[1:] or BENCHES:
        BENCHES[bench]()
    sys.exit(any(OVER))
