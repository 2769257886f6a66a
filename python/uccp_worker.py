"""The process that runs functions for an agent: one call at a time, warm between calls.

Started as `python -m uccp_worker` with the socket of its agent in the environment. It needs nothing of the package
`uccp` and
of gRPC, so that it starts quickly; cloudpickle is loaded when the first function needs it. The messages are those of
docs/design/compute.md: packets of a SOCK_SEQPACKET socket, bodies that do not fit into one in a memory file that
travels
beside it, arguments that are blobs as open files.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import mmap
import os
import pickle
import resource
import select
import shutil
import socket
import struct
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

SOCKET = "UCCP_FUNCTION_SOCKET"
SECRET = "UCCP_FUNCTION_SECRET"
OBJECTS_SOCKET = "UCCP_OBJECTS_SOCKET"
VALUE_BYTES_MAX = "UCCP_FUNCTION_VALUE_BYTES_MAX"
PACKET_BYTES = 64 << 10
INLINE_BYTES = 48 << 10
FILES_MAX = 253
CO_GENERATOR = 0x20
YIELDED_BYTES_MAX = 3_500_000
HAND_OVER_WAIT_S = 5.0
SHARED_BYTES = 32 << 10  # larger values go through shared memory
FETCHED_BYTES = 1 << 20  # larger values do not travel along to other machines: they are fetched from there
FUNCTIONS_MAX = 256  # loaded ones that are kept

CALL = "application/x-uccp-call"  # a pickled (args, kwargs), Ref in it for the arguments that follow
BATCH = "application/x-uccp-batch"  # a pickled (list of such, further tries of one that raises)
CALL_SHARED = "application/x-uccp-call-shared"  # of a caller with which this process shares memory
CALL_FETCHES = "application/x-uccp-call-fetches"  # of a caller that reads the memory of other machines
CALLER_MEMORY = ";memory="  # behind CALL and BATCH: the door to the memory that the caller reads
PART = "application/x-uccp-part"  # goes in front of the next argument
VALUE = "application/x-python-pickle"
OUTCOMES = "application/x-uccp-outcomes"  # a pickled list of (True, value) and (False, error)
SHARED = "application/x-uccp-shared"  # the id of an object in shared memory, which is the receiver's
ELSEWHERE = "application/x-uccp-elsewhere"  # the same, of an object on another machine: a pickled Elsewhere
ERROR = "application/x-uccp-error"  # a pickled dictionary, see error_of()

OWN_FILES = {__file__, *(os.path.join(os.path.dirname(__file__), one) for one in ("uccp_actor.py", "uccp_step.py"))}
RAISED, BROKEN = 1, 2  # exit codes: the function raised; it could not be called, or its value not be kept


class Ref:
    """Stands in a call for the argument of this number, which travels by itself; of a batch for one of its values."""

    __slots__ = ("index", "item")

    def __init__(self, index: int, item: int | None = None) -> None:
        self.index = index
        self.item = item

    def __reduce__(self) -> tuple[Any, ...]:
        return (Ref, (self.index, self.item))


class Shared:
    """Stands in a call for an object in the memory that caller and worker share."""

    __slots__ = ("identity",)

    def __init__(self, identity: bytes) -> None:
        self.identity = identity

    def __reduce__(self) -> tuple[Any, ...]:
        return (Shared, (self.identity,))


class Elsewhere:
    """Stands for an object in the memory of a machine that caller and worker may not share."""

    __slots__ = ("identity", "location")

    def __init__(self, identity: bytes, location: bytes) -> None:
        self.identity = identity
        self.location = location

    def __reduce__(self) -> tuple[Any, ...]:
        return (Elsewhere, (self.identity, self.location))


class Broken(Exception):
    """A call that says itself what is wrong with it."""


class Lost(Broken):
    """A call that lacks what its caller can give once more: an argument in shared memory, the code."""


class ActorExit(BaseException):
    """Raised by a method to end its actor."""


def fields(body: bytes | memoryview) -> Iterator[tuple[int, bytes]]:
    """The fields of a body: (tag, bytes)."""
    at, view = 0, memoryview(body)
    while at < len(view):
        tag, size = struct.unpack_from(">BI", view, at)
        at += 5
        yield tag, bytes(view[at : at + size])
        at += size


def field(tag: str, content: bytes) -> bytes:
    return struct.pack(">BI", ord(tag), len(content)) + content


class Link:
    """The socket to the agent, by its name, or one end of a pair."""

    def __init__(self, end: str | socket.socket) -> None:
        if isinstance(end, str):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.connect("\0" + end)
        else:
            self._socket = end

    def send(self, kind: str, body: bytes) -> None:
        if len(body) <= INLINE_BYTES:
            self._socket.send(kind.encode() + b"\0" + body)
            return
        file = os.memfd_create("uccp-value")
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(file, view) :]
            socket.send_fds(self._socket, [kind.encode() + b"\1"], [file])
        finally:
            os.close(file)

    def fileno(self) -> int:
        return self._socket.fileno()

    def readable(self) -> bool:
        """True if a message is there."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def receive(self) -> tuple[str, bytes | memoryview, list[int]]:
        """The next message and its files. Raises EOFError when the agent is gone."""
        packet, files, _, _ = socket.recv_fds(self._socket, PACKET_BYTES, FILES_MAX)
        if not packet:
            raise EOFError
        kind, in_file = chr(packet[0]), packet[1]
        if not in_file:
            return kind, memoryview(packet)[2:], files
        body = read_file(files.pop(0))
        return kind, body, files


