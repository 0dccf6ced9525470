"""Error of the CIFAR nets over depth: He 2015, table 6."""

import keras_resnet
from train.experiments import pages
from train.experiments.pages import Fact
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
                "test_error": run.test_error(model),
            }
        )
    return rows


def draw(rows):
    """The paper's table 6, with our error and the difference beside its own."""
    cells = []
    for net, own in pages.by_net(rows).items():
        errors = [row["test_error"] for row in own]
        fact = Fact(net, CIFAR10_ERROR.get(net, ""), pages.mean(errors))
        size = f"{own[0]['parameters'] / 1e6:.2f}M"
        cells.append([net, own[0]["layers"], size, pages.number(fact.paper), pages.spread(errors), fact.difference])
    return pages.drawn_table(["", "layers", "parameters", "the paper's error (%)", "ours", "difference"], cells)


def tell(rows):
    """Facts and a paragraph; see `train.lab.Experiment`."""
    facts, means = [], {}
    for net, own in pages.by_net(rows).items():
        means[net] = pages.mean([row["test_error"] for row in own])
        facts.append(Fact(f"{net}, test error (%)", CIFAR10_ERROR.get(net, ""), means[net]))
        millions = own[0]["parameters"] / 1e6
        facts.append(Fact(f"{net}, parameters (1e6)", CIFAR10_PARAMETERS.get(net, ""), millions))
    best = min(means, key=means.get)
    return facts, (
        f"The lowest error has {best}. In the paper it falls with depth to ResNet-110 and is higher again for "
        "ResNet-1202, which overfits. Parameters are the trainable ones."
    )
