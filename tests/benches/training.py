"""The trainer: a step against others' steps, replicas, start-up."""

import functools
import glob
import os
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from benches.rounds import ROOT, ROUNDS, absent, judged, report, resident_mb, timed

from train import config, network, optimizers, steps


class Random:
    """Random images of CIFAR's shape, in place of a `train.data.Source`."""

    image_shape, class_names, name = (32, 32, 3), range(10), "random"


def repeated_batch(size, shape, classes):
    """One random batch again and again, without tf.data's autotuner, whose thread every `fit` waits for at its end."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (size, *shape)).astype("uint8"), rng.integers(0, classes, size)
    options = tf.data.Options()
    options.autotune.enabled = False  # BUILD_NOTES.md, "Traps"
    return tf.data.Dataset.from_tensors({"image": images, "label": labels}).repeat().with_options(options)


def trainer(batches, **fields):
    """Function of a number of steps that trains them in our loop."""
    options = config.make({"data": "tfds:cifar10", "epochs": 3, **fields})
    model = network.build(options, Random)
    keras.config.set_dtype_policy("float32")
    state = steps.make_state(options, model, optimizers.build(options, model, 1000))
    train_steps = steps.make_train_steps(tf.distribute.get_strategy(), state, options)
    iterator, totals = iter(batches), tf.zeros(3)
    return lambda number: train_steps(iterator, tf.constant(number), totals)


def keras_fit(batches, **fields):
    """The same by `Model.fit` of Keras 3, on stock layers."""
    options = config.make({"data": "tfds:cifar10", "epochs": 3, **fields})
    ours = network.build(options, Random)
    model = network.deployable(ours, Random.image_shape, ours.get_weights())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.build(options, model, 1000), loss, metrics=["accuracy"])
    pairs = batches.map(lambda batch: (batch["image"], batch["label"]))
    return lambda number: model.fit(pairs, steps_per_epoch=number, epochs=1, verbose=0, shuffle=False)


def torch_steps(size, dtype):
    """The same net and step in torch, in a process of its own: torch and TensorFlow carry two LLVMs."""
    command = [sys.executable, os.path.join(ROOT, "tests/benches/torch_steps.py"), str(size), dtype]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(number):
        print(number, file=process.stdin, flush=True)
        process.stdout.readline()

    return run


def step():
    """A training step of ResNet-20 at batch 128 against `fit` of Keras 3 and, where they are installed, others."""
    number, fields = 15, {"model": "ResNet20", "batch_size": 128}
    batches = repeated_batch(128, Random.image_shape, 10)
    rivals = {"ours": trainer(batches, **fields), "keras fit": keras_fit(batches, **fields)}
    rivals["ours, bfloat16"] = trainer(batches, mixed_precision="bfloat16", **fields)
    if not absent("torch"):
        rivals["torch"] = torch_steps(128, "float32")
        rivals["torch, bfloat16"] = torch_steps(128, "bfloat16")
    if not absent("tf_keras"):
        rivals["tf_keras fit"] = tf_keras_fit(128)
    for run in rivals.values():
        run(3)
    rounds = [[timed(functools.partial(run, number)) / number for run in rivals.values()] for _ in range(ROUNDS)]
    seconds = dict(zip(rivals, np.transpose(rounds), strict=True))
    limits = {"keras fit": 1 / 1.2, "tf_keras fit": 1.0}
    for name in rivals.keys() - {"ours", "ours, bfloat16", "torch, bfloat16"}:
        report(f"step, ResNet-20, batch 128, against {name}", seconds["ours"], seconds[name], limits.get(name))
    report("the same in bfloat16 against float32", seconds["ours, bfloat16"], seconds["ours"], 1.0)
    for name, values in seconds.items():
        rates = 128 / np.array(values)
        print(f"  {name:<18} {np.median(rates):6.0f} images/s ({rates.min():.0f} to {rates.max():.0f})")
    before = resident_mb()
    for _ in range(5):
        rivals["ours"](40)
    grown = resident_mb() - before
    verdict = judged(grown <= 20)  # a leak of one batch a step would be 80 MB
    print(f"memory after 200 further steps: {grown:+.0f} MB of {before:.0f} MB, limit 20  {verdict}", flush=True)


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

    inputs = tf_keras.Input(Random.image_shape)
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
    pairs = repeated_batch(size, Random.image_shape, 10).map(lambda batch: (batch["image"], batch["label"]))
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
