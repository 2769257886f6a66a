"""Objects that live on the cluster.

    @uccp.remote(cpu=0.5, memory="128Mi", restarts=3)
    class Counter:
        def __init__(self, start=0):
            self.value = start

        def add(self, n=1):
            self.value += n
            return self.value

    counter = Counter.remote(10)
    uccp.get(counter.add.remote(5))      # 15
    uccp.kill(counter)

Calls of one handle run in the order in which they were made, one at a time; an object with `async def` methods runs
them beside each other. A method that is a generator answers a stream of values.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import uccp_actor
import uccp_worker
from uccp import errors, serialization
from uccp.channels import Channel, Sent
from uccp.client import Client, current
from uccp.functions import LABEL_BYTES_MAX, Options, RemoteFunction, pack
from uccp.refs import DirectCall, ObjectRef, Pending, settled, shared_of, when_ended

RESTART_BACKOFF_S = 0.1
RESTART_BACKOFF_MAX_S = 30.0
OWNER_TIMEOUT_S = 60.0
STREAM_CREDIT_STEP = 16


@dataclasses.dataclass(frozen=True)
class ActorOptions(Options):
    """How an actor lives, beside what its process may use."""

    restarts: int = 0  # further objects after a crash of its process
    call_retries: int = 0  # of calls that were under way at a restart
    actor_name: str | None = None
    detached: bool = False  # lives on without the client that made it

    def fields(self) -> dict[str, Any]:
        found = super().fields()
        found["retry"] = (
            {
                "max_attempts": self.restarts + 1,
                "initial_backoff": RESTART_BACKOFF_S,
                "max_backoff": RESTART_BACKOFF_MAX_S,
                "non_retryable_exit_codes": [uccp_worker.RAISED, uccp_worker.BROKEN],
            }
            if self.restarts
            else None
        )
        return found


class ActorClass:
    """A class whose objects live on the cluster; calling it directly makes one here."""

    def __init__(self, cls: type, options: ActorOptions) -> None:
        self._class = cls
        self._options = options
        self._function: RemoteFunction[Any, Any] = RemoteFunction(cls, options)
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._class(*args, **kwargs)

    def options(self, **changed: Any) -> ActorClass:
        """The same class with other options; `name` is the actor's, by which `uccp.get_actor` finds it."""
        return ActorClass(self._class, dataclasses.replace(self._options, **actor_fields(changed)))

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Makes an actor and answers its handle at once. Without `detached` it ends when its handle is garbage and its
        calls have ended, or some time after this client has gone."""
        return make(current(), self._function, self._class, self._options, args, kwargs)

    def __repr__(self) -> str:
        return f"ActorClass({self.__name__})"


def make(
    client: Client,
    function: RemoteFunction[Any, Any],
    cls: type,
    options: ActorOptions,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    **hooks: Any,
) -> ActorHandle:
    actor = {"name": options.actor_name, "owner_timeout": None if options.detached else OWNER_TIMEOUT_S}
    given = (*args, *kwargs.values())
    pending = function._submit(client, lambda: pack([(args, kwargs)]), uccp_worker.CALL, given, actor=actor)
    channel = Channel(
        client.connection,
        pending.id,
        owner=not options.detached,
        on_end=lambda: why_ended(client, pending),
        memory=lambda: client.memory,
        **hooks,
    )
    client.keep_channel(channel)
    handle = ActorHandle(client, channel, pending, options, generators_of(cls))
    if options.detached:
        client.when_garbage(handle, lambda: channel.close_when_idle(channel.close))
    else:
        # An owner is there from the beginning, not from its first call on.
        channel.connect()
        client.when_garbage(handle, lambda: release(client, channel, pending))
    return handle


def lease(
    client: Client, options: Options, attached: Callable[[], None], failed: Callable[[errors.UccpError], None]
) -> ActorHandle:
    """An actor that runs functions (uccp.lanes)."""
    common = {one.name: getattr(options, one.name) for one in dataclasses.fields(Options)}
    own = ActorOptions(**{**common, "name": "uccp.lane", "retries": 0})
    function: RemoteFunction[Any, Any] = RemoteFunction(uccp_actor.Lane, own)
    return make(client, function, uccp_actor.Lane, own, (), {}, on_attach=attached, on_failure=failed)


def generators_of(cls: type) -> frozenset[str]:
    return frozenset(
        name
        for name in dir(cls)
        if inspect.isgeneratorfunction(getattr(cls, name, None)) or inspect.isasyncgenfunction(getattr(cls, name, None))
    )


def why_ended(client: Client, pending: Pending) -> errors.UccpError:
    """Why the task of an actor is over, as the error of calls on it."""
    task_id = pending.id.result()
    cause: errors.UccpError | None = None
    reason = "its constructor or a method ended it"
    try:
        pending.ended.result(timeout=30)
        pending.value()
    except errors.UccpError as error:
        cause, reason = error, error.message
    except TimeoutError:
        reason = "why is not known"
    died = errors.ActorDied(f"the actor {task_id} has ended: {reason}", task_id=task_id, reason="ACTOR_ENDED")
    died.__cause__ = cause
    return died


def release(client: Client, channel: Channel, pending: Pending) -> None:
    """The last handle is gone: the actor ends once its calls have."""

    def end() -> None:
        if not client.connection.closed and channel.failure is None:
            client.submit(lambda: kill_task(client, pending))

    channel.close_when_idle(end)


def kill_task(client: Client, pending: Pending) -> None:
    try:
        client.results.cancel(pending.id.result(), "its handle is gone", 0)
    except errors.UccpError:
        pass  # it ends by its owner's timeout


class ActorHandle:
    """An actor: `handle.method.remote(...)`."""

    def __init__(
        self,
        client: Client,
        channel: Channel,
        pending: Pending | NamedActor,
        options: ActorOptions,
        generators: frozenset[str],
    ) -> None:
        self._client = client
        self._channel = channel
        self._pending = pending
        self._options = options
        self._generators = generators

    @property
    def task_id(self) -> str:
        """Id of its task; waits until it is submitted."""
        return self._pending.id.result()

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("_"):
            raise AttributeError(f"methods whose names begin with _ are not called: {name}")
        return ActorMethod(self, name)

    def __repr__(self) -> str:
        known = self._pending.id.done() and self._pending.id.exception() is None
        return f"ActorHandle({self.task_id if known else 'not submitted'})"

    def __reduce__(self) -> Any:
        raise errors.SerializationError(
            "a handle of an actor does not travel: give the actor a name, and take it by uccp.get_actor(name) there",
            reason="HANDLE_TRAVELS",
        )

    def _call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any], take: Any) -> Sent:
        channel, retries = self._channel, self._options.call_retries
        awaited = [one for one in (*args, *kwargs.values()) if isinstance(one, ObjectRef) and shared_of(one) is None]
        if not awaited:
            sent = prepared(channel, method, packed_arguments(args, kwargs, method), take, retries)
            channel.call(sent)
            return sent
        sent = Sent(channel.new_call(method), take, retries)
        channel.call(sent)

        def resolve() -> None:
            try:
                packed = packed_arguments(args, kwargs, method)
                fill_arguments(sent, packed)
                channel.ready(sent, packed.content)
            except errors.UccpError as error:
                channel.fail(sent, error)

        when_ended(awaited, lambda: self._client.submit(resolve))
        return sent


@dataclasses.dataclass
class Packed:
    """Arguments as they travel."""

    content: bytes
    memory: Any = None  # that `content` refers to
    elsewhere: Callable[[], bytes] | None = None  # the same for who does not share it


def packed_arguments(
    args: Sequence[Any], kwargs: Mapping[str, Any], method: str, wrap: Callable[..., Any] = lambda *both: both
) -> Packed:
    """References among them have to be settled; those in shared memory live as long as this. Raises
    SerializationError, and what the references came to."""
    given = (*args, *kwargs.values())
    if ObjectRef not in map(type, given):
        return Packed(arguments(*wrap(args, kwargs), method))
    kept = [one for one in map(shared_of, given) if one is not None]
    memory = kept[0].memory if kept else None

    def here(one: Any) -> Any:
        found = shared_of(one)
        return settled(one) if found is None or found.memory is not memory else uccp_worker.Shared(found.identity)

    def there(one: Any) -> Any:
        found = shared_of(one)
        if found is None or found.size <= uccp_worker.FETCHED_BYTES:
            return settled(one)
        return uccp_worker.Elsewhere(found.identity, found.location())

    def packed(each: Callable[[Any], Any]) -> bytes:
        return arguments(*wrap([each(one) for one in args], {name: each(one) for name, one in kwargs.items()}), method)

    return Packed(packed(here), memory, (lambda: packed(there)) if kept else None)


def arguments(args: Sequence[Any], kwargs: Mapping[str, Any], method: str) -> bytes:
    """Arguments as they travel. Raises SerializationError."""
    content = serialization.dumps((tuple(args), dict(kwargs)), "an argument")
    if len(content) > serialization.CALL_BYTES_MAX:
        raise errors.SerializationError(
            f"the arguments of {method} have {len(content)} bytes, at most {serialization.CALL_BYTES_MAX} travel with "
            "a call; name files that workers can read, or give them in parts",
            reason="ARGUMENTS_TOO_LARGE",
        )
    return content


def fill_arguments(sent: Sent, packed: Packed) -> None:
    payload = sent.message.args.add()
    payload.data = packed.content
    payload.content_type = uccp_worker.CALL
    sent.memory, sent.elsewhere = packed.memory, packed.elsewhere


def prepared(channel: Channel, method: str, packed: Packed, take: Any, retries: int) -> Sent:
    """A call whose arguments are there."""
    sent = Sent(channel.new_call(method), take, retries)
    fill_arguments(sent, packed)
    sent.content = packed.content
    return sent


class ActorMethod:
    """A method of an actor."""

    __slots__ = ("_handle", "_name")

    def __init__(self, handle: ActorHandle, name: str) -> None:
        self._handle = handle
        self._name = name

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Begins a call and answers a reference to its value at once; of a generator, a stream of references."""
        if self._name in self._handle._generators:
            return self.stream(*args, **kwargs)
        call = DirectCall(self._handle._pending.id, self._handle)
        self._handle._call(self._name, args, kwargs, call.take)
        return ObjectRef(call)

    def stream(self, *args: Any, **kwargs: Any) -> ValueStream:
        """Begins a call of a generator and answers the stream of its values."""
        stream = ValueStream(self._handle)
        stream._sent = self._handle._call(self._name, args, kwargs, stream._take)
        return stream

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self._name} runs elsewhere: call {self._name}.remote(...)")


