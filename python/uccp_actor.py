"""An object that stays in a worker's process, and the calls of its methods (docs/design/compute.md).

Calls come in packets of many, are run one after the other, and their results go back in packets of many: together when
the calls of a packet are done, or after a moment when one of them takes long. An object with methods that are
coroutines is run by an event loop, which takes calls while others wait.
"""

from __future__ import annotations

import asyncio
import inspect
import pickle
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import uccp_worker
from uccp_worker import (
    CALL,
    CALL_FETCHES,
    CALL_SHARED,
    ELSEWHERE,
    ERROR,
    FETCHED_BYTES,
    INLINE_BYTES,
    SHARED,
    SHARED_BYTES,
    VALUE,
    ActorExit,
    Broken,
    Link,
)

FLUSH_S = 0.001
VALUE_BYTES_MAX = 3_500_000
AHEAD_MAX = 64  # values of a generator that its caller has not taken yet
ENDED = (1 << 64) - 1  # taken: the caller wants no more of them
RETURNED, FAILED, MORE = b"\0", b"\1", b"\2"

_pack = struct.Struct(">BI").pack
_unpack = struct.Struct(">BI").unpack_from


def field(tag: int, content: bytes) -> bytes:
    return _pack(tag, len(content)) + content


_I, _Q, _X, _M, _C, _D, _T = (ord(one) for one in "iqxmcdt")
_VALUE_FIELD = field(_C, VALUE.encode())
_SHARED_FIELD = field(_C, SHARED.encode())
_ELSEWHERE_FIELD = field(_C, ELSEWHERE.encode())
# Values larger than this are read from the memory that they are put into, by callers that can.
_KEPT_BYTES = {CALL_SHARED: SHARED_BYTES, CALL_FETCHES: FETCHED_BYTES}
_TAKEN = field(_T, b"")


class MethodCall:
    """A call as it came."""

    __slots__ = ("args", "content", "convention", "id", "kwargs", "method", "wrong")

    def __init__(self, identity: bytes) -> None:
        self.id = identity
        self.method = ""
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.content: bytes | None = None  # of Python's own convention
        self.convention = ""  # which of them
        self.wrong: Broken | None = None

    def arguments(self) -> tuple[Any, Any]:
        if self.wrong is not None:
            raise self.wrong
        if self.content is None:
            return self.args, self.kwargs
        try:
            args, kwargs = pickle.loads(self.content)
        except Exception as error:
            raise Broken(f"the arguments cannot be unpickled: {type(error).__name__}: {error}") from error
        return uccp_worker.shared_values(args, kwargs)


def calls_of(body: bytes | memoryview) -> list[MethodCall]:
    """The calls of a packet."""
    found: list[MethodCall] = []
    call = MethodCall(b"")
    keyword, content_type, at, end = "", "", 0, len(body)
    view = memoryview(body)
    while at < end:
        tag, size = _unpack(view, at)
        at += 5
        content = bytes(view[at : at + size])
        at += size
        if tag == _I:
            call = MethodCall(content)
            found.append(call)
        elif tag == _M:
            call.method = content.decode()
        elif tag == 0x6B:  # k
            keyword = content.decode()
        elif tag == _C:
            content_type = content.decode()
        else:
            if content_type in (CALL, CALL_SHARED, CALL_FETCHES):
                call.content, call.convention = content, content_type
            else:
                try:
                    value = uccp_worker.argument(chr(tag), content, content_type)
                    if keyword:
                        call.kwargs[keyword] = value
                    else:
                        call.args.append(value)
                except (Broken, ValueError) as error:
                    call.wrong = error if isinstance(error, Broken) else Broken(f"an argument is malformed: {error}")
            keyword, content_type = "", ""
    return found


