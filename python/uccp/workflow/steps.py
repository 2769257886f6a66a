"""Steps as tasks: what is submitted, how a task of an earlier driver is found, which call equals another one."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import uccp_worker
from uccp import errors, serialization, tasks
from uccp.client import Client
from uccp.functions import pack
from uccp.refs import LABEL, ObjectRef, Pending
from uccp.workflow import digest
from uccp.workflow.definition import Step, StepOptions
from uccp.workflow.graph import Continuation, Graph
from uccp.workflow.states import Leaf, State
from uccp.workflow.store import Store
from uccp_step import Slot, gathered as gather_values, replaced

RUN_LABEL, STEP_LABEL, TRY_LABEL = "uccp_workflow", "uccp_step", "uccp_try"
LEAVES_MAX = 200  # values of other steps that one call takes
GATHER = Step(gather_values, StepOptions(name="gather", runs={"cpu": 0.1, "memory": "256Mi", "retries": 3}))


@dataclasses.dataclass(frozen=True)
class Begun:
    """The last task that was begun for a step."""

    task: str
    tries: int
    usable: bool  # it has not failed
    succeeded: bool


def label_of(run: dict[str, Any]) -> str:
    """What the tasks of a run have in common, and those of no other run of the same id."""
    return f"workflow-{run['uid']}"


def step_label(step_id: str) -> str:
    """A step as a label, which is shorter than an id may be."""
    return hashlib.sha256(step_id.encode()).hexdigest()[:40]


def begun(client: Client, run: dict[str, Any]) -> dict[str, Begun]:
    """The tasks of a run by the labels of their steps."""
    found: dict[str, Begun] = {}
    for task in client.tasks.list(labels=f"{LABEL}={label_of(run)}"):
        tries = int(task.labels.get(TRY_LABEL, "1"))
        label = task.labels.get(STEP_LABEL, "")
        if label not in found or found[label].tries < tries:
            succeeded = task.status == "SUCCEEDED"
            found[label] = Begun(task.id, tries, succeeded or not task.ended, succeeded)
    return found


def request(client: Client, run: dict[str, Any], state: State, step: Step) -> dict[str, Any]:
    """The fields of SubmitTask. Raises SerializationError."""
    remote = step.remote()
    name, version = remote._register(client)
    numbers = {id(leaf.pending): number for number, leaf in enumerate(state.leaves)}
    template = replaced(state.template, Leaf, lambda leaf: Slot(numbers[id(leaf.pending)], leaf.path))
    refs = [ObjectRef[Any](leaf.pending) for leaf in state.leaves]
    content, following = pack([((template, *refs), {})])
    values = serialization.payloads(content, uccp_worker.CALL, f"the call of step {state.id} with its arguments")
    objects = [{"object": {"store": "tasks", "key": one.task_id}} for one in following]  # type: ignore[union-attr]
    key = f"{run['uid']}/{state.id}/{state.tries}"
    return {
        "function": {"name": name, "version": version, "args": [*values, *objects]},
        "labels": {
            LABEL: label_of(run),
            RUN_LABEL: run["id"],
            STEP_LABEL: step_label(state.id),
            TRY_LABEL: str(state.tries),
        },
        "request_id": f"workflow-{hashlib.sha256(key.encode()).hexdigest()}",
        **remote._options.fields(),
    }


def submit(client: Client, run: dict[str, Any], step_id: str, fields: dict[str, Any]) -> str:
    """Begins the task of a step, and answers its id; if another driver has begun it, that of the task that is there:
    its request had the same id, but not always the same bytes."""
    try:
        return str(client.connection.call("ComputeExecution/SubmitTask", within=None, **fields).id)
    except errors.Conflict as error:
        if error.reason != "REQUEST_ID_REUSED":
            raise
        there = begun(client, run).get(step_label(step_id))
        if there is None:
            raise
        return there.task


def further(pending: Pending, step: Step) -> Graph | None:
    """The steps that a dynamic step has answered in place of a value."""
    value = pending.value() if step.chosen.dynamic else None
    return value.graph if isinstance(value, Continuation) else None


def cache_key(step: Step, template: Any) -> str:
    """Equal for equal code, arguments and environment."""

    def stands_for(value: Any) -> str | None:
        if not isinstance(value, Leaf):
            return None
        return digest.of_texts(_payload_digest(value.pending.ended.result().value), digest.of_value(value.path))

    return digest.of_texts(step.code_digest(), step.environment_digest(), digest.of_value(template, stands_for))


def _payload_digest(payload: Any) -> str:
    which = payload.WhichOneof("body")
    if which == "blob":
        return str(payload.blob.sha256)
    content = payload.data if which == "data" else payload.SerializeToString(deterministic=True)
    return hashlib.sha256(content).hexdigest()


def cached(client: Client, store: Store, key: str) -> Any:
    """The task of an equal call that succeeded, as the contract has it; None when there is none any more."""
    task = store.cached(key)
    if task is None:
        return None
    try:
        message = client.connection.call("TaskScheduling/GetTaskStatus", id=task)
    except errors.NotFound:
        return None
    return message if tasks.task_of(message).status == "SUCCEEDED" else None


class _Place:
    def __init__(self, part: int, number: int, path: tuple[Any, ...]) -> None:
        self.part = part
        self.number = number
        self.path = path


def gather(template: Any, leaves: list[Leaf]) -> tuple[list[list[Leaf]], Any]:
    """Parts of the values that a step takes, each of which one call collects, and the arguments with their places."""
    if len(leaves) > LEAVES_MAX * LEAVES_MAX:
        raise errors.Exhausted(
            f"a step takes at most {LEAVES_MAX * LEAVES_MAX} values of others, not {len(leaves)}; "
            "let steps between them summarize",
            reason="STEP_INPUTS_MAX",
        )
    parts = [
        [Leaf(one.pending) for one in leaves[at : at + LEAVES_MAX]] for at in range(0, len(leaves), LEAVES_MAX)
    ]
    numbers = {id(one.pending): number for number, one in enumerate(leaves)}

    def place(one: Leaf) -> _Place:
        number = numbers[id(one.pending)]
        return _Place(number // LEAVES_MAX, number % LEAVES_MAX, one.path)

    return parts, replaced(template, Leaf, place)


def gathered(template: Any, shapes: list[Leaf]) -> Any:
    """The arguments, with what was collected in their places."""
    return replaced(template, _Place, lambda one: Leaf(shapes[one.part].pending, (one.number, *one.path)))