class ValueStream:
    """References to the values of a generator, in order, as they come; each is there already. The generator runs some
    values ahead and waits when they are not taken. Iterated once; raises what the generator raised at its end."""

    _sent: Sent

    def __init__(self, handle: ActorHandle) -> None:
        self._handle = handle
        self._changed = threading.Condition()
        self._values: list[Any] = []
        self._at = 0  # of the values taken
        self._seen = 0
        self._ended = False
        self._failure: errors.UccpError | None = None

    def _take(self, result: Any, error: errors.UccpError | None) -> None:
        with self._changed:
            if error is not None:
                self._failure, self._ended = error, True
            elif result.more:
                if result.index != self._seen:  # it came before
                    return
                self._seen += 1
                self._values.append(result)
            else:
                self._values.append(result)
                self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        return self

    def __next__(self) -> ObjectRef[Any]:
        with self._changed:
            while not self._values and not self._ended:
                self._changed.wait()
            if not self._values:
                if self._failure is not None:
                    raise self._failure
                raise StopIteration
            result = self._values.pop(0)
            if not result.more and not result.failed:
                raise StopIteration
        call = DirectCall(self._handle._pending.id, self._handle)
        call.take(result, None)
        if not result.more:
            call.value()  # raises
        self._at += 1
        if self._at % STREAM_CREDIT_STEP == 0:
            self._handle._channel.credit(self._sent.number, self._at)
        return ObjectRef(call)

    def close(self) -> None:
        """The generator is closed; values that came stay."""
        self._handle._channel.credit(self._sent.number, (1 << 64) - 1)

    def __enter__(self) -> ValueStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class NamedActor:
    """Stands for the task of an actor that another client made."""

    def __init__(self, client: Client, task_id: str) -> None:
        self._client = client
        self.id: concurrent.futures.Future[str] = concurrent.futures.Future()
        self.id.set_result(task_id)

    def why_ended(self) -> errors.UccpError:
        task_id = self.id.result()
        try:
            task = self._client.tasks.get(task_id)
            reason = f"{task.status}: {task.status_reason}"
        except errors.UccpError as error:
            reason = error.message
        return errors.ActorDied(f"the actor {task_id} has ended: {reason}", task_id=task_id, reason="ACTOR_ENDED")


def get_actor(name: str) -> ActorHandle:
    """The living actor of this name in the namespace. Its generators are called by `.stream()`. Raises NotFound."""
    client = current()
    for task in client.tasks.list(labels=f"uccp/actor={name[:LABEL_BYTES_MAX]}"):
        if not task.ended:
            found = NamedActor(client, task.id)
            channel = Channel(
                client.connection, found.id, owner=False, on_end=found.why_ended, memory=lambda: client.memory
            )
            client.keep_channel(channel)
            handle = ActorHandle(client, channel, found, ActorOptions(), frozenset())
            client.when_garbage(handle, lambda: channel.close_when_idle(channel.close))
            return handle
    raise errors.NotFound(f"there is no living actor {name} in this namespace", reason="ACTOR_NOT_FOUND")


def kill(handle: ActorHandle) -> None:
    """Ends an actor at once; calls without a value raise ActorDied."""
    handle._client.results.cancel(handle.task_id, "killed", 0)


def exit_actor() -> None:
    """Inside of a method: ends its actor, with success, after this call."""
    raise uccp_worker.ActorExit


def actor_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are given: `name` is the actor's."""
    found = dict(options)
    if "name" in found:
        found["actor_name"] = found.pop("name")
    return found
