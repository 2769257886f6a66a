"""What a run knows of its nodes while it is driven."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from uccp.refs import Pending
from uccp.workflow.graph import Item, Node
from uccp_step import picked, replaced

WAITING, RUNNING, SUCCEEDED, FAILED = "WAITING", "RUNNING", "SUCCEEDED", "FAILED"
SKIPPED, CANCELLED = "SKIPPED", "CANCELLED"
ENDED = (SUCCEEDED, FAILED, SKIPPED, CANCELLED)


class Leaf:
    """The value of a task, or what is in it under a path, where that is needed: it may not have come here."""

    __slots__ = ("path", "pending")

    def __init__(self, pending: Pending, path: tuple[Any, ...] = ()) -> None:
        self.pending = pending
        self.path = path

    def value(self) -> Any:
        """Fetches it. Raises what it came to."""
        return picked(self.pending.value(), self.path)


class State:
    """How far a node is. `shape` is its value, with a Leaf for what is the value of a task."""

    def __init__(self, node: Node, parent: str) -> None:
        self.node = node
        self.id = node.id
        self.parent = parent
        self.status = WAITING
        self.needed = False
        self.shape: Any = None
        self.error: BaseException | None = None
        self.waiters: list[Join] = []
        self.pending: Pending | None = None
        self.template: Any = None  # its arguments, once they are there
        self.leaves: list[Leaf] = []
        self.tries = 0
        self.task = ""
        self.cached = False
        self.earlier = False  # it had succeeded when the run was resumed
        self.cache_key = ""
        self.started = ""
        self.ended = ""
        self.round = 0

    @property
    def done(self) -> bool:
        return self.status in ENDED

    def record(self) -> dict[str, Any]:
        """As it is stored; empty values are left out."""
        found = {
            "id": self.id,
            "kind": self.node.kind,
            "label": self.node.label(),
            "parent": self.parent,
            "after": [one.id for one in self.node.references() if one.id],
            "status": self.status,
            "task": self.task,
            "tries": self.tries,
            "cached": self.cached,
            "started": self.started,
            "ended": self.ended,
            "error": brief(self.error) if self.error is not None else "",
        }
        return {key: value for key, value in found.items() if value or key in ("id", "kind", "status")}


class Join:
    """Something to be done once all of some nodes have succeeded, or once one has not."""

    def __init__(self, count: int, then: Callable[[], None], failed: Callable[[State], None]) -> None:
        self.left = count
        self.then = then
        self.failed = failed
        self.over = False


def brief(error: BaseException) -> str:
    """The first line of what an error says."""
    text = getattr(error, "message", "") or str(error) or type(error).__name__
    return str(text).splitlines()[0][:500]


def shaped(value: Any, states: dict[str, State]) -> Any:
    """A value in which the values of nodes, which have ended, take their places."""

    def by(one: Any) -> Any:
        if isinstance(one, Node):
            return states[one.id].shape
        return inside(states[one.node.id].shape, one.path)

    return replaced(value, (Node, Item), by)


def inside(shape: Any, path: tuple[Any, ...]) -> Any:
    """What is in a shape under a path."""
    for number, key in enumerate(path):
        if isinstance(shape, Leaf):
            return Leaf(shape.pending, (*shape.path, *path[number:]))
        shape = shape[key]
    return shape


def leaves_in(shape: Any) -> Iterator[Leaf]:
    if isinstance(shape, Leaf):
        yield shape
    elif type(shape) in (list, tuple):
        for one in shape:
            yield from leaves_in(one)
    elif type(shape) is dict:
        for one in shape.values():
            yield from leaves_in(one)


def fetched(shape: Any) -> Any:
    """The value of a shape; what it has not is fetched. Raises what that came to."""
    return replaced(shape, Leaf, lambda leaf: leaf.value())
