"""What a workflow is written with: steps, workflows, conditions and loops.

from uccp import workflow

@workflow.step(cpu=1, memory="512Mi", retries=2, cache=True)
def train(rate, data): ...

@workflow.define
def sweep(rates):
    data = load()
    return best(train.map(rates, data=data))

workflow.run(sweep, [0.1, 0.2], id="sweep-1")
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uccp import serialization
from uccp.functions import Options, RemoteFunction
from uccp.workflow import digest
from uccp.workflow.errors import WorkflowInvalid
from uccp.workflow.graph import (
    UNTIL_ROUNDS,
    Body,
    FlowNode,
    Graph,
    Item,
    MapNode,
    Node,
    ParameterNode,
    Scope,
    StepNode,
    UntilNode,
    WhenNode,
    body_of,
    checked_name,
    current_scope,
    name_of,
)
from uccp_step import StepCall

_RUNS = {one.name for one in dataclasses.fields(Options)} - {"name", "durable", "lanes"}


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step runs: what calls of functions take (uccp.remote), `cache` and `dynamic`."""

    name: str = ""
    exact: bool = False  # the name is the step's own, not one to be numbered
    cache: bool = False
    dynamic: bool = False
    runs: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _options(before: StepOptions, changed: Mapping[str, Any]) -> StepOptions:
    unknown = sorted(set(changed) - _RUNS - {"name", "cache", "dynamic"})
    if unknown:
        known = ", ".join(sorted(_RUNS | {"name", "cache", "dynamic"}))
        raise WorkflowInvalid(f"a step has no option {unknown[0]!r}; it has {known}", reason="OPTION_UNKNOWN")
    own: dict[str, Any] = {name: changed[name] for name in ("cache", "dynamic") if name in changed}
    if "name" in changed:
        own |= {"name": checked_name(changed["name"]), "exact": True}
    return dataclasses.replace(before, **own, runs={**before.runs, **{k: changed[k] for k in changed if k in _RUNS}})


class Step:
    """A function that is a step where a workflow is put together, and a plain function elsewhere."""

    def __init__(self, function: Callable[..., Any], options: StepOptions) -> None:
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            raise WorkflowInvalid(
                f"{name_of(function)} is a generator or coroutine; a step is a function that returns its value",
                reason="NOT_A_STEP",
            )
        self.function = function
        self.chosen = options
        self._digest = ""
        self._remote: RemoteFunction[..., Any] | None = None
        functools.update_wrapper(self, function)

    @property
    def name(self) -> str:
        return self.chosen.name or name_of(self.function)

    def options(self, **changed: Any) -> Step:
        """The same step with other options; with `name` that of the node, which must then be the only one."""
        return Step(self.function, _options(self.chosen, changed))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_scope() is None:
            return self.function(*args, **kwargs)
        self._check(args, kwargs)
        return StepNode(self, args, kwargs, self.name, self.chosen.exact)

    def map(self, items: Any, **kwargs: Any) -> Node:
        """One call for each item of a list, which may be the value of a step, each with these further arguments; the
        value is the list of theirs."""
        self._check((None,), kwargs)
        return MapNode(self, items, kwargs, self.name, self.chosen.exact)

    def until(self, condition: Any, initial: Any, *, limit: int = UNTIL_ROUNDS, **kwargs: Any) -> Node:
        """Calls it with `initial`, then with what it answered, each time with these further arguments, until
        `condition` holds for that: a step, or a small function that the driver calls. Fails after `limit` rounds."""
        self._check((None,), kwargs)
        return _until(self, self.name, self.chosen.exact, condition, initial, limit, kwargs)

    def _check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):  # some of C have none
            return
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise WorkflowInvalid(str(error), reason="MISSING_INPUT", where=f"step {self.name}") from error

    def code_digest(self) -> str:
        """Of the function and what it refers to."""
        if not self._digest:
            self._digest = "computing"  # what refers to itself comes by here again
            self._digest = digest.of_code(self.function)
        return self._digest

    def environment_digest(self) -> str:
        """Of what its calls find besides their arguments."""
        runs = self.chosen.runs
        return digest.of_value([list(runs.get("requirements", ())), dict(runs.get("env") or {})])

    def definition_digest(self) -> str:
        """Of the code and the options."""
        chosen = self.chosen
        runs = [[name, chosen.runs[name]] for name in sorted(chosen.runs)]
        options = [chosen.name, chosen.cache, chosen.dynamic, runs]
        return digest.of_texts(self.code_digest(), digest.of_value(options))

    def remote(self) -> RemoteFunction[..., Any]:
        """What runs it on the cluster."""
        if self._remote is None:
            call = StepCall(self.function, self.chosen.dynamic)
            self._remote = RemoteFunction(call, Options(**self.chosen.runs))
        return self._remote

    def __getstate__(self) -> dict[str, Any]:
        _travels(self.function)
        self.code_digest()
        return {**self.__dict__, "_remote": None}


