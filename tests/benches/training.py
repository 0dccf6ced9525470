"""The trainer: a step against others' steps, replicas, start-up."""

import dataclasses
import functools
import glob
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from benches.rounds import ROOT, ROUNDS, absent, child, judged, report, resident_mb, timed

from train import config, network, optimizers, steps


@dataclasses.dataclass(frozen=True)
class Random:
    """Random images, in place of a `train.data.Source`."""

    image_shape: tuple = (32, 32, 3)
    class_names: tuple = tuple(range(10))
    name: str = "random"


CIFAR, IMAGENET = Random(), Random((224, 224, 3), tuple(range(1000)))


def repeated_batch(size, source):
    """One random batch again and again, without tf.data's autotuner, whose thread every `fit` waits for at its end."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, *source.image_shape)).astype("uint8")
    labels = rng.integers(0, len(source.class_names), size)
    options = tf.data.Options()
    options.autotune.enabled = False  # BUILD_NOTES.md, "Traps"
    return tf.data.Dataset.from_tensors({"image": images, "label": labels}).repeat().with_options(options)


def trainer(source, **fields):
    """Function of a number of steps that trains them in our loop."""
    options = config.make({"data": "tfds:cifar10", "epochs": 3, **fields})
    model = network.build(options, source)
    keras.config.set_dtype_policy("float32")
    state = steps.make_state(options, model, optimizers.build(options, model, 1000))
    train_steps = steps.make_train_steps(tf.distribute.get_strategy(), state, options)
    iterator, totals = iter(repeated_batch(options.batch_size, source)), tf.zeros(3)
    return lambda number: train_steps(iterator, tf.constant(number), totals)[0].numpy()


def keras_fit(source, **fields):
    """The same by `Model.fit` of Keras 3, on stock layers."""
    options = config.make({"data": "tfds:cifar10", "epochs": 3, **fields})
    ours = network.build(options, source)
    model = network.deployable(ours, source.image_shape, ours.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.build(options, model, 1000), loss, metrics=["accuracy"])
    pairs = repeated_batch(options.batch_size, source).map(lambda batch: (batch["image"], batch["label"]))
    return lambda number: model.fit(pairs, steps_per_epoch=number, epochs=1, verbose=0, shuffle=False)


def torch_steps(name, size, dtype):
    """The same net and step in torch, in a process of its own: torch and TensorFlow carry two LLVMs."""
    process = child("torch_steps", name, size, dtype)

    def run(number):
        print(number, file=process.stdin, flush=True)
        process.stdout.readline()

    return run


def step():
    """A training step of ResNet-20 at batch 128, and the memory that further ones take."""
    rivals = _rivals(CIFAR, model="ResNet20", batch_size=128)
    if not absent("tf_keras"):
        rivals["tf_keras fit"] = tf_keras_fit(128)
    _race("ResNet-20", 128, rivals, 15, {"keras fit": 1 / 1.2, "tf_keras fit": 1.0})
    before = resident_mb()
    for _ in range(5):
        rivals["ours"](40)
    grown = resident_mb() - before
    verdict = judged(grown <= 20)  # a leak of one batch a step would be 80 MB
    print(f"memory after 200 further steps: {grown:+.0f} MB of {before:.0f} MB, limit 20  {verdict}", flush=True)


def step_imagenet():
    """A training step of ResNet-50 at batch 16, 224 pixels."""
    rivals = _rivals(IMAGENET, model="ResNet50", batch_size=16)
    _race("ResNet-50", 16, rivals, 2, {"keras fit": 1.0, "torch": 1.0})


def _rivals(source, **fields):
    """Ours in two precisions, `fit` of Keras 3 and, where it is installed, torch: dict from title to function."""
    rivals = {"ours": trainer(source, **fields), "keras fit": keras_fit(source, **fields)}
    rivals["ours, bfloat16"] = trainer(source, mixed_precision="bfloat16", **fields)
    if not absent("torch"):
        for title, dtype in (("torch", "float32"), ("torch, bfloat16", "bfloat16")):
            rivals[title] = torch_steps(fields["model"], fields["batch_size"], dtype)
    return rivals


def _race(net, size, rivals, number, limits):
    """Rounds in which all take turns at a number of steps; prints ratios and rates."""
    for run in rivals.values():
        run(3)
    rounds = [[timed(functools.partial(run, number)) / number for run in rivals.values()] for _ in range(ROUNDS)]
    seconds = dict(zip(rivals, np.transpose(rounds), strict=True))
    for name in [name for name in rivals if name not in ("ours", "ours, bfloat16", "torch, bfloat16")]:
        report(f"step, {net}, batch {size}, against {name}", seconds["ours"], seconds[name], limits.get(name))
    report("the same in bfloat16 against float32", seconds["ours, bfloat16"], seconds["ours"], 1.0)
    for name, values in seconds.items():
        rates = size / np.array(values)
        print(f"  {name:<18} {np.median(rates):6.1f} images/s ({rates.min():.1f} to {rates.max():.1f})", flush=True)


def tf_keras_fit(size):
    """ResNet-20 by `fit` of tf_keras: the net is built from the zoo's configuration, layer by layer."""
    import tf_keras

    def conv(x, filters, strides=1):
        if strides > 1:
            x = tf_keras.layers.ZeroPadding2D(1)(x)
        padding = "valid" if strides > 1 else "same"
        return tf_keras.layers.Conv2D(filters, 3, strides, padding, use_bias=False)(x)

    def normalized(x):
        return tf_keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9)(x)

    inputs = tf_keras.Input(CIFAR.image_shape)
    x = tf_keras.layers.ReLU()(normalized(conv(tf_keras.layers.Rescaling(1 / 58, -2.0)(inputs), 16)))
    for filters in (16, 32, 64):
        for block in range(3):
            strides = 2 if filters > 16 and block == 0 else 1
            shortcut = x
            if strides > 1:
                shortcut = tf_keras.layers.MaxPooling2D(1, 2)(x)
                shortcut = tf_keras.layers.Concatenate()([shortcut, 0 * shortcut])
            x = tf_keras.layers.ReLU()(normalized(conv(x, filters, strides)))
            x = tf_keras.layers.ReLU()(shortcut + normalized(conv(x, filters)))
    outputs = tf_keras.layers.Dense(10)(tf_keras.layers.GlobalAveragePooling2D()(x))
    model = tf_keras.Model(inputs, outputs)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), loss, metrics=["accuracy"])
    pairs = repeated_batch(size, CIFAR).map(lambda batch: (batch["image"], batch["label"]))
    return lambda number: model.fit(pairs, steps_per_epoch=number, epochs=1, verbose=0, shuffle=False)


