"""Steps and the graphs that they make: what a definition is while it is built, and how it travels.

Inside of a definition, calling a step makes a node and answers it; the value is there when a run has come to it. Names
of nodes are unique in their graph. A node is in one graph, and is run once: what is run several times, the body of a
loop, is copied for each time.
"""

from __future__ import annotations

import io
import pickle
import re
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cloudpickle

from uccp import errors
from uccp.workflow.errors import WorkflowInvalid
from uccp_step import picked, replaced

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
NODES_MAX = 100_000  # of a run
UNTIL_ROUNDS = 100
_building = threading.local()


class Scope:
    """Takes the nodes that are made on this thread while it is entered."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._numbers: dict[str, int] = {}
        self._names: set[str] = set()

    def __enter__(self) -> Scope:
        if not hasattr(_building, "scopes"):
            _building.scopes = []
        _building.scopes.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _building.scopes.pop()

    def add(self, node: Node, wanted: str, exact: bool) -> str:
        if len(self.nodes) >= NODES_MAX:
            raise WorkflowInvalid(f"the graph has more than {NODES_MAX} steps", reason="WORKFLOW_TOO_LARGE")
        name = checked_name(wanted)
        if exact and name in self._names:
            raise WorkflowInvalid(f"two steps are named {name!r}", reason="STEP_EXISTS")
        while name in self._names:
            self._numbers[wanted] = self._numbers.get(wanted, 1) + 1
            name = f"{wanted}-{self._numbers[wanted]}"
        self._names.add(name)
        self.nodes.append(node)
        return name


def current_scope() -> Scope | None:
    scopes = getattr(_building, "scopes", None)
    return scopes[-1] if scopes else None


def checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise WorkflowInvalid(
            f"{name!r} is no name: letters, digits, `_`, `-` and `.`, at most 63 of them, the first no dash or dot",
            reason="NAME_INVALID",
        )
    return name


def name_of(function: Callable[..., Any]) -> str:
    """The name that a function's steps have unless they get another one."""
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", getattr(function, "__name__", type(function).__name__)).strip("-.")
    return text[:50] or "step"


class Node:
    """The value of a step, which a run will have: an argument of other steps, also inside of lists and dictionaries;
    `node["key"]` is what is in it."""

    kind = "step"
    FIELDS: tuple[str, ...] = ()  # whose values may hold nodes, graphs and bodies

    def __init__(self, name: str, exact: bool = False) -> None:
        scope = current_scope()
        if scope is None:
            raise WorkflowInvalid(
                "steps are put together inside of a definition (@workflow.define) or of a step with dynamic=True",
                reason="OUTSIDE_DEFINITION",
            )
        self.id = ""  # in a run
        self.follows: list[Node] = []
        self.name = scope.add(self, name, exact)

    def after(self, *others: Node) -> Node:
        """Runs it only when these have ended, whose values it does not need."""
        for one in others:
            if not isinstance(one, Node):
                raise WorkflowInvalid(f"after() takes steps, not a {type(one).__name__}", where=self.name)
        self.follows.extend(others)
        return self

    def or_else(self, otherwise: Any) -> Node:
        """This value, or if it cannot be had, `otherwise`: a value, or a step or workflow that is called with the text
        of the error."""
        return RescueNode(self, otherwise)

    def label(self) -> str:
        """What is drawn beside the name."""
        return ""

    def references(self) -> list[Node]:
        """The nodes, of this graph or one around it, whose values this one may need."""
        found: dict[int, Node] = {id(one): one for one in self.follows}
        for field in self.FIELDS:
            for one in nodes_in(getattr(self, field)):
                found[id(one)] = one
        return list(found.values())

    def __getitem__(self, key: Any) -> Item:
        return Item(self, (key,))

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"the value of step {self.name} is not there while the graph is built; loop with STEP.map(...)")

    def __bool__(self) -> bool:
        raise TypeError(f"the value of step {self.name} is not there while the graph is built; use workflow.when(...)")

    def __reduce__(self) -> Any:
        raise errors.SerializationError(
            f"step {self.name} cannot be used inside of a function: give it to that as an argument", reason="REF_INSIDE"
        )

    def __repr__(self) -> str:
        return f"<{self.kind} {self.id or self.name}>"


class Item:
    """What is in the value of a node."""

    def __init__(self, node: Node, path: tuple[Any, ...]) -> None:
        self.node = node
        self.path = path

    def __getitem__(self, key: Any) -> Item:
        return Item(self.node, (*self.path, key))

    __iter__ = Node.__iter__
    __bool__ = Node.__bool__

    @property
    def name(self) -> str:
        return self.node.name


