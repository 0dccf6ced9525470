"""One optimizer step on any number of replicas, many of them in one `tf.function`.

It is ours because Keras 3's `fit` clips per replica, cannot run many steps a call on several replicas, and cannot run
on several machines (../BUILD_NOTES.md, "Why our own loop"). Each replica adds up its images' gradients; one reduction
sums them, the moving statistics and the metrics over all replicas; what follows is the same computation on each.
"""

import dataclasses

import keras
import tensorflow as tf

from train.losses import LOSSES, cross_entropy, one_hot
from train.replicas import sum_over_replicas

TOTALS = ("loss", "top1", "count")  # what steps add up, in this order
FIRST_SCALE = 2.0**15  # of the loss under float16 (Micikevicius et al. 2018, arXiv 1710.03740, as in Keras)
STEPS_TO_DOUBLE = 2000  # steps without overflow after which it doubles


@dataclasses.dataclass(frozen=True)
class State:
    """All that steps change. Make it under the strategy's scope.

    Attributes:
        model: `keras.Model` of logits.
        optimizer: Keras optimizer, built.
        averages: Keras variables, the moving averages of `model.weights`; empty where the recipe has none.
        scaling: Keras variables, the loss scale and the steps since its last change; empty but under float16.
        sums: variables in which each replica adds up gradients and totals of the parts of a batch; empty for one part.
        teacher: None, or a `keras.Model` of logits whose answers are the targets, not the labels (arXiv 1503.02531).
    """

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    averages: list
    scaling: list
    sums: list
    teacher: keras.Model | None = None

    @property
    def variables(self):
        """What a checkpoint holds."""
        return self.model.variables + self.optimizer.variables + self.averages + self.scaling


