"""UCCP from Python: functions on a cluster, locks, elections, keys, events, services and tasks.

    import uccp
    uccp.init(context_file="data/dev.json")      # or the context of the command line

    with uccp.lock("orders/42", timeout=5):
        ...

python/README.md has the rest.
"""

from __future__ import annotations

from typing import Any

from uccp import aio
from uccp.actors import ActorClass, ActorHandle, ValueStream, exit_actor, get_actor, kill
from uccp.client import Client, connect, current, init, shutdown
from uccp.coordination import Election, Lock
from uccp.discovery import Discovery, Instance, Registration
from uccp.errors import (
    ActorDied,
    AlreadyExists,
    Cancelled,
    Conflict,
    ContextInvalid,
    Corruption,
    CursorCompacted,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    LeaseLost,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RemoteError,
    SerializationError,
    TaskCancelled,
    TaskError,
    TaskTimeout,
    UccpError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    WorkerCrashed,
)
from uccp.events import Event, Events
from uccp.functions import RemoteFunction, put, put_many, remote
from uccp.kv import KeyValue
from uccp.objects import Objects, StoredObject
from uccp.refs import ObjectRef, YieldedValues, get, prefetch, wait
from uccp.tasks import Task, Tasks
from uccp.transactions import Producer, Transaction

__version__ = "1.0.0"


def lock(name: str, **options: Any) -> Lock:
    """A lock of the cluster of init(): `with uccp.lock("orders/42", timeout=5):`; options are those of Client.lock."""
    return current().lock(name, **options)


def election(group: str, **options: Any) -> Election:
    """A candidacy in the cluster of init(): `with uccp.election("scheduler"):`; options are those of
    Client.election."""
    return current().election(group, **options)


__all__ = [
    "ActorClass",
    "ActorDied",
    "ActorHandle",
    "AlreadyExists",
    "Cancelled",
    "Client",
    "Conflict",
    "ContextInvalid",
    "Corruption",
    "CursorCompacted",
    "DeadlineExceeded",
    "Discovery",
    "Election",
    "Event",
    "Events",
    "Exhausted",
    "FailedPrecondition",
    "Instance",
    "InternalError",
    "InvalidRequest",
    "KeyValue",
    "LeaseLost",
    "Lock",
    "NotFound",
    "ObjectRef",
    "Objects",
    "OutcomeUnknown",
    "PermissionDenied",
    "Producer",
    "Registration",
    "RemoteError",
    "RemoteFunction",
    "SerializationError",
    "StoredObject",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskTimeout",
    "Tasks",
    "Transaction",
    "UccpError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "ValueStream",
    "WorkerCrashed",
    "YieldedValues",
    "aio",
    "connect",
    "current",
    "election",
    "exit_actor",
    "get",
    "get_actor",
    "init",
    "kill",
    "lock",
    "prefetch",
    "put",
    "put_many",
    "remote",
    "shutdown",
    "wait",
]
