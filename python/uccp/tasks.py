"""Tasks that run a command: `client.tasks.submit(["./train.sh"], cpu=2).wait()`."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from uccp import _contract, errors
from uccp.connection import Connection

TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT")
WAIT_STEP_S = 50.0


@dataclasses.dataclass(frozen=True)
class Task:
    """A task as it was when it was read."""

    id: str
    name: str
    status: str
    status_reason: str
    exit_code: int | None
    signal: int
    attempts: int
    worker_id: str
    labels: Mapping[str, str]
    create_time: datetime.datetime | None
    end_time: datetime.datetime | None

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL


def task_of(message: Any) -> Task:
    return Task(
        id=message.id,
        name=message.name,
        status=_contract.enum_name(message, "status"),
        status_reason=message.status_reason,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal,
        attempts=message.attempts,
        worker_id=message.worker_id,
        labels=dict(message.labels),
        create_time=_contract.time_of(message, "create_time"),
        end_time=_contract.time_of(message, "end_time"),
    )


def resources(cpu: float | None, memory: int | str | None, gpus: float | None = None) -> dict[str, Any] | None:
    """The contract's Resources; sizes may be written `"64Mi"`."""
    found: dict[str, Any] = {
        "cpu": cpu,
        "memory": size(memory) if memory is not None else None,
        "gpu": {"count": gpus} if gpus else None,
    }
    return found if any(value is not None for value in found.values()) else None


def size(text: int | str) -> int:
    """`"64Mi"`, `"1.5G"` or a number of bytes. Raises InvalidRequest."""
    if isinstance(text, int):
        return text
    number = text.rstrip("BKMGTPEi")
    unit = text[len(number) :].removesuffix("B")
    powers = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
    try:
        return int(float(number) * (1024 if unit.endswith("i") else 1000) ** powers[unit.removesuffix("i")])
    except (ValueError, KeyError):
        raise errors.InvalidRequest(
            f'{text!r} is no size; it is a number of bytes, or like "64Mi" or "1.5G"', reason="SIZE_INVALID"
        ) from None


def error_of(task: Task) -> errors.TaskError:
    """What an end without success means to whoever waits for it."""
    kind = {"CANCELLED": errors.TaskCancelled, "TIMED_OUT": errors.TaskTimeout}.get(task.status, errors.TaskError)
    return kind(
        f"task {task.id} ended {task.status}: {task.status_reason or 'no reason was given'}",
        task_id=task.id,
        status=task.status,
        reason=f"TASK_{task.status}",
    )


class Tasks:
    """The tasks of the client's namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def submit(
        self,
        command: Sequence[str],
        *,
        name: str | None = None,
        cpu: float | None = None,
        memory: int | str | None = None,
        gpus: float | None = None,
        env: Mapping[str, str] | None = None,
        priority: int | None = None,
        retries: int = 0,
        timeout: float | None = None,
        depends_on: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        request_id: str | None = None,
        **fields: Any,
    ) -> Task:
        """Submits a command, which runs without a shell; other fields are those of the contract's Task."""
        task = {
            "command": list(command),
            "name": name,
            "resources": resources(cpu, memory, gpus),
            "env": env,
            "priority": priority,
            "retry": {"max_attempts": retries + 1} if retries else None,
            "timeout": timeout,
            "dependencies": [{"task_id": one} for one in depends_on],
            "labels": labels,
            **fields,
        }
        return task_of(self._connection.call("TaskScheduling/ScheduleTask", task=task, request_id=request_id))

    def get(self, task_id: str) -> Task:
        """Raises NotFound."""
        return task_of(self._connection.call("TaskScheduling/GetTaskStatus", id=task_id))

    def wait(self, task_id: str, *, timeout: float | None = None, check: bool = True) -> Task:
        """Waits for its end. Raises DeadlineExceeded after `timeout`, and TaskError's descendants if `check` and it
        did
        not succeed."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            step = WAIT_STEP_S if end is None else max(0.0, min(WAIT_STEP_S, end - time.monotonic()))
            task = task_of(
                self._connection.call("TaskScheduling/GetTaskStatus", within=step + 30, id=task_id, wait=step)
            )
            if task.ended:
                if check and task.status != "SUCCEEDED":
                    raise error_of(task)
                return task
            if end is not None and time.monotonic() >= end:
                raise errors.DeadlineExceeded(f"task {task_id} is still {task.status}", reason="TASK_WAIT_TIMEOUT")

    def cancel(self, task_id: str, *, reason: str | None = None, grace: float | None = None) -> Task:
        """Asks it to stop, and kills it after the grace. One that has ended stays as it is."""
        return task_of(
            self._connection.call("TaskScheduling/CancelTask", id=task_id, reason=reason, grace_period=grace)
        )

    def list(self, *, filter: str | None = None, labels: str | None = None) -> Iterator[Task]:
        """All tasks that match, oldest first."""
        token = ""
        while True:
            page = self._connection.call(
                "TaskScheduling/ListTasks", filter=filter, labels=labels, page_token=token, page_size=500
            )
            yield from map(task_of, page.tasks)
            token = page.next_page_token
            if not token:
                return

    def logs(self, task_id: str, *, follow: bool = False, stream: str | None = None) -> Iterator[str]:
        """Lines of its output; with `follow` until it has ended."""
        with self._connection.stream("TaskScheduling/GetTaskLogs", id=task_id, follow=follow, stream=stream) as lines:
            for line in lines:
                yield line.text or line.base64.decode(errors="replace")

    def artifact(self, task_id: str, path: str) -> bytes:
        """The content of a file that was kept from it. Raises NotFound."""
        with self._connection.stream("TaskScheduling/GetTaskArtifact", id=task_id, path=path) as chunks:
            return b"".join(chunk.data for chunk in chunks)
