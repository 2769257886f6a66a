"""Map and reduce over a list, as steps of a workflow.

    counts = workflow.map_reduce(words_of, sum_up, texts)

`mapper(item)` yields pairs of key and value; `reducer(key, values)` answers the result of a key. Pairs of one key come
together in one of some partitions, by a digest of the key. A combiner, with the form of the reducer, is used on what
one part of the list has made of a key, before it travels.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from uccp import serialization
from uccp.workflow.definition import Step, StepOptions, _options
from uccp.workflow.errors import WorkflowInvalid
from uccp.workflow.graph import FlowNode, Graph, Item, Node, Scope

PARTITIONS = 4
PARTS = 16  # in which a list is cut unless told otherwise


def partition_of(key: Any, partitions: int) -> int:
    """Equal in all processes for equal keys of the built-in kinds."""
    return zlib.crc32(f"{type(key).__name__} {key!r}".encode()) % partitions


class _Mapper:
    """Maps one part of the list: for each partition the values by key."""

    def __init__(self, mapper: Callable[[Any], Iterable[Any]], combiner: Any, partitions: int) -> None:
        self.mapper = mapper
        self.combiner = combiner
        self.partitions = partitions

    def __call__(self, items: list[Any]) -> list[dict[Any, list[Any]]]:
        found: list[dict[Any, list[Any]]] = [{} for _ in range(self.partitions)]
        for item in items:
            for key, value in self.mapper(item):
                found[partition_of(key, self.partitions)].setdefault(key, []).append(value)
        if self.combiner is None:
            return found
        return [{key: [self.combiner(key, values)] for key, values in one.items()} for one in found]


class _Reducer:
    """Reduces one partition of what all parts have made."""

    def __init__(self, reducer: Callable[[Any, list[Any]], Any]) -> None:
        self.reducer = reducer

    def __call__(self, parts: list[dict[Any, list[Any]]]) -> dict[Any, Any]:
        together: dict[Any, list[Any]] = {}
        for one in parts:
            for key, values in one.items():
                together.setdefault(key, []).extend(values)
        return {key: self.reducer(key, values) for key, values in together.items()}


def _merged(results: list[dict[Any, Any]]) -> dict[Any, Any]:
    return {key: value for one in results for key, value in one.items()}


class _Plan:
    """Makes the steps for a list."""

    def __init__(self, mapper: Step, reducer: Step, merge: Step, parts: int, partitions: int) -> None:
        self.mapper = mapper
        self.reducer = reducer
        self.merge = merge
        self.parts = parts
        self.partitions = partitions

    def __call__(self, items: Any) -> Any:
        given = list(items)
        size = max(1, -(-len(given) // self.parts))
        maps = [self.mapper(given[at : at + size]) for at in range(0, len(given), size)]
        return self.merge([self.reducer([one[number] for one in maps]) for number in range(self.partitions)])


def map_reduce(
    mapper: Callable[[Any], Iterable[Any]],
    reducer: Callable[[Any, list[Any]], Any],
    items: Sequence[Any] | Node | Item,
    *,
    combiner: Callable[[Any, list[Any]], Any] | None = None,
    parts: int = PARTS,
    partitions: int = PARTITIONS,
    name: str = "map_reduce",
    **options: Any,
) -> Node:
    """The results by key, as a dictionary. The list, which may be the value of a step, is cut into `parts`; options
    are those of a step, for the steps that map and reduce."""
    if parts < 1 or partitions < 1:
        raise WorkflowInvalid("parts and partitions are at least 1", where=f"step {name}")
    for one in (mapper, reducer, *([combiner] if combiner is not None else [])):
        if not callable(one):
            raise WorkflowInvalid(f"{one!r} is no function", reason="NOT_A_STEP", where=f"step {name}")
        serialization.take_along(getattr(one, "__module__", None))
    chosen = _options(StepOptions(), options)

    def step(function: Callable[..., Any], called: str) -> Step:
        return Step(function, StepOptions(name=called, cache=chosen.cache, runs=chosen.runs))

    plan = _Plan(
        step(_Mapper(mapper, combiner, partitions), "map"),
        step(_Reducer(reducer), "reduce"),
        step(_merged, "merge"),
        parts,
        partitions,
    )
    if isinstance(items, (Node, Item)):
        return Step(plan, StepOptions(name=name, dynamic=True, runs=chosen.runs))(items)  # type: ignore[no-any-return]
    with Scope() as scope:
        result = plan(items)
    return FlowNode(Graph(scope.nodes, result), name)