def make_state(config, model, optimizer, teacher=None):
    """`State` of a run at its beginning: averages start at the weights.

    Args:
        config: `train.config.Config`.
        model: `keras.Model` of logits.
        optimizer: Keras optimizer, built.
        teacher: as of `State`.
    Returns:
        `State`.
    """

    def variable(value, name):
        return keras.Variable(value, trainable=False, name=name)

    weights = model.weights if config.ema else []
    averages = [variable(tf.convert_to_tensor(weight), f"average_{i}") for i, weight in enumerate(weights)]
    scaling = []
    if config.mixed_precision == "float16":
        scaling = [variable(FIRST_SCALE, "loss_scale"), variable(0.0, "steps_since_scaled")]
    sums = []
    if config.accumulation > 1:
        shapes = [(tuple(v.shape), v.dtype) for v in model.trainable_variables]
        shapes.append(((len(TOTALS),), keras.config.floatx()))
        sums = [
            tf.Variable(
                tf.zeros(shape, dtype),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
            for shape, dtype in shapes
        ]
    return State(model, optimizer, averages, scaling, sums, teacher)


def make_train_steps(strategy, state, config, *, use_xla=False):
    """Compiles many optimizer steps into one function.

    Args:
        strategy: `tf.distribute.Strategy`.
        state: `State`.
        config: `train.config.Config`.
        use_xla: whether to compile a replica's forward and backward pass with XLA.
    Returns:
        Function of (iterator of distributed `training_batches`, number of steps: int tensor, totals so far: (3,)) that
        trains and returns the sums `TOTALS` over all images, (3,), and the number of the first step whose loss
        was not finite, or -1.
    """
    backward = (
        tf.function(_make_backward(state, config), jit_compile=True) if use_xla else _make_backward(state, config)
    )
    update = _make_update(strategy, state, config)

    def whole_step(batch):
        return update(*backward(batch))

    def add_part(batch):
        gradients, totals = backward(batch)
        for total, value in zip(state.sums, (*gradients, totals), strict=True):
            total.assign_add(value)

    def last_step():
        values = [tf.convert_to_tensor(total) for total in state.sums]
        for total in state.sums:
            total.assign(tf.zeros_like(total))
        return update(values[:-1], values[-1])

    def step(iterator):
        if not state.sums:
            return strategy.run(whole_step, args=(next(iterator),))
        for _ in tf.range(config.accumulation):
            strategy.run(add_part, args=(next(iterator),))
        return strategy.run(last_step)

    @tf.function(reduce_retracing=True)
    def train_steps(iterator, num_steps, totals):
        first_bad = -1
        for number in tf.range(num_steps):
            added = strategy.experimental_local_results(step(iterator))[0]  # the same on each
            if first_bad < 0 and not tf.math.is_finite(added[0]):
                first_bad = number
            totals += added
        return totals, first_bad

    return train_steps


def make_test_steps(strategy, model):
    """Compiles the scoring of many batches into one function.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: `keras.Model` of logits, built under the strategy's scope.
    Returns:
        Function of (iterator of distributed `input_pipeline.evaluation_batches`, number of steps: int tensor)
        that returns the sums `TOTALS` over the images of weight 1: (3,).
    """

    def replica_step(batch):
        logits = model(batch["image"], training=False)
        losses = cross_entropy(one_hot(batch, logits), logits)
        weights = tf.cast(batch["weight"], losses.dtype)
        return sum_over_replicas([_totals(batch["label"], logits, losses * weights, weights)])[0]

    @tf.function(reduce_retracing=True)
    def test_steps(iterator, num_steps):
        totals = tf.zeros(len(TOTALS), keras.config.floatx())
        for _ in tf.range(num_steps):
            per_replica = strategy.run(replica_step, args=(next(iterator),))
            totals += strategy.experimental_local_results(per_replica)[0]
        return totals

    return test_steps


def make_swap(strategy, state):
    """Function that exchanges weights and their moving averages; called twice, nothing has changed."""

    def swap():
        for weight, average in zip(state.model.weights, state.averages, strict=True):
            kept = tf.identity(tf.convert_to_tensor(weight))
            weight.assign(average)
            average.assign(kept)

    return tf.function(lambda: strategy.run(swap) if state.averages else None)


def _make_backward(state, config):
    """Function from a replica's images to the gradients of their part of the loss, and their totals."""
    variables = state.model.trainable_variables

    def targets(batch, logits):
        if state.teacher is None:
            return one_hot(batch, logits)
        return tf.nn.softmax(tf.cast(state.teacher(batch["image"], training=False), keras.config.floatx()))

    def backward(batch):
        with tf.GradientTape() as tape:
            logits = state.model(batch["image"], training=True)
            losses = LOSSES[config.loss](targets(batch, logits), logits, config)
            loss = tf.reduce_sum(losses) / config.batch_size  # the sum over replicas is the global batch's mean
            loss = loss * tf.cast(state.scaling[0], loss.dtype) if state.scaling else loss
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        return gradients, _totals(batch["label"], logits, losses, tf.ones_like(losses))

    return backward


def _make_update(strategy, state, config):
    """Function from a replica's gradients and totals to the same update of every replica, and all totals."""
    statistics = [v for v in state.model.non_trainable_variables if v.name in ("moving_mean", "moving_variance")]
    ranges = [v for v in state.model.non_trainable_variables if v.name in ("range_low", "range_high")]
    num_replicas = strategy.num_replicas_in_sync

    def reduced(gradients, totals):
        if num_replicas == 1:
            return gradients, totals
        # Keras 3 lets every replica keep its own moving statistics and saves the first one's; we keep their mean, and
        # of the ranges of --qat the widest, which is the global batch's.
        own = [tf.convert_to_tensor(v) / num_replicas for v in statistics]
        widths = tf.stack([tf.zeros((), totals.dtype), *(tf.abs(tf.convert_to_tensor(v)) for v in ranges)])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        of_each = tf.one_hot(replica, num_replicas, dtype=widths.dtype)[:, None] * widths
        gradients_and_totals = [*gradients, totals]
        *values, of_each = sum_over_replicas([*gradients_and_totals, *own, of_each])
        for variable, mean in zip(statistics, values[len(gradients_and_totals) :], strict=True):
            variable.assign(mean)
        for variable, width in zip(ranges, tf.unstack(tf.reduce_max(of_each, axis=0))[1:], strict=True):
            variable.assign(-width if variable.name == "range_low" else width)
        return values[: len(gradients)], values[len(gradients)]

    def update(gradients, totals):
        gradients, totals = reduced(gradients, totals)
        if state.scaling:
            _scaled_update(state, gradients, config)
        else:
            _apply(state, gradients, config)
            state.optimizer.iterations.assign_add(1)
        return totals

    return update


def _scaled_update(state, gradients, config):
    """Undoes the loss scale; a step whose gradients overflowed is left out, and the scale halved."""
    scale, steps = state.scaling
    gradients = [gradient / tf.cast(scale, gradient.dtype) for gradient in gradients]
    finite = tf.math.is_finite(tf.linalg.global_norm(gradients))

    def apply():
        _apply(state, gradients, config)
        doubles = steps + 1 >= STEPS_TO_DOUBLE
        scale.assign(tf.where(doubles, scale * 2, scale))
        steps.assign(tf.where(doubles, 0.0, steps + 1))

    def skip():
        scale.assign(scale / 2)
        steps.assign(0.0)

    tf.cond(finite, apply, skip)
    iterations = state.optimizer.iterations
    iterations.assign_add(tf.cast(finite, iterations.dtype))


def _apply(state, gradients, config):
    """Clipping, weight decay, the optimizer's own step, moving averages: all on one replica."""
    if config.clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, config.clip_norm)
    rate = tf.cast(state.optimizer.learning_rate, keras.config.floatx())
    for gradient, variable in zip(gradients, state.model.trainable_variables, strict=True):
        decay = config.weight_decay if config.decay_all or variable.name == "kernel" else 0.0
        if decay and config.decoupled_decay:
            variable.assign(variable - rate * decay * variable)
        coupled = 0.0 if config.decoupled_decay else decay
        state.optimizer.update_step(gradient + coupled * variable if coupled else gradient, variable, rate)
    kept = _average_decay(state.optimizer.iterations, config)
    for average, weight in zip(state.averages, state.model.weights if state.averages else [], strict=True):
        average.assign(average * kept + weight * (1 - kept))


def _average_decay(steps, config):
    """Share that the averages keep: less at the beginning, so that they forget the random weights that they start at.

    As `tf.train.ExponentialMovingAverage` with num_updates.
    """
    steps = tf.cast(steps, keras.config.floatx())
    return tf.minimum(tf.cast(config.ema, steps.dtype), (1 + steps) / (10 + steps))


def _totals(labels, logits, losses, weights):
    hits = tf.cast(tf.argmax(logits, axis=-1) == labels, losses.dtype) * weights
    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(hits), tf.reduce_sum(weights)])
