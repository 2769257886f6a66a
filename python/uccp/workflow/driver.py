"""Drives a run: begins each step once what it needs is there, until the value of the run is.

Steps are tasks of the platform, which go on whether this process lives or not; their values stay there. A task has the
labels of its run and step, and a request id made of both, so that whoever drives the run after a crash finds what was
begun, and begins nothing twice. Records are for those who look at the run: nothing is decided by them. A run has one
driver at a time, which holds a lock.

Only what is needed runs: a node is begun when something that is needed needs it. Thread: all of it on one, but for
submissions and ends of tasks, which come through a queue.
"""

from __future__ import annotations

import functools
import queue
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from uccp import errors, tasks
from uccp.client import Client
from uccp.coordination import Lock
from uccp.refs import Pending, Results
from uccp.workflow import steps
from uccp.workflow.control import Control
from uccp.workflow.errors import WorkflowCancelled, WorkflowFailed
from uccp.workflow.graph import NODES_MAX, Body, FlowNode, Graph, Node, Scope, StepNode, nodes_in
from uccp.workflow.holder import hold
from uccp.workflow.progress import Progress
from uccp.workflow.states import (
    CANCELLED,
    FAILED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    WAITING,
    Join,
    Leaf,
    State,
    brief,
    fetched,
    leaves_in,
    shaped,
)
from uccp.workflow.store import Store, now

TICK_S = 0.5
PARALLEL = 500  # tasks of a run that have not ended
# What says nothing of a step: this process cannot go on, somebody may later.
UNREACHED = (errors.Unavailable, errors.DeadlineExceeded, errors.OutcomeUnknown)


