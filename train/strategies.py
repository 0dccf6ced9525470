"""Distribution strategies by name, and what the processes of one must agree on. The loop does not know its strategy."""

import functools
import json
import os
import re

import numpy as np
import tensorflow as tf

from train import damage, data, input_pipeline, rendezvous, run_folder


def make(config):
    """The `tf.distribute.Strategy` of a run; call it before TensorFlow uses any device.

    Args:
        config: `train.config.Config`: "default" is one device; "mirrored" all GPUs of this machine, or
            `cpu_replicas` logical CPU devices where it has none; "multi_worker" the processes that TF_CONFIG or SLURM
            names; "tpu" the TPU that TPU_NAME names, or the local one.
    Returns:
        `tf.distribute.Strategy`.
    Raises:
        ValueError: if the cluster or the device is not there.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return STRATEGIES[config.strategy](config)


def _mirrored(config):
    if tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    cpu, devices = tf.config.list_physical_devices("CPU")[0], config.cpu_replicas
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"CPU:{replica}" for replica in range(devices)])


def _multi_worker(config):
    if "TF_CONFIG" in os.environ:
        resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    elif "SLURM_PROCID" in os.environ:
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(**_slurm_options())
    else:
        raise ValueError(
            "Expected TF_CONFIG, or a SLURM job step, to name the workers of --strategy=multi_worker. Received: "
            "neither. To try it on this machine: --local_workers=2."
        )
    hosts = _check_cluster(resolver)
    rendezvous.meet(hosts, _place(resolver))
    return tf.distribute.MultiWorkerMirroredStrategy(resolver)


def _place(resolver):
    """Number of this process among all workers, of which a chief is the first."""
    has_chief = "chief" in resolver.cluster_spec().as_dict()
    return resolver.task_id + (1 if has_chief and resolver.task_type == "worker" else 0)


def _slurm_options():
    """What the resolver, which asks nvidia-smi otherwise, must be told without GPUs: one a task, to be left alone."""
    if tf.config.list_physical_devices("GPU"):
        return {}
    text = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1")
    found = re.fullmatch(r"(\d+)(\(x\d+\))?", text)  # "2(x3)": two tasks on each of three nodes
    if not found:
        raise ValueError(
            "Expected as many tasks on each node of the SLURM job step. Received: "
            f"SLURM_STEP_TASKS_PER_NODE={text}. Pass --ntasks-per-node to srun."
        )
    return {"gpus_per_node": int(found[1]), "gpus_per_task": 1, "auto_set_gpu": False}


def _tpu(config):
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect(os.environ.get("TPU_NAME", "local"))
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"Expected a TPU, named by TPU_NAME. Received: {str(error).splitlines()[0]}") from error
    return tf.distribute.TPUStrategy(resolver)


STRATEGIES = {
    "default": lambda config: tf.distribute.get_strategy(),
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}


def _check_cluster(resolver):
    """Addresses of the workers; raises ValueError unless there are no others, and this process is one of them."""
    try:
        jobs, task = resolver.cluster_spec().as_dict(), (resolver.task_type, resolver.task_id)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"TF_CONFIG is not read. Expected JSON with cluster and task. Received: {error}.") from error
    hosts = jobs.get(task[0], [])
    if not {*jobs} <= {"chief", "worker"} or not (task[1] is not None and 0 <= task[1] < len(hosts)):
        raise ValueError(
            'Expected TF_CONFIG={"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: jobs {sorted(jobs)}, task {task}."
        )
    addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
    if not all(re.search(r":\d+$", address) for address in addresses):
        raise ValueError(f"Expected each worker of TF_CONFIG as host:port. Received: {', '.join(addresses)}.")
    return addresses


def use_xla(config, strategy):
    """Whether to compile with XLA: on one GPU by default, never on several replicas."""
    on_gpu = bool(tf.config.list_logical_devices("GPU")) and strategy.num_replicas_in_sync == 1
    return config.jit == "on" or (config.jit == "auto" and on_gpu)


def check(config, num_replicas):
    """Checks what a configuration asks of so many replicas.

    Raises:
        ValueError: if the global batch does not split evenly over them, or into pairs where images are mixed, or XLA is
            asked for, which crashes on several.
    """
    pieces = num_replicas * config.accumulation
    if config.batch_size % pieces:
        parts = f", accumulation={config.accumulation}" if config.accumulation > 1 else ""
        raise ValueError(
            "The global batch must split evenly over the replicas. Received: "
            f"batch_size={config.batch_size}, num_replicas={num_replicas}{parts}. Use a multiple of {pieces}."
        )
    if (config.mixup or config.cutmix) and config.batch_size // pieces % 2:
        raise ValueError(
            "Mixup and cutmix need pairs of images on each replica. Received: "
            f"batch_size={config.batch_size}, num_replicas={num_replicas}. Use a multiple of {2 * pieces}."
        )
    if config.jit == "on" and num_replicas > 1:
        raise ValueError(
            "Expected one replica with --jit=on: TensorFlow's XLA crashes on several. Received: "
            f"{num_replicas} replicas. Use --jit=auto."
        )


def num_processes(strategy):
    """Processes that train together."""
    if not is_multi_worker(strategy):
        return 1
    return sum(map(len, strategy.cluster_resolver.cluster_spec().as_dict().values()))


def is_multi_worker(strategy):
    """Whether other processes take part."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy):
    """Whether this process writes files and speaks: the chief, or the first worker."""
    if not is_multi_worker(strategy):
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" if has_chief else resolver.task_id == 0


