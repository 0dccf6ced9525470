"""Proves that a strategy computes what one replica does: `python train/main.py --verify_strategy ...`.

The same few steps are run on one replica and on all, each in processes of its own (after one failure of a collective
every later strategy of a process fails too), in float64, in which a right loop differs by 1e-13 and a wrong one does
not: in float32 the order of sums alone moves single weights by 1e-3.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile

import numpy as np

import train
from train import config as configs

STEPS = 3
TOLERANCE = 1e-5  # of the scale of each array
ROUNDED_TOLERANCE = 0.1  # under mixed precision and --qat, which round a tie up or down as sums come out


def run(config, local_workers):
    """Compares the run's strategy with one replica and prints the largest differences.

    Args:
        config: `train.config.Config`. Statistics are synchronized and nothing is dropped at random, or replicas compute
            another thing, and there is no warm-up, whose first rate is 0.
        local_workers: worker processes to start for multi_worker; 0: this process is one of a cluster.
    Returns:
        Exit code: 0 if all differences are small enough, else 1.
    Raises:
        ValueError: if the strategy is the one replica itself, or the steps fail.
    """
    if config.strategy == "default":
        raise ValueError(
            "Expected a strategy to compare with one replica. Received: --strategy=default, which is one replica. "
            "Pass --strategy=mirrored, or --local_workers=2."
        )
    config = dataclasses.replace(
        config, synchronized_bn=True, warmup_epochs=0.0, warmup_rate=0.0, dropout=0.0, stochastic_depth=0.0
    )
    with tempfile.TemporaryDirectory() as folder:
        many, is_chief = _in_processes(config, folder, local_workers)
        if not is_chief:
            return 0
        one, _ = _in_processes(dataclasses.replace(config, strategy="default"), folder, 0)
        return report(config, differences(one, many))


def differences(one, other):
    """Largest difference of any array of each group, as a share of the array's scale.

    Args:
        one: dict of arrays named GROUP/NAME, as of `few_steps`.
        other: dict of the same names.
    Returns:
        dict from group to float.
    """
    worst = {}
    for name, expected in one.items():
        with np.errstate(invalid="ignore"):  # what is not finite is no number here, and no small difference
            difference = np.abs(other[name] - expected).max(initial=0) / (np.abs(expected).max(initial=0) or 1)
        group = name.partition("/")[0]
        worst[group] = float(np.maximum(worst.get(group, 0.0), difference))  # NaN stays, unlike with max
    return worst


def few_steps(strategy, config):
    """Trains `STEPS` steps and scores the validation split.

    Args:
        strategy: `tf.distribute.Strategy`.
        config: `train.config.Config`.
    Returns:
        dict of arrays: weights/..., statistics/..., optimizer/..., average/..., metrics/...
    """
    import keras
    import tensorflow as tf

    from train import input_pipeline, loop, steps, strategies

    strategies.check(config, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(config.seed)
    source, _ = strategies.load_data(strategy, config)
    state = loop.build_state(strategy, source, config)
    # The last steps of an epoch: a last batch that is filled up is among them.
    first = max(0, input_pipeline.num_training_batches(source, config) - STEPS)
    batches = strategies.distribute(
        strategy,
        lambda share: input_pipeline.training_batches(source, config, epoch=0, first_step=first, share=share),
        config.accumulation,
    )
    totals = tf.zeros(len(steps.TOTALS), keras.config.floatx())
    train_steps = steps.make_train_steps(strategy, state, config)
    totals, _ = train_steps(iter(batches), tf.constant(STEPS), totals)
    scores = loop.make_scorer(strategy, state, source, config)()
    trainable = {id(variable) for variable in state.model.trainable_variables}
    found = {f"{'weights' if id(v) in trainable else 'statistics'}/{v.path}": v for v in state.model.weights}
    found |= {f"optimizer/{i}/{v.path}": v for i, v in enumerate(state.optimizer.variables)}
    found |= {f"average/{i}": v for i, v in enumerate(state.averages)}
    found |= {f"scaling/{i}": v for i, v in enumerate(state.scaling)}
    found |= {f"metrics/{name}": value for name, value in (loop.means(totals) | scores).items()}
    return {name: np.asarray(value, "float64") for name, value in found.items()}


def _in_processes(config, folder, local_workers):
    """Runs `few_steps` in new processes: its arrays, and whether this process is the one to compare them."""
    path, output = os.path.join(folder, "config.json"), os.path.join(folder, f"{config.strategy}.npz")
    with open(path, "w", encoding="utf-8") as file:
        file.write(configs.to_json(config))
    arguments = ["-m", "train.verify", path, output]
    if config.strategy == "multi_worker" and local_workers:
        from train import workers

        code = workers.run(local_workers, arguments)
    else:
        code = subprocess.run([sys.executable, *arguments], check=False).returncode
    if code:
        raise ValueError(f"The steps under --strategy={config.strategy} failed with exit code {code}; see above.")
    if not os.path.exists(output):
        return None, False
    with np.load(output) as stored:
        return dict(stored), True


def report(config, worst):
    """Prints differences and a verdict: exit code 0 if all are small enough, else 1."""
    is_rounded = config.qat or config.mixed_precision != "none"
    tolerance = ROUNDED_TOLERANCE if is_rounded else TOLERANCE
    holds = all(difference <= tolerance for difference in worst.values())
    print(f"{config.model}, {STEPS} steps of batch {config.batch_size}, {config.strategy} against one replica:")
    for group, difference in worst.items():
        print(f"  {group:<12} largest difference {difference:.1e} of its scale")
    print(f"{'The same' if holds else 'NOT the same'}: limit {tolerance:.0e}")
    return 0 if holds else 1


def main(argv):
    """One process: `python -m train.verify CONFIG.json OUTPUT.npz`."""
    train.import_tensorflow_quietly()
    import keras

    from train import strategies

    config = configs.make(configs.read(argv[1]))
    strategy = strategies.make(config)
    if config.mixed_precision == "none":
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
    arrays = few_steps(strategy, config)
    if strategies.is_chief(strategy):
        np.savez(argv[2], **arrays)


if __name__ == "__main__":
    train.run(main)
