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
    lost = re.search(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)[^:]*$", str(error), re.MULTILINE) or re.search(
        r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", str(error)
    )
    kind = type(error).__name__
    if re.search("ollective|oordination|heartbeat|[Cc]onnect", str(error)) and kind in _OF_A_CLUSTER:
        name = f"{lost[1]} {lost[2]}" if lost else "another worker"
        return (
            f"{name} is lost. Start the same command on all workers again: the run goes on from its last checkpoint.",
            LOST_WORKER,
        )
    if kind == "ResourceExhaustedError":
        return "the memory of a device is full. Use a smaller --batch_size, or --accumulation.", 2
    if kind in _OF_AN_IMAGE:
        return (
            f"an image could not be read: {error.message.splitlines()[0]} Start the same command again: image files are looked through at the start, and damaged ones left out.",
            2,
        )
    return f"TensorFlow stopped with {kind}: {error.message.splitlines()[0]}", 1


_OF_A_CLUSTER = (
    "UnavailableError", "InternalError", "AbortedError", "CancelledError", "DeadlineExceededError",
    "FailedPreconditionError", "UnknownError",
)  # fmt: skip
_OF_AN_IMAGE = ("InvalidArgumentError", "NotFoundError", "DataLossError", "PermissionDeniedError")
