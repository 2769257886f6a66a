"""References to values that are not there yet, and the stream by which they come."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import uccp_worker
from uccp import _contract, errors, serialization, shared
from uccp.connection import Connection, Stream
from uccp.tasks import TERMINAL, Task, error_of, task_of

T = TypeVar("T")
LABEL = "uccp_client"
VALUE_ARTIFACT = ".value"
FETCHED_AHEAD = 4  # of several references at least, while one of them is read
_UNKNOWN = object()


class Pending:
    """A function task of this client: its id once it is submitted, its end once it has ended."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self.id: concurrent.futures.Future[str] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[Any] = concurrent.futures.Future()  # the contract's Task
        self._value: Any = None
        self._failure: errors.UccpError | None = None
        self._known = False
        self._lock = threading.Lock()

    def submitted(self, task_id: str) -> None:
        self.id.set_result(task_id)
        self._results.expect(task_id, self)

    def refused(self, error: BaseException) -> None:
        self.id.set_exception(error)
        self.ended.set_exception(error)

    def value(self) -> Any:
        """What it returned; requires that it has ended. Fetched and unpickled once. Raises what it came to."""
        with self._lock:
            if not self._known:
                try:
                    self._value = self._results.value_of(self.ended.result())
                except errors.UccpError as error:
                    self._failure = error
                self._known = True
        if self._failure is not None:
            raise self._failure
        return self._value


class DirectCall:
    """A call of an actor or of a leased worker: its value comes with its end. `id`: the task that serves it."""

    __slots__ = ("__weakref__", "_handle", "_outcome", "_value", "ended", "id", "recipe", "shared")

    def __init__(self, task: concurrent.futures.Future[str], handle: Any) -> None:
        self.id = task
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._handle = handle  # which lives until the call has ended
        self._outcome: Any = None
        self._value: Any = _UNKNOWN
        self.shared: shared.SharedValue | None = None  # where its value is, if in shared memory
        self.recipe: Any = None  # how to make it again, if it can be (uccp.lineage)

    def take(self, result: Any, error: errors.UccpError | None) -> None:
        self._outcome = error if error is not None else result
        if error is None and result.value.content_type == uccp_worker.SHARED:
            self.shared = shared.take_over(self._handle._client.memory, result.value.data)
        elif error is None and result.value.content_type == uccp_worker.ELSEWHERE:
            self.shared = shared.refer(self._handle._client.memory, pickle.loads(result.value.data))
        self._handle = None
        self.ended.set_result(None)

    def value(self) -> Any:
        """What it returned; requires that it has ended. Raises what it came to."""
        if self._value is not _UNKNOWN:
            return self._value
        if self.shared is not None:
            return self._shared_value()
        outcome = self._outcome
        if isinstance(outcome, errors.UccpError):
            raise outcome
        if not outcome.failed:
            self._value = serialization.payload_value(outcome.value)
            return self._value
        task_id = "" if self.id is NO_TASK else self.id.result()
        if outcome.value.content_type == uccp_worker.ERROR:
            raise serialization.remote_error(serialization.payload_value(outcome.value), task_id, "RUNNING")
        raise errors.TaskError(outcome.message, task_id=task_id, status="RUNNING", reason="CALL_REFUSED")

    def _shared_value(self) -> Any:
        """Made again when it is lost."""
        while True:
            kept = self.shared
            try:
                return kept.value()  # type: ignore[union-attr]
            except (errors.NotFound, errors.Corruption):
                if self.recipe is None:
                    raise
                with self.recipe.lock:
                    if self.shared is kept:  # no other thread has made it meanwhile
                        if self.recipe.left == 0:
                            raise
                        self.recipe.left -= 1
                        made = self.recipe.run()._pending
                        made.ended.result()
                        if made.shared is None:  # small this time, or a failure
                            self._value = made.value()
                            return self._value
                        self.shared = made.shared

    @property
    def _results(self) -> Any:
        raise errors.FailedPrecondition(
            "only calls that are tasks can be cancelled; uccp.kill(handle) ends an actor with its calls",
            reason="NOT_A_TASK",
        )


NO_TASK: concurrent.futures.Future[str] = concurrent.futures.Future()
NO_TASK.set_exception(
    errors.FailedPrecondition("the call is not a task of its own: it went to a leased worker", reason="NOT_A_TASK")
)