def replicas():
    """Two logical replicas against one at the same global batch, each a process of the real command."""
    command = [sys.executable, "train/main.py", "--benchmark=compute", "--model=ResNet20", "--batch_size=128"]
    command += ["--data=synthetic", "--recipe=cifar_fast"]

    def seconds(strategy):
        done = subprocess.run(
            [*command, f"--strategy={strategy}"], capture_output=True, text=True, check=True, cwd=ROOT
        )
        return 128 / float(done.stdout.split()[1].replace(",", ""))

    rounds = [(seconds("mirrored"), seconds("default")) for _ in range(ROUNDS)]
    report("step on two logical replicas against one", *zip(*rounds, strict=True), limit=1.1)


def starting():
    """Time to the help, and to the end of the first step of ResNet-50."""
    command = [sys.executable, "train/main.py", "--help"]
    seconds = timed(lambda: subprocess.run(command, capture_output=True, check=False, cwd=ROOT))
    print(f"train/main.py --help: {seconds:.2f} s, limit 3  {judged(seconds <= 3)}")
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "--model=ResNet50",
            "--data=synthetic",
            "--image_size=64",
            "--batch_size=16",
            "--steps_per_execution=1",
        ]
        flags += ["--checkpoint_seconds=0", f"--workdir={folder}/run", "--recipe=imagenet_baseline"]
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "train/main.py", *flags], stdout=subprocess.DEVNULL, cwd=ROOT)
        while not glob.glob(f"{folder}/run/checkpoints/epoch-*.npz"):
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.kill()
        process.wait()
    print(f"first step of ResNet-50, with its checkpoint: {seconds:.1f} s, limit 20  {judged(seconds <= 20)}")
