"""Norms of the gradient by layer of a run, at its start and at its checkpoints."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from train import checkpoints, input_pipeline, loop, strategies
from train.experiments.runs import forget
from train.losses import cross_entropy, one_hot

MOST_CHECKPOINTS = 6  # of a run that are measured, evenly spread


def of_run(run):
    """A row a 3x3 layer at each moment: the norm of the gradient of its kernel on the first training batch.

    Args:
        run: `train.experiments.runs.Run`; the checkpoints that are kept are measured, if there are any. A damaged one
            is left out, with a warning.
    Returns:
        list of dicts.
    """
    forget()
    keras.utils.set_random_seed(run.config.seed)  # the weights at the start are the run's own
    source, strategy = run.source(), strategies.make(run.config)
    state = loop.build_state(strategy, source, run.config)
    batch = next(iter(input_pipeline.training_batches(source, run.config, epoch=0)))
    layers = [layer for layer in state.model.layers if getattr(layer, "kernel_size", None) == (3, 3)]
    norms_of = _make_norms(state.model, [layer.kernel.value for layer in layers], batch)
    rows, steps = [], input_pipeline.num_training_batches(source, run.config)
    for path in (None, *_spread(_of_epochs(checkpoints.paths(run.config)))):
        try:
            progress = checkpoints.load(path, state.variables) if path else {"epoch": 0}
        except Exception as error:  # whatever NumPy trips over
            warnings.warn(f"A damaged checkpoint is left out: {path} ({type(error).__name__}).", stacklevel=2)
            continue
        norms = norms_of().numpy()
        for place, (layer, norm) in enumerate(zip(layers, norms, strict=True), start=1):
            rows.append(
                run.columns
                | {"epoch": progress["epoch"], "iteration": progress["epoch"] * steps}
                | {"layer": place, "name": layer.name, "gradient_norm": float(norm)}
            )
    return rows


def _make_norms(model, kernels, batch):
    """Compiled function without arguments: norms of the loss's gradient, in training mode, float32 (layers,)."""

    @tf.function
    def norms():
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            loss = tf.reduce_mean(cross_entropy(one_hot(batch, logits), logits))
        return tf.stack([tf.norm(gradient) for gradient in tape.gradient(loss, kernels)])

    return norms


def _of_epochs(paths):
    """The checkpoints at the ends of epochs; those in between depend on the machine's speed."""
    return [path for path in paths if path.endswith("-step-0000000.npz")]


def _spread(paths):
    """At most so many of the paths, the first and the last among them."""
    places = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), MOST_CHECKPOINTS)).astype(int))
    return [paths[place] for place in places]
