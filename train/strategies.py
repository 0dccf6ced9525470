"""Distribution strategies by name. The loop does not know which one it runs under."""

import tensorflow as tf


def make(name, *, cpu_replicas=2):
    """The `tf.distribute.Strategy` of that name; call it before TensorFlow uses any device.

    Args:
        name: "default", one device; "mirrored", all GPUs of this machine, or logical CPU devices
            where it has none.
        cpu_replicas: logical CPU devices to make for "mirrored" without a GPU.
    Returns:
        `tf.distribute.Strategy`.
    Raises:
        ValueError: if there is no such strategy.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name != "mirrored":
        raise ValueError(f"Expected strategy to be default or mirrored. Received: {name!r}.")
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * cpu_replicas)
    return tf.distribute.MirroredStrategy([f"CPU:{replica}" for replica in range(cpu_replicas)])


def check_batch_size(batch_size, num_replicas):
    """Raises ValueError unless the global batch splits evenly over the replicas."""
    if batch_size % num_replicas:
        raise ValueError(
            "The global batch must split evenly over the replicas. "
            f"Received: batch_size={batch_size}, num_replicas={num_replicas}. Use a multiple of {num_replicas}."
        )
