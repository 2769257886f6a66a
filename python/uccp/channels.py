"""Calls of one actor: numbered, sent in batches over one stream, repeated over lost streams, each run once.

The actor's worker knows each caller's calls by their numbers, so what is repeated after a lost stream is not run again
as long as the actor's object is the same. When that is gone, calls without a result fail with ActorDied, or are sent to
the next object if they may be retried.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import grpc

import uccp_memory
import uccp_worker
from uccp import _contract, errors
from uccp.connection import Backoff, Connection

BATCH_BYTES = 1 << 20
BATCH_CALLS = 2000
METHOD = "ComputeExecution/ConnectActor"


class Sent:
    """A call that has no final result yet."""

    __slots__ = ("content", "elsewhere", "made", "memory", "message", "number", "on_result", "retries")

    def __init__(self, message: Any, on_result: Callable[[Any, errors.UccpError | None], None], retries: int) -> None:
        self.number = 0
        self.message = message  # ActorCall; its arguments may follow later
        self.content: bytes | None = None  # None: arguments are awaited
        self.on_result = on_result
        self.retries = retries
        self.memory: Any = None  # that `content` refers to
        self.elsewhere: Callable[[], bytes] | None = None  # the content for who does not share it
        self.made: tuple[Any, bool] | None = None  # for whom the message was made last

    def made_for(self, memory: Any, fetches: bool) -> Any:
        """The message as it goes to a worker that shares this memory with us; None: it shares none, and we fetch values
        from where it keeps them or not. Raises SerializationError."""
        if self.made != (memory, fetches) or (self.elsewhere is not None and memory is not self.memory):
            argument = self.message.args[0]
            alone = uccp_worker.CALL_FETCHES if fetches else uccp_worker.CALL
            argument.content_type = alone if memory is None else uccp_worker.CALL_SHARED
            if self.elsewhere is not None:
                argument.data = self.content if memory is self.memory else self.elsewhere()
        self.made = (memory, fetches)
        return self.message


class Channel:
    """The stream to one actor, and what was called on it. Any thread."""

    def __init__(
        self,
        connection: Connection,
        actor: concurrent.futures.Future[str],
        *,
        owner: bool,
        on_end: Callable[[], errors.UccpError],
        memory: Callable[[], Any] = lambda: None,
        on_attach: Callable[[], None] | None = None,
        on_failure: Callable[[errors.UccpError], None] | None = None,
    ) -> None:
        self._connection = connection
        self._actor = actor  # id of its task, or its name
        self._owner = owner
        self._memory = memory
        self._shared: Any = None  # what the actor has of it
        self._fetches = False  # there is some, and the actor is elsewhere
        self._on_end = on_end  # why it ended, as an error; blocks
        self._on_attach = on_attach
        self._on_failure = on_failure
        self._caller = uuid.uuid4().hex
        self._method = _contract.method(METHOD)
        self._reply_class = self._method.response
        self._call_class = _contract.message_class(_contract.PACKAGE + "ActorCall")
        self._changed = threading.Condition()
        self._open: dict[int, Sent] = {}  # by number, in order
        self._queue: deque[Sent] = deque()  # of them: not sent in the present stream
        self._credits: dict[int, int] = {}
        self._next = 1
        self._done = 0  # all results up to this number have come
        self._ended: set[int] = set()  # beyond it
        self._incarnation = 0
        self._attached = False
        self._stream: Any = None
        self._closed = False
        self._idle_close: Callable[[], None] | None = None
        self._failure: errors.UccpError | None = None
        self._thread: threading.Thread | None = None
        self._token: object = None  # of the present stream

    # Callers -------------------------------------------------------------------------------------------------------

    def new_call(self, method: str) -> Any:
        message = self._call_class()
        message.method = method
        return message

    def call(self, sent: Sent) -> None:
        """Numbers a call and sends it in its turn. One whose arguments are awaited holds up those behind it."""
        with self._changed:
            if self._failure is None and not self._closed:
                sent.number = self._next
                sent.message.number = self._next
                self._next += 1
                self._open[sent.number] = sent
                self._queue.append(sent)
                self._begin()
                self._changed.notify_all()
                return
            failure = self._failure or errors.FailedPrecondition("the client is closed", reason="CLOSED")
        sent.on_result(None, failure)

    def connect(self) -> None:
        """Begins to connect, before there is a call."""
        with self._changed:
            self._begin()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="uccp-actor", daemon=True)
            self._thread.start()

    def ready(self, sent: Sent, content: bytes) -> None:
        """The arguments that a call waited for."""
        with self._changed:
            sent.content = content
            self._changed.notify_all()

    def fail(self, sent: Sent, error: errors.UccpError) -> None:
        """A call whose arguments cannot be had: it is not sent, and leaves its number to a call that does nothing."""
        with self._changed:
            known = self._open.pop(sent.number, None) is not None
            if known and sent in self._queue:
                self._queue.remove(sent)
            self._has_ended(sent.number)
            self._changed.notify_all()
        if known:
            sent.on_result(None, error)

    def credit(self, number: int, taken: int) -> None:
        with self._changed:
            if number in self._open:
                self._credits[number] = max(taken, self._credits.get(number, 0))
                self._changed.notify_all()

    @property
    def outstanding(self) -> int:
        return len(self._open)

    @property
    def failure(self) -> errors.UccpError | None:
        return self._failure

    def close_when_idle(self, then: Callable[[], None]) -> None:
        """Calls `then` once nothing is open any more."""
        with self._changed:
            if self._open and self._failure is None:
                self._idle_close = then
                return
        then()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            stream = self._stream
            self._changed.notify_all()
        if stream is not None:
            stream.cancel()

    # The stream ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        backoff = Backoff()
        try:
            actor = self._actor.result()
        except errors.UccpError as error:
            return self._end(error)
        except concurrent.futures.CancelledError:
            return self._end(errors.Cancelled("the actor was not submitted", reason="CLOSED"))
        while not self._closed:
            try:
                index, channel = self._connection._channel()
            except errors.UccpError as error:
                return self._end(error)
            failure: errors.UccpError
            try:
                end = self._talk(channel, actor, backoff)
                if end is None or _contract.enum_name(end, "reason") != "COMPLETED":
                    self._connection._pause(backoff.pause(), errors.Cancelled("the stream is opened again"))
                    continue
                return self._end(self._on_end())
            except ValueError:  # the channel was closed under it
                return self._end(errors.Cancelled("the connection was closed", reason="CLOSED"))
            except grpc.RpcError as error:
                if self._closed:
                    break
                failure = errors.from_rpc(error, self._connection.context.targets[index])
            if failure.reason == "ACTOR_ENDED":
                return self._end(self._on_end())
            if not isinstance(failure, (errors.Unavailable, errors.OutcomeUnknown)) and failure.retry_after is None:
                return self._end(failure)
            if isinstance(failure, errors.Unavailable):
                self._connection._leave(index)
            self._connection._pause(backoff.pause(failure.retry_after), failure)
        self._end(errors.FailedPrecondition("the client is closed", reason="CLOSED"))

    def _talk(self, channel: grpc.Channel, actor: str, backoff: Backoff) -> Any:
        """One stream; answers why it ended."""
        stub = channel.stream_stream(
            self._method.path,
            request_serializer=self._method.request.SerializeToString,
            response_deserializer=self._reply_class.FromString,
        )
        token = object()
        with self._changed:
            self._attached = False
            self._token = token
        stream = stub(self._requests(actor, token), metadata=self._connection._metadata())
        with self._changed:
            self._stream = stream
            if self._closed:
                stream.cancel()
        try:
            for reply in stream:
                if reply.HasField("end"):
                    return reply.end
                if reply.incarnation:
                    backoff.reset()
                    self._find_memory(f"{actor}/{reply.incarnation}")
                    self._attach(reply.incarnation)
                if reply.results:
                    self._take(reply.results)
            return None
        finally:
            with self._changed:
                self._token = None
                self._stream = None
                self._changed.notify_all()

    def _find_memory(self, actor: str) -> None:
        """Which memory this process has, and whether it shares it with an object of the actor."""
        self._shared, self._fetches = None, False
        with contextlib.suppress(errors.UccpError, uccp_memory.MemoryRefused, uccp_memory.MemoryGone):
            memory = self._memory()
            if memory is not None:
                shares = memory.runs(actor)
                self._shared, self._fetches = (memory, False) if shares else (None, True)

    def _requests(self, actor: str, token: object) -> Iterator[Any]:
        yield self._method.request(actor=actor, caller=self._caller, owner=self._owner)
        while True:
            with self._changed:
                while self._token is token and not (
                    self._attached and ((self._queue and self._queue[0].content is not None) or self._credits)
                ):
                    self._changed.wait()
                if self._token is not token:
                    return
                request = self._method.request(acknowledged=self._done)
                unsent = self._add_calls(request)
                for number, taken in self._credits.items():
                    request.credits.add(number=number, taken=taken)
                self._credits.clear()
            for sent, error in unsent:
                self.fail(sent, error)
            yield request

    def _add_calls(self, request: Any) -> list[tuple[Sent, errors.UccpError]]:
        """Moves calls of a batch from the queue into a request; answers those that cannot travel."""
        unsent: list[tuple[Sent, errors.UccpError]] = []
        size = 0
        while self._queue and len(request.calls) < BATCH_CALLS:
            content = self._queue[0].content
            if content is None or (size and size + len(content) > BATCH_BYTES):
                break
            sent = self._queue.popleft()
            try:
                request.calls.append(sent.made_for(self._shared, self._fetches))
                size += sent.message.args[0].ByteSize() if sent.elsewhere is not None else len(content)
            except errors.UccpError as error:
                unsent.append((sent, error))
        return unsent

    def _attach(self, incarnation: int) -> None:
        """The object is there: what has no result yet is sent again, or has died with the object before."""
        dead: list[Sent] = []
        with self._changed:
            if self._incarnation not in (0, incarnation):
                unsent = {id(sent) for sent in self._queue}
                for sent in list(self._open.values()):
                    if id(sent) in unsent:
                        continue
                    if sent.retries == 0:
                        dead.append(sent)
                        del self._open[sent.number]
                        self._has_ended(sent.number)
                    elif sent.retries > 0:
                        sent.retries -= 1
            self._incarnation = incarnation
            self._queue = deque(self._open.values())
            self._attached = True
            self._changed.notify_all()
        for sent in dead:
            sent.on_result(
                None,
                errors.ActorDied(
                    "the actor's object ended before it answered; the method may have run, and the actor was started "
                    "again",
                    reason="ACTOR_DIED",
                ),
            )
        self._check_idle()
        if self._on_attach is not None:
            self._on_attach()

    def _take(self, results: Any) -> None:
        for result in results:
            if result.more:
                sent = self._open.get(result.number)
            else:
                with self._changed:
                    sent = self._open.pop(result.number, None)
                    if sent is not None:
                        self._has_ended(result.number)
            if sent is not None:
                sent.on_result(result, None)
        self._check_idle()

    def _has_ended(self, number: int) -> None:
        if number != self._done + 1:
            self._ended.add(number)
            return
        self._done = number
        while self._done + 1 in self._ended:
            self._done += 1
            self._ended.discard(self._done)

    def _check_idle(self) -> None:
        then = None
        with self._changed:
            if not self._open:
                then, self._idle_close = self._idle_close, None
        if then is not None:
            then()

    def _end(self, error: errors.UccpError) -> None:
        with self._changed:
            self._failure = error
            waiting = list(self._open.values())
            self._open.clear()
            self._queue.clear()
            self._changed.notify_all()
        for sent in waiting:
            sent.on_result(None, error)
        if self._on_failure is not None:
            self._on_failure(error)
        self._check_idle()
