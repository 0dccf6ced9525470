"""The claims of the ResNet papers, tried: `python train/lab.py degradation --data=digits --budget=10`."""

import dataclasses
import difflib

from absl import flags

import train

flags.DEFINE_string("data", "digits", "digits, tfds:NAME or folder:PATH, as of train/main.py")
flags.DEFINE_string("data_dir", "", "folder of prepared TFDS data sets")
flags.DEFINE_string("budget", "smoke", "epochs a net (24), minutes for all its nets together (30m), or smoke")
flags.DEFINE_list("seeds", ["0"], "every net is trained from each of these")
flags.DEFINE_string("output_dir", "runs/lab", "folder of the results, and of runs/: the nets, which experiments share")
flags.DEFINE_list("nets", [], "train these instead of the experiment's own: ResNet20,ResNet20:B,PlainNet20")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One claim; a row of `EXPERIMENTS`.

    Attributes:
        module: of `train.experiments`: TITLE, measure(runs, settings) -> rows, draw(rows) -> figure, tell(rows) ->
            facts and paragraph.
        source: where the papers have it.
        nets: that are trained for it, as in `--nets`.
        smoke: the same for `--budget=smoke`.
    """

    module: str
    source: str
    nets: tuple = ()
    smoke: tuple = ()


# fmt: off
EXPERIMENTS = {
    "degradation": Experiment("degradation", "He et al. 2015, figures 1, 4 and 6, table 2",
                              ("PlainNet20", "ResNet20", "PlainNet56", "ResNet56"),
                              ("PlainNet20", "ResNet20", "PlainNet32", "ResNet32")),
}
# fmt: on


def main(argv):
    """Runs the experiments that are named."""
    names = check_names(argv[1:])
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    settings = settings_from_flags(flags.FLAGS)
    for name in names:
        run(name, settings)


def check_names(names):
    """The names, each once; raises ValueError if there are none or an unknown one, with the nearest."""
    expected = f"Expected names of experiments: {', '.join(EXPERIMENTS)}."
    if not names:
        raise ValueError(f"{expected} Received: none.")
    for name in names:
        if name not in EXPERIMENTS:
            nearest = difflib.get_close_matches(name, EXPERIMENTS, n=2, cutoff=0.4)
            hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
            raise ValueError(f"There is no such experiment. {expected} Received: {name}.{hint}")
    return [*dict.fromkeys(names)]


def settings_from_flags(values):
    """`Settings`, checked.

    Raises:
        ValueError: if the budget or a seed is none, or there is no such net.
    """
    from train.experiments import runs
    from train.experiments.settings import Settings, check_budget

    check_budget(values.budget)
    if not values.seeds or not all(seed.isdecimal() for seed in values.seeds):
        raise ValueError(f"Expected --seeds as whole numbers, such as 0,1,2. Received: {','.join(values.seeds)!r}.")
    for net in values.nets:
        runs.parse_net(net)
    return Settings(
        data=values.data,
        data_dir=values.data_dir,
        budget=values.budget,
        seeds=tuple(dict.fromkeys(map(int, values.seeds))),
        output_dir=values.output_dir,
        nets=tuple(dict.fromkeys(values.nets)),
    )


def run(name, settings):
    """Trains what is not trained yet, measures, and writes NAME.csv, NAME.png and NAME.md."""
    import importlib

    from train.experiments import pages, runs

    row = EXPERIMENTS[name]
    module = importlib.import_module(f"train.experiments.{row.module}")
    nets = settings.nets or (row.smoke if settings.is_smoke else row.nets)
    trained = runs.train_all(settings, name, [*map(runs.parse_net, nets)])
    rows = module.measure(trained, settings)
    facts, paragraph = module.tell(rows)
    text = pages.page(module.TITLE, row.source, f"{name}.png", facts, f"{paragraph} {pages.conditions(trained)}")
    pages.write(settings.output_dir, name, rows, module.draw, text)
    print(f"\n{text}\nWrote {name}.csv, {name}.png and {name}.md to {settings.output_dir}")


if __name__ == "__main__":
    flags.FLAGS.set_gnu_getopt(True)  # flags may follow the names
    train.run(main)
