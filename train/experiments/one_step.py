"""One training step of a run that is too large to train here, and its model: `python -m train.experiments.one_step`."""

import json
import os
import time

import train
from train import config as configs

ONE_STEP = "one_step.json"


def main(argv):
    """Builds, trains two steps (the first compiles) and writes model.keras and one_step.json into the run folder."""
    train.import_tensorflow_quietly()
    import keras
    import numpy as np
    import tensorflow as tf

    from train import input_pipeline, loop, network, run_folder, steps, strategies

    config = configs.make(configs.read(os.path.join(argv[1], run_folder.CONFIG)))
    strategy = strategies.make(config)
    keras.utils.set_random_seed(config.seed)
    source, _ = strategies.load_data(strategy, config)
    seconds, start = [], time.perf_counter()
    state = loop.build_state(strategy, source, config)
    seconds.append(time.perf_counter() - start)
    batches = strategies.distribute(
        strategy,
        lambda share: input_pipeline.training_batches(source, config, epoch=0, share=share),
        config.accumulation,
    )
    iterator, totals = iter(batches), tf.zeros(len(steps.TOTALS), keras.config.floatx())
    train_steps = steps.make_train_steps(strategy, state, config)
    for _ in range(2):
        start = time.perf_counter()
        totals, first_bad = train_steps(iterator, tf.constant(1), totals)
        if int(first_bad) >= 0:
            raise ValueError(f"The loss of {config.model} is not finite in its first steps.")
        seconds.append(time.perf_counter() - start)
    found = dict(zip(("build_seconds", "first_step_seconds", "second_step_seconds"), np.round(seconds, 1), strict=True))
    found |= {"parameters": sum(weight.numpy().size for weight in state.model.trainable_weights)}
    found |= {"loss": loop.means(totals)["loss"]}
    run_folder.save_model(config, network.deployable(state.model, source.image_shape, loop.final_weights(state)))
    with run_folder.written_aside(os.path.join(argv[1], ONE_STEP)) as aside, open(aside, "w") as file:
        json.dump(found, file, indent=2)


if __name__ == "__main__":
    train.run(main)
