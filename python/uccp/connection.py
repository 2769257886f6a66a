"""Calls and streams of the contract to whichever node answers.

A call is repeated until its time is over: when a node cannot be reached (the next one is asked), when the platform
says
that nothing was done or that the outcome is not known, and when it asks to wait. That is safe because each change
carries a
deduplication key, made here once a call, or is one that a repeat does not change. Streams go on behind their last
cursor.
Nodes forward to the leader, so any node will do. Thread: all methods on any thread.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from uccp import _contract, errors
from uccp.context import Context

DEFAULT_TIMEOUT_S = 30.0
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
CONNECT_WAIT_S = 0.5  # least time that a node has to take a connection before the next one is asked
MESSAGE_BYTES_MAX = 16 << 20
# Ends of a stream after which it is opened again behind its last cursor.
_RESUMED_ENDS = ("RECONNECT", "TOO_SLOW")
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # the time that one attempt to connect has, its handshake included
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


def _again(error: errors.UccpError, method: _contract.Method) -> bool:
    """Whether the same request may be sent again."""
    if isinstance(error, errors.Unavailable):
        return True
    if isinstance(error, errors.OutcomeUnknown):
        return bool(method.key_field) or not method.mutates
    return isinstance(error, errors.Exhausted) and error.retry_after is not None


class Backoff:
    """Pauses that grow, each a random half shorter, so that clients do not come back together."""

    def __init__(self) -> None:
        self._next = BACKOFF_FIRST_S

    def pause(self, at_least: float | None = None) -> float:
        wait = max(self._next * random.uniform(0.5, 1), at_least or 0)
        self._next = min(self._next * 2, BACKOFF_MAX_S)
        return wait

    def reset(self) -> None:
        self._next = BACKOFF_FIRST_S


class Connection:
    """Channels to the nodes of one cluster, one at a time in use."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._lock = threading.Lock()
        self._current = 0
        self._channels: dict[int, grpc.Channel] = {}
        self._closed = False

    def close(self) -> None:
        """Ends all calls and streams. Idempotent."""
        with self._lock:
            self._closed = True
            channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            channel.close()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def target(self) -> str:
        """Address of the node that is asked first."""
        return self.context.targets[self._current]

    def _channel(self) -> tuple[int, grpc.Channel]:
        with self._lock:
            if self._closed:
                raise errors.FailedPrecondition("the connection is closed; call uccp.init() again", reason="CLOSED")
            index = self._current
            if index not in self._channels:
                context = self.context
                credentials = grpc.ssl_channel_credentials(
                    context.ca or None, context.key or None, context.cert or None
                )
                self._channels[index] = grpc.secure_channel(context.targets[index], credentials, options=_OPTIONS)
            return index, self._channels[index]

    def _leave(self, index: int) -> None:
        """This node did not answer: the next one is asked from now on."""
        with self._lock:
            if index == self._current:
                self._current = (index + 1) % len(self.context.targets)

    def _pause(self, seconds: float, failure: errors.UccpError) -> None:
        """Waits before the next try; when the node could not be reached, at most until the next one is connected.

        The wait has to be one on the channel: gRPC makes no progress on a connection while nobody waits for it."""
        if not isinstance(failure, errors.Unavailable):
            time.sleep(seconds)
            return
        ready = grpc.channel_ready_future(self._channel()[1])
        try:
            ready.result(timeout=max(seconds, CONNECT_WAIT_S))
            time.sleep(min(seconds, BACKOFF_FIRST_S))
        except grpc.FutureTimeoutError:
            pass
        finally:
            ready.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        found = []
        if self.context.token:
            found.append(("authorization", f"Bearer {self.context.token}"))
        if self.context.namespace:
            found.append(("uccp-namespace", self.context.namespace))
        return tuple(found)

    def call(
        self, name: str, /, *, within: float | None = DEFAULT_TIMEOUT_S, request: Any = None, **fields: Any
    ) -> Any:
        """Calls `Service/Method` and answers its response.

        The request is given whole or by its fields. `within` bounds all tries together, in seconds; None: no bound.
        Raises UccpError's descendants."""
        method = _contract.method(name)
        if request is None:
            request = method.request()
            _contract.fill(request, fields)
        if method.key_field and not getattr(request, method.key_field):
            setattr(request, method.key_field, uuid.uuid4().hex)

        def once(channel: grpc.Channel, timeout: float | None) -> Any:
            stub = channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            return stub(request, timeout=timeout, metadata=self._metadata())

        return self._repeat(method, once, within)

    def upload(self, name: str, messages: Callable[[], Iterator[dict[str, Any]]]) -> Any:
        """Calls a method that takes a stream; `messages` gives their fields anew for each try. Safe for those that put
        one content in its place however often."""
        method = _contract.method(name)

        def requests() -> Iterator[Any]:
            for fields in messages():
                request = method.request()
                _contract.fill(request, fields)
                yield request

        def once(channel: grpc.Channel, timeout: float | None) -> Any:
            stub = channel.stream_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
            return stub(requests(), timeout=timeout, metadata=self._metadata())

        return self._repeat(method, once, None)

    def _repeat(
        self,
        method: _contract.Method,
        once: Callable[[grpc.Channel, float | None], Any],
        within: float | None,
    ) -> Any:
        end = None if within is None else time.monotonic() + within
        backoff = Backoff()
        while True:
            index, channel = self._channel()
            left = None if end is None else max(0.001, end - time.monotonic())
            try:
                return once(channel, left)
            except grpc.RpcError as error:
                failure = errors.from_rpc(error, self.context.targets[index])
            except ValueError as error:  # the channel was closed under it
                raise errors.Cancelled("the connection was closed", reason="CLOSED") from error
            if isinstance(failure, errors.Unavailable):
                self._leave(index)
            wait = backoff.pause(failure.retry_after)
            if not _again(failure, method) or self._closed or (end is not None and time.monotonic() + wait >= end):
                raise failure
            self._pause(wait, failure)

    def stream(self, name: str, /, *, request: Any = None, **fields: Any) -> Stream:
        """Opens a server stream of `Service/Method`."""
        method = _contract.method(name)
        if request is None:
            request = method.request()
            _contract.fill(request, fields)
        return Stream(self, method, request)


