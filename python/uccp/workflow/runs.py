"""Runs of workflows: begun, driven, resumed, looked at, cancelled, removed; and versions of definitions."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from uccp import errors
from uccp.client import current
from uccp.coordination import Lock
from uccp.workflow import steps
from uccp.workflow.driver import Driver, failure_of
from uccp.workflow.errors import WorkflowCancelled, WorkflowInvalid
from uccp.workflow.graph import Graph, freeze, thaw
from uccp.workflow.holder import hold, take
from uccp.workflow.progress import Progress
from uccp.workflow.states import CANCELLED, FAILED, RUNNING, SUCCEEDED
from uccp.workflow.store import PREFIX, Store, checked_run_id, now

ARGUMENTS_SHOWN = 500


@dataclasses.dataclass(frozen=True)
class StepInfo:
    """A step of a run as it was when it was read. `after` names those whose values it takes."""

    id: str
    kind: str
    status: str
    label: str
    parent: str
    after: list[str]
    task: str
    tries: int
    cached: bool
    started: str
    ended: str
    error: str


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """A run as it was when it was read. `error` has step, message, traceback and task of one that failed."""

    id: str
    workflow: str
    version: int
    status: str
    created: str
    started: str
    ended: str
    arguments: str
    resumes: int
    counts: Mapping[str, int]
    error: Mapping[str, str]

    @property
    def over(self) -> bool:
        return self.status != RUNNING


def _filled(kind: Any, record: Mapping[str, Any]) -> Any:
    empty = {"str": "", "int": 0, "bool": False, "list[str]": [], "Mapping[str, int]": {}, "Mapping[str, str]": {}}
    return kind(**{one.name: record.get(one.name, empty[str(one.type)]) for one in dataclasses.fields(kind)})


class Run:
    """A run that this process drives on a thread of its own."""

    def __init__(self, run_id: str, outcome: concurrent.futures.Future[Any]) -> None:
        self.id = run_id
        self._outcome = outcome

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the value. Raises WorkflowFailed, or DeadlineExceeded after `timeout` seconds."""
        try:
            return self._outcome.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._outcome.done():
                raise
            raise errors.DeadlineExceeded(
                f"run {self.id} is not over after {timeout:g} s", reason="RUN_WAIT_TIMEOUT"
            ) from None

    def done(self) -> bool:
        return self._outcome.done()

    def cancel(self, reason: str = "it was cancelled") -> None:
        """Asks it to stop."""
        cancel(self.id, reason=reason)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"


def _definition(store: Store, workflow: Any, version: int | None) -> tuple[Any, int]:
    """What builds graphs, and its version: 0 if it is not registered."""
    if isinstance(workflow, str):
        return store.load_definition(workflow, version)
    if not hasattr(workflow, "build"):
        raise WorkflowInvalid(
            f"{workflow!r} is no workflow: decorate the function with @workflow.define, or name a registered one",
            reason="NOT_A_WORKFLOW",
        )
    if version is not None:
        raise WorkflowInvalid("only a registered workflow, named by its name, has versions", reason="NOT_REGISTERED")
    return workflow, 0


def _shown(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    text = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    return text if len(text) <= ARGUMENTS_SHOWN else text[: ARGUMENTS_SHOWN - 3] + "..."


def _begin(
    workflow: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], run_id: str | None, version: int | None
) -> tuple[Store, dict[str, Any], int, Graph]:
    """Keeps a new run, which from here on may be resumed. Raises AlreadyExists."""
    store = Store(current())
    definition, number = _definition(store, workflow, version)
    graph = definition.build(args, kwargs)
    name = definition.name
    chosen = checked_run_id(run_id or f"{name[:40].strip('-_.')}-{uuid.uuid4().hex[:12]}")
    run = {
        "id": chosen,
        "uid": uuid.uuid4().hex,
        "workflow": name,
        "version": number,
        "status": RUNNING,
        "created": now(),
        "started": now(),
        "driver": uuid.uuid4().hex,
        "arguments": _shown(args, kwargs),
        "resumes": 0,
        "counts": {},
    }
    if store.read(f"runs/{chosen}") is not None:
        raise _exists(chosen)
    store.put_object(f"runs/{run['uid']}/graph", freeze(graph))
    try:
        revision = store.write(f"runs/{chosen}", run, if_revision=0)
    except errors.Conflict:  # somebody else made one at the same time
        store.delete_objects(run["uid"])
        raise _exists(chosen) from None
    return store, run, revision, graph