class Results:
    """What goes back to the agent, gathered."""

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._lock = threading.Lock()
        self._pending: list[bytes] = []
        self._bytes = 0
        self._late = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, content: bytes) -> None:
        with self._lock:
            self._pending.append(content)
            self._bytes += len(content)
            if self._bytes >= INLINE_BYTES - 64:
                self._send()

    def flush(self) -> None:
        with self._lock:
            self._send()

    def flush_soon(self) -> None:
        """Within a moment, whatever the object does meanwhile."""
        if self._late.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_late, name="uccp-results", daemon=True)
            self._thread.start()
        self._late.set()

    def _flush_late(self) -> None:
        while True:
            self._late.wait()
            time.sleep(FLUSH_S)
            self._late.clear()
            self.flush()

    def _send(self) -> None:
        if self._pending:
            body = b"".join(self._pending)
            self._pending.clear()
            self._bytes = 0
            self._link.send("M", body)

    def returned(self, call: MethodCall, value: Any, index: int = 0, code: bytes = RETURNED) -> None:
        if call.convention:
            buffers: list[pickle.PickleBuffer] = []
            try:
                above = _KEPT_BYTES.get(call.convention)
                content = pickle.dumps(value, protocol=5, buffer_callback=buffers.append if above else None)
                kind = _VALUE_FIELD
                if buffers or (above and len(content) > above):
                    kind, content = self._kept(value, content, buffers, call.convention)
            except Exception:
                content, content_type = uccp_worker.encode(value, VALUE, call.method)
                kind = field(_C, content_type.encode())
        else:
            content, content_type = uccp_worker.encode(value, "", call.method)
            kind = field(_C, content_type.encode())
        if len(content) > VALUE_BYTES_MAX:
            raise Broken(
                f"the value of {call.method} has {len(content)} bytes, at most {VALUE_BYTES_MAX} come back from "
                "an actor; yield it in parts, or keep it where its reader finds it"
            )
        head = field(_I, call.id) + field(_Q, code)
        if index:
            head += field(_X, str(index).encode())
        self.add(head + kind + field(_D, content))

    @staticmethod
    def _kept(value: Any, content: bytes, buffers: list[pickle.PickleBuffer], caller: str) -> tuple[bytes, bytes]:
        """A value, pickled with its buffers beside it, as it goes to who reads this memory, here or from elsewhere."""
        if len(content) + sum(one.raw().nbytes for one in buffers) > _KEPT_BYTES[caller]:
            kept = uccp_worker.hand_over(content, buffers)
            if kept is not None:
                if caller == CALL_SHARED:
                    return _SHARED_FIELD, kept.identity
                return _ELSEWHERE_FIELD, pickle.dumps(kept)
        return _VALUE_FIELD, pickle.dumps(value, protocol=5) if buffers else content

    def failed(self, call: MethodCall, error: BaseException) -> None:
        if isinstance(error, Broken):
            message, details = str(error), uccp_worker.broken_of(error)
        else:
            message, details = f"{type(error).__name__}: {error}", uccp_worker.error_of(error)
        self.add(
            field(_I, call.id)
            + field(_Q, FAILED)
            + field(_M, message.encode(errors="replace")[:1000])
            + field(_C, ERROR.encode())
            + field(_D, pickle.dumps(details))
        )


class Actor:
    """The object with its calls, one at a time."""

    def __init__(self, link: Link, target: Any, name: str) -> None:
        self.link = link
        self.target = target
        self.name = name
        self.results = Results(link, name)
        self.backlog: deque[bytes | memoryview] = deque()
        self.credits: dict[bytes, int] = {}  # of generators that run: how many of their values were taken
        self._methods: dict[str, Callable[..., Any]] = {}

    def method(self, call: MethodCall) -> Callable[..., Any]:
        found = self._methods.get(call.method)
        if found is None:
            found = getattr(self.target, call.method, None) if not call.method.startswith("_") else None
            if not callable(found):
                raise Broken(f"{self.name} has no method {call.method!r}; it has {', '.join(methods_of(self.target))}")
            self._methods[call.method] = found
        return found

    def serve(self) -> None:
        """Until a method ends the actor. Raises EOFError when the agent is gone."""
        while True:
            if self.backlog:
                body = self.backlog.popleft()
            else:
                kind, body, _ = self.link.receive()
                if kind == "G":
                    self.credit(body)
                if kind != "M":
                    continue
            calls = calls_of(body)
            try:
                for number, call in enumerate(calls, 1):
                    self._run(call)
                    if number < len(calls):
                        self.results.flush_soon()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                self.results.add(_TAKEN)
                self.results.flush()

    def _run(self, call: MethodCall) -> None:
        try:
            args, kwargs = call.arguments()
            value = self.method(call)(*args, **kwargs)
            if inspect.isgenerator(value):
                self._stream(call, value)
            else:
                self.results.returned(call, value)
        except ActorExit:
            self.results.returned(call, None)
            raise
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: the process is the agent's
            self.results.failed(call, error)

    def _stream(self, call: MethodCall, values: Any) -> None:
        self.credits[call.id] = 0
        try:
            index = 0
            for value in values:
                self.results.returned(call, value, index, MORE)
                self.results.flush_soon()
                index += 1
                if index - self.credits[call.id] >= AHEAD_MAX:
                    self.results.flush()
                while index - self.credits[call.id] >= AHEAD_MAX:
                    self._wait_for_credit()
                if self.credits[call.id] == ENDED:
                    values.close()
                    break
            self.results.returned(call, None, index)
        finally:
            del self.credits[call.id]

    def _wait_for_credit(self) -> None:
        kind, body, _ = self.link.receive()
        if kind == "M":
            self.backlog.append(bytes(body))
        elif kind == "G":
            self.credit(body)

    def credit(self, body: bytes | memoryview) -> None:
        identity = b""
        for tag, content in uccp_worker.fields(body):
            if tag == _I:
                identity = content
            elif identity in self.credits:
                self.credits[identity] = max(self.credits[identity], int(content))


