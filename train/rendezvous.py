"""Workers wait for each other here, in Python, before TensorFlow makes them a cluster.

TensorFlow would wait in C++, for as long as it takes, without a word and deaf to SIGTERM and Ctrl-C.
"""

import contextlib
import socket
import time

SECONDS_UNTIL_TOLD = 5.0  # of waiting
POLL_SECONDS = 0.5
GO = b"go"


def meet(addresses, index):
    """Returns once every worker of the cluster has called this.

    They meet at the first worker's own address, which TensorFlow takes over afterwards.

    Args:
        addresses: list of "host:port", of all workers.
        index: this process's place among them.
    Raises:
        OSError: if the first worker's port is taken.
    """
    if index == 0:
        _gather(addresses)
    else:
        _join(addresses, index)


def _gather(addresses):
    """Waits for all others to connect and say their number; tells them to go on."""
    port, start, was_told = int(addresses[0].rpartition(":")[2]), time.monotonic(), False
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port)))
        server.settimeout(POLL_SECONDS)
        found = {}
        while len(found) < len(addresses) - 1:
            with contextlib.suppress(TimeoutError, ValueError, ConnectionError):
                connection = stack.enter_context(server.accept()[0])
                connection.settimeout(POLL_SECONDS)
                number = int(connection.recv(16))
                connection.setblocking(False)
                if 0 < number < len(addresses):
                    found[number] = connection
            found = {number: connection for number, connection in found.items() if _is_alive(connection)}
            if not was_told and time.monotonic() - start > SECONDS_UNTIL_TOLD:
                missing = [f"{i} at {addresses[i]}" for i in range(1, len(addresses)) if i not in found]
                print(f"Waiting for worker {', '.join(missing)}.", flush=True)
                was_told = True
        for connection in found.values():
            connection.settimeout(None)
            connection.sendall(GO)
        for connection in found.values():
            connection.recv(1)  # its end: who closes first keeps the port busy for a while


def _is_alive(connection):
    try:
        return connection.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _join(addresses, index):
    """Connects to the first worker, again and again until it answers."""
    host, _, port = addresses[0].rpartition(":")
    start, was_told = time.monotonic(), False
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 2) as connection:
            connection.settimeout(None)
            connection.sendall(str(index).encode())
            if connection.recv(len(GO)) == GO:
                return
        if not was_told and time.monotonic() - start > SECONDS_UNTIL_TOLD:
            print(f"Waiting for worker 0 at {addresses[0]}.", flush=True)
            was_told = True
        time.sleep(POLL_SECONDS)