def distribute(strategy, make_batches, accumulation=1):
    """Distributed dataset whose every process prepares its share of each batch alone.

    Args:
        strategy: `tf.distribute.Strategy`.
        make_batches: function from `input_pipeline.Share` to `tf.data.Dataset`.
        accumulation: parts that a batch is worked through in.
    """

    def own_batches(context):
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return make_batches(
            input_pipeline.Share(context.input_pipeline_id, context.num_input_pipelines, replicas, accumulation)
        )

    return strategy.distribute_datasets_from_function(own_batches)


def from_chief(strategy, function):
    """Calls a function on the chief alone and gives its result, or its refusal, to all processes.

    Args:
        strategy: `tf.distribute.Strategy`.
        function: function without arguments whose result JSON can hold.
    Raises:
        ValueError: in every process, if the function raised one.
    """
    if not is_multi_worker(strategy):
        return function()
    answer = {}
    if is_chief(strategy):
        try:
            answer = {"result": function()}
        except (ValueError, OSError) as error:
            answer = {"error": str(error)}
    text = json.dumps(answer).encode() if answer else b""
    (length,) = _sum(strategy, [np.array(len(text), "int64")])
    padded = np.zeros(int(length), "int32")
    padded[: len(text)] = np.frombuffer(text, "uint8")
    (received,) = _sum(strategy, [padded])
    answer = json.loads(bytes(received.astype("uint8")))
    if "error" in answer:
        raise ValueError(answer["error"])
    return answer["result"]


def load_data(strategy, config, *, unchanged=False):
    """The images of a run without damaged files, which the chief finds for all processes.

    Args:
        strategy: `tf.distribute.Strategy`.
        config: `train.config.Config`.
        unchanged: whether they must be those that the run in the run folder, if there is one, began with.
    Returns:
        `train.sources.Source`, and the report of `train.damage.look`.
    Raises:
        ValueError: if the source cannot be opened, has changed, or has damaged files and the run is strict.
    """
    source = data.load_for_run(config)
    report = from_chief(strategy, lambda: damage.look(source, run_folder.damaged_images(config), unchanged=unchanged))
    return damage.leave_out(source, report, strict=config.strict), report


def variables_from_chief(strategy, variables):
    """Gives every process the chief's values of all variables."""
    if not is_multi_worker(strategy):
        return
    chief = is_chief(strategy)
    for variable in variables:
        value = np.asarray(variable)
        own = value if chief else np.zeros_like(value)
        (received,) = _sum(strategy, [own])
        variable.assign(received)


def any_process(strategy, flag):
    """Whether the flag is set in any of the processes."""
    if not is_multi_worker(strategy):
        return flag
    return bool(_sum(strategy, [np.array(flag, "int64")])[0])


def _sum(strategy, arrays):
    """Sums of arrays over the processes."""
    results = _summing(strategy)(*map(tf.constant, arrays))
    return [strategy.experimental_local_results(result)[0].numpy() for result in results]


@functools.cache
def _summing(strategy):
    """Compiled function that sums tensors over the processes, to which each one's first replica brings its own."""
    local = strategy.num_replicas_in_sync // num_processes(strategy)

    @tf.function
    def total(*values):
        def replica():
            context = tf.distribute.get_replica_context()
            counts = context.replica_id_in_sync_group % local == 0
            own = [value if counts else tf.zeros_like(value) for value in values]
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in own]

        return strategy.run(replica)

    return total
