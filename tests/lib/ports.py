"""Ports for what cannot choose its own, or has to keep it over restarts. No other test of this user gets them as long as this
process lives, though nobody listens there: each is a locked byte of a file, and the system unlocks it with the process."""
import fcntl
import functools
import os
import pathlib
import random
import socket
import tempfile

# Below the ports that `--ports auto` gives to clusters, and those that the system gives to outgoing connections.
FIRST, END = 12_000, 20_000
HELD = set()


@functools.cache
def _file():
    path = pathlib.Path(tempfile.gettempdir(), f"uccp-test-ports-{os.getuid()}")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _hold(port):
    try:
        fcntl.lockf(_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    HELD.add(port)
    return True


def free_ports(count):
    found = []
    begin = random.SystemRandom().randrange(END - FIRST)
    for step in range(END - FIRST):
        port = FIRST + (begin + step) % (END - FIRST)
        if port not in HELD and _hold(port) and _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports from {FIRST} to {END - 1}")


def port_flags():
    """Flags that give a node of Node(ports="") the same ports at each start, all that it has by default."""
    keys = ("grpc", "https", "metrics", "etcd", "dns")
    return [word for key, port in zip(keys, free_ports(len(keys))) for word in (f"--{key}-port", port)]