class ObjectRef(Generic[T]):
    """The value of a call, which may not be there yet: `uccp.get(ref)`, `await ref`, or an argument of another
    call."""

    __slots__ = ("__weakref__", "_item", "_pending")

    def __init__(self, pending: Pending | DirectCall | shared.SharedValue, item: int | None = None) -> None:
        self._pending = pending
        self._item = item  # number in its batch

    @property
    def task_id(self) -> str:
        """Id of the task; waits until it is submitted. Raises why it was not."""
        return self._pending.id.result()

    def done(self) -> bool:
        """True when get() would not wait."""
        return self._pending.ended.done()

    def get(self, timeout: float | None = None) -> T:
        """Waits for the value. Raises what the function raised, TaskError's descendants, or DeadlineExceeded."""
        if type(self._pending) is shared.SharedValue:
            return self._pending.value()  # type: ignore[no-any-return]
        try:
            self._pending.ended.result(timeout)
        except concurrent.futures.TimeoutError:
            if not self._pending.ended.done():
                raise errors.DeadlineExceeded(
                    f"the value is not there after {timeout:g} s", reason="VALUE_WAIT_TIMEOUT"
                ) from None
            raise
        value = self._pending.value()
        if self._item is None:
            return value  # type: ignore[no-any-return]
        succeeded, content = value[self._item]
        if not succeeded:
            raise serialization.remote_error(content, self.task_id, "SUCCEEDED")
        return content  # type: ignore[no-any-return]

    def cancel(self, *, reason: str | None = None, grace: float | None = None) -> None:
        """Asks the task to stop; of a batch, all of it. get() then raises TaskCancelled."""
        self._pending._results.cancel(self.task_id, reason, grace)

    def __await__(self) -> Generator[Any, None, T]:
        # The value is fetched and unpickled on a thread: it may be large.
        yield from asyncio.wrap_future(self._pending.ended).__await__()
        return (yield from asyncio.to_thread(self.get).__await__())

    def __repr__(self) -> str:
        where = "" if self._item is None else f"[{self._item}]"
        known = self._pending.id.done() and self._pending.id.exception() is None
        return f"ObjectRef({self.task_id if known else 'not submitted'}{where})"

    def __reduce__(self) -> Any:
        raise errors.SerializationError(
            "an ObjectRef travels only as an argument by itself, not inside of another value: pass it directly",
            reason="REF_INSIDE",
        )


class Results:
    """Ends of this client's tasks, from one stream for all of them."""

    def __init__(self, connection: Connection, client: str, memory: Callable[[], Any] = lambda: None) -> None:
        self._connection = connection
        self._memory = memory
        self._client = client
        self._lock = threading.Lock()
        self._expected: dict[str, weakref.ref[Pending]] = {}
        self._early: dict[str, Any] = {}  # ended before their submission was answered
        self._stream: Stream | None = None
        self._thread: threading.Thread | None = None
        self._failure: errors.UccpError | None = None
        self._closed = False

    def expect(self, task_id: str, pending: Pending) -> None:
        with self._lock:
            early = self._early.pop(task_id, None)
            if early is None and self._failure is None:
                self._expected[task_id] = weakref.ref(pending, lambda _: self._expected.pop(task_id, None))
        if early is not None:
            pending.ended.set_result(early)
        elif self._failure is not None:
            pending.ended.set_exception(self._failure)

    def begin(self) -> None:
        """Opens the stream. Idempotent."""
        with self._lock:
            if self._thread is not None or self._closed:
                return
            self._thread = threading.Thread(target=self._run, name="uccp-results", daemon=True)
            self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            stream = self._stream
        if stream is not None:
            stream.close()

    def cancel(self, task_id: str, reason: str | None, grace: float | None) -> None:
        self._connection.call("TaskScheduling/CancelTask", id=task_id, reason=reason, grace_period=grace)

    def value_of(self, message: Any) -> Any:
        task = task_of(message)
        content_type = message.value.content_type
        if message.value.WhichOneof("body") == "blob":
            found, value = shared.value_of_task(self._memory(), message)
            if found:
                return value
            with self._connection.stream("TaskScheduling/GetTaskArtifact", id=task.id, path=VALUE_ARTIFACT) as chunks:
                value = serialization.loads(b"".join(chunk.data for chunk in chunks), content_type)
        else:
            value = serialization.payload_value(message.value)
        if task.status == "SUCCEEDED":
            return value
        if content_type == uccp_worker.ERROR and task.status == "FAILED":
            raise serialization.remote_error(value, task.id, task.status)
        raise self._failure_of(task, message)

    @staticmethod
    def _failure_of(task: Task, message: Any) -> errors.TaskError:
        last = message.attempt_history[-1] if message.attempt_history else None
        how = _contract.enum_name(last, "outcome") if last is not None else ""
        if task.status == "FAILED" and how in ("EXITED", "SIGNALLED", "LOST"):
            return errors.WorkerCrashed(
                f"task {task.id}: {task.status_reason}", task_id=task.id, status=task.status, reason="WORKER_CRASHED"
            )
        return error_of(task)

    def _run(self) -> None:
        ended = " OR ".join(f'status = "{one}"' for one in TERMINAL)
        while not self._closed:
            stream = self._connection.stream(
                "TaskScheduling/WatchTasks", filter=f'labels.{LABEL} = "{self._client}" AND ({ended})'
            )
            with self._lock:
                self._stream = stream
            try:
                for event in stream:
                    if event.HasField("task"):
                        self._ended(event.task)
                if not self._closed:
                    continue
            except errors.CursorCompacted:
                continue  # begins anew with all that there are
            except errors.UccpError as error:
                if not self._closed:
                    self._fail(error)
                return

    def _ended(self, message: Any) -> None:
        with self._lock:
            reference = self._expected.pop(message.id, None)
            if reference is None:
                self._early[message.id] = message
                if len(self._early) > 100_000:  # of calls whose references are gone
                    self._early.pop(next(iter(self._early)))
                return
        pending = reference()
        if pending is not None and not pending.ended.done():
            pending.ended.set_result(message)

    def _fail(self, error: errors.UccpError) -> None:
        with self._lock:
            self._failure = error
            waiting = list(self._expected.values())
            self._expected.clear()
        for reference in waiting:
            pending = reference()
            if pending is not None and not pending.ended.done():
                pending.ended.set_exception(error)