class Driver:
    """One drive of a run, by whoever holds its lock."""

    def __init__(
        self, store: Store, run: dict[str, Any], revision: int, graph: Graph, lock: Lock, progress: Progress
    ) -> None:
        self.client: Client = store.client
        self.store = store
        self.run = run
        self.graph = graph
        self.states: dict[str, State] = {}
        self.results = Results(self.client.connection, steps.label_of(run))
        self.lock = lock
        self._revision = revision  # of the record, which nobody changes while this is the driver
        self._progress = progress
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._todo: deque[Callable[[], None]] = deque()
        self._ready: deque[State] = deque()
        self._running: set[str] = set()
        self._changed: dict[str, State] = {}
        self._cache: list[tuple[str, dict[str, Any]]] = []
        self._begun: dict[str, steps.Begun] = {}
        self._outcome: tuple[str, State | None] | None = None
        self._cancelled: str | None = None

    # --- the run ---

    def drive(self) -> Any:
        """Answers the value of the run. Raises WorkflowFailed, or UccpError when it cannot be driven any more: then it
        may be resumed."""
        self._begun = steps.begun(self.client, self.run)
        self.results.begin()
        asked = lambda why: self._events.put(functools.partial(self._cancel, why))  # noqa: E731
        control = Control(self.client, self.run["id"], asked)
        try:
            self._open(self.graph, "", "")
            wanted = self.graph.wanted()
            self._join(wanted, functools.partial(self._end, SUCCEEDED, None), functools.partial(self._end, FAILED))
            self._need(wanted)
            while not self._over():
                self._begin_ready()
                self._flush()
                if not self._over():
                    self._take_events()
            return self._finish()
        finally:
            control.close()
            self.results.close()

    def _over(self) -> bool:
        while self._todo:
            self._todo.popleft()()
        if self._outcome is None and self._cancelled is None:
            return False
        return not self._running

    def _end(self, status: str, state: State | None = None) -> None:
        if self._outcome is None:
            self._outcome = (status, state)

    def _take_events(self) -> None:
        """Waits for one, and takes all that are there."""
        try:
            event = self._events.get(timeout=TICK_S)
        except queue.Empty:
            if not self._running:
                raise errors.InternalError(f"run {self.run['id']} waits for nothing", reason="RUN_STUCK") from None
        else:
            event()
            while not self._events.empty():
                self._events.get()()
        if self.lock.lost:
            self._hold_again()
        self._progress.show(self.states.values())

    def _hold_again(self) -> None:
        """The lock was lost, as when this process stood still: goes on if nobody has taken the run over."""
        try:
            if self.store.run(self.run["id"])[1] == self._revision:
                self.lock = hold(self.client, self.run["id"])
        except errors.DeadlineExceeded:
            pass  # somebody else has it
        if self.lock.lost or self.store.run(self.run["id"])[1] != self._revision:
            raise self._taken_over()

    def _taken_over(self) -> errors.LeaseLost:
        return errors.LeaseLost(f"run {self.run['id']} was taken over by another driver", reason="RUN_TAKEN_OVER")

    def _cancel(self, why: str) -> None:
        self._cancelled = why
        for one in list(self._running):
            state = self.states[one]
            if state.task:
                self.client.tasks.cancel(state.task, reason="the workflow was cancelled")

    def _finish(self) -> Any:
        """Writes how it ended. The value is kept before the status."""
        for state in self.states.values():
            if not state.done:
                self._set(state, SKIPPED)
        self._flush()
        if self._cancelled is not None:
            self._close(CANCELLED, {"message": self._cancelled})
            raise WorkflowCancelled(
                f"run {self.run['id']} was cancelled: {self._cancelled}", run_id=self.run["id"], status=CANCELLED
            )
        status, failed = self._outcome or (FAILED, None)
        if status == SUCCEEDED:
            value = fetched(shaped(self.graph.result, self.states))
            self.store.put_object(f"runs/{self.run['uid']}/result", (value,))
            self._close(SUCCEEDED, None)
            return value
        assert failed is not None
        raise self._failure(failed)

    def _failure(self, failed: State) -> WorkflowFailed:
        error = failed.error
        cause = self.states.get(getattr(error, "workflow_step", ""), failed)
        details = {
            "step": cause.id,
            "message": brief(error) if error is not None else "",
            "traceback": getattr(error, "remote_traceback", ""),
            "task": cause.task,
        }
        self._close(FAILED, details)
        failure = failure_of(self.run, details)
        failure.__cause__ = error
        return failure

    def _close(self, status: str, error: dict[str, Any] | None) -> None:
        self.run |= {"status": status, "ended": now()}
        self.run.pop("error", None)
        if error is not None:
            self.run["error"] = error
        self._write_run()
        self._progress.end(self.states.values(), status)

    def _write_run(self) -> None:
        counts: dict[str, int] = {}
        for state in self.states.values():
            counts[state.status] = counts.get(state.status, 0) + 1
        self.run["counts"] = counts
        try:
            self._revision = self.store.write(f"runs/{self.run['id']}", self.run, if_revision=self._revision)
        except errors.Conflict:
            raise self._taken_over() from None

    def _flush(self) -> None:
        """Writes what has changed."""
        if not self._changed and not self._cache:
            return
        records = [(f"steps/{self.run['id']}/{state.id}", state.record()) for state in self._changed.values()]
        self.store.write_all([*records, *self._cache])
        self._changed.clear()
        self._cache.clear()

    # --- nodes ---

    def _open(self, graph: Graph, prefix: str, parent: str) -> None:
        """Gives nodes their ids in the run."""
        for node in graph.nodes:
            if node.kind != "parameter":
                self._register(node, prefix + node.name, parent)

    def _register(self, node: Node, node_id: str, parent: str) -> None:
        if len(self.states) >= NODES_MAX:
            raise errors.Exhausted(f"the run has more than {NODES_MAX} steps", reason="WORKFLOW_TOO_LARGE")
        node.id = node_id
        state = State(node, parent)
        self.states[node_id] = state
        self._changed[node_id] = state
        if isinstance(node, FlowNode):
            self._open(node.graph, node_id + "/", node_id)

    def _instance(self, function: Any, value: Any, kwargs: dict[str, Any], node_id: str, parent: str) -> Node:
        """A node that runs a step or a body with a value."""
        with Scope():
            node: Node
            if isinstance(function, Body):
                node = FlowNode(function.copy(value), "body")
            else:
                node = StepNode(function, (value,), kwargs, function.name)
        self._register(node, node_id, parent)
        return node

    def _set(self, state: State, status: str) -> None:
        state.status = status
        if status == RUNNING:
            state.started = state.started or now()
        elif status != WAITING:
            state.ended = now()
        self._changed[state.id] = state
        self._progress.changed(state)

    def _need(self, nodes: Iterable[Node]) -> None:
        left = list(nodes)[::-1]  # the first one first
        while left:
            state = self.states[left.pop().id]
            if state.needed:
                continue
            state.needed = True
            inputs = _inputs(state.node)
            self._join(inputs, functools.partial(self._begin, state), functools.partial(self._left_out, state))
            left.extend(inputs[::-1])

    def _join(self, nodes: Iterable[Node], then: Callable[[], None], failed: Callable[[State], None]) -> None:
        found = {node.id: self.states[node.id] for node in nodes}
        join = Join(len(found), then, failed)
        if not found:
            self._todo.append(then)
        for state in found.values():
            if state.done:
                self._tell(join, state)
            else:
                state.waiters.append(join)

    def _tell(self, join: Join, state: State) -> None:
        if join.over:
            return
        if state.status != SUCCEEDED:
            join.over = True
            self._todo.append(functools.partial(join.failed, state))
            return
        join.left -= 1
        if join.left == 0:
            join.over = True
            self._todo.append(join.then)

    def _succeed(self, state: State, shape: Any) -> None:
        state.shape = shape
        self._settle(state, SUCCEEDED)

    def _fail(self, state: State, error: BaseException, status: str = FAILED) -> None:
        if not getattr(error, "workflow_step", ""):
            error.workflow_step = state.id  # type: ignore[attr-defined]
        state.error = error
        self._settle(state, status)

    def _settle(self, state: State, status: str) -> None:
        self._set(state, status)
        waiters, state.waiters = state.waiters, []
        for join in waiters:
            self._tell(join, state)

    def _left_out(self, state: State, failed: State) -> None:
        """Something that it needs has failed."""
        self._fail(state, failed.error or errors.Cancelled("it was cancelled"), SKIPPED)

    # --- kinds of nodes ---

    def _begin(self, state: State) -> None:
        if self._cancelled is not None or self._outcome is not None:
            return
        if state.node.kind != "step":
            self._set(state, RUNNING)
        try:
            getattr(self, f"_begin_{state.node.kind}")(state, state.node)
        except UNREACHED:
            raise
        except Exception as error:
            self._fail(state, error)

    def _begin_workflow(self, state: State, node: Any) -> None:
        self._within(state, node.graph.wanted(), lambda: self._succeed(state, shaped(node.graph.result, self.states)))

    def _within(self, state: State, nodes: list[Node], then: Callable[[], None]) -> None:
        """Goes on when these nodes have ended; it fails with them."""
        self._join(nodes, then, lambda failed: self._fail(state, failed.error or errors.Cancelled("it was cancelled")))
        self._need(nodes)

    def _begin_compute(self, state: State, node: Any) -> None:
        self._succeed(state, node.function(*fetched(shaped(node.args, self.states))))

    def _begin_map(self, state: State, node: Any) -> None:
        items = shaped(node.items, self.states)
        if type(items) not in (list, tuple):
            items = fetched(items)
            try:
                items = list(items)
            except TypeError:
                raise TypeError(f"map() needs a list, the value is a {type(items).__name__}") from None
        kwargs = shaped(node.kwargs, self.states)
        children = [
            self._instance(node.function, item, kwargs, f"{state.id}[{number}]", state.id)
            for number, item in enumerate(items)
        ]
        self._within(state, children, lambda: self._succeed(state, [self.states[one.id].shape for one in children]))

    def _begin_when(self, state: State, node: Any) -> None:
        chosen = node.then if fetched(shaped(node.condition, self.states)) else node.otherwise
        self._within(state, list(nodes_in(chosen)), lambda: self._succeed(state, shaped(chosen, self.states)))

    def _begin_until(self, state: State, node: Any) -> None:
        self._round(state, node, shaped(node.initial, self.states))

    def _round(self, state: State, node: Any, value: Any) -> None:
        if state.round >= node.limit:
            why = f"its condition did not hold after {node.limit} rounds"
            return self._fail(state, errors.FailedPrecondition(why, reason="UNTIL_LIMIT"))
        kwargs = shaped(node.kwargs, self.states)
        child = self._instance(node.function, value, kwargs, f"{state.id}[{state.round}]", state.id)
        state.round += 1
        self._within(state, [child], lambda: self._judge(state, node, child))

    def _judge(self, state: State, node: Any, child: Node) -> None:
        """Whether a loop has come to its end with the value of a round."""
        shape = self.states[child.id].shape

        def decide(holds: Any) -> None:
            if holds:
                self._succeed(state, shape)
            else:
                self._round(state, node, shape)

        if not hasattr(node.condition, "code_digest") and not isinstance(node.condition, Body):
            return self._guarded(state, lambda: decide(node.condition(fetched(shape))))
        judge = self._instance(node.condition, shape, {}, f"{child.id}-until", state.id)
        self._within(
            state, [judge], lambda: self._guarded(state, lambda: decide(fetched(self.states[judge.id].shape)))
        )

    def _guarded(self, state: State, work: Callable[[], None]) -> None:
        try:
            work()
        except UNREACHED:
            raise
        except Exception as error:
            self._fail(state, error)

    def _begin_or_else(self, state: State, node: Any) -> None:
        def otherwise(failed: State) -> None:
            if not isinstance(node.otherwise, Body) and not hasattr(node.otherwise, "code_digest"):
                inner = list(nodes_in(node.otherwise))
                return self._within(state, inner, lambda: self._succeed(state, shaped(node.otherwise, self.states)))
            text = brief(failed.error) if failed.error is not None else ""
            child = self._instance(node.otherwise, text, {}, f"{state.id}/otherwise", state.id)
            self._within(state, [child], lambda: self._succeed(state, self.states[child.id].shape))

        self._join([node.tried], lambda: self._succeed(state, self.states[node.tried.id].shape), otherwise)
        self._need([node.tried])

    # --- steps ---

    def _begin_step(self, state: State, node: Any) -> None:
        state.template = shaped((node.args, node.kwargs), self.states)
        state.leaves = list({id(one.pending): one for one in leaves_in(state.template)}.values())
        if len(state.leaves) <= steps.LEAVES_MAX:
            self._ready.append(state)
            return
        gathering, state.template = steps.gather(state.template, state.leaves)
        with Scope():
            nodes: list[Node] = [StepNode(steps.GATHER, tuple(part), {}, "gather") for part in gathering]
        for number, one in enumerate(nodes):
            self._register(one, f"{state.id}/gather-{number}", state.id)

        def go_on() -> None:
            shapes = [self.states[one.id].shape for one in nodes]
            state.template = steps.gathered(state.template, shapes)
            state.leaves = shapes
            self._ready.append(state)

        self._within(state, nodes, go_on)

    def _begin_ready(self) -> None:
        while self._ready and len(self._running) < PARALLEL and self._cancelled is None and self._outcome is None:
            state = self._ready.popleft()
            self._guarded(state, functools.partial(self._launch, state))
            while self._todo:
                self._todo.popleft()()

    def _launch(self, state: State) -> None:
        """Attaches to the task that was begun before, takes that of an equal call, or begins one."""
        step: Any = state.node.step  # type: ignore[attr-defined]
        before = self._begun.get(steps.step_label(state.id))
        if before is not None and before.usable:
            state.tries = before.tries
            state.earlier = before.succeeded
            return self._attach(state, before.task, None)
        state.tries = before.tries + 1 if before is not None else 1
        if step.chosen.cache:
            state.cache_key = steps.cache_key(step, state.template)
            message = steps.cached(self.client, self.store, state.cache_key)
            if message is not None:
                state.cached = True
                return self._attach(state, message.id, message)
        self._submit(state, step)

    def _attach(self, state: State, task: str, message: Any) -> None:
        state.pending = Pending(self.results)
        self._follow(state)
        if message is None:
            state.pending.submitted(task)
        else:
            state.pending.id.set_result(task)
            state.pending.ended.set_result(message)

    def _submit(self, state: State, step: Any) -> None:
        pending = state.pending = Pending(self.results)
        request = steps.request(self.client, self.run, state, step)
        self._follow(state)

        def submit() -> None:
            try:
                task = steps.submit(self.client, self.run, state.id, request)
            except BaseException as error:
                pending.refused(error)
                return
            pending.submitted(task)

        self.client.submit(submit)

    def _follow(self, state: State) -> None:
        assert state.pending is not None
        self._running.add(state.id)
        self._set(state, RUNNING)
        state.pending.id.add_done_callback(lambda _: self._events.put(functools.partial(self._submitted, state)))
        state.pending.ended.add_done_callback(lambda _: self._events.put(functools.partial(self._ended, state)))

    def _submitted(self, state: State) -> None:
        if state.pending is not None and state.pending.id.exception() is None:
            state.task = state.pending.id.result()
            self._changed[state.id] = state
            if self._cancelled is not None and not state.done:
                self.client.tasks.cancel(state.task, reason="the workflow was cancelled")

    def _ended(self, state: State) -> None:
        assert state.pending is not None
        self._running.discard(state.id)
        if state.pending.id.exception() is not None:
            return self._fail(state, state.pending.id.exception() or errors.Cancelled(""))
        message = state.pending.ended.result()  # raises what keeps this process from seeing the ends of tasks
        if tasks.task_of(message).status == SUCCEEDED:
            return self._guarded(state, functools.partial(self._take_value, state))
        try:
            state.pending.value()
        except errors.TaskCancelled as error:
            self._fail(state, error, CANCELLED)
        except errors.UccpError as error:
            self._fail(state, error)

    def _take_value(self, state: State) -> None:
        step: Any = state.node.step  # type: ignore[attr-defined]
        assert state.pending is not None
        if state.cache_key and not state.cached:
            self._cache.append(self.store.keep_cached(state.cache_key, state.task, state.id))
        further = steps.further(state.pending, step)
        if further is None:
            return self._succeed(state, Leaf(state.pending))
        self._open(further, state.id + "/", state.id)
        self._within(state, further.wanted(), lambda: self._succeed(state, shaped(further.result, self.states)))


def _inputs(node: Node) -> list[Node]:
    """What has to be there before a node begins; what it may need later is left out."""
    inner = {
        "when": ("condition",),
        "until": ("initial", "kwargs"),
        "workflow": (),
        "or_else": (),
        "map": ("items", "kwargs"),
    }
    found = list(node.follows)
    for field in inner.get(node.kind, node.FIELDS):
        found.extend(nodes_in(getattr(node, field)))
    return list({one.id: one for one in found}.values())


def failure_of(run: dict[str, Any], details: dict[str, Any]) -> WorkflowFailed:
    """What a run that has failed raises, from its record."""
    return WorkflowFailed(
        f"run {run['id']} of workflow {run['workflow']} failed at step {details['step']}: {details['message']}",
        run_id=run["id"],
        step=details["step"],
        task_id=details.get("task", ""),
        remote_traceback=details.get("traceback", ""),
    )

