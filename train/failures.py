"""What TensorFlow's errors mean for the user of a run, in a line."""

import re

LOST_WORKER = 3  # exit code: a restart of all workers goes on


def explain(error):
    """A line that says what is wrong, and the exit code.

    Args:
        error: `tf.errors.OpError`.
    Returns:
        str and whole number.
    """
    kind, reason = type(error).__name__, re.sub(r"^\{\{.*?\}\} ", "", error.message.partition("\n")[0])
    if kind in _OF_A_CLUSTER and re.search("ollective|oordination|heartbeat|onnect", error.message):
        tasks = re.findall(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", error.message)
        name = " ".join(tasks[-1]) if tasks else "another worker"
        return (
            f"{name} is lost. Start the same command on all workers again: the run goes on from its last checkpoint.",
            LOST_WORKER,
        )
    if kind == "ResourceExhaustedError":
        return "the memory of a device is full. Use a smaller --batch_size, or --accumulation.", 2
    if kind in _OF_AN_IMAGE and re.search(_READING, error.message):
        return (
            f"an image could not be read: {reason} Start the same command again: image files are looked through at the "
            "start, and damaged ones left out.",
            2,
        )
    return f"TensorFlow stopped with {kind}: {reason}", 1


_OF_A_CLUSTER = (
    "UnavailableError", "InternalError", "AbortedError", "CancelledError", "DeadlineExceededError",
    "FailedPreconditionError", "UnknownError",
)  # fmt: skip
_OF_AN_IMAGE = ("InvalidArgumentError", "NotFoundError", "DataLossError", "PermissionDeniedError")
# TensorFlow's operations that read and decode, or what they say.
_READING = r"(?i)decode_?(jpeg|png|bmp|gif|image|and)|\b(jpeg|png|bmp|gif)\b|readfile|no such file|denied|record at"