class YieldedValues:
    """The values that a generator yields, in order, as they come; they are kept as its task is, so iterating begins
    anew each time. At the end it raises what the generator raised."""

    def __init__(self, connection: Connection, pending: Pending) -> None:
        self._connection = connection
        self._pending = pending

    @property
    def task_id(self) -> str:
        """Id of the task; waits until it is submitted."""
        return self._pending.id.result()

    def __iter__(self) -> Iterator[Any]:
        with self._connection.stream("ComputeExecution/StreamResults", id=self.task_id) as items:
            for item in items:
                if item.HasField("result"):
                    break
                yield serialization.payload_value(item.value)
        self._pending.ended.result()
        self._pending.value()  # raises

    def cancel(self, *, reason: str | None = None, grace: float | None = None) -> None:
        """Asks the task to stop; iterating then ends with TaskCancelled."""
        self._pending._results.cancel(self.task_id, reason, grace)


def settled(value: Any) -> Any:
    """A reference's value, which has to be there; anything else as it is."""
    return value.get() if isinstance(value, ObjectRef) else value


def shared_of(value: Any) -> shared.SharedValue | None:
    """Where the value of a reference is, if it is there and in shared memory."""
    if not isinstance(value, ObjectRef):
        return None
    return value._pending if isinstance(value._pending, shared.SharedValue) else getattr(value._pending, "shared", None)


def is_direct(value: Any) -> bool:
    """A reference to a value that only this process has."""
    return isinstance(value, ObjectRef) and isinstance(value._pending, DirectCall)


def when_ended(refs: Sequence[ObjectRef[Any]], then: Callable[[], None]) -> None:
    """Runs it once all of them have ended: at once, or on the thread that learns of the last."""
    left = len(refs)
    lock = threading.Lock()

    def one_ended(_: Any) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left > 0:
                return
        then()

    if not refs:
        return then()
    for ref in refs:
        ref._pending.ended.add_done_callback(one_ended)


def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the values of several in their order. Raises what the first of them came to, or
    DeadlineExceeded when they are not all there after `timeout` seconds."""
    if isinstance(refs, ObjectRef):
        return refs.get(timeout)
    given = list(refs)
    end = None if timeout is None else time.monotonic() + timeout
    values = []
    for number, ref in enumerate(given):
        if number % FETCHED_AHEAD == 0:
            prefetch(given[number : number + 2 * FETCHED_AHEAD])
        values.append(ref.get(None if end is None else max(0.0, end - time.monotonic())))
    return values


def prefetch(refs: Iterable[ObjectRef[Any]]) -> None:
    """Asks for values that are on other machines, or behind the disk, to come into this machine's memory, so that they
    are there when they are read. Waits for nothing; what has not ended is left out."""
    shared.prefetch([one for one in map(shared_of, refs) if one is not None])


def wait(
    refs: Iterable[ObjectRef[Any]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """Waits until `num_returns` of them have ended, however they did, or the time is over: (ended, not ended), both in
    the order given."""
    given: Sequence[ObjectRef[Any]] = list(refs)
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        ended = [ref for ref in given if ref.done()]
        left = None if end is None else end - time.monotonic()
        if len(ended) >= min(num_returns, len(given)) or (left is not None and left <= 0):
            return ended, [ref for ref in given if not ref.done()]
        concurrent.futures.wait(
            {ref._pending.ended for ref in given if not ref.done()}, left, concurrent.futures.FIRST_COMPLETED
        )
