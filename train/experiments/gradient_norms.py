"""Norms of the gradient by layer of a run, at its start and at its checkpoints."""

import itertools

import keras
import tensorflow as tf

from train import input_pipeline, loop, strategies
from train.experiments import moments
from train.experiments.runs import forget
from train.losses import cross_entropy, one_hot

MOST_CHECKPOINTS = 6  # of a run that are measured, evenly spread


def of_run(run):
    """A row a 3x3 layer at each moment: the norm of the gradient of its kernel on the first training batch.

    Args:
        run: `train.experiments.runs.Run`; the checkpoints that are kept are measured, if there are any.
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
    for epoch in itertools.chain([0], moments.visit(run, state.variables, MOST_CHECKPOINTS)):
        norms = norms_of().numpy()
        for place, (layer, norm) in enumerate(zip(layers, norms, strict=True), start=1):
            rows.append(
                run.columns
                | {"epoch": epoch, "iteration": epoch * steps}
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
