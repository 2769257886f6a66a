"""What can go wrong, as a hierarchy: one class a code of the platform, each with reason, fields, resource and help.

`except uccp.NotFound` is for programs; `str(error)` is for people and says what to do. docs/errors.md has all reasons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from uccp import _contract

HELP_BASE = "docs/"


class UccpError(Exception):
    """An error of the platform or of this client.

    `reason` is a stable name such as `TASK_NOT_FOUND`; `fields` maps wrong fields of the request to what is wrong
    with them; `resource` is (type, name) of what is missing or in the way; `help` names the page that says more;
    `retry_after` is the time to wait in seconds; `call_id` finds the call in the server's logs.
    """

    code = "internal"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        fields: Mapping[str, str] | None = None,
        resource: tuple[str, str] | None = None,
        help: str = "",
        retry_after: float | None = None,
        call_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.fields = dict(fields or {})
        self.resource = resource
        self.help = help
        self.retry_after = retry_after
        self.call_id = call_id

    def __str__(self) -> str:
        text = self.message
        if self.reason:
            text += f" [{self.reason}]"
        if self.help:
            text += f" (see {self.help})"
        return text


class InvalidRequest(UccpError):
    """The request can never succeed as it is."""

    code = "invalid"


class ContextInvalid(InvalidRequest):
    """No cluster is named, or its context file cannot be used."""


class NotFound(UccpError):
    """There is no such thing."""

    code = "not_found"


class AlreadyExists(UccpError):
    """It exists already; of a lock: somebody else holds it."""

    code = "already_exists"


class Conflict(UccpError):
    """Somebody else changed it: read again."""

    code = "conflict"


class FailedPrecondition(UccpError):
    """The system is not in the state that this needs."""

    code = "failed_precondition"


class PermissionDenied(UccpError):
    """The caller may not do this."""

    code = "permission"


class Unauthenticated(UccpError):
    """No valid credentials."""

    code = "unauthenticated"


class Exhausted(UccpError):
    """A limit is reached."""

    code = "exhausted"


class Unavailable(UccpError):
    """Not possible just now; nothing was done."""

    code = "unavailable"


class DeadlineExceeded(UccpError, TimeoutError):
    """Out of time."""

    code = "deadline"


class Cancelled(UccpError):
    """The caller cancelled."""

    code = "cancelled"


class OutcomeUnknown(UccpError):
    """The change may or may not have happened; a repeat with the same request id is safe."""

    code = "outcome_unknown"


class Corruption(UccpError):
    """Stored data is damaged."""

    code = "corruption"


class Unimplemented(UccpError):
    """Part of the contract and not built."""

    code = "unimplemented"


class InternalError(UccpError):
    """A defect of the platform."""

    code = "internal"


class CursorCompacted(UccpError):
    """The cursor of a stream is too old: read the whole again, then stream without one."""

    code = "out_of_range"


class LeaseLost(UccpError):
    """A lock or leadership ended while its holder still counted on it."""

    code = "failed_precondition"


class TaskError(UccpError):
    """A task ended without success. `task_id` and `status` say which and how."""

    code = "failed_precondition"

    def __init__(self, message: str, *, task_id: str = "", status: str = "", **more: Any) -> None:
        super().__init__(message, **more)
        self.task_id = task_id
        self.status = status


class TaskCancelled(TaskError):
    """The task was cancelled."""


class TaskTimeout(TaskError, TimeoutError):
    """The last attempt of the task took longer than its timeout."""


class WorkerCrashed(TaskError):
    """The process that ran the function ended: it exited, was killed by a signal or ran out of memory."""


class ActorDied(TaskError):
    """The actor has ended, or its object ended while the call was under way. `__cause__` says why, if it is known."""


class RemoteError(TaskError):
    """The function raised. `cause` is the exception itself if it could be pickled, `remote_traceback` its text.

    What is raised by `uccp.get` is also an instance of the exception's own class, so `except ValueError` works.
    """

    def __init__(
        self,
        message: str,
        *,
        remote_type: str = "",
        remote_traceback: str = "",
        cause: BaseException | None = None,
        **more: Any,
    ) -> None:
        super().__init__(message, **more)
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"{self.message}\n\nremote traceback:\n{self.remote_traceback}" if self.remote_traceback else self.message
        )


class SerializationError(UccpError, TypeError):
    """An argument, a function or a result cannot be pickled, or is too large to travel."""

    code = "invalid"


_BY_GRPC = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNKNOWN: OutcomeUnknown,
    grpc.StatusCode.DATA_LOSS: Corruption,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.OUT_OF_RANGE: CursorCompacted,
}


def _details(status: Any) -> dict[str, Any]:
    """What the details of a google.rpc.Status say, by the names of UccpError's arguments."""
    found: dict[str, Any] = {}
    for detail in status.details:
        name = detail.type_url.rpartition("/")[2]
        if not name.startswith("google.rpc."):
            continue
        part = _contract.message_class(name).FromString(detail.value)
        if name.endswith("ErrorInfo"):
            found["reason"] = part.reason
        elif name.endswith("BadRequest"):
            found["fields"] = {one.field: one.description for one in part.field_violations}
        elif name.endswith("RetryInfo"):
            found["retry_after"] = part.retry_delay.seconds + part.retry_delay.nanos / 1e9
        elif name.endswith("ResourceInfo"):
            found["resource"] = (part.resource_type, part.resource_name)
        elif name.endswith("Help") and part.links:
            found["help"] = part.links[0].url or part.links[0].description
    return found


def from_rpc(error: grpc.RpcError, target: str = "") -> UccpError:
    """The error of a call, from what gRPC says."""
    code = error.code()
    message = error.details() or code.name
    metadata: Sequence[Any] = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
    values = {str(one[0]): one[1] for one in metadata}
    details: dict[str, Any] = {}
    if "grpc-status-details-bin" in values:
        status = _contract.message_class("google.rpc.Status").FromString(values["grpc-status-details-bin"])
        message = status.message or message
        details = _details(status)
    elif code is grpc.StatusCode.UNAVAILABLE:
        message = f"{target} cannot be reached: {message}"
        details["reason"] = "CONNECT_FAILED"
    kind = _BY_GRPC.get(code, InternalError)
    return kind(message, call_id=str(values.get("x-request-id", "")), **details)


def all_errors() -> Sequence[type[UccpError]]:
    """Every class of this module, for `uccp`'s own namespace and for documents."""
    return [one for one in globals().values() if isinstance(one, type) and issubclass(one, UccpError)]