class AsyncActor(Actor):
    """The object with its calls, any number of them at a time, in one event loop."""

    def serve(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._soon = False

        def ended(task: asyncio.Task[None]) -> None:
            running.discard(task)
            if not task.cancelled() and task.exception() is not None and not over.done():
                over.set_exception(task.exception() or EOFError())

        def readable() -> None:
            try:
                kind, body, _ = self.link.receive()
            except (EOFError, OSError) as error:
                if not over.done():
                    over.set_exception(error)
                return
            if kind == "G":
                self.credit(body)
                self._changed.set()
            if kind != "M":
                return
            for call in calls_of(body):
                task = loop.create_task(self._run_async(call))
                running.add(task)
                task.add_done_callback(ended)
            self.results.add(_TAKEN)
            self._flush_after_turn(loop)

        loop.add_reader(self.link.fileno(), readable)
        try:
            await over
        finally:
            loop.remove_reader(self.link.fileno())
            self.results.flush()

    def _flush_after_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        def flush() -> None:
            self._soon = False
            sys.stdout.flush()
            sys.stderr.flush()
            self.results.flush()

        if not self._soon:
            self._soon = True
            loop.call_soon(flush)

    async def _run_async(self, call: MethodCall) -> None:
        loop = asyncio.get_running_loop()
        try:
            args, kwargs = call.arguments()
            value = self.method(call)(*args, **kwargs)
            if inspect.isasyncgen(value):
                await self._stream_async(call, value)
            elif inspect.isgenerator(value):
                await self._stream_async(call, _each(value))
            else:
                self.results.returned(call, await value if inspect.isawaitable(value) else value)
        except ActorExit:
            self.results.returned(call, None)
            raise
        except BaseException as error:
            self.results.failed(call, error)
        finally:
            self._flush_after_turn(loop)

    async def _stream_async(self, call: MethodCall, values: Any) -> None:
        self.credits[call.id] = 0
        try:
            index = 0
            async for value in values:
                self.results.returned(call, value, index, MORE)
                self._flush_after_turn(asyncio.get_running_loop())
                index += 1
                while index - self.credits[call.id] >= AHEAD_MAX:
                    self._changed.clear()
                    await self._changed.wait()
                if self.credits[call.id] == ENDED:
                    await values.aclose()
                    break
            self.results.returned(call, None, index)
        finally:
            del self.credits[call.id]


async def _each(values: Any) -> Any:
    for value in values:
        yield value


def methods_of(target: Any) -> list[str]:
    return [name for name in dir(target) if not name.startswith("_") and callable(getattr(target, name, None))]


def serve(link: Link, target: Any, name: str) -> None:
    """Says that the object is made, and runs its methods until one of them ends it."""
    kind = type(target)
    is_async = any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (getattr(kind, method, None) for method in methods_of(target))
    )
    actor = AsyncActor(link, target, name) if is_async else Actor(link, target, name)
    sys.stdout.flush()
    link.send("A", b"")
    try:
        actor.serve()
    except ActorExit:
        pass


class Lane:
    """The object of a leased worker: runs whatever function it is given."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {}
        self._broken: dict[str, Broken] = {}

    def load(self, digest: str, code: bytes) -> None:
        try:
            self._functions[digest] = pickle.loads(code)
        except BaseException as error:
            self._broken[digest] = Broken(f"the function cannot be loaded: {type(error).__name__}: {error}")

    def run(self, digest: str, args: Any, kwargs: Any) -> Any:
        if digest in self._broken:
            raise self._broken[digest]
        function = self._functions.get(digest)
        if function is None:  # it came to the process before this one
            raise uccp_worker.Lost("the process that had the code of the function has ended")
        args, kwargs = uccp_worker.shared_values(args, kwargs)
        return function(*args, **kwargs)
