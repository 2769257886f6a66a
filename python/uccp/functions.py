"""Functions that run on the cluster.

@uccp.remote(cpu=1, memory="512Mi", retries=2)
def square(x):
    return x * x

uccp.get(square.remote(3))
uccp.get(square.map(range(10_000), batch=500))
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

import uccp_memory
import uccp_worker
from uccp import errors, serialization, shared
from uccp.client import Client, current
from uccp.objects import StoredObject
from uccp.refs import LABEL, ObjectRef, Pending, YieldedValues, is_direct, settled, shared_of, when_ended
from uccp.shared import CARRIED_BYTES_MAX
from uccp.tasks import resources

P = ParamSpec("P")
T = TypeVar("T")
LABEL_BYTES_MAX = 63
NOT_RETRIED = [uccp_worker.BROKEN]  # what no further try can mend


@dataclasses.dataclass(frozen=True)
class Options:
    """How calls of a function run; None is the platform's default."""

    cpu: float | None = None
    memory: int | str | None = None
    gpus: float | None = None
    retries: int = 0
    timeout: float | None = None
    priority: int | None = None
    requirements: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    name: str | None = None
    durable: bool = True  # False: not a task of its own
    lanes: int = 4  # workers that calls which are not durable may lease at a time

    def fields(self) -> dict[str, Any]:
        """What SubmitTask takes of them."""
        retry = {"max_attempts": self.retries + 1, "non_retryable_exit_codes": NOT_RETRIED}
        return {
            "resources": resources(self.cpu, self.memory, self.gpus),
            "retry": retry if self.retries else None,
            "timeout": self.timeout,
            "priority": self.priority,
            "env": self.env,
        }


