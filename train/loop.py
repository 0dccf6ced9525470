"""The training loop: `strategy.run` in one `tf.function` of many steps, driving Keras callbacks.

It is ours because Keras 3's `fit` clips per replica, cannot run many steps a call on several replicas,
and cannot run on several machines (../BUILD_NOTES.md, "Why our own loop").
"""

import math
import time

import keras
import tensorflow as tf

from train import data

TOTALS = ("loss", "top1", "count")  # what a step adds up, in this order


def learning_rate_schedule(config, steps_per_epoch):
    """The learning rate over the steps of a run.

    Args:
        config: `train.config.Config`.
        steps_per_epoch: whole number.
    Returns:
        `keras.optimizers.schedules.LearningRateSchedule`, or the rate itself where it is constant, so that
        callbacks may set it.
    """
    if config.schedule == "constant" and not config.warmup_epochs:
        return config.learning_rate
    steps, warmup = config.epochs * steps_per_epoch, round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=steps - warmup,
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    # He 2015, section 4.2: divided by 10 at 32k and 48k of 64k iterations.
    falls = [steps // 2, steps * 3 // 4] if config.schedule == "steps" else []
    rises = [warmup * part // 10 for part in range(1, 11)] if warmup else []
    rates = [config.learning_rate * part / 10 for part in range(1, 11)] if warmup else []
    rates += [config.learning_rate / 10**fall for fall in range(len(falls) + 1)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(rises + falls, rates)


def make_train_steps(strategy, model, optimizer, *, weight_decay, label_smoothing):
    """Compiles many optimizer steps into one function.

    Each replica's loss is divided by the images of all, so that the sum of gradients over the replicas,
    which the optimizer takes once, is the global batch's. Each replica adds its share of the L2 term.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: `keras.Model` of logits, built under the strategy's scope.
        optimizer: Keras optimizer, built under the strategy's scope.
        weight_decay: coupled L2 on kernels.
        label_smoothing: share from 0 to 1.
    Returns:
        Function of (iterator of distributed batches, number of steps: int tensor) that trains and
        returns the sums `TOTALS` over all images: (3,).
    """
    variables = model.trainable_variables
    decayed = [variable.name == "kernel" for variable in variables]
    statistics = [v for v in model.non_trainable_variables if v.name in ("moving_mean", "moving_variance")]

    def replica_step(batch):
        num_replicas = strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            logits = model(batch["image"], training=True)
            losses = cross_entropy(batch["label"], logits, label_smoothing)
            loss = tf.reduce_sum(losses) / tf.cast(tf.size(losses) * num_replicas, losses.dtype)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        gradients = [
            gradient + weight_decay / num_replicas * variable if decays else gradient
            for gradient, variable, decays in zip(gradients, variables, decayed, strict=True)
        ]
        optimizer.apply(gradients, variables)
        return _totals(batch["label"], logits, losses, tf.ones_like(losses))

    def average_statistics():
        # Keras 3 lets every replica keep its own moving statistics and saves the first one's. They are
        # linear in the batches, so that averaging them now and then is averaging them at every step.
        context = tf.distribute.get_replica_context()
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, [tf.convert_to_tensor(v) for v in statistics])
        for variable, mean in zip(statistics, means, strict=True):
            variable.assign(mean)

    @tf.function(reduce_retracing=True)
    def train_steps(iterator, num_steps):
        totals = tf.zeros(len(TOTALS), keras.config.floatx())
        for _ in tf.range(num_steps):
            per_replica = strategy.run(replica_step, args=(next(iterator),))
            totals += strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
        if statistics:
            strategy.run(average_statistics)
        return totals

    return train_steps


def make_test_steps(strategy, model):
    """Compiles the scoring of many batches into one function.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: `keras.Model` of logits, built under the strategy's scope.
    Returns:
        Function of (iterator of distributed `data.evaluation_batches`, number of steps: int tensor)
        that returns the sums `TOTALS` over the images of weight 1: (3,).
    """

    def replica_step(batch):
        logits = model(batch["image"], training=False)
        losses = cross_entropy(batch["label"], logits)
        weights = tf.cast(batch["weight"], losses.dtype)
        return _totals(batch["label"], logits, losses * weights, weights)

    @tf.function(reduce_retracing=True)
    def test_steps(iterator, num_steps):
        totals = tf.zeros(len(TOTALS), keras.config.floatx())
        for _ in tf.range(num_steps):
            per_replica = strategy.run(replica_step, args=(next(iterator),))
            totals += strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
        return totals

    return test_steps


def cross_entropy(labels, logits, label_smoothing=0.0):
    """Cross entropy of each image: int (n,), float (n, classes) -> (n,) in `keras.config.floatx()`."""
    logits = tf.cast(logits, keras.config.floatx())
    targets = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def fit(strategy, model, optimizer, source, config, callbacks, initial_epoch=0):
    """Trains to the end of the run and scores the validation split after each epoch.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: `keras.Model` of logits, built under the strategy's scope.
        optimizer: Keras optimizer, built under the strategy's scope.
        source: `train.data.Source`.
        config: `train.config.Config`.
        callbacks: list of `keras.callbacks.Callback`; they get loss, accuracy, val_loss, val_accuracy,
            learning_rate and images_per_second after each epoch, and may set `model.stop_training`.
        initial_epoch: epochs already done.
    """
    steps_per_epoch = num_steps(source, config)
    train_steps = make_train_steps(
        strategy, model, optimizer, weight_decay=config.weight_decay, label_smoothing=config.label_smoothing
    )
    test_steps = make_test_steps(strategy, model)
    validation = data.evaluation_batches(source, "validation", config.batch_size)
    validation = strategy.experimental_distribute_dataset(validation)
    test_size = tf.constant(math.ceil(data.find_split(source, "validation").num_images / config.batch_size))
    params = {"epochs": config.epochs, "steps": steps_per_epoch, "verbose": 0}
    with strategy.scope():
        model.compile(optimizer=optimizer)  # callbacks look for model.optimizer
    callbacks = keras.callbacks.CallbackList(callbacks, model=model, **params)
    model.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(initial_epoch, config.epochs):
        callbacks.on_epoch_begin(epoch)
        logs = _train_epoch(strategy, train_steps, source, config, epoch, callbacks)
        callbacks.on_test_begin()
        totals = test_steps(iter(validation), test_size)
        scores = {f"val_{name}": value for name, value in means(totals).items()}
        callbacks.on_test_end(scores)
        logs |= scores | {"learning_rate": float(tf.convert_to_tensor(optimizer.learning_rate))}
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    callbacks.on_train_end()


def num_steps(source, config):
    """Optimizer steps in one epoch."""
    return data.num_training_batches(source, config.batch_size)


def means(totals):
    """Loss and accuracy from the sums `TOTALS`."""
    sums = dict(zip(TOTALS, (float(total) for total in totals), strict=True))
    return {"loss": sums["loss"] / sums["count"], "accuracy": sums["top1"] / sums["count"]}


def _train_epoch(strategy, train_steps, source, config, epoch, callbacks):
    """One epoch; returns its means and its speed."""
    batches = data.training_batches(
        source,
        config.batch_size,
        seed=config.seed,
        epoch=epoch,
        crop_padding=config.crop_padding,
        flip=config.flip,
    )
    iterator = iter(strategy.experimental_distribute_dataset(batches))
    totals, done, steps = tf.zeros(len(TOTALS), keras.config.floatx()), 0, num_steps(source, config)
    start = time.perf_counter()
    while done < steps:
        several = min(config.steps_per_execution, steps - done)
        callbacks.on_train_batch_begin(done)
        totals += train_steps(iterator, tf.constant(several))
        done += several
        callbacks.on_train_batch_end(done - 1, means(totals))
    seconds = time.perf_counter() - start
    return means(totals) | {"images_per_second": math.floor(steps * config.batch_size / seconds)}


def _totals(labels, logits, losses, weights):
    hits = tf.cast(tf.argmax(logits, axis=-1) == labels, losses.dtype) * weights
    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(hits), tf.reduce_sum(weights)])