class Graph:
    """Nodes, and the value that is made of them. Raises WorkflowInvalid when they need each other in a circle."""

    def __init__(self, nodes: list[Node], result: Any) -> None:
        self.nodes = nodes
        self.result = result

    def wanted(self) -> list[Node]:
        """Nodes that run for their own sake: those of the result, and those that no other one takes."""
        taken = {id(one) for node in self.nodes for one in node.references()}
        own = {id(node) for node in self.nodes}
        found = {id(node): node for node in self.nodes if id(node) not in taken and node.kind != "parameter"}
        found.update((id(node), node) for node in nodes_in(self.result) if id(node) in own)
        return list(found.values())

    def check(self) -> Graph:
        """Raises WorkflowInvalid with the way around a circle."""
        own = {id(node): node for node in self.nodes}
        done: set[int] = set()
        for start in self.nodes:
            way: list[tuple[Node, Iterator[Node]]] = [(start, iter(start.references()))]
            on_way = {id(start)}
            while way:
                node, rest = way[-1]
                following = next((one for one in rest if id(one) in own and id(one) not in done), None)
                if following is None:
                    done.add(id(node))
                    on_way.discard(id(node))
                    way.pop()
                elif id(following) in on_way:
                    names = [one.name for one, _ in way]
                    around = [*names[names.index(following.name) :], following.name]
                    raise WorkflowInvalid(
                        f"steps need each other in a circle: {' <- '.join(around)}", reason="WORKFLOW_CYCLE"
                    )
                else:
                    on_way.add(id(following))
                    way.append((following, iter(following.references())))
        return self


class Body:
    """A graph with a place for a value, which is copied for each value that it is run with."""

    def __init__(self, graph: Graph, parameter: Node) -> None:
        self.graph = graph
        self.parameter = parameter

    def copy(self, value: Any) -> Graph:
        return copied(self.graph, {id(self.parameter): value})


def nodes_in(value: Any) -> Iterator[Node]:
    """The nodes in a value; of graphs in it, those outside of them that they need."""
    if isinstance(value, Node):
        yield value
    elif isinstance(value, Item):
        yield value.node
    elif isinstance(value, Body):
        yield from nodes_in(value.graph)
    elif isinstance(value, Graph):
        own = {id(node) for node in value.nodes}
        for node in value.nodes:
            yield from (one for one in node.references() if id(one) not in own)
        yield from (one for one in nodes_in(value.result) if id(one) not in own)
    elif type(value) in (list, tuple):
        for one in value:
            yield from nodes_in(one)
    elif type(value) is dict:
        for one in value.values():
            yield from nodes_in(one)


def copied(graph: Graph, values: Mapping[int, Any]) -> Graph:
    """The same graph with other nodes, in which some are replaced by values."""
    now: dict[int, Any] = dict(values)

    def number(one: Graph) -> None:
        for node in one.nodes:
            if id(node) not in now:
                now[id(node)] = object.__new__(type(node))
            for field in node.FIELDS:
                inner = getattr(node, field)
                if isinstance(inner, (Graph, Body)):
                    number(inner if isinstance(inner, Graph) else inner.graph)

    def changed(value: Any) -> Any:
        if isinstance(value, Graph):
            return Graph([now[id(one)] for one in value.nodes if id(one) not in values], changed(value.result))
        if isinstance(value, Body):
            return Body(changed(value.graph), now.get(id(value.parameter), value.parameter))

        def other(one: Any) -> Any:
            if isinstance(one, Node):
                return now.get(id(one), one)
            kept = now.get(id(one.node), one.node)
            return Item(kept, one.path) if isinstance(kept, Node) else picked(kept, one.path)

        return replaced(value, (Node, Item), other)

    def fill(one: Graph) -> None:
        for node in one.nodes:
            if id(node) in values:
                continue
            copy = now[id(node)]
            copy.__dict__.update(node.__dict__)
            copy.follows = [kept for kept in map(changed, node.follows) if isinstance(kept, Node)]
            for field in node.FIELDS:
                inner = getattr(node, field)
                setattr(copy, field, changed(inner))
                if isinstance(inner, (Graph, Body)):
                    fill(inner if isinstance(inner, Graph) else inner.graph)

    number(graph)
    fill(graph)
    return changed(graph)


class StepNode(Node):
    """A call of a function, which is one task."""

    FIELDS = ("args", "kwargs")

    def __init__(
        self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, exact: bool = False
    ) -> None:
        self.step = step
        self.args = args
        self.kwargs = kwargs
        super().__init__(name, exact)


class ParameterNode(Node):
    """The place of a value in a body."""

    kind = "parameter"


class ComputeNode(Node):
    """A small function of values of other steps, which the driver runs itself."""

    kind = "compute"
    FIELDS = ("args",)

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], name: str, text: str = "") -> None:
        self.function = function
        self.args = args
        self.text = text
        super().__init__(name)

    def label(self) -> str:
        return self.text