class RemoteFunction(Generic[P, T]):
    """A function whose calls run on the cluster; calling it directly runs it here."""

    def __init__(self, function: Callable[P, T], options: Options) -> None:
        self._function = function
        self._options = options
        self._registered: dict[str, tuple[str, str]] = {}  # by client
        self._code: Any = None  # as it travels to leased workers
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._function(*args, **kwargs)

    def options(self, **changed: Any) -> RemoteFunction[P, T]:
        """The same function with other options."""
        return RemoteFunction(self._function, dataclasses.replace(self._options, **changed))

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[T]:
        """Begins a call and answers a reference to its value at once; of a generator, the stream of its values
        (YieldedValues). Arguments that are references arrive as their values. Raises SerializationError."""
        if not self._options.durable:
            return self._lane_call(args, kwargs)
        client, given = current(), (*args, *kwargs.values())
        pending = self._submit(client, lambda: pack([(args, kwargs)]), uccp_worker.CALL, given)
        if inspect.isgeneratorfunction(self._function):
            return YieldedValues(client.connection, pending)  # type: ignore[return-value]
        return ObjectRef(pending)

    def map(self, *iterables: Iterable[Any], batch: int = 1) -> list[ObjectRef[T]]:
        """Begins a call for each item, as the built-in `map` pairs them, `batch` of them in one task: they share its
        start, its attempts after a crash and its timeout; one that raises is tried again by itself. For functions of
        less than some milliseconds take hundreds."""
        client = current()
        refs: list[ObjectRef[T]] = []
        calls = zip(*iterables, strict=False) if len(iterables) > 1 else ((item,) for item in iterables[0])
        if batch <= 1 or not self._options.durable:
            return [self.remote(*args) for args in calls]  # type: ignore[call-arg]
        while chunk := list(itertools.islice(calls, batch)):
            given = [one for args in chunk for one in args]
            packed = functools.partial(pack, [(args, {}) for args in chunk], retries=self._options.retries)
            pending = self._submit(client, packed, uccp_worker.BATCH, given)
            refs.extend(ObjectRef(pending, number) for number in range(len(chunk)))
        return refs

    def _submit(
        self,
        client: Client,
        packed: Callable[[], tuple[bytes, list[ObjectRef[Any] | StoredObject]]],
        content_type: str,
        given: Iterable[Any],
        actor: Mapping[str, Any] | None = None,
    ) -> Pending:
        """Submits a call once the values among its arguments that only this process has are there."""
        name, version = self._register(client)
        pending = Pending(client.results)
        if client.memory is not None and actor is None:
            content_type += uccp_worker.CALLER_MEMORY + client.memory.door

        def arguments() -> tuple[list[dict[str, Any]], list[Any]]:
            content, refs = packed()
            return serialization.payloads(content, content_type, f"a call of {name} with its arguments"), refs

        def submit(ready: tuple[list[dict[str, Any]], list[Any]] | None) -> None:
            try:
                values, refs = ready or arguments()
                following = [{"object": reference_of(client, ref)} for ref in refs]
                task = client.connection.call(
                    "ComputeExecution/SubmitTask",
                    within=None,
                    function={"name": name, "version": version, "args": [*values, *following], "actor": actor},
                    labels=labels_of(client, actor),
                    **self._options.fields(),
                )
            except BaseException as error:
                pending.refused(error)
                return
            pending.submitted(task.id)

        client.results.begin()
        awaited = [one for one in given if is_direct(one)]
        if awaited:
            when_ended(awaited, lambda: client.submit(lambda: submit(None)))
        else:
            ready = arguments()
            client.submit(lambda: submit(ready))
        return pending

    def _lane_call(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> ObjectRef[T]:
        if inspect.isgeneratorfunction(self._function):
            raise errors.InvalidRequest(
                "generators are durable calls, or methods of actors; leased workers run plain functions",
                reason="FIELD_INVALID",
            )
        from uccp import lanes  # which are made of functions

        with self._lock:
            if self._code is None:
                self._code = lanes.Code(self._function, serialization.function_name(self._function))
        key = repr(dataclasses.replace(self._options, retries=0, name=None))
        return current().lanes(key, lambda client: lanes.Lanes(client, self._options)).call(
            self._code, args, kwargs, self._options.retries
        )

    def _register(self, client: Client) -> tuple[str, str]:
        with self._lock:
            if client.id not in self._registered:
                name = self._options.name or serialization.function_name(self._function)
                function = client.connection.call(
                    "ComputeExecution/RegisterFunction",
                    function={
                        "name": name,
                        "entry_point": serialization.ENTRY_POINT,
                        "source": serialization.source_of(self._function, name),
                        "requirements": self._options.requirements,
                    },
                )
                self._registered[client.id] = (function.name, function.version)
            return self._registered[client.id]


def reference_of(client: Client, value: ObjectRef[Any] | StoredObject) -> dict[str, str]:
    kept = shared_of(value)
    if kept is not None:
        return kept.stored(client).reference
    return value.reference if isinstance(value, StoredObject) else {"store": "tasks", "key": value.task_id}


def labels_of(client: Client, actor: Mapping[str, Any] | None) -> dict[str, str]:
    found = {LABEL: client.label}
    if actor is not None:
        found["uccp/actor"] = (actor["name"] or "")[:LABEL_BYTES_MAX]
    return found


def pack(
    calls: list[tuple[Sequence[Any], Mapping[str, Any]]], retries: int | None = None
) -> tuple[bytes, list[ObjectRef[Any] | StoredObject]]:
    """One call pickled, or with `retries` a batch, with references taken out: those follow, each once."""
    following: list[ObjectRef[Any] | StoredObject] = []
    numbers: dict[int, int] = {}

    def stand_in(value: Any) -> Any:
        kept = shared_of(value)
        if kept is not None and kept.size <= CARRIED_BYTES_MAX:
            return kept.value()
        if kept is None and is_direct(value):
            return settled(value)
        if isinstance(value, ObjectRef):
            source, item = kept or value._pending, value._item
        elif isinstance(value, StoredObject):
            source, item = value, None
        else:
            return value
        number = numbers.setdefault(id(source), len(following))
        if number == len(following):
            following.append(value)
        return uccp_worker.Ref(number, item)

    packed = [
        (tuple(stand_in(one) for one in args), {name: stand_in(one) for name, one in kwargs.items()})
        for args, kwargs in calls
    ]
    content = serialization.dumps(packed[0] if retries is None else (packed, retries), "an argument")
    return content, following


@overload
def remote(function: Callable[P, T], /) -> RemoteFunction[P, T]: ...
@overload
def remote(
    *,
    cpu: float | None = ...,
    memory: int | str | None = ...,
    gpus: float | None = ...,
    retries: int = ...,
    timeout: float | None = ...,
    priority: int | None = ...,
    requirements: Sequence[str] = ...,
    env: Mapping[str, str] | None = ...,
    name: str | None = ...,
    durable: bool = ...,
    lanes: int = ...,
) -> Callable[[Callable[P, T]], RemoteFunction[P, T]]: ...
@overload
def remote(*, restarts: int = ..., call_retries: int = ..., detached: bool = ..., **options: Any) -> Any: ...
def remote(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function whose calls run on the cluster: `@uccp.remote` or `@uccp.remote(cpu=2, retries=3)`.

    `cpu` (default 1), `memory` (`"256Mi"`) and `gpus` are reserved and enforced for each call; `retries` are further
    attempts after an exception or a crash (a worker that was lost costs none); `timeout` bounds an attempt, in seconds
    (default 300); `requirements` are packages that it needs beside those of the worker, as `name==version`.

    With `durable=False` a call is not a task of its own: it goes straight to one of `lanes` workers that this client
    leases, thousands a second, is run at least once, and is lost with this client.

    Of a class it makes one whose objects live on the cluster (uccp.actors): `restarts` after a crash, `call_retries` of
    calls that it interrupted, `name` by which `uccp.get_actor` finds it, `detached` from this client."""
    if function is not None:
        return decorate(function, {})
    if options.get("durable") is False and options.get("timeout") is not None:
        raise errors.InvalidRequest("only calls that are durable have a timeout", reason="FIELD_INVALID")
    if isinstance(options.get("requirements"), str):
        raise errors.InvalidRequest("requirements is a list of packages, not one text", reason="FIELD_INVALID")
    return lambda decorated: decorate(decorated, options)


def decorate(decorated: Any, options: Mapping[str, Any]) -> Any:
    if not isinstance(decorated, type):
        return RemoteFunction(decorated, Options(**options))
    from uccp import actors  # which is made of functions

    return actors.ActorClass(decorated, actors.ActorOptions(**actors.actor_fields(options)))


def _same(value: Any) -> Any:
    return value


_keep: RemoteFunction[[Any], Any] = RemoteFunction(_same, Options(cpu=0.1, memory="128Mi", name="uccp.put"))


def put(value: Any) -> ObjectRef[Any]:
    """Stores a value once and answers a reference, for arguments of many calls.

    On a machine with an agent that this process shares memory with, it is kept there as long as the reference; calls
    that run there read it without a copy. Elsewhere it is kept as the value of a task, as long as that is kept. Raises
    SerializationError; Exhausted when memory stays full of what is in use."""
    if isinstance(value, ObjectRef):
        raise errors.SerializationError("the value is a reference already", reason="REF_INSIDE")
    kept = shared.put(lambda: uccp_memory.of_process() or current().memory, value)
    return _keep.remote(value) if kept is None else ObjectRef(kept)


def put_many(values: Iterable[Any]) -> list[ObjectRef[Any]]:
    """As put(), of many values at once: small ones travel together."""
    given = list(values)
    if any(isinstance(one, ObjectRef) for one in given):
        raise errors.SerializationError("one of the values is a reference already", reason="REF_INSIDE")
    kept = shared.put_many(lambda: uccp_memory.of_process() or current().memory, given)
    return [_keep.remote(one) for one in given] if kept is None else [ObjectRef(one) for one in kept]
