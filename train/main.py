"""Trains a ResNet: `python train/main.py --strategy=mirrored --model=ResNet20 --data=digits`."""

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
    from train import strategies, trainer

    strategy = strategies.make(config)
    if values.benchmark:
        from train import benchmark

        return benchmark.run(strategy, config, values.benchmark)
    return trainer.fit(strategy, config, values.resume)


def _choose_multi_worker(values):
    """Sets the strategy that local workers are of; raises ValueError if another was asked for."""
    if values.strategy not in (None, "multi_worker"):
        raise ValueError(
            "Expected --local_workers with --strategy=multi_worker, which it implies. Received: "
            f"--local_workers={values.local_workers} with --strategy={values.strategy}. Leave one out."
        )
    values.strategy = "multi_worker"


if __name__ == "__main__":
    configs.define_flags()
    train.run(main)
