"""Values in memory that the processes of this machine share."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import uccp_memory
import uccp_worker
from uccp import _contract, errors, serialization

if TYPE_CHECKING:
    from uccp.client import Client
    from uccp.objects import StoredObject

# A durable call of something larger refers to it, in the place of carrying it along.
CARRIED_BYTES_MAX = 64 << 10
_PLAIN = (bytes, str, int, float, bool, type(None))
_ENDED: concurrent.futures.Future[None] = concurrent.futures.Future()
_ENDED.set_result(None)
_NO_TASK: concurrent.futures.Future[str] = concurrent.futures.Future()
_NO_TASK.set_exception(
    errors.FailedPrecondition("the value was put into shared memory, no task made it", reason="NOT_A_TASK")
)


class SharedValue:
    """An object in shared memory, which stays there, or on the machine's disk, as long as this refers to it."""

    __slots__ = ("__weakref__", "_stored", "identity", "memory", "size")

    id = _NO_TASK
    ended = _ENDED

    def __init__(self, memory: uccp_memory.Memory, identity: bytes, size: int) -> None:
        self.memory = memory
        self.identity = identity
        self.size = size
        self._stored: StoredObject | None = None

    def value(self) -> Any:
        """What was put: large buffers in it are views that cannot be written. Raises NotFound, Corruption."""
        try:
            return self.memory.get(self.identity)
        except (uccp_memory.MemoryRefused, uccp_memory.MemoryGone) as error:
            raise error_of(error) from error

    def location(self) -> bytes:
        """Where workers on other machines read it. Raises NotFound, Unavailable."""
        try:
            return self.memory.location()
        except (uccp_memory.MemoryRefused, uccp_memory.MemoryGone) as error:
            raise error_of(error) from error

    def stored(self, client: Client) -> StoredObject:
        """A copy in the store of the cluster, for calls that may run on any machine and outlive this one's memory.
        Made once, and removed with this; tasks that have it keep it."""
        with _copying:
            if self._stored is None:
                key = f"uccp.put/{self.identity.hex()}"
                self._stored = client.objects.put(key, self.value())
                client.when_garbage(self, lambda: _forget(client, key))
            return self._stored

    @property
    def _results(self) -> Any:
        raise _NO_TASK.exception()  # type: ignore[misc]

    def __del__(self) -> None:
        self.memory.release(self.identity)


_copying = threading.Lock()


def _forget(client: Client, key: str) -> None:
    try:
        client.objects.delete(key, missing_ok=True)
    except errors.UccpError:
        pass  # it stays until somebody removes it by its key


def error_of(error: uccp_memory.MemoryRefused | uccp_memory.MemoryGone) -> errors.UccpError:
    if isinstance(error, uccp_memory.MemoryGone):
        return errors.NotFound(f"{error}, and with it the objects that it kept", reason="OBJECT_LOST")
    kinds: dict[str, type[errors.UccpError]] = {
        "OBJECT_UNKNOWN": errors.NotFound,
        "OBJECT_LOST": errors.Corruption,
        "OBJECT_TOO_LARGE": errors.InvalidRequest,
        "MEMORY_FULL": errors.Exhausted,
        "OBJECTS_TOO_MANY": errors.Exhausted,
    }
    return kinds.get(error.reason, errors.Unavailable)(str(error), reason=error.reason)


def memory_of(client: Client) -> uccp_memory.Memory | None:
    """The memory that this machine's processes share with functions of the client's namespace; None where the agent
    is on another machine, or is another user's. $UCCP_OBJECTS_FILE names the objects.json of an agent."""
    path = os.environ.get(uccp_memory.FILE) or client.context.objects
    if not path or not os.path.exists(path):
        return None
    caller = client.call("Identity/WhoAmI")
    namespace = client.context.namespace or next(iter(caller.namespaces), "default")
    try:
        return uccp_memory.of_file(path, caller.tenant, namespace)
    except uccp_memory.MemoryRefused as error:
        raise error_of(error) from error


def put(memory: Callable[[], uccp_memory.Memory | None], value: Any) -> SharedValue | None:
    """None where there is no shared memory. Raises SerializationError, Exhausted, InvalidRequest."""
    here = memory()
    if here is None:
        return None
    packed = uccp_memory.Packed.of(value, _dumps)
    try:
        return SharedValue(here, here.put(packed), packed.size)
    except uccp_memory.MemoryRefused as error:
        raise error_of(error) from error
    except uccp_memory.MemoryGone:
        again = memory()  # of the agent that was started since
        return None if again is None or again is here else put(memory, value)


def put_many(memory: Callable[[], uccp_memory.Memory | None], values: Sequence[Any]) -> list[SharedValue] | None:
    """As put(), of many values at once."""
    here = memory()
    if here is None:
        return None
    packed = [uccp_memory.Packed.of(value, _dumps) for value in values]
    try:
        found = here.put_many(packed)
    except (uccp_memory.MemoryRefused, uccp_memory.MemoryGone) as error:
        raise error_of(error) from error
    return [SharedValue(here, identity, one.size) for identity, one in zip(found, packed, strict=True)]


def prefetch(values: Sequence[SharedValue]) -> None:
    """What of them is on other machines, or behind the disk, begins to come."""
    by_memory: dict[int, tuple[uccp_memory.Memory, list[bytes]]] = {}
    for one in values:
        by_memory.setdefault(id(one.memory), (one.memory, []))[1].append(one.identity)
    for memory, identities in by_memory.values():
        with contextlib.suppress(OSError):  # an agent that has ended; who reads is told
            memory.prefetch(identities)


def take_over(memory: uccp_memory.Memory, identity: bytes) -> SharedValue:
    """What a function has handed over."""
    memory.retain(identity)
    return SharedValue(memory, identity, memory.size_of(identity) or uccp_worker.FETCHED_BYTES + 1)


def refer(memory: uccp_memory.Memory, value: uccp_worker.Elsewhere) -> SharedValue:
    """What a function on another machine has handed over. It comes here when it is read."""
    memory.refer(value.identity, value.location)
    return SharedValue(memory, value.identity, uccp_worker.FETCHED_BYTES + 1)


def value_of_task(memory: uccp_memory.Memory | None, task: Any) -> tuple[bool, Any]:
    """(True, its value) if the worker that ran it has handed it over to this process, else (False, None)."""
    if memory is None or _contract.enum_name(task, "status") != "SUCCEEDED" or not task.attempt_history:
        return False, None
    try:
        return True, memory.take(uccp_memory.identity_of(task.id, str(task.attempt_history[-1].number)))
    except (uccp_memory.MemoryRefused, uccp_memory.MemoryGone):
        return False, None  # it ran elsewhere, or too long ago


def _dumps(value: Any, buffer_callback: Any) -> bytes:
    # What needs no code of this program is pickled fast.
    if type(value) in _PLAIN or (type(value).__module__ == "numpy" and not value.dtype.hasobject):
        return pickle.dumps(value, protocol=5, buffer_callback=buffer_callback)
    return serialization.dumps(value, "the value", buffer_callback)
