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
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

import uccp_worker
from uccp import errors, serialization
from uccp.client import Client, current
from uccp.refs import LABEL, ObjectRef, Pending
from uccp.tasks import resources

P = ParamSpec("P")
T = TypeVar("T")
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


class RemoteFunction(Generic[P, T]):
    """A function whose calls run on the cluster; calling it directly runs it here."""

    def __init__(self, function: Callable[P, T], options: Options) -> None:
        self._function = function
        self._options = options
        self._registered: dict[int, tuple[str, str]] = {}  # by client
        self._lock = threading.Lock()
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._function(*args, **kwargs)

    def options(self, **changed: Any) -> RemoteFunction[P, T]:
        """The same function with other options."""
        return RemoteFunction(self._function, dataclasses.replace(self._options, **changed))

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[T]:
        """Begins a call and answers a reference to its value at once. Arguments that are references arrive as their
        values. Raises SerializationError."""
        client = current()
        content, refs = pack([(args, kwargs)])
        return ObjectRef(self._submit(client, content, uccp_worker.CALL, refs))

    def map(self, *iterables: Iterable[Any], batch: int = 1) -> list[ObjectRef[T]]:
        """Begins a call for each item, as the built-in `map` pairs them, `batch` of them in one task: they share its
        start, its attempts after a crash and its timeout; one that raises is tried again by itself. For functions of
        less than some milliseconds take hundreds."""
        client = current()
        refs: list[ObjectRef[T]] = []
        calls = zip(*iterables, strict=False) if len(iterables) > 1 else ((item,) for item in iterables[0])
        if batch <= 1:
            return [self.remote(*args) for args in calls]  # type: ignore[call-arg]
        while chunk := list(itertools.islice(calls, batch)):
            content, following = pack([(args, {}) for args in chunk], retries=self._options.retries)
            pending = self._submit(client, content, uccp_worker.BATCH, following)
            refs.extend(ObjectRef(pending, number) for number in range(len(chunk)))
        return refs

    def _submit(self, client: Client, content: bytes, content_type: str, refs: list[ObjectRef[Any]]) -> Pending:
        name, version = self._register(client)
        arguments = serialization.payloads(content, content_type, f"a call of {name} with its arguments")
        pending = Pending(client.results)

        def submit() -> None:
            try:
                values = [{"object": {"store": "tasks", "key": ref.task_id}} for ref in refs]
                task = client.connection.call(
                    "ComputeExecution/SubmitTask",
                    within=None,
                    function={"name": name, "version": version, "args": [*arguments, *values]},
                    labels={LABEL: client.label},
                    **self._fields(),
                )
            except BaseException as error:
                pending.refused(error)
                return
            pending.submitted(task.id)

        client.results.begin()
        client.submit(submit)
        return pending

    def _fields(self) -> dict[str, Any]:
        options = self._options
        retry = {"max_attempts": options.retries + 1, "non_retryable_exit_codes": NOT_RETRIED}
        return {
            "resources": resources(options.cpu, options.memory, options.gpus),
            "retry": retry if options.retries else None,
            "timeout": options.timeout,
            "priority": options.priority,
            "env": options.env,
        }

    def _register(self, client: Client) -> tuple[str, str]:
        with self._lock:
            if id(client) not in self._registered:
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
                self._registered[id(client)] = (function.name, function.version)
            return self._registered[id(client)]


def pack(
    calls: list[tuple[Sequence[Any], Mapping[str, Any]]], retries: int | None = None
) -> tuple[bytes, list[ObjectRef[Any]]]:
    """One call pickled, or with `retries` a batch, with references taken out: those follow, each once."""
    following: list[ObjectRef[Any]] = []
    numbers: dict[int, int] = {}

    def stand_in(value: Any) -> Any:
        if not isinstance(value, ObjectRef):
            return value
        number = numbers.setdefault(id(value._pending), len(following))
        if number == len(following):
            following.append(value)
        return uccp_worker.Ref(number, value._item)

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
) -> Callable[[Callable[P, T]], RemoteFunction[P, T]]: ...
def remote(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function whose calls run on the cluster: `@uccp.remote` or `@uccp.remote(cpu=2, retries=3)`.

    `cpu` (default 1), `memory` (`"256Mi"`) and `gpus` are reserved and enforced for each call; `retries` are further
    attempts after an exception or a crash (a worker that was lost costs none); `timeout` bounds an attempt, in seconds
    (default 300); `requirements` are packages that it needs beside those of the worker, as `name==version`."""
    if function is not None:
        return RemoteFunction(function, Options())
    made = Options(**options)
    if isinstance(made.requirements, str):
        raise errors.InvalidRequest("requirements is a list of packages, not one text", reason="FIELD_INVALID")
    return lambda decorated: RemoteFunction(decorated, made)


def _same(value: Any) -> Any:
    return value


_keep: RemoteFunction[[Any], Any] = RemoteFunction(_same, Options(cpu=0.1, memory="128Mi", name="uccp.put"))


def put(value: Any) -> ObjectRef[Any]:
    """Stores a value once and answers a reference, for arguments of many calls. It is kept as the value of a task, as
    long as that is kept."""
    if isinstance(value, ObjectRef):
        raise errors.SerializationError("the value is a reference already", reason="REF_INSIDE")
    return _keep.remote(value)
