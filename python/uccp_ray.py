"""The driver of Ray that an agent owns: runs calls of functions as tasks and actors of a Ray cluster.

Started as `python -m uccp_ray` with the socket of its agent in the environment. The messages are those of
docs/design/ray.md. Ray runs each attempt once: whether it is repeated is decided by the platform. Nothing that
functions make is unpickled here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import math
import os
import platform
import socket
import struct
import sys
import threading
import traceback
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import uccp_ray_task
import uccp_worker
from uccp_worker import INLINE_BYTES, Link, field, fields

SOCKET, SECRET, EPOCH, ADDRESS = "UCCP_RAY_SOCKET", "UCCP_RAY_SECRET", "UCCP_RAY_EPOCH", "UCCP_RAY_ADDRESS"
REACH_S = 5.0  # to connect to a port
CONNECT_S = 90.0  # to be let in
NOT_LET_IN = (
    "{address} answers and does not let this driver in within {seconds:g} s; a cluster that asks for a token needs it "
    "in RAY_AUTH_TOKEN of the agent's environment, with RAY_AUTH_MODE=token. ray.log in the agent's folder has what "
    "Ray says"
)
CHECK_S = 5.0  # between two looks whether Ray is still there
CHECKS_MAX = 3  # that fail one after the other
ARGUMENT_BYTES = 100 << 10  # larger arguments are objects of Ray, kept for further calls
ARGUMENTS_MAX = 64
AHEAD = 16  # pieces of a generator that Ray runs ahead of us
QUEUE_BYTES_MAX = 16 << 20  # for the agent; generators wait for it
LOST, REFUSED, CRASHED = b"lost", b"refused", b"crashed"


class Unreachable(Exception):
    """There is no Ray that this process can use."""


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise Unreachable(f"{address!r} is no address of Ray: it is auto, HOST:PORT or ray://HOST:PORT")
    return host.strip("[]"), int(port)


def reach(address: str) -> None:
    """Raises Unreachable when nobody listens. Ray itself tries for a minute."""
    host, port = host_and_port(address)
    try:
        socket.create_connection((host, port), REACH_S).close()
    except OSError as error:
        raise Unreachable(f"nobody answers at {host}:{port}: {error}; is Ray running there (ray status)?") from error


def use_token() -> None:
    """A token that is there is shown, as Ray's own programs do that start a cluster."""
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or os.path.expanduser("~/.ray/auth_token")
    if "RAY_AUTH_TOKEN" in os.environ or os.path.exists(file):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def connect(address: str) -> tuple[Any, str]:
    """Ray, connected, and where it is looked for afterwards. Raises Unreachable."""
    use_token()
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise Unreachable(
            f"{sys.executable} has no package ray: {error}; install the version that the cluster has, as in "
            "`pip install ray==2.60.0`, with [client] for ray://"
        ) from error
    is_client = address.startswith("ray://")
    target = address.removeprefix("ray://")
    if address != "auto":
        reach(target)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    try:
        ray.init(address=address, **({} if is_client else quiet))
    except Exception as error:
        versions = f"this is Ray {ray.__version__} with Python {platform.python_version()}"
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Unreachable(f"{type(error).__name__}: {reason.strip()} ({versions})") from error
    return ray, target if is_client else ray.get_runtime_context().gcs_address


def resources_of(cpu_millis: int, memory: int) -> dict[str, Any]:
    """What a call asks for, as Ray has it: more than one core only as whole ones."""
    cpus = cpu_millis / 1000
    found: dict[str, Any] = {"num_cpus": math.ceil(cpus) if cpus > 1 else cpus}
    if memory:
        found["memory"] = memory
    return found


class Function:
    """Code that the agent has told of, as functions of Ray, which sends them to a process once."""

    def __init__(self, ray: Any, modules: bytes, name: str, source: bytes) -> None:
        self._ray, self._modules, self.name, self._source = ray, modules, name, source
        self.is_generator = False  # as the first call of one says
        self._made: dict[tuple[Any, ...], Any] = {}

    def with_options(self, kind: str, options: dict[str, Any]) -> Any:
        key = (kind, json.dumps(options, sort_keys=True))
        if key not in self._made:
            if kind == "actor":
                groups = {"in": 1, "out": 1}
                self._ray.method(concurrency_group="in")(uccp_ray_task.Host.push)
                self._ray.method(concurrency_group="out")(uccp_ray_task.Host.pull)
                once = self._ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)
                self._made[key] = once(uccp_ray_task.Host).options(**options)
            else:
                make = getattr(uccp_ray_task, kind)(self._modules, self._source)
                make.__name__ = make.__qualname__ = self.name  # in Ray's dashboard
                more = {"num_returns": "streaming", "_generator_backpressure_num_objects": AHEAD}
                made = self._ray.remote(max_retries=0)(make)
                self._made[key] = made.options(**(more if kind == "streaming" else {}), **options)
        return self._made[key]

    def actor(self, options: dict[str, Any], body: bytes, files: list[Any]) -> Any:
        return self.with_options("actor", options).remote(self._modules, self._source, body, *files)


