"""What runs calls in the processes of Ray. It travels by value, with the modules that functions need: the nodes of a
Ray cluster need nothing of the platform, only the Python and the Ray that the driver has.

A call says what a function worker says to its agent (uccp_worker), and the driver passes it on. A plain call says all
of it at its end; one of a generator as it goes; an object that stays, whenever it is asked.
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import sys
import tempfile
import threading
import types
import zlib
from collections.abc import Callable, Iterator
from typing import Any

Packet = tuple[str, bytes]
OUTPUT_BYTES_MAX = 4 << 20  # of what a plain call prints; the rest is left out
PULLED_BYTES = 1 << 20  # of what an object says that go in one answer
# Each behind those that it imports.
MODULES = ("uccp_packed", "uccp_memory", "uccp_worker", "uccp_actor", "uccp_step")


def packed_modules() -> bytes:
    """The source of the modules that functions need."""
    sources = {}
    for name in MODULES:
        file = importlib.import_module(name).__file__
        with open(str(file)) as source:
            sources[name] = source.read()
    return zlib.compress(pickle.dumps(sources))


def made_module(name: str, source: str) -> Any:
    module = types.ModuleType(name)
    module.__file__ = f"/uccp/{name}.py"
    sys.modules[name] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)  # noqa: S102: our own, or that of Ray
    return module


def have_cloudpickle() -> None:
    """Where it is not installed, that of Ray under the name that it has elsewhere: what it pickles names it."""
    try:
        importlib.import_module("cloudpickle")
    except ImportError:
        with open(str(importlib.import_module("ray.cloudpickle.cloudpickle").__file__)) as source:
            inner = made_module("cloudpickle.cloudpickle", source.read())
        outer = types.ModuleType("cloudpickle")
        outer.__dict__.update({name: value for name, value in vars(inner).items() if not name.startswith("__")})
        outer.__dict__["cloudpickle"] = inner
        sys.modules["cloudpickle"] = outer


def worker_module(modules: bytes) -> Any:
    """The module uccp_worker in this process, made from what came along."""
    if MODULES[-1] not in sys.modules:
        have_cloudpickle()
        for name, source in pickle.loads(zlib.decompress(modules)).items():
            made_module(name, source)
        os.chdir(tempfile.mkdtemp(prefix="uccp-"))
    return sys.modules["uccp_worker"]


class Gathered:
    """What is said by a call, kept until somebody takes it."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self._room = OUTPUT_BYTES_MAX

    def send(self, kind: str, body: bytes) -> None:
        if kind == "O":
            if len(body) > self._room:
                if self._room:
                    note = b"\2uccp: what the call prints beyond this is left out\n"
                    self.packets.append(("O", note))
                self._room = 0
                return
            self._room -= len(body)
        self.packets.append((kind, body))

    def take(self) -> list[Packet]:
        taken, self.packets = self.packets, []
        self._room = OUTPUT_BYTES_MAX
        return taken


def packets_of(
    modules: bytes, source: bytes, body: bytes, files: tuple[bytes, ...], streams: bool
) -> Iterator[list[Packet]]:
    """Runs a call; what it says, in pieces."""
    worker = worker_module(modules)
    functions = vars(worker).setdefault("functions_of_ray", worker.Functions())
    link = Gathered()
    streams_before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = worker.Output(link, 1), worker.Output(link, 2)
    try:
        running = worker.Worker(link, functions, streams=streams)
        for packet in running.packets(body + worker.field("s", source), list(files)):
            sys.stdout.flush()
            sys.stderr.flush()
            yield [*link.take(), packet]
    finally:
        sys.stdout, sys.stderr = streams_before


def plain(modules: bytes, source: bytes) -> Callable[..., list[Packet]]:
    """A function of Ray that runs calls; of a generator it says S and runs nothing."""

    def call(body: bytes, *files: bytes) -> list[Packet]:
        return [packet for piece in packets_of(modules, source, body, files, False) for packet in piece]

    return call


def streaming(modules: bytes, source: bytes) -> Callable[..., Iterator[list[Packet]]]:
    """A function of Ray that yields what calls of a generator say."""

    def call(body: bytes, *files: bytes) -> Iterator[list[Packet]]:
        yield from packets_of(modules, source, body, files, True)

    return call


class Host:
    """A process of Ray with an object that stays. Packets are put into it, and what it says is fetched."""

    def __init__(self, modules: bytes, source: bytes, body: bytes, *files: bytes) -> None:
        worker = worker_module(modules)
        inside, outside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link = worker.Link(outside)
        link = worker.Link(inside)
        sys.stdout, sys.stderr = worker.Output(link, 1), worker.Output(link, 2)
        running = worker.Worker(link)

        def serve() -> None:
            for kind, content in running.packets(body + worker.field("s", source), list(files)):
                link.send(kind, content)

        threading.Thread(target=serve, name="uccp-actor", daemon=True).start()

    def push(self, packets: list[Packet]) -> None:
        for kind, body in packets:
            self._link.send(kind, body)

    def pull(self) -> list[Packet]:
        """Waits until the object says something."""
        packets = [self._receive()]
        size = len(packets[0][1])
        while size < PULLED_BYTES and self._link.readable():
            packets.append(self._receive())
            size += len(packets[-1][1])
        return packets

    def _receive(self) -> Packet:
        kind, body, _ = self._link.receive()
        return kind, bytes(body)