class FlowNode(Node):
    """A workflow as part of another one."""

    kind = "workflow"
    FIELDS = ("graph",)

    def __init__(self, graph: Graph, name: str, exact: bool = False) -> None:
        self.graph = graph
        super().__init__(name, exact)


class MapNode(Node):
    """One call for each item of a list."""

    kind = "map"
    FIELDS = ("function", "items", "kwargs")

    def __init__(self, function: Any, items: Any, kwargs: dict[str, Any], name: str, exact: bool = False) -> None:
        self.function = function  # Step or Body
        self.items = items
        self.kwargs = kwargs
        super().__init__(name, exact)


class WhenNode(Node):
    """The value of one of two, of which only that one runs."""

    kind = "when"
    FIELDS = ("condition", "then", "otherwise")

    def __init__(self, condition: Any, then: Any, otherwise: Any, name: str) -> None:
        self.condition = condition
        self.then = then
        self.otherwise = otherwise
        super().__init__(name)


class UntilNode(Node):
    """A value that is computed from itself until a condition holds."""

    kind = "until"
    FIELDS = ("function", "initial", "condition", "kwargs")

    def __init__(
        self, function: Any, initial: Any, condition: Any, limit: int, kwargs: dict[str, Any], name: str, exact: bool
    ) -> None:
        self.function = function  # Step or Body
        self.initial = initial
        self.kwargs = kwargs
        self.condition = condition  # Step, Body or function
        self.limit = limit
        super().__init__(name, exact)


class RescueNode(Node):
    """A value, or what takes its place when it cannot be had."""

    kind = "or_else"
    FIELDS = ("tried", "otherwise")

    def __init__(self, tried: Node, otherwise: Any) -> None:
        self.tried = tried
        self.otherwise = body_of(otherwise, "error") if callable(otherwise) else otherwise
        super().__init__(f"{tried.name}-or-else")


def body_of(function: Any, what: str) -> Any:
    """What a loop runs for each value: a step as it is, a workflow as a body."""
    from uccp.workflow.definition import Step, Workflow

    if isinstance(function, Step):
        return function
    if isinstance(function, Workflow):
        return function.body(what, {})
    raise WorkflowInvalid(
        f"a step or a workflow is needed, not {function!r}: decorate the function with @workflow.step",
        reason="NOT_A_STEP",
    )


class Continuation:
    """The further steps that a step has answered."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def __reduce__(self) -> Any:
        return (_thawed_continuation, (freeze(self.graph),))


def _thawed_continuation(content: bytes) -> Continuation:
    return Continuation(thaw(content))


def continuation(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Runs a function whose calls of steps make nodes: its value, or with such the Continuation."""
    with Scope() as scope:
        value = function(*args, **kwargs)
    return Continuation(Graph(scope.nodes, value).check()) if scope.nodes else value


class _Freezer(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes nodes one after the other, so that chains of them may be long."""

    def __init__(self, file: io.BytesIO, take_along: Callable[[str | None], None]) -> None:
        super().__init__(file, protocol=5)
        self._take_along = take_along
        self.found: list[Node] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Node):
            return None
        for one in (getattr(value, "function", None), getattr(value, "condition", None)):
            if isinstance(one, types.FunctionType):  # that the driver calls
                self._take_along(one.__module__)
        number = self._numbers.setdefault(id(value), len(self.found))
        if number == len(self.found):
            self.found.append(value)
        return number, type(value).__name__


class _Thawer(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.found: list[Node] = []

    def persistent_load(self, identity: Any) -> Any:
        number, kind = identity
        if number == len(self.found):
            self.found.append(object.__new__(_KINDS[kind]))
        return self.found[number]


_KINDS = {
    one.__name__: one
    for one in (StepNode, ParameterNode, ComputeNode, FlowNode, MapNode, WhenNode, UntilNode, RescueNode)
}


def freeze(graph: Graph) -> bytes:
    """A graph with the code of its steps as bytes. Raises SerializationError."""
    from uccp import serialization

    file = io.BytesIO()
    freezer = _Freezer(file, serialization.take_along)
    try:
        freezer.dump((graph.nodes, graph.result))
        number = 0
        while number < len(freezer.found):
            freezer.dump(freezer.found[number].__dict__)
            number += 1
    except errors.SerializationError:
        raise
    except Exception as error:
        raise errors.SerializationError(
            f"the workflow cannot be pickled: {type(error).__name__}: {error}; what holds connections, locks or files "
            "does not travel: make it inside of the step",
            reason="UNPICKLABLE",
        ) from error
    return file.getvalue()


def thaw(content: bytes) -> Graph:
    thawer = _Thawer(io.BytesIO(content))
    nodes, result = thawer.load()
    number = 0
    while number < len(thawer.found):
        thawer.found[number].__dict__.update(thawer.load())
        number += 1
    return Graph(nodes, result)
