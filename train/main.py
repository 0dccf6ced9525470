"""Trains a ResNet: `python train/main.py --strategy=mirrored --model=ResNet20 --data=digits`."""

import contextlib
import sys

from absl import flags

import train
from train import config as configs

flags.DEFINE_enum("resume", "auto", ["auto", "never", "require"], "whether to go on with the run that is in workdir")
flags.DEFINE_integer("local_workers", 0, "try multi_worker with so many processes on this machine")
flags.DEFINE_bool("verify_strategy", False, "compare a few steps on one replica and on all, and train nothing")
flags.DEFINE_bool("preview", False, "draw the first training images into plots/preview.png, and train nothing")
flags.DEFINE_enum("benchmark", None, ["input", "compute", "all"], "measure images/s of these, and train nothing")


def main(argv):
    """Trains what the flags ask for and writes the run folder."""
    train.refuse_positional(argv)
    values = flags.FLAGS
    if values.local_workers:
        _choose_multi_worker(values)
    if values.local_workers and not values.verify_strategy:
        from train import workers

        # absl takes the last of several values.
        return workers.run(values.local_workers, [*sys.argv, "--local_workers=0", "--strategy=multi_worker"])
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    config = configs.from_flags(values)
    if values.verify_strategy:
        from train import verify

        return verify.run(config, values.local_workers)
    if values.preview:
        from train import preview

        return preview.run(config)
    from train import strategies

    strategy = strategies.make(config)
    if values.benchmark:
        from train import benchmark

        return benchmark.run(strategy, config, values.benchmark)
    return fit(strategy, config, values.resume)


def _choose_multi_worker(values):
    """Sets the strategy that local workers are of; raises ValueError if another was asked for."""
    if values.strategy not in (None, "multi_worker"):
        raise ValueError(
            "Expected --local_workers with --strategy=multi_worker, which it implies. Received: "
            f"--local_workers={values.local_workers} with --strategy={values.strategy}. Leave one out."
        )
    values.strategy = "multi_worker"


def fit(strategy, config, resume):
    """Trains to the end of the run, from where it stands."""
    import keras

    from train import loop, run_folder, strategies

    strategies.check(config, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(config.seed)
    if strategies.from_chief(strategy, lambda: run_folder.look(config, resume)):
        print(f"The run in {config.workdir} is finished: nothing to train. Choose another --workdir for a new one.")
        return
    source, report = strategies.load_data(strategy, config, unchanged=True)
    state = loop.build_state(strategy, source, config)
    with contextlib.ExitStack() as stack:  # from here on nothing is refused that could have been before
        strategies.from_chief(strategy, lambda: stack.enter_context(run_folder.locked(config)))
        strategies.from_chief(strategy, lambda: run_folder.open_run(config, report))
        train_and_save(strategy, state, source, config)


def train_and_save(strategy, state, source, config):
    """Trains from the last checkpoint, if there is one, and writes history, curve and model."""
    from train import callbacks, checkpoints, input_pipeline, loop, network, run_folder, strategies

    found = strategies.from_chief(strategy, lambda: checkpoints.restore(config, state.variables))
    strategies.variables_from_chief(strategy, state.variables)
    progress, chief, watchers = loop.Progress(**found or {}), strategies.is_chief(strategy), []
    if chief:
        images_per_epoch = input_pipeline.num_training_batches(source, config) * config.batch_size
        print(describe(config, source, strategy, state.model, progress), flush=True)
        watchers.append(callbacks.ProgressBar(config, images_per_epoch, progress.step))
    if chief and callbacks.Summaries.is_possible():
        watchers.append(callbacks.Summaries(config))
    keeper = checkpoints.Keeper(config, strategy, state.variables)
    keeper.listen()
    progress = loop.fit(strategy, state, source, config, watchers, progress=progress, keeper=keeper)
    if chief:
        run_folder.write_history(config, progress.history)  # again: a kill may have come before its last row
        run_folder.write_curve(config, progress.history)
        run_folder.save_model(config, network.deployable(state.model, source.image_shape, loop.final_weights(state)))
        print(f"Wrote model.keras, history.csv, config.json and plots/curve.png to {config.workdir}")


def describe(config, source, strategy, model, progress):
    """The lines that open a run's output."""
    sizes = ", ".join(f"{split.num_images:,} {name}" for name, split in source.splits.items())
    shape = " x ".join(map(str, source.image_shape))
    replicas = strategy.num_replicas_in_sync
    resumed = f", resumed after epoch {progress.epoch}, step {progress.step}" if progress.epoch or progress.step else ""
    return (
        f"{config.model}: {model.count_params():,} parameters, images {shape}, {len(source.class_names)} classes\n"
        f"{source.name}: {sizes} images\n"
        f"{config.strategy}: {replicas} replica{'s' if replicas > 1 else ''}, global batch {config.batch_size}, "
        f"{config.epochs} epochs of recipe {config.recipe}{resumed}"
    )


if __name__ == "__main__":
    configs.define_flags()
    train.run(main)
