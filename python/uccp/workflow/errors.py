"""What can go wrong with a workflow."""

from __future__ import annotations

from typing import Any

from uccp import errors


class WorkflowInvalid(errors.InvalidRequest):
    """A definition, or what a run of it was given, cannot be right: `where` is the file with line and column, or the
    step."""

    def __init__(self, message: str, *, reason: str = "WORKFLOW_INVALID", where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, reason=reason, help="docs/workflows.md")
        self.where = where


class WorkflowFailed(errors.TaskError):
    """A run that did not succeed: `run_id`, the `step` that failed, `remote_traceback` of what it raised, which is the
    `__cause__`."""

    def __init__(self, message: str, *, run_id: str, step: str = "", reason: str = "WORKFLOW_FAILED", **more: Any):
        self.remote_traceback = str(more.pop("remote_traceback", ""))
        super().__init__(
            message, task_id=str(more.pop("task_id", "")), status=str(more.pop("status", "FAILED")), reason=reason
        )
        self.run_id = run_id
        self.step = step

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\nremote traceback:\n{self.remote_traceback}" if self.remote_traceback else text


class WorkflowCancelled(WorkflowFailed):
    """The run was cancelled."""
