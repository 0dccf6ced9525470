"""One run from its configuration to its folder: what `train/main.py` and every experiment of the lab train with."""

import contextlib

import keras

from train import callbacks, checkpoints, input_pipeline, loop, network, run_folder, strategies


def fit(strategy, config, resume):
    """Trains to the end of the run, from where it stands, and writes its folder.

    Args:
        strategy: `tf.distribute.Strategy`.
        config: `train.config.Config`.
        resume: "auto", "never" or "require", as `train.run_folder.look` takes it.
    Raises:
        ValueError: if the run cannot be, or its folder holds another.
        train.StoppedError: if a signal came; the state is kept.
    """
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
    with keeper.listening():
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
