"""Trains three steps under a strategy and writes every variable: one process a strategy (DESIGN.md, decision 10).

    python tests/replicas.py STRATEGY SYNCHRONIZED STEPS_PER_EXECUTION OUTPUT.npz

In float64, where a right loop gives 1e-13 and a wrong one does not; in float32 the order of sums alone moves
single gradients by 1e-3.
"""

import sys

import train

train.import_tensorflow_quietly()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from train import config, data, loop, network, strategies  # noqa: E402


def main(strategy_name, synchronized, steps_per_execution, output):
    strategy = strategies.make(strategy_name)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    options = config.make(
        {
            "data": "synthetic",
            "model": "ResNet8",
            "epochs": 1,
            "warmup_epochs": 0.0,
            "batch_size": 128,  # 461 training images: 3 steps an epoch
            "synchronized_bn": synchronized == "synchronized",
            "steps_per_execution": int(steps_per_execution),
            "learning_rate": 0.05,
            "schedule": "constant",
        }
    )
    source = data.load("synthetic")
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = network.build(options, source)
        optimizer = network.build_optimizer(options, model, loop.num_steps(source, options))
    logs = {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, epoch_logs: logs.update(epoch_logs))
    loop.fit(strategy, model, optimizer, source, options, [keep])
    replicas = {}
    for name in ("stem_bn", "stage3_block1_bn2"):
        value = model.get_layer(name).moving_mean.value
        replicas[f"replicas/{name}"] = np.stack([copy.numpy() for copy in getattr(value, "values", [value])])
    test = strategy.experimental_distribute_dataset(data.evaluation_batches(source, "test", 100))
    totals = loop.make_test_steps(strategy, model)(iter(test), tf.constant(2))
    np.savez(
        output,
        **{f"variables/{variable.path}": np.asarray(variable) for variable in model.variables + optimizer.variables},
        **replicas,
        **{f"logs/{name}": value for name, value in logs.items() if name != "images_per_second"},
        totals=totals.numpy(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