def read_file(file: int | bytes) -> bytes:
    """The content of an open file, which is closed. Mapped, not read: it is copied once. Content is itself."""
    if isinstance(file, bytes):
        return file
    try:
        if os.fstat(file).st_size == 0:
            return b""
        with mmap.mmap(file, 0, prot=mmap.PROT_READ) as content:
            return content[:]
    finally:
        os.close(file)


class Output(io.TextIOBase):
    """What functions print: sent to the agent in order with their results, a line or more at a time."""

    def __init__(self, link: Link, stream: int) -> None:
        self._link = link
        self._stream = stream
        self._pending = b""
        self.buffer = self

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        self._pending += text.encode(errors="replace") if isinstance(text, str) else bytes(text)
        if b"\n" in self._pending or len(self._pending) > INLINE_BYTES:
            self.flush()
        return len(text)

    def flush(self) -> None:
        pending, self._pending = self._pending, b""
        for at in range(0, len(pending), INLINE_BYTES - 1):
            self._link.send("O", bytes([self._stream]) + pending[at : at + INLINE_BYTES - 1])

    def fileno(self) -> int:
        return self._stream


def error_of(error: BaseException) -> dict[str, Any]:
    """An exception as it travels: its class, its text, its traceback, and itself if it can be pickled."""
    frames = traceback.TracebackException.from_exception(error)
    # The frames of this file say nothing to the author of the function.
    while frames.stack and frames.stack[0].filename in OWN_FILES:
        frames.stack.pop(0)
    exception: bytes | None
    try:
        exception = dumps(error)
        pickle.loads(exception)
    except Exception:
        exception = None
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": str(error),
        "traceback": "".join(frames.format()),
        "exception": exception,
    }


def broken_of(error: Broken) -> dict[str, Any]:
    """A call that could not be made, or whose value could not be kept, as it travels."""
    cause = error_of(error.__cause__)["traceback"] if error.__cause__ is not None else ""
    kind = "ObjectLost" if isinstance(error, Lost) else "SerializationError"
    return {"type": kind, "message": str(error), "traceback": cause, "exception": None}


def dumps(value: Any, buffer_callback: Any = None) -> bytes:
    """Pickled; by cloudpickle what plain pickle cannot."""
    try:
        return pickle.dumps(value, protocol=5, buffer_callback=buffer_callback)
    except Exception:
        cloudpickle = importlib.import_module("cloudpickle")
        return bytes(cloudpickle.dumps(value, protocol=5, buffer_callback=buffer_callback))


def json_values(arguments: list[Any]) -> list[Any]:
    """JSON has no integers; whole numbers become some, as its users mean them."""

    def value(one: Any) -> Any:
        if isinstance(one, float) and one.is_integer() and abs(one) < 2**53:
            return int(one)
        if isinstance(one, list):
            return [value(item) for item in one]
        if isinstance(one, dict):
            return {key: value(item) for key, item in one.items()}
        return one

    return [value(one) for one in arguments]