class Workflow:
    """A function that puts steps together. Inside of another definition it is a part of that."""

    def __init__(self, function: Callable[..., Any], name: str, description: str = "") -> None:
        self.function = function
        self.name = checked_name(name)
        self.description = description
        self._digest = ""
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_scope() is None:
            return self.function(*args, **kwargs)
        return FlowNode(self.build(args, kwargs), self.name)

    def build(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Graph:
        """The graph for these arguments. Raises WorkflowInvalid."""
        try:
            inspect.signature(self.function).bind(*args, **kwargs)
        except TypeError as error:
            raise WorkflowInvalid(str(error), reason="MISSING_INPUT", where=f"workflow {self.name}") from error
        with Scope() as scope:
            result = self.function(*args, **kwargs)
        return Graph(scope.nodes, result).check()

    def body(self, parameter: str, kwargs: Mapping[str, Any]) -> Body:
        """The graph with a place for its first argument."""
        with Scope() as scope:
            place = ParameterNode(parameter)
            result = self.function(place, **kwargs)
        return Body(Graph(scope.nodes, result).check(), place)

    def map(self, items: Any, **kwargs: Any) -> Node:
        """All of it for each item of a list; the value is the list of theirs."""
        return MapNode(self.body("item", kwargs), items, {}, self.name)

    def until(self, condition: Any, initial: Any, *, limit: int = UNTIL_ROUNDS, **kwargs: Any) -> Node:
        """As until() of a step."""
        return _until(self.body("value", kwargs), self.name, False, condition, initial, limit, {})

    def code_digest(self) -> str:
        """Of the function and the steps that it refers to."""
        if not self._digest:
            self._digest = "computing"
            self._digest = digest.of_code(self.function)
        return self._digest

    definition_digest = code_digest

    def __getstate__(self) -> dict[str, Any]:
        _travels(self.function)
        self.code_digest()
        return self.__dict__


def _travels(function: Any) -> None:
    """Has the module of a function travel with it, so that whoever reads it needs no file and gets no other version."""
    serialization.take_along(getattr(function, "__module__", None))


def _until(
    function: Any, name: str, exact: bool, condition: Any, initial: Any, limit: int, kwargs: dict[str, Any]
) -> Node:
    if isinstance(condition, (Step, Workflow)):
        condition = body_of(condition, "value")
    elif not callable(condition):
        raise WorkflowInvalid(
            f"the condition of a loop is a step or a function of its value, not {condition!r}", where=f"step {name}"
        )
    if limit < 1:
        raise WorkflowInvalid(f"the limit of a loop is at least 1, not {limit}", where=f"step {name}")
    return UntilNode(function, initial, condition, limit, kwargs, name, exact)


def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Makes a function a step: `@workflow.step` or `@workflow.step(cpu=2, retries=3, cache=True)`.

    Options are those of `uccp.remote` for durable calls, and `name`; `cache`: a call with equal code, arguments and
    environment that succeeded before is not run again; `dynamic`: steps that the function calls are run after it, and
    its value is made of theirs."""
    chosen = _options(StepOptions(), options)
    return Step(function, chosen) if function is not None else lambda decorated: Step(decorated, chosen)


def define(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Makes a function a workflow: it is called once for a run, and its calls of steps are what the run does. What it
    answers, in which values of steps may be, is the value of the run."""

    def made(decorated: Callable[..., Any]) -> Workflow:
        return Workflow(decorated, name or name_of(decorated), (inspect.getdoc(decorated) or "").partition("\n")[0])

    return made(function) if function is not None else made


def when(condition: Any, then: Any, otherwise: Any = None, *, name: str = "when") -> Node:
    """The value of `then` if the condition, the value of a step, is true, else of `otherwise`. Of the two only what is
    needed runs."""
    for one in (condition, then, otherwise):
        if isinstance(one, (Step, Workflow)):
            raise WorkflowInvalid(f"when() takes values: call {one.name} with its arguments", reason="NOT_CALLED")
    if not isinstance(condition, (Node, Item)):
        raise WorkflowInvalid("the condition of when() is the value of a step; use if for others", reason="NOT_A_STEP")
    return WhenNode(condition, then, otherwise, name)


__all__ = ["Step", "Workflow", "define", "step", "when"]