def _exists(run_id: str) -> errors.AlreadyExists:
    return errors.AlreadyExists(
        f"there is a run {run_id!r} already: workflow.resume({run_id!r}) goes on with it", reason="RUN_EXISTS"
    )


def _drive(store: Store, run: dict[str, Any], revision: int, graph: Graph, lock: Lock, shown: Progress) -> Any:
    driver = Driver(store, run, revision, graph, lock, shown)
    try:
        return driver.drive()
    except KeyboardInterrupt:
        shown.say(f"interrupted; what runs goes on: workflow.resume({run['id']!r}) goes on with the rest")
        raise
    finally:
        try:
            driver.lock.release()
        except errors.UccpError:
            pass  # it ends with its time to live


def run(
    workflow: Any,
    *args: Any,
    id: str | None = None,
    version: int | None = None,
    progress: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Runs a workflow, or a registered one by its name, with these arguments, and answers its value. Raises
    WorkflowFailed.

    `id` names the run; when this process dies, `workflow.resume(id)` goes on. `progress` None shows a bar on a
    terminal, True lines elsewhere too."""
    store, record, revision, graph = _begin(workflow, args, kwargs, id, version)
    lock = hold(store.client, record["id"])
    return _drive(store, record, revision, graph, lock, Progress(record["id"], progress))


def start(
    workflow: Any,
    *args: Any,
    id: str | None = None,
    version: int | None = None,
    progress: bool | None = None,
    **kwargs: Any,
) -> Run:
    """As run(), on a thread: answers the Run at once."""
    store, record, revision, graph = _begin(workflow, args, kwargs, id, version)
    lock = hold(store.client, record["id"])
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
    outcome.set_running_or_notify_cancel()

    def work() -> None:
        try:
            outcome.set_result(_drive(store, record, revision, graph, lock, Progress(record["id"], progress)))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=work, name=f"uccp-workflow-{record['id']}", daemon=True).start()
    return Run(record["id"], outcome)


def resume(id: str, *, progress: bool | None = None) -> Any:
    """Goes on with a run whose driver is gone, or that has failed or was cancelled, and answers its value. Steps that
    succeeded are not run again; those that failed are. Of one that succeeded it answers the value. Raises NotFound,
    and FailedPrecondition while another driver is at work."""
    store = Store(current())
    record, _ = store.run(id)
    if record["status"] == SUCCEEDED:
        return store.get_object(f"runs/{record['uid']}/result")[0]
    shown = Progress(id, progress)
    try:
        lock = hold(store.client, id)
    except errors.DeadlineExceeded as error:
        raise errors.FailedPrecondition(f"run {id} is driven by another process", reason="RUN_DRIVEN") from error
    try:
        record, revision = store.run(id)  # as the driver before left it
        if record["status"] != SUCCEEDED:
            graph, revision = _taken_over(store, record, revision)
    except BaseException:
        lock.release()
        raise
    if record["status"] == SUCCEEDED:
        lock.release()
        return store.get_object(f"runs/{record['uid']}/result")[0]
    return _drive(store, record, revision, graph, lock, shown)


def _taken_over(store: Store, record: dict[str, Any], revision: int) -> tuple[Graph, int]:
    """Says in the record that the run is driven again. Raises Conflict when somebody else does."""
    graph = thaw(store.get_object(f"runs/{record['uid']}/graph"))
    store.client.kv.delete(f"{PREFIX}control/{record['id']}")
    record |= {"status": RUNNING, "started": now(), "driver": uuid.uuid4().hex, "resumes": record["resumes"] + 1}
    record.pop("ended", None)
    record.pop("error", None)
    return graph, store.write(f"runs/{record['id']}", record, if_revision=revision)


def result(id: str) -> Any:
    """The value of a run that is over. Raises what it came to, and FailedPrecondition if it is not over."""
    store = Store(current())
    record, _ = store.run(id)
    if record["status"] == SUCCEEDED:
        return store.get_object(f"runs/{record['uid']}/result")[0]
    if record["status"] == FAILED:
        raise failure_of(record, record["error"])
    if record["status"] == CANCELLED:
        why = record.get("error", {}).get("message", "")
        raise WorkflowCancelled(f"run {id} was cancelled: {why}", run_id=id, status=CANCELLED)
    raise errors.FailedPrecondition(f"run {id} is not over", reason="RUN_NOT_OVER")


def get(id: str) -> RunInfo:
    """Raises NotFound."""
    return _filled(RunInfo, Store(current()).run(id)[0])  # type: ignore[no-any-return]


def list_steps(id: str) -> list[StepInfo]:
    """The steps of a run in the order of their ids. Raises NotFound."""
    store = Store(current())
    store.run(id)
    return [_filled(StepInfo, one) for one in store.steps(id)]


def list_runs(*, workflow: str | None = None, status: str | None = None) -> Iterator[RunInfo]:
    """Runs in the order of their ids."""
    for record in Store(current()).range("runs/"):
        if workflow in (None, record["workflow"]) and status in (None, record["status"]):
            yield _filled(RunInfo, record)


def cancel(id: str, *, reason: str = "it was cancelled") -> None:
    """Asks a run to stop; a run without a driver is cancelled at once. One that is over stays as it is. Raises
    NotFound."""
    store = Store(current())
    record, _ = store.run(id)
    if record["status"] != RUNNING:
        return
    store.write(f"control/{id}", {"cancel": reason})
    lock = take(store.client, id)
    if lock is None:
        return  # its driver has seen it, or will
    try:
        record, revision = store.run(id)
        if record["status"] != RUNNING:
            return
        for one in steps.begun(store.client, record).values():
            store.client.tasks.cancel(one.task, reason="the workflow was cancelled")
        over = {"status": CANCELLED, "ended": now(), "error": {"message": reason}}
        store.write(f"runs/{id}", record | over, if_revision=revision)
    finally:
        lock.release()


def delete(id: str) -> None:
    """Removes a run that is over; its tasks go with their retention. Raises NotFound, and FailedPrecondition while it
    is not over."""
    store = Store(current())
    record, _ = store.run(id)
    if record["status"] == RUNNING:
        raise errors.FailedPrecondition(
            f"run {id} is not over: workflow.cancel({id!r}) ends it", reason="RUN_NOT_OVER"
        )
    store.delete_run(id, record["uid"])


def register(workflow: Any) -> int:
    """Keeps a workflow under its name, for `workflow.run("name", ...)`, and answers its version: the current one if
    it has not changed, else a new one, which becomes the current one."""
    definition, _ = _definition(Store(current()), workflow, None)
    return Store(current()).register(
        definition.name, definition.definition_digest(), definition.description, definition
    )


def rollback(name: str, version: int | None = None) -> int:
    """Makes an earlier version the current one, by default the one before it, and answers which it is. Runs that are
    under way keep theirs. Raises NotFound, FailedPrecondition."""
    return Store(current()).set_current(name, version)


@dataclasses.dataclass(frozen=True)
class VersionInfo:
    """A version of a registered workflow."""

    version: int
    digest: str
    description: str
    created: str
    current: bool


def versions(name: str) -> list[VersionInfo]:
    """Versions of a registered workflow, oldest first. Raises NotFound."""
    record, _ = Store(current()).definition(name)
    now_used = record["current"]
    return [
        VersionInfo(one["version"], one["digest"], one["description"], one["created"], one["version"] == now_used)
        for one in record["versions"]
    ]


def list_workflows() -> list[str]:
    """Names of the registered workflows."""
    return [one["name"] for one in Store(current()).range("definitions/")]


def unregister(name: str) -> None:
    """Removes a workflow with all its versions; its runs stay. Raises NotFound."""
    Store(current()).delete_definition(name)


