"""Error of the CIFAR nets over depth: He 2015, table 6."""

import itertools

import keras_resnet
from train.experiments import pages, seeds
from train.experiments.pages import CIFAR10, Fact
from train.experiments.paper import CIFAR10_ERROR, CIFAR10_PARAMETERS

TITLE = "Error over depth on CIFAR-10"


def measure(runs, settings):
    """A row a run: test error, last training and validation error in per cent, parameters, multiply-adds.

    Args:
        runs: list of `Run`, trained.
        settings: `Settings`.
    Returns:
        list of dicts.
    """
    rows = []
    for run in runs:
        model, last = run.model(), run.history()[-1]
        rows.append(
            {
                "net": run.net.title,
                "layers": run.net.depth,
                "seed": run.config.seed,
                "epochs": run.config.epochs,
                "parameters": sum(weight.numpy().size for weight in model.trainable_weights),
                "multiply_adds": keras_resnet.count_flops(model),
                "training_error": 100 * (1 - last["accuracy"]),
                "validation_error": 100 * (1 - last["val_accuracy"]),
            }
            | run.tester(model)()
        )
    return rows


def draw(rows):
    """The paper's table 6, with our error beside its own."""
    cells = []
    for net, own in seeds.by_net(rows).items():
        size, errors = f"{own[0]['parameters'] / 1e6:.2f}M", seeds.of_seeds(own, "test_error")
        cells.append([net, own[0]["layers"], size, pages.number(CIFAR10_ERROR.get(net, "")), pages.number(errors)])
    return pages.drawn_table(["", "layers", "parameters", "paper, CIFAR-10 (%)", "ours (%)"], cells)


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, errors = [], {}
    for net, own in seeds.by_net(sorted(rows, key=lambda row: row["layers"])).items():
        errors[net] = seeds.of_seeds(own, "test_error")
        facts.append(Fact(f"{net}, test error (%)", CIFAR10_ERROR.get(net, ""), errors[net], CIFAR10))
        millions = own[0]["parameters"] / 1e6
        facts.append(Fact(f"{net}, parameters (1e6)", CIFAR10_PARAMETERS.get(net, ""), millions))
    return facts, " ".join([
        *_reading(errors, rows[0]["test_images"]), seeds.doubt(rows),
        "In the paper the error falls with depth to ResNet-110 and is higher again for ResNet-1202, which overfits. "
        "Parameters are the trainable ones.",
    ])  # fmt: skip


def _reading(errors, num_images):
    """What the errors, lists with one a seed, show from the shallowest to the deepest: list of sentences."""
    sentences, nets = [f"The lowest error has {min(errors, key=lambda net: seeds.mean(errors[net]))}."], [*errors]
    for shallow, deep in itertools.pairwise(nets):
        sentences.append(f"{deep} is {seeds.relation(errors[deep], errors[shallow], num_images)} {shallow}.")
    return sentences