def argument(kind: str, content: bytes, content_type: str) -> Any:
    """An argument that came in a field of this kind. Raises Broken."""
    if content_type in (VALUE, OUTCOMES):
        try:
            return pickle.loads(content)
        except Exception as error:
            raise Broken(f"an argument cannot be unpickled: {type(error).__name__}: {error}") from error
    if kind == "j" or content_type == "application/json":
        return json_values([json.loads(content)])[0]
    if kind == "t":
        return content.decode()
    return None if kind == "z" else content


class Call:
    """A call as the agent sent it."""

    def __init__(self, body: bytes | memoryview, files: list[Any]) -> None:
        self.digest = self.entry_point = self.name = ""
        self.source: bytes | None = None
        self.env: dict[str, str] = {}
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.convention = ""
        self.shared = False  # the caller reads the memory that this process writes
        self.actor = False
        self.parts: list[bytes] = []
        keyword, content_type = "", ""
        for tag, content in fields(body):
            kind = chr(tag)
            if kind in "fens":
                self._head(kind, content)
            elif kind == "a":
                self.actor = True
            elif kind == "v":
                name, _, value = content.decode(errors="surrogateescape").partition("=")
                self.env[name] = value
            elif kind == "k":
                keyword = content.decode()
            elif kind == "c":
                content_type = content.decode()
            else:
                value = self._value(kind, content, content_type, files)
                if content_type == PART:
                    self.parts.append(value)
                elif keyword:
                    self.kwargs[keyword] = value
                else:
                    self.args.append(value)
                keyword, content_type = "", ""

    def _head(self, kind: str, content: bytes) -> None:
        if kind == "f":
            self.digest = content.decode()
        elif kind == "e":
            self.entry_point = content.decode()
        elif kind == "n":
            self.name = content.decode()
        else:
            self.source = content

    def _value(self, kind: str, content: bytes, content_type: str, files: list[Any]) -> Any:
        if kind == "b":
            content = read_file(files.pop(0))
            kind = "t" if content_type.startswith("text/") else "d"
        convention, _, memory = content_type.partition(CALLER_MEMORY)
        if convention in (CALL, BATCH):
            self.convention = convention
            self.shared = bool(memory) and memory == os.environ.get(OBJECTS_SOCKET)
            parts, self.parts = self.parts, []
            return b"".join([*parts, content])  # unpickled once the function's module is there
        return argument(kind, content, content_type)


def resolved(value: Any, following: list[Any]) -> Any:
    """Arguments that are Refs, at the top, replaced by the values that follow the call."""
    if not isinstance(value, Ref):
        return value
    found = following[value.index]
    if value.item is None:
        return found
    succeeded, content = found[value.item]
    if not succeeded:
        raise Broken(f"an argument is the value of a call that raised {content['type']}: {content['message']}")
    return content


