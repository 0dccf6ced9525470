"""Images a second of the input pipeline, of the steps, and of both together: `--benchmark=input|compute|all`."""

import itertools
import os
import time

import keras
import tensorflow as tf

from train import input_pipeline, loop, steps, strategies

SECONDS = 10  # that each measurement takes at least


def run(strategy, config, what):
    """Measures and prints; nothing is trained that is kept.

    Args:
        strategy: `tf.distribute.Strategy`.
        config: `train.config.Config`.
        what: "input", "compute" or "all", which also says what the run waits for.
    Raises:
        ValueError: as for a run.
    """
    strategies.check(config, strategy.num_replicas_in_sync)
    (source, _), rates = strategies.load_data(strategy, config), {}
    cores, replicas = len(os.sched_getaffinity(0)), strategy.num_replicas_in_sync
    for name in ("input", "compute", "all") if what == "all" else (what,):
        rates[name] = MEASURES[name](strategy, config, source)
        share = f"{rates[name] / cores:,.0f} a core" if name == "input" else f"{rates[name] / replicas:,.0f} a replica"
        print(f"{name:<8} {rates[name]:>10,.0f} images/s, {share}", flush=True)
    if what == "all":
        print(_advice(config, rates))


def _advice(config, rates):
    """What a run waits for, and what helps that is not on already."""
    if rates["input"] < rates["compute"]:
        helps = "more CPU cores, smaller image files, a lower --training_size or a lighter recipe"
        return f"Waiting for data. What helps: {helps}."
    precision = "--mixed_precision=bfloat16, " if config.mixed_precision == "none" else ""
    return f"Waiting for compute. What helps: {precision}more replicas or a smaller net."


def _input(strategy, config, source):
    """The pipeline alone, without a model."""
    own = _distributed(strategy, config, source)
    batches = itertools.chain.from_iterable(own(epoch) for epoch in itertools.count())
    return _rate(lambda: next(batches), config.batch_size)


def _compute(strategy, config, source):
    """Steps on one batch again and again."""

    def repeated(share):
        pieces = share.replicas * share.accumulation
        return input_pipeline.training_batches(source, config, epoch=0, share=share).take(pieces).cache().repeat()

    train_steps, totals = _train_steps(strategy, config, source)
    iterator = iter(strategies.distribute(strategy, repeated, config.accumulation))

    def step():
        train_steps(iterator, tf.constant(1), totals)[0].numpy()  # waits for the result

    return _rate(step, config.batch_size)


def _all(strategy, config, source):
    """Steps as in a run."""
    train_steps, totals = _train_steps(strategy, config, source)
    own, size = _distributed(strategy, config, source), input_pipeline.num_training_batches(source, config)
    steps_of_epochs = ((iterator, step) for iterator in map(iter, map(own, itertools.count())) for step in range(size))

    def step():
        iterator, _ = next(steps_of_epochs)
        train_steps(iterator, tf.constant(1), totals)[0].numpy()

    return _rate(step, config.batch_size)


MEASURES = {"input": _input, "compute": _compute, "all": _all}


def _distributed(strategy, config, source):
    def of_epoch(epoch):
        return strategies.distribute(
            strategy,
            lambda share: input_pipeline.training_batches(source, config, epoch=epoch, share=share),
            config.accumulation,
        )

    return of_epoch


def _train_steps(strategy, config, source):
    state = loop.build_state(strategy, source, config)
    use_xla = strategies.use_xla(config, strategy)
    totals = tf.zeros(len(steps.TOTALS), keras.config.floatx())
    return steps.make_train_steps(strategy, state, config, use_xla=use_xla), totals


def _rate(step, images):
    """Images a second, after three steps that count for nothing."""
    for _ in range(3):
        step()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        step()
        done += images
    return done / (time.perf_counter() - start)
