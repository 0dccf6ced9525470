"""The claims of the ResNet papers, tried: `python train/lab.py degradation --data=digits --budget=10`."""

import dataclasses
import os
import sys

from absl import flags

import train
from train.experiments.settings import Settings, check_budget


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One claim; a row of `EXPERIMENTS`, whose key is also the module of `train.experiments` that makes it out.

    The module has TITLE; measure(list of `Run`, `Settings`), which gives the rows of the CSV file, dicts; and of these
    rows alone draw(rows), a matplotlib figure, and tell(rows), a list of `Fact` and a paragraph that the rows choose.

    Attributes:
        source: where the papers have it.
        nets: that are trained for it, as in `--nets`; empty: none.
        smoke: the same for `--budget=smoke`.
        passing: fields of the trainer's configuration that change nothing of a run's result.
        takes_weights: whether `--weights` replaces the nets.
        basic_blocks: whether it looks into blocks of two 3x3 layers, and takes no nets of others.
        one_depth: whether it compares nets of one depth alone.
    """

    source: str
    nets: tuple = ()
    smoke: tuple = ()
    passing: dict = dataclasses.field(default_factory=dict)
    takes_weights: bool = False
    basic_blocks: bool = False
    one_depth: bool = False


_PAIRS, _SMALL_PAIRS = ("PlainNet20", "ResNet20", "PlainNet56", "ResNet56"), ("PlainNet20", "ResNet20", "ResNet32")
_OPTIONS = ("PlainNet20", "ResNet20:A", "ResNet20:B", "ResNet20:C")
_PATHS = ("ResNet20", "ResNet20:scaled", "ResNet20:gated", "ResNet20:gated_shortcut", "ResNet20:C", "ResNet20:dropout")
_SMALL_PATHS = ("PlainNet20", "ResNet20", "ResNet20:gated", "ResNet20:C", "ResNet20:dropout")
_EVERY_CHECKPOINT = {"checkpoints_to_keep": 1_000_000}

# fmt: off
EXPERIMENTS = {
    "table1":      Experiment("He et al. 2015, tables 1 and 6"),
    "table6":      Experiment("He et al. 2015, table 6", ("ResNet20", "ResNet32", "ResNet44", "ResNet56", "ResNet110"), _SMALL_PAIRS[1:]),
    "degradation": Experiment("He et al. 2015, figures 1, 4 and 6, table 2", _PAIRS, ("PlainNet20", "ResNet20", "PlainNet32", "ResNet32"), _EVERY_CHECKPOINT),
    "shortcuts":   Experiment("He et al. 2015, section 4.1, table 3", _OPTIONS, _OPTIONS, one_depth=True),
    "responses":   Experiment("He et al. 2015, section 4.2, figure 7", _PAIRS, _SMALL_PAIRS, basic_blocks=True),
    "depth":       Experiment("He et al. 2015, section 4.2", ("ResNet20", "ResNet56", "ResNet110"), _SMALL_PAIRS[1:]),
    "crops":       Experiment("He et al. 2015, section 3.4, tables 3 and 4", ("ResNet20",), ("ResNet20",), takes_weights=True),
    "gradients":   Experiment("He et al. 2015, section 4.1", ("PlainNet56", "ResNet56"), ("PlainNet20", "ResNet20"), _EVERY_CHECKPOINT),
    "unravelled":  Experiment("Veit et al. 2016, arXiv 1605.06431, figure 3; He et al. 2016, arXiv 1603.05027, table 1",
                              ("PlainNet20", "ResNet56", *_PATHS), _SMALL_PATHS, basic_blocks=True),
}
# fmt: on
__doc__ += f"\n\nExperiments: {', '.join(EXPERIMENTS)}. One or several; their pages stay in --output_dir."  # of --help


def define_flags():
    """What every experiment takes."""
    flags.DEFINE_string("data", "digits", "digits, tfds:NAME or folder:PATH, as of train/main.py")
    flags.DEFINE_string("data_dir", "", "folder of prepared TFDS data sets")
    flags.DEFINE_string("budget", "smoke", "epochs a net (24), minutes for all its nets together (30m), or smoke")
    flags.DEFINE_list("seeds", ["0"], "every net is trained from each of these")
    flags.DEFINE_string(
        "output_dir", "runs/lab", "folder of the results, and of runs/: the nets, which experiments share"
    )
    flags.DEFINE_list("weights", [], "of crops: score NET=TAG-OR-FILE,... on data instead of training nets")
    flags.DEFINE_string("class_index", "", "of crops: imagenet_class_index.json, or a text with a wnid a line")
    flags.DEFINE_list("nets", [], "train these instead of the experiment's own: ResNet20,ResNet20:B,PlainNet20")


def main(argv):
    """Runs the experiments that are named, after everything that can be refused at once was looked at."""
    names = check_names(argv[1:])
    settings = settings_from_flags(flags.FLAGS)
    check_weights(names, settings)
    train.import_tensorflow_quietly()  # after the flags, so that --help and a mistyped one answer at once
    nets = {name: nets_of(name, settings) for name in names}
    check_output_dir(settings.output_dir)
    for name in names:
        run(name, nets[name], settings)


def check_names(names):
    """The names, each once; raises ValueError if there are none or an unknown one, with the nearest."""
    expected = f"Expected names of experiments: {', '.join(EXPERIMENTS)}."
    if not names:
        raise ValueError(f"{expected} Received: none.")
    for name in names:
        if name not in EXPERIMENTS:
            hint = train.nearest(name, EXPERIMENTS, most=2)
            raise ValueError(f"There is no such experiment. {expected} Received: {name}.{hint}")
    return [*dict.fromkeys(names)]


def settings_from_flags(values):
    """`Settings` that the command line asks for.

    Raises:
        ValueError: if the budget or a seed is none, or a net has no weights given, or twice.
    """
    check_budget(values.budget)
    if not values.seeds or not all(seed.isdecimal() and int(seed) < 2**32 for seed in values.seeds):
        received = ",".join(values.seeds)
        raise ValueError(f"Expected --seeds as whole numbers below 2**32, such as 0,1,2. Received: --seeds={received}.")
    weights = dict(pair.partition("=")[::2] for pair in values.weights)
    if not all(weights.values()) or len(weights) < len(values.weights):
        received = ",".join(values.weights)
        raise ValueError(f"Expected --weights as NET=WEIGHTS,..., each net once. Received: {received}.")
    return Settings(
        data=values.data,
        data_dir=values.data_dir,
        budget=values.budget,
        seeds=tuple(dict.fromkeys(map(int, values.seeds))),
        output_dir=values.output_dir,
        nets=tuple(dict.fromkeys(values.nets)),
        weights=weights,
        class_index=values.class_index,
    )


def check_output_dir(folder):
    """Raises ValueError if the folder of the results cannot be written, or made; it is not left where it was not."""
    with train.no_empty_folders(folder):
        try:
            os.makedirs(folder, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except OSError:
            writable = False
    if not writable:
        raise ValueError(f"Expected --output_dir to be a folder that can be written. Received: --output_dir={folder}.")


def check_weights(names, settings):
    """Raises ValueError if weights are given to what takes none, or beside what they replace."""
    others = [name for name in names if not EXPERIMENTS[name].takes_weights]
    if settings.weights and others:
        raise ValueError(f"Expected --weights with crops alone. Received: --weights with {', '.join(others)}.")
    if settings.weights and settings.nets:
        raise ValueError("Expected --weights, which are scored, or --nets, which are trained. Received: both.")
    if settings.class_index and not settings.weights:
        raise ValueError("Expected --class_index beside --weights of crops. Received: no --weights.")


def nets_of(name, settings):
    """The nets that an experiment trains: list of `Net`.

    Raises:
        ValueError: if one is unknown, or of blocks or a depth that the experiment cannot compare.
    """
    from train.experiments.nets import parse_net

    row = EXPERIMENTS[name]
    asked = [*map(parse_net, settings.nets), *map(parse_net, settings.weights)]
    if settings.weights or not row.nets:
        return []
    found = asked or [*map(parse_net, row.smoke if settings.is_smoke else row.nets)]
    others = [net.title for net in found if row.basic_blocks and not net.has_basic_blocks]
    if others:
        raise ValueError(
            f"{name} looks into blocks of two 3x3 layers. Expected --nets of such, as ResNet20, ResNet34 or "
            f"PlainNet56. Received: {', '.join(others)}."
        )
    if row.one_depth and len({net.depth for net in found}) > 1:
        titles = ", ".join(net.title for net in found)
        raise ValueError(f"{name} compares nets of one depth. Expected such --nets. Received: {titles}.")
    return [*dict.fromkeys(found)]  # ResNet20 and ResNet20:A are one


def run(name, nets, settings):
    """Trains what is not trained yet, measures, and writes the rows, the picture and the page."""
    import importlib

    from train.experiments import origin, pages, runs

    row, module = EXPERIMENTS[name], importlib.import_module(f"train.experiments.{name}")
    stem, command = origin.stem(name, settings, nets), origin.command(name, settings, nets)
    earlier = origin.command_of(os.path.join(settings.output_dir, f"{stem}.md"))
    if earlier not in ("", command):
        print(f"Warning: {stem} of `{earlier}` will be replaced; that command makes it again.", file=sys.stderr)
    trained = runs.train_all(settings, nets, row.passing)
    rows = module.measure(trained, settings)
    facts, paragraph = module.tell(rows)
    data = pages.data_of(settings, rows)
    paragraphs = [paragraph, origin.conditions(trained), origin.made(command, trained)]
    text = pages.page(module.TITLE, row.source, f"{stem}.png", data, facts, paragraphs)
    pages.write(settings.output_dir, stem, rows, module.draw, text, settings.data if nets or settings.weights else "")
    print(f"\n{text}\nWrote {stem}.csv, {stem}.png and {stem}.md to {settings.output_dir}")


if __name__ == "__main__":
    define_flags()
    flags.FLAGS.set_gnu_getopt(True)  # flags may follow the names
    train.run(main)