def shared_values(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments in which objects of shared memory are their values. Raises Lost."""
    if {Shared, Elsewhere}.isdisjoint(map(type, (*args, *kwargs.values()))):
        return args, kwargs
    memory = importlib.import_module("uccp_memory")
    here = memory.of_process()

    def value(one: Any) -> Any:
        if type(one) not in (Shared, Elsewhere):
            return one
        if here is None:
            raise Broken(
                f"an argument larger than {FETCHED_BYTES} bytes is read from the machine that it was put on, by the "
                "agent; the agent of this worker shares no memory, see its --objects-memory"
            )
        try:
            return here.get(one.identity) if type(one) is Shared else here.take(one.identity, one.location)
        except Exception as error:
            raise Lost(f"an argument cannot be had from shared memory: {error}") from error

    return tuple(value(one) for one in args), {name: value(one) for name, one in kwargs.items()}


def hand_over(content: bytes, buffers: list[pickle.PickleBuffer]) -> Elsewhere | None:
    """Puts a value, pickled, where its receiver reads it, and answers where that is; None where there is no room."""
    memory = importlib.import_module("uccp_memory")
    try:
        here = memory.of_process()
        if here is None:
            return None
        packed = memory.Packed(memory.PICKLED, content, [one.raw() for one in buffers])
        return Elsewhere(here.put(packed, hand_over=True, wait=HAND_OVER_WAIT_S), here.location())
    except (memory.MemoryRefused, memory.MemoryGone, OSError, BufferError):
        return None


def hand_over_value(value: Any, task_id: str, attempt: str) -> None:
    """Puts the value of a task where its caller finds it by the names of task and attempt. It is kept elsewhere too."""
    memory = importlib.import_module("uccp_memory")
    with contextlib.suppress(memory.MemoryRefused, memory.MemoryGone, OSError, BufferError):
        packed = memory.Packed.of(value, dumps)
        memory.of_process().put(packed, memory.identity_of(task_id, attempt), hand_over=True, wait=0)


class Functions:
    """The functions that this process has loaded, by the digest of their bundle."""

    def __init__(self) -> None:
        self._loaded: dict[str, Callable[..., Any]] = {}

    def get(self, call: Call) -> Callable[..., Any]:
        function = self._loaded.get(call.digest)
        if function is None:
            function = self._load(call)
            if len(self._loaded) >= FUNCTIONS_MAX:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[call.digest] = function
        return function

    def _load(self, call: Call) -> Callable[..., Any]:
        if call.source is None:
            raise Broken(f"the code of {call.name} did not come with the call")
        module_name, _, path = call.entry_point.partition(":")
        module = types.ModuleType(module_name)
        module.__file__ = f"<function {call.name}>"
        # Where pickle looks for classes of the module by their name.
        sys.modules.setdefault(module_name, module)
        try:
            exec(compile(call.source, module.__file__, "exec"), module.__dict__)  # noqa: S102: this is what it is for
        except BaseException as error:
            raise Broken(f"the code of {call.name} cannot be loaded: {type(error).__name__}: {error}") from error
        found: Any = module
        for part in path.split("."):
            if not hasattr(found, part):
                raise Broken(f"the code of {call.name} has no {call.entry_point}")
            found = getattr(found, part)
        if not callable(found):
            raise Broken(f"{call.entry_point} of {call.name} is a {type(found).__name__}, which cannot be called")
        return found  # type: ignore[no-any-return]


def one_of_batch(
    function: Callable[..., Any], args: Any, kwargs: Any, following: list[Any], retries: int
) -> tuple[bool, Any]:
    while True:
        try:
            positional = [resolved(one, following) for one in args]
            return True, function(*positional, **{name: resolved(one, following) for name, one in kwargs.items()})
        except Exception as error:
            if retries == 0 or isinstance(error, Broken):
                return False, error_of(error)
            retries -= 1


def is_generator(function: Callable[..., Any]) -> bool:
    """As inspect has it, which takes long to import."""
    return bool(getattr(getattr(function, "__code__", None), "co_flags", 0) & CO_GENERATOR)


def run(function: Callable[..., Any], call: Call) -> tuple[Any, str]:
    """The value of a call, and the media type that it is to have; empty: JSON if possible."""
    if not call.convention:
        return function(*call.args, **call.kwargs), ""
    try:
        packed = pickle.loads(call.args[0])
    except Exception as error:
        raise Broken(f"the arguments cannot be unpickled: {type(error).__name__}: {error}") from error
    following = call.args[1:]
    if call.convention == BATCH:
        calls, retries = packed
        return [one_of_batch(function, args, kwargs, following, retries) for args, kwargs in calls], OUTCOMES
    args, kwargs = packed
    positional = [resolved(one, following) for one in args]
    return function(*positional, **{name: resolved(one, following) for name, one in kwargs.items()}), VALUE


def encode(value: Any, content_type: str, name: str) -> tuple[bytes, str]:
    """A value as bytes. Raises Broken when it cannot be kept."""
    content: bytes | None = None
    if not content_type:
        try:
            content, content_type = json.dumps(value).encode(), "application/json"
        except (TypeError, ValueError):
            content_type = VALUE
    if content is None:
        try:
            content = dumps(value)
        except MemoryError:
            raise
        except Exception as error:
            raise Broken(
                f"the value of {name}, a {type(value).__name__}, cannot be pickled: {type(error).__name__}: {error}"
            ) from error
    most = int(os.environ.get(VALUE_BYTES_MAX, "0"))
    if most and len(content) > most:
        raise Broken(
            f"the value of {name} has {len(content)} bytes, more than the {most} that a value may have; "
            "keep it elsewhere and return where it is"
        )
    return content, content_type


@contextlib.contextmanager
def surroundings(call: Call, folder: str) -> Iterator[None]:
    """An environment and a working folder of the call's own."""
    before = os.environ.copy()
    os.mkdir(folder)
    os.chdir(folder)
    os.environ.update(call.env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.chdir(os.path.dirname(folder))
        try:
            os.rmdir(folder)
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)


class Worker:
    def __init__(self, link: Any, functions: Functions | None = None, *, streams: bool = True) -> None:
        """Without `streams` calls of generators are not run."""
        self._link = link
        self._functions = functions or Functions()
        self._folder = os.path.join(os.getcwd(), ".call")
        self._streams = streams

    def serve(self) -> None:
        while True:
            kind, body, files = self._link.receive()
            if kind == "C":
                for said, content in self.packets(body, files):
                    self._link.send(said, content)

    @staticmethod
    def _yielded(values: Iterator[Any], content_type: str, name: str) -> Iterator[bytes]:
        """What a generator yields, as it comes."""
        for value in values:
            content, kind = encode(value, content_type, name)
            if len(content) > YIELDED_BYTES_MAX:
                raise Broken(
                    f"a value that {name} yields has {len(content)} bytes, at most {YIELDED_BYTES_MAX} travel so; "
                    "yield it in parts, or keep it elsewhere and yield where it is"
                )
            yield field("c", kind.encode()) + field("d", content)

    def packets(self, body: bytes | memoryview, files: list[Any]) -> Iterator[tuple[str, bytes]]:
        """What is to be said of a call: Y for each value that it yields while it runs, R when it is over; S alone for
        a generator that is not to be run."""
        began = resource.getrusage(resource.RUSAGE_SELF)
        code, message, content, content_type = 0, "", b"", ""
        try:
            call = Call(body, files)
            with surroundings(call, self._folder):
                function = self._functions.get(call)
                value, content_type = run(function, call)
                if call.actor:
                    value = importlib.import_module("uccp_actor").serve(self._link, value, call.name)
                elif isinstance(value, types.GeneratorType) and is_generator(function):
                    if not self._streams:
                        yield "S", b""
                        return
                    for content in self._yielded(value, content_type, call.name):
                        yield "Y", content
                    value = None
                content, content_type = encode(value, content_type, call.name)
                if call.shared and not call.actor and len(content) > SHARED_BYTES:
                    hand_over_value(value, call.env["UCCP_TASK_ID"], call.env["UCCP_ATTEMPT"])
            del value, call
        except Broken as error:
            code, message = BROKEN, str(error)
            content, content_type = pickle.dumps(broken_of(error)), ERROR
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the process is the agent's
            code, message = RAISED, f"{type(error).__name__}: {error}"
            content, content_type = pickle.dumps(error_of(error)), ERROR
        finally:
            for file in files:
                if isinstance(file, int):
                    os.close(file)
        sys.stdout.flush()
        sys.stderr.flush()
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime - began.ru_utime - began.ru_stime
        yield (
            "R",
            field("q", bytes([code]))
            + field("m", message.encode(errors="replace")[:1000])
            + field("u", str(int(cpu * 1e6)).encode())
            + field("r", str(used.ru_maxrss * 1024).encode())
            + field("c", content_type.encode())
            + field("d", content),
        )


def main() -> None:
    link = Link(os.environ.pop(SOCKET))
    link.send("H", field("w", os.environ["UCCP_ATTEMPT_KEY"].encode()) + field("x", os.environ.pop(SECRET).encode()))
    sys.stdout, sys.stderr = Output(link, 1), Output(link, 2)
    gc.freeze()
    try:
        Worker(link).serve()
    except (EOFError, ConnectionError):
        os._exit(0)


if __name__ == "__main__":
    importlib.import_module("uccp_worker").main()