class Call:
    """A call that Ray has."""

    def __init__(self, number: bytes, function: Function, options: dict[str, Any], body: bytes) -> None:
        self.number, self.function, self.options, self.body = number, function, options, body
        self.files: list[Any] = []
        self.ref: Any = None  # what can be cancelled: a reference, or a generator
        self.host: Any = None  # of an actor
        self.pushes: list[tuple[str, bytes]] = []  # that wait for the one under way
        self.pushing = False
        self.stopping = False
        self.answered = False
        self.task: asyncio.Task[None] | None = None


class Sidecar:
    def __init__(self, ray: Any, address: str, link: Link, connection: socket.socket, is_client: bool) -> None:
        self._ray, self._address, self._link, self._connection = ray, address, link, connection
        self._is_client = is_client
        self._modules = uccp_ray_task.packed_modules()
        self._functions: dict[str, Function] = {}
        self._calls: dict[bytes, Call] = {}
        self._arguments: OrderedDict[tuple[int, int, int], Any] = OrderedDict()
        self._pending: list[bytes] = []  # messages of this turn
        self._queue: deque[bytes] = deque()  # packets
        self._queue_bytes = 0
        self._room = asyncio.Event()
        self._taken = 0
        self._ended: deque[tuple[Call, Any, BaseException | None]] = deque()
        self._waking = False
        self._over: asyncio.Future[None] | None = None
        self._flushing = False

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = self._loop.create_future()
        self._room.set()
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection.fileno(), self._readable)
        watch = self._loop.create_task(self._watch())
        await asyncio.wait([self._over, watch], return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            watch.result()
        self._over.result()

    async def _watch(self) -> None:
        """Ends this process when Ray is gone, so that the agent knows."""
        failed = 0
        while failed < CHECKS_MAX:
            await asyncio.sleep(CHECK_S)
            try:
                await self._loop.run_in_executor(None, reach, self._address)
                failed = 0
            except Unreachable as error:
                failed += 1
                print(f"uccp_ray: {error}", file=sys.stderr, flush=True)
        raise Unreachable("Ray is gone")

    # From the agent -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            _, body, files = self._link.receive()
        except BlockingIOError:
            return
        except (EOFError, OSError) as error:
            if self._over is not None and not self._over.done():
                self._over.set_exception(error)
            return
        for kind, message in messages(body):
            content = {chr(tag): value for tag, value in fields(message)}
            getattr(self, f"_on_{kind}")(content, files)
        self._taken += 1
        self._flush_soon()

    def _on_F(self, content: dict[str, bytes], _: list[int]) -> None:
        function = Function(self._ray, self._modules, content["n"].decode(), content["s"])
        if "z" in content:
            self._functions.clear()
        self._functions[content["f"].decode()] = function

    def _on_C(self, content: dict[str, bytes], files: list[int]) -> None:
        options = resources_of(int(content["u"]), int(content["y"]))
        # Ray shares no process between calls of different environments, so namespaces share none.
        names = {"UCCP_TENANT": content["t"].decode(), "UCCP_NAMESPACE": content["n"].decode()}
        options["runtime_env"] = {"env_vars": names}
        function = self._functions[content["f"].decode()]
        call = Call(content["i"], function, options, content["b"])
        self._calls[call.number] = call
        try:
            call.files = [self._argument(file) for file in files]
            self._begin(call, is_actor="a" in content)
        except Exception as error:
            self._failed(call, error)

    def _on_M(self, content: dict[str, bytes], _: list[int], kind: str = "M") -> None:
        call = self._calls.get(content["i"])
        if call is None or call.host is None:
            return
        call.pushes.append((kind, content["b"]))
        if not call.pushing:
            call.pushing = True
            self._loop.create_task(self._push(call))

    def _on_G(self, content: dict[str, bytes], files: list[int]) -> None:
        self._on_M(content, files, "G")

    def _on_X(self, content: dict[str, bytes], _: list[int]) -> None:
        call = self._calls.get(content["i"])
        if call is None:
            return
        grace_s = int(content["g"]) / 1000
        if call.host is not None:
            # An object has nothing that it could do about it.
            self._ray.kill(call.host)
            return
        if grace_s > 0 and not call.stopping:
            call.stopping = True
            self._cancel(call, force=False)
        self._loop.call_later(grace_s, self._cancel, call, True)

    def _cancel(self, call: Call, force: bool) -> None:
        if call.number in self._calls and call.ref is not None:
            with contextlib.suppress(ValueError, TypeError):
                self._ray.cancel(call.ref, force=force)

    def _argument(self, file: int) -> Any:
        """A large argument as an object of Ray, which calls with the same content share."""
        info = os.fstat(file)
        if info.st_size <= ARGUMENT_BYTES:
            return uccp_worker.read_file(file)
        key = (info.st_ino, info.st_size, info.st_mtime_ns)
        ref = self._arguments.pop(key, None)
        if ref is None:
            ref = self._ray.put(uccp_worker.read_file(file))
        else:
            os.close(file)
        self._arguments[key] = ref
        if len(self._arguments) > ARGUMENTS_MAX:
            self._arguments.popitem(last=False)
        return ref

    # Ray ------------------------------------------------------------------------------------------------------------

    def _begin(self, call: Call, is_actor: bool = False) -> None:
        if is_actor:
            call.host = call.function.actor(call.options, call.body, call.files)
            call.task = self._loop.create_task(self._follow(call, self._pulled(call)))
        elif call.function.is_generator:
            if self._is_client:
                self._end(
                    call,
                    REFUSED,
                    f"{call.function.name} is a generator, which Ray cannot stream to a client (ray://); run the agent "
                    "on a node of the cluster, with RAY_ADDRESS=auto",
                )
                return
            call.ref = call.function.with_options("streaming", call.options).remote(call.body, *call.files)
            call.task = self._loop.create_task(self._follow(call, self._streamed(call)))
        else:
            call.ref = call.function.with_options("plain", call.options).remote(call.body, *call.files)
            call.ref.future().add_done_callback(lambda future: self._completed(call, future))

    def _completed(self, call: Call, future: Any) -> None:
        """In a thread of Ray."""
        error = future.exception()
        self._ended.append((call, None if error else future.result(), error))
        if not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._take_ended)

    def _take_ended(self) -> None:
        self._waking = False
        while self._ended:
            call, packets, error = self._ended.popleft()
            if error is not None:
                self._failed(call, error)
            elif packets and packets[0][0] == "S":
                call.function.is_generator = True
                if call.stopping:
                    self._end(call, CRASHED, "it was stopped")
                else:
                    self._begin(call)
            else:
                self._said(call, packets)

    async def _follow(self, call: Call, pieces: Any) -> None:
        """Passes on what a call says as it runs."""
        try:
            async for packets in pieces:
                self._said(call, packets)
                await self._room.wait()
            if not call.answered:
                self._end(call, CRASHED, "it ended without an answer")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed(call, error)
        if call.host is not None:
            self._ray.kill(call.host)  # what it leaves behind is nobody's

    @staticmethod
    async def _streamed(call: Call) -> Any:
        async for ref in call.ref:
            yield await ref

    @staticmethod
    async def _pulled(call: Call) -> Any:
        while not call.answered:
            yield await call.host.pull.remote()

    async def _push(self, call: Call) -> None:
        """One after the other, so that packets stay in order."""
        try:
            while call.pushes:
                packets, call.pushes = call.pushes, []
                await call.host.push.remote(packets)
        except Exception as error:
            self._failed(call, error)
        finally:
            call.pushing = False

    # To the agent ---------------------------------------------------------------------------------------------------

    def _said(self, call: Call, packets: list[tuple[str, bytes]]) -> None:
        for kind, body in packets:
            if call.number not in self._calls:
                return
            if kind == "R":
                call.answered = True
                del self._calls[call.number]
            self._send("P", field("i", call.number) + field("k", kind.encode()) + field("b", body))

    def _end(self, call: Call, how: bytes, message: str) -> None:
        if self._calls.pop(call.number, None) is not None:
            why = field("m", message.encode(errors="replace")[:4000])
            self._send("E", field("i", call.number) + field("q", how) + why)

    def _failed(self, call: Call, error: BaseException) -> None:
        if call.number in self._calls:
            self._end(call, *verdict(self._ray.exceptions, call.function.name, error))

    def _send(self, kind: str, message: bytes) -> None:
        self._pending.append(struct.pack(">BI", ord(kind), len(message)) + message)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """At the end of the turn: what happens in one goes in one packet."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._pack)

    def _pack(self) -> None:
        self._flushing = False
        if self._taken:
            message = field("w", str(self._taken).encode())
            self._pending.append(struct.pack(">BI", ord("T"), len(message)) + message)
            self._taken = 0
        for packet in packets_of(self._pending):
            self._queue.append(packet)
            self._queue_bytes += len(packet)
        self._pending.clear()
        if self._queue_bytes > QUEUE_BYTES_MAX:
            self._room.clear()
        self._write()

    def _write(self) -> None:
        try:
            while self._queue:
                self._link.send("B", self._queue[0])
                self._queue_bytes -= len(self._queue.popleft())
        except BlockingIOError:
            self._loop.add_writer(self._connection.fileno(), self._write)
            return
        except OSError:
            return  # the end of the connection is read
        self._loop.remove_writer(self._connection.fileno())
        self._room.set()


def messages(body: bytes | memoryview) -> Iterator[tuple[str, bytes]]:
    for tag, content in fields(body):
        yield chr(tag), content


def packets_of(pending: list[bytes]) -> Iterator[bytes]:
    """Messages in packets, as many in one as fit."""
    together: list[bytes] = []
    size = 0
    for message in pending:
        if together and size + len(message) > INLINE_BYTES:
            yield b"".join(together)
            together, size = [], 0
        together.append(message)
        size += len(message)
    if together:
        yield b"".join(together)


def verdict(kinds: Any, name: str, error: BaseException) -> tuple[bytes, str]:
    """How a call ended that has no answer, and why: its own fault, or that of Ray."""
    text = " ".join(str(error).split())[:2000]
    if isinstance(error, kinds.TaskCancelledError):
        return CRASHED, "it was cancelled"
    if isinstance(error, kinds.OutOfMemoryError):
        return CRASHED, f"out of memory on its node of Ray: {text}"
    lost = (kinds.NodeDiedError, kinds.LocalRayletDiedError, kinds.ObjectLostError, kinds.RaySystemError)
    if isinstance(error, lost) or isinstance(error, ConnectionError):
        return LOST, f"{type(error).__name__}: {text}"
    if isinstance(error, (kinds.WorkerCrashedError, kinds.RayActorError)):
        return CRASHED, f"its process on Ray ended: {text}"
    if isinstance(error, kinds.RayTaskError):
        return REFUSED, f"{name} could not be run on Ray: {str(error)[-2000:]}"
    return REFUSED, f"Ray does not run {name}: {type(error).__name__}: {text}"


def main() -> None:
    address = os.environ.pop(ADDRESS)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect("\0" + os.environ.pop(SOCKET))
    link = Link(connection)
    identity = field("w", os.environ.pop(EPOCH).encode()) + field("x", os.environ.pop(SECRET).encode())

    def refuse(reason: str) -> None:
        link.send("N", identity + field("m", reason.encode()))
        os._exit(3)

    # Ray tries again for long, and does not say why.
    late = threading.Timer(CONNECT_S, refuse, [NOT_LET_IN.format(address=address, seconds=CONNECT_S)])
    late.daemon = True
    late.start()
    try:
        ray, target = connect(address)
    except Unreachable as error:
        refuse(str(error))
    late.cancel()
    ray.cloudpickle.register_pickle_by_value(uccp_ray_task)
    there = json.dumps({name: amount for name, amount in ray.cluster_resources().items() if ":" not in name})
    link.send("H", identity + field("v", ray.__version__.encode()) + field("r", there.encode()))
    sidecar = Sidecar(ray, target, link, connection, is_client=address.startswith("ray://"))
    try:
        asyncio.run(sidecar.serve())
    except (EOFError, ConnectionError):
        os._exit(0)  # the agent has ended; Ray ends what belongs to a driver that is gone
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(4)


if __name__ == "__main__":
    importlib.import_module("uccp_ray").main()
