"""Several worker processes on this machine, to try `--strategy=multi_worker` without a cluster."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time

import train

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
SECONDS_TO_END = 60  # that the other workers have after one has ended with an error


def run(num_workers, arguments):
    """Runs a command in several processes that find each other by TF_CONFIG on loopback.

    Signals go to all of them, and they end with this process, however it ends. The first one's output is shown as it
    is, the others' errors with their number.

    Args:
        num_workers: processes to start.
        arguments: what follows the Python interpreter on the command line of each.
    Returns:
        Exit code: 0, or that of the first worker that failed.
    Raises:
        ValueError: if there are fewer than two.
    """
    if num_workers < 2:
        raise ValueError(f"Expected --local_workers to be at least 2. Received: --local_workers={num_workers}.")
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(num_workers)]}
    workers = [_start(cluster, index, arguments) for index in range(num_workers)]

    def pass_on(number, frame):
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _wait(workers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for worker in workers:
            if worker.poll() is None:
                worker.kill()


def free_ports(count):
    """Ports of this machine that nothing listens on: list of int."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(cluster, index, arguments):
    environment = os.environ | {
        "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }
    output = None if index == 0 else subprocess.DEVNULL
    command = [sys.executable, "-m", "train.workers", str(os.getpid()), *arguments]
    # A session of its own, so that Ctrl-C reaches it once, through us.
    return subprocess.Popen(command, env=environment, stdout=output, start_new_session=True)


def become(launcher, arguments):
    """Turns this process into a Python command that is killed when its launcher ends, be it by kill -9.

    Rather here than between fork and exec, where Python may not be safe beside TensorFlow's threads.

    Args:
        launcher: process id of the parent.
        arguments: what follows the Python interpreter on the command line.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux alone has it
    if prctl:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == launcher:  # or it has ended already
        os.execv(sys.executable, [sys.executable, *arguments])


def _wait(workers):
    """Exit code of the run; ends the others when one has failed and they do not end by themselves."""
    deadline, code = None, 0
    while any(worker.poll() is None for worker in workers):
        failed = [(index, worker.poll()) for index, worker in enumerate(workers) if worker.poll()]
        if failed and deadline is None:
            (index, code), deadline = failed[0], time.monotonic() + SECONDS_TO_END
            if code < 0:
                print(f"Worker {index} was ended by {signal.Signals(-code).name}.", file=sys.stderr, flush=True)
        if deadline and time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return train.exit_code(code or next((worker.poll() for worker in workers if worker.poll()), 0))


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