class Stream:
    """Items of a server stream, in order and each once, over lost connections too.

    Ends when the platform says that it is complete; close() ends it from any thread. `cursor` is the position behind
    the last item given out: a program that keeps it can go on there later."""

    def __init__(self, connection: Connection, method: _contract.Method, request: Any) -> None:
        self._connection = connection
        self._method = method
        self._request = request
        self._call: Any = None
        self._closed = False
        self._lock = threading.Lock()
        self.cursor: str = getattr(request, method.resume_field) if method.resume_field else ""
        self.end_reason = ""

    def close(self) -> None:
        with self._lock:
            self._closed = True
            call = self._call
        if call is not None:
            call.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        backoff = Backoff()
        while not self._closed:
            index = 0
            failure: errors.UccpError = errors.Cancelled("the stream is opened again")
            try:
                index, channel = self._connection._channel()
                for item in self._open(channel):
                    backoff.reset()
                    if item.cursor:
                        self.cursor = item.cursor
                    if not item.HasField("end"):
                        yield item
                        continue
                    self.end_reason = _contract.enum_name(item.end, "reason")
                    if self.end_reason == "COMPACTED":
                        raise errors.CursorCompacted(item.end.message, reason="CURSOR_COMPACTED")
                    if self.end_reason not in _RESUMED_ENDS:
                        return
                    break
            except grpc.RpcError as error:
                if self._closed:
                    return
                failure = errors.from_rpc(error, self._connection.target)
                if (
                    not isinstance(failure, (errors.Unavailable, errors.OutcomeUnknown))
                    and failure.retry_after is None
                ):
                    raise failure from None
                if not self._method.resume_field:
                    raise failure from None
                self._connection._leave(index)
            if not self._closed:
                self._connection._pause(backoff.pause(failure.retry_after), failure)

    def _open(self, channel: grpc.Channel) -> Any:
        if self._method.resume_field and self.cursor:
            setattr(self._request, self._method.resume_field, self.cursor)
        stub = channel.unary_stream(
            self._method.path,
            request_serializer=self._method.request.SerializeToString,
            response_deserializer=self._method.response.FromString,
        )
        call: Any = stub(self._request, metadata=self._connection._metadata())
        with self._lock:
            self._call = call
            if self._closed:
                call.cancel()
        return call
