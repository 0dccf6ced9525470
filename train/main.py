"""Trains a ResNet: `python train/main.py --strategy=mirrored --model=ResNet20 --data=digits`."""

from absl import flags

import train
from train import config as configs


def main(argv):
    """Trains what the flags ask for and writes the run folder."""
    if len(argv) > 1:
        raise ValueError(f"Expected flags only, as --name=value. Received: {' '.join(argv[1:])}.")
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    import keras

    from train import callbacks, data, loop, network, run_folder, strategies

    config = configs.from_flags(flags.FLAGS)
    strategy = strategies.make(config.strategy, cpu_replicas=config.cpu_replicas)
    strategies.check_batch_size(config.batch_size, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(config.seed)
    source = data.load_for_run(config)
    run_folder.check_same(config)
    if run_folder.is_finished(config):
        print(f"The run in {config.workdir} is finished: nothing to train. Choose another --workdir for a new one.")
        return
    steps = loop.num_steps(source, config)
    with strategy.scope():
        model = network.build(config, source)
        optimizer = network.build_optimizer(config, model, steps)
    run_folder.open_run(config)  # after all that can be refused
    variables = model.variables + optimizer.variables
    epochs_done, history = run_folder.restore(config, variables)
    print(describe(config, source, strategy, model, epochs_done), flush=True)
    watchers = [
        callbacks.Progress(config, steps * config.batch_size),
        callbacks.Keeper(config, variables, history),
    ]
    loop.fit(strategy, model, optimizer, source, config, watchers, initial_epoch=epochs_done)
    run_folder.write_history(config, history)
    run_folder.write_curve(config, history)
    run_folder.save_model(config, model)
    print(f"Wrote model.keras, history.csv, config.json and plots/curve.png to {config.workdir}")


def describe(config, source, strategy, model, epochs_done):
    """The lines that open a run's output."""
    sizes = ", ".join(f"{split.num_images:,} {name}" for name, split in source.splits.items())
    shape = " x ".join(map(str, source.image_shape))
    resumed = f", resumed after epoch {epochs_done}" if epochs_done else ""
    return (
        f"{config.model}: {model.count_params():,} parameters, images {shape}, {len(source.class_names)} classes\n"
        f"{source.name}: {sizes} images\n"
        f"{config.strategy}: {strategy.num_replicas_in_sync} replicas, global batch {config.batch_size}, "
        f"{config.epochs} epochs of recipe {config.recipe}{resumed}"
    )


if __name__ == "__main__":
    configs.define_flags()
    train.run(main)
