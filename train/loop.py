"""The training loop: epochs of compiled steps, scoring, Keras callbacks, and where it stands at any moment."""

import dataclasses
import math
import time

import keras
import numpy as np
import tensorflow as tf

from train import data, input_pipeline, network, optimizers, replicas, steps, strategies


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        epoch: whole epochs done.
        step: steps done in the epoch that follows.
        totals: sums `steps.TOTALS` over these steps, floats.
        history: list of dicts, one an epoch done: loss, accuracy, val_loss, val_accuracy, learning_rate.
    """

    epoch: int = 0
    step: int = 0
    totals: tuple = (0.0,) * len(steps.TOTALS)
    history: tuple = ()


def build_state(strategy, source, config):
    """Model, optimizer and all else that steps change, at the beginning of a run.

    Args:
        strategy: `tf.distribute.Strategy`.
        source: `train.data.Source`.
        config: `train.config.Config`.
    Returns:
        `steps.State`.
    Raises:
        ValueError: if the images, the weights or the schedule do not fit.
    """
    with strategy.scope():
        model = network.build(config, source)
        optimizer = optimizers.build(config, model, input_pipeline.num_training_batches(source, config))
        return steps.make_state(config, model, optimizer)


def fit(strategy, state, source, config, callbacks=(), *, progress=None, keeper=None):
    """Trains to the end of the run and scores the validation split after each epoch.

    Args:
        strategy: `tf.distribute.Strategy`.
        state: `steps.State`, made under the strategy's scope.
        source: `train.data.Source`.
        config: `train.config.Config`.
        callbacks: list of `keras.callbacks.Callback`; they get loss, accuracy, val_loss, val_accuracy,
            learning_rate and images_per_second after each epoch, and may set `model.stop_training`.
        progress: `Progress` to go on from, whose variables are loaded.
        keeper: `checkpoints.Keeper`, which is told where the run stands after each execution and may end it.
    Returns:
        `Progress` at the end.
    Raises:
        ValueError: if the loss is not finite any more.
    """
    progress = progress or Progress()
    run = _Run(strategy, state, source, config)
    with strategy.scope():
        state.model.compile(optimizer=state.optimizer)  # callbacks look for model.optimizer
    params = {"epochs": config.epochs, "steps": run.steps_per_epoch, "verbose": 0}
    callbacks = keras.callbacks.CallbackList(list(callbacks), model=state.model, **params)
    state.model.stop_training = False
    replicas.vary_dropout(strategy, state.model)
    callbacks.on_train_begin()
    while progress.epoch < config.epochs and not state.model.stop_training:
        callbacks.on_epoch_begin(progress.epoch)
        progress, speed = run.train_epoch(progress, callbacks, keeper)
        progress, scores = run.score(progress, callbacks)
        callbacks.on_epoch_end(progress.epoch - 1, scores | {"images_per_second": speed})
        if keeper:
            keeper.keep(progress, last_of_epoch=True)
    callbacks.on_train_end()
    return progress


class _Run:
    """What all epochs of a run share: compiled steps and validation batches."""

    def __init__(self, strategy, state, source, config):
        self.strategy, self.state, self.source, self.config = strategy, state, source, config
        self.steps_per_epoch = input_pipeline.num_training_batches(source, config)
        use_xla = strategies.use_xla(config, strategy)
        self.schedule = optimizers.schedule(config, self.steps_per_epoch)
        self.train_steps = steps.make_train_steps(strategy, state, config, use_xla=use_xla)
        self.score_split = make_scorer(strategy, state, source, config)

    def train_epoch(self, progress, callbacks, keeper):
        """The rest of an epoch: `Progress` at its last step, and images a second."""
        config, start, done = self.config, time.perf_counter(), progress.step
        if config.schedule == "plateau":
            self.state.optimizer.learning_rate = optimizers.plateau_rate(config, progress.history)
        iterator = iter(self._batches(progress))
        totals = tf.constant(progress.totals, keras.config.floatx())
        while progress.step < self.steps_per_epoch:
            several = min(config.steps_per_execution, self.steps_per_epoch - progress.step)
            callbacks.on_train_batch_begin(progress.step)
            iterations = self._iterations()
            totals, first_bad = self.train_steps(iterator, tf.constant(several), totals)
            self._check_finite(progress, int(first_bad), iterations, keeper)
            progress = dataclasses.replace(progress, step=progress.step + several, totals=tuple(map(float, totals)))
            callbacks.on_train_batch_end(progress.step - 1, means(progress.totals))
            if keeper:
                keeper.keep(progress)
        seconds = time.perf_counter() - start
        return progress, math.floor((progress.step - done) * config.batch_size / seconds)

    def score(self, progress, callbacks):
        """Scores the validation split: `Progress` at the epoch's end, and the epoch's row."""
        callbacks.on_test_begin()
        scores = {f"val_{name}": value for name, value in self.score_split().items()}
        callbacks.on_test_end(scores)
        rate = self._learning_rate(self._iterations() - 1)
        row = means(progress.totals) | scores | {"learning_rate": rate}
        return Progress(progress.epoch + 1, history=(*progress.history, row)), row

    def _batches(self, progress):
        def make_batches(share):
            return input_pipeline.training_batches(
                self.source, self.config, epoch=progress.epoch, first_step=progress.step, share=share
            )

        return strategies.distribute(self.strategy, make_batches, self.config.accumulation)

    def _iterations(self):
        """Steps of the run that have changed the weights."""
        return int(np.asarray(self.state.optimizer.iterations))

    def _learning_rate(self, iteration):
        """That of a step of the run, counted from 0; where callbacks may set it, as they have."""
        if callable(self.schedule):
            return float(self.schedule(max(0, iteration)))
        return float(tf.convert_to_tensor(self.state.optimizer.learning_rate))

    def _check_finite(self, progress, first_bad, iterations, keeper):
        if first_bad < 0:
            return
        rate = self._learning_rate(iterations + first_bad)
        last = keeper.newest() if keeper else None
        raise ValueError(
            f"The loss is not finite in step {progress.step + first_bad + 1} of epoch {progress.epoch + 1}. Expected a "
            f"run that converges. Received: learning rate {rate:.3g}, at most {self.config.learning_rate}. Lower "
            f"--learning_rate or set --clip_norm=1 with another --workdir. Last good checkpoint: {last or 'none'}."
        )


def make_scorer(strategy, state, source, config):
    """Function without arguments that scores the validation split by the moving averages, if there are any.

    Args:
        strategy: `tf.distribute.Strategy`.
        state: `steps.State`.
        source: `train.data.Source`.
        config: `train.config.Config`.
    Returns:
        Function that returns {"loss": nats, "accuracy": share}.
    """
    test_steps, swap = steps.make_test_steps(strategy, state.model), steps.make_swap(strategy, state)
    num_batches = tf.constant(math.ceil(data.find_split(source, "validation").num_images / config.batch_size))
    batches = strategies.distribute(
        strategy, lambda share: input_pipeline.evaluation_batches(source, "validation", config.batch_size, share)
    )

    def score():
        swap()
        totals = test_steps(iter(batches), num_batches)
        swap()
        return means(totals)

    return score


def means(totals):
    """Loss and accuracy from the sums `steps.TOTALS`."""
    sums = dict(zip(steps.TOTALS, (float(total) for total in totals), strict=True))
    count = max(sums["count"], 1.0)
    return {"loss": sums["loss"] / count, "accuracy": sums["top1"] / count}


def final_weights(state):
    """Arrays in the order of `model.weights`: the moving averages where the recipe has them."""
    return [np.asarray(variable) for variable in state.averages or state.model.weights]
