"""Runs `verify.few_steps` under a strategy for every option, in one process (DESIGN.md, decision 10).

    python tests/replicas.py STRATEGY OPTIONS.json FOLDER

In float64, where a right loop gives 1e-13 and a wrong one does not; in float32 the order of sums alone moves
single gradients by 1e-3.
"""

import json
import os
import sys

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from train import config, data, input_pipeline, loop, replicas, steps, strategies, verify  # noqa: E402

BASE = {
    "data": "synthetic",
    "model": "ResNet8",
    "epochs": 1,
    "warmup_epochs": 0.0,
    "batch_size": 128,  # 461 training images: 3 steps an epoch
    "synchronized_bn": True,
    "learning_rate": 0.05,
    "label_smoothing": 0.0,
    "schedule": "constant",
    "nesterov": False,
}


def main(strategy_name, options, folder):
    with open(options, encoding="utf-8") as file:
        options = json.load(file)
    strategy = strategies.make(config.make(BASE | {"strategy": strategy_name}))
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    results = {name: verify.few_steps(strategy, config.make(BASE | fields)) for name, fields in options.items()}
    local = config.make(BASE | {"synchronized_bn": False, "ema": 0.9})
    results["local"] = verify.few_steps(strategy, local)
    results["replicas"], results["test"] = on_each_replica(strategy, local)
    results["dropout"] = {"outputs": dropped_out(strategy)}
    if strategies.is_chief(strategy):
        os.makedirs(folder, exist_ok=True)
        for name, arrays in results.items():
            np.savez(os.path.join(folder, f"{name}.npz"), **arrays)


def on_each_replica(strategy, options):
    """Every variable on every local replica after three steps, and the totals over the test split."""
    source = data.load(options.data)
    state = loop.build_state(strategy, source, options)
    batches = strategies.distribute(
        strategy, lambda share: input_pipeline.training_batches(source, options, epoch=0, share=share)
    )
    totals = tf.zeros(len(steps.TOTALS), "float64")
    steps.make_train_steps(strategy, state, options)(iter(batches), tf.constant(3), totals)
    copies = {
        f"{number}/{variable.path}": np.stack(
            [copy.numpy() for copy in strategy.experimental_local_results(variable.value)]
        )
        for number, variable in enumerate(state.variables)
    }
    test = strategies.distribute(strategy, lambda share: input_pipeline.evaluation_batches(source, "test", 100, share))
    return copies, {"totals": steps.make_test_steps(strategy, state.model)(iter(test), tf.constant(2)).numpy()}


def dropped_out(strategy):
    """What dropout at 0.5 leaves of a thousand ones on each local replica, after the loop's preparation."""
    with strategy.scope():
        layer = keras.layers.Dropout(0.5)
        model = keras.Sequential([keras.Input((1000,)), layer])
    replicas.vary_dropout(strategy, model)
    outputs = tf.function(lambda: strategy.run(lambda: layer(tf.ones((1, 1000)), training=True)))()
    return np.concatenate([each.numpy() for each in strategy.experimental_local_results(outputs)])


if __name__ == "__main__":
    main(*sys.argv[1:])
