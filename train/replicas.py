"""What the replicas of a strategy share, and what each has for itself."""

import tensorflow as tf


def sum_over_replicas(values):
    """Sums of tensors over all replicas, in one reduction; call it on a replica.

    Args:
        values: list of float tensors of static shapes and one dtype.
    Returns:
        list of tensors of the same shapes.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return values
    flat = tf.concat([tf.reshape(value, (-1,)) for value in values], axis=0)
    flat = context.all_reduce(tf.distribute.ReduceOp.SUM, flat)
    sizes = [value.shape.num_elements() for value in values]
    return [tf.reshape(part, value.shape) for part, value in zip(tf.split(flat, sizes), values, strict=True)]


def vary_dropout(strategy, model):
    """Gives the replicas other dropout masks: Keras seeds all of them alike.

    Args:
        strategy: `tf.distribute.Strategy`.
        model: `keras.Model` built under its scope.
    """
    states = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    if strategy.num_replicas_in_sync == 1 or not states:
        return

    def vary():
        replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int64)
        for state in states:
            key = tf.cast(tf.convert_to_tensor(state), tf.int64) + tf.stack([replica, 0])
            state.assign(tf.cast(key, state.dtype))

    tf.function(lambda: strategy.run(vary))()
