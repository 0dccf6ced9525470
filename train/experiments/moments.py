"""A run at the ends of its epochs, of which the checkpoints are kept."""

import warnings

import numpy as np

from train import checkpoints


def visit(run, variables, most):
    """Sets variables to what they were at the end of an epoch, one epoch after the other.

    Args:
        run: `train.experiments.runs.Run`.
        variables: Keras variables in the order of a checkpoint: a training state's, or those of the trained model.
        most: epochs that are visited, evenly spread, the first and the last among those that are kept.
    Yields:
        The number of epochs done, from 1. A damaged checkpoint is left out, with a warning.
    """
    # Checkpoints within epochs are left out: which there are depends on the machine's speed.
    paths = [path for path in checkpoints.paths(run.config) if path.endswith("-step-0000000.npz")]
    for place in np.unique(np.linspace(0, len(paths) - 1, min(len(paths), most)).astype(int)):
        try:
            progress = checkpoints.load(paths[place], variables)
        except Exception as error:  # whatever NumPy trips over
            warnings.warn(f"A damaged checkpoint is left out: {paths[place]} ({type(error).__name__}).", stacklevel=2)
        else:
            yield progress["epoch"]
