"""Draws the graph of a run, from the records of its steps, as an SVG that needs nothing else.

Steps are boxes in columns: what needs others is right of them. What holds steps of its own (a workflow, a loop, a step
that made further ones) is a frame around them. Of many alike the first few are drawn, and one box says how many more.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

BOX_WIDTH, BOX_HEIGHT = 150, 40
GAP_X, GAP_Y, MARGIN, TITLE = 44, 14, 12, 20
CHILDREN_MAX = 8  # of one frame that are drawn
TEXT_MAX = 21  # characters in a box
_COLORS = {
    "SUCCEEDED": ("#e3f4e6", "#2f8f46"),
    "FAILED": ("#fde4e2", "#c4382c"),
    "RUNNING": ("#e2edfb", "#2a66b8"),
    "CANCELLED": ("#f3e8d8", "#96662a"),
    "SKIPPED": ("#f4f4f4", "#b0b0b0"),
    "WAITING": ("#ffffff", "#808080"),
}
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>'
)


class _Box:
    """A step, or a frame with steps in it; `x` and `y` are relative to the frame around it."""

    def __init__(self, record: dict[str, Any] | None, inner: list[_Box], more: str = "") -> None:
        self.record = record or {}
        self.inner = inner
        self.more = more
        self.id = str(self.record.get("id", ""))
        self.edges: list[tuple[_Box, _Box]] = []
        self.x = self.y = 0.0
        self.width, self.height = float(BOX_WIDTH), float(BOX_HEIGHT if not more else BOX_HEIGHT / 2)


def draw(title: str, records: Sequence[dict[str, Any]]) -> str:
    """The SVG of a run; `records` are those of its steps, as they are stored."""
    children: dict[str, list[dict[str, Any]]] = {}
    for one in records:
        children.setdefault(one.get("parent", ""), []).append(one)
    order = {one["id"]: number for number, one in enumerate(sorted(records, key=_rank))}
    root = _Box(None, [_frame(one, children, order) for one in _ordered(children.get("", []), order)])
    _lay_out(root, {one["id"]: one for one in records})
    width, height = root.width, root.height + TITLE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="sans-serif" font-size="11">',
        _ARROW,
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="{TITLE}" font-size="14" font-weight="bold">{html.escape(title)}</text>',
    ]
    _draw_inner(root, 0.0, float(TITLE), parts)
    return "\n".join([*parts, "</svg>", ""])


def _rank(record: dict[str, Any]) -> tuple[Any, ...]:
    """Numbers in ids count as numbers."""
    pieces = record["id"].replace("]", "[").replace("-", "[").split("[")
    return tuple((0, int(one), "") if one.isdigit() and len(one) < 10 else (1, 0, one) for one in pieces)


def _ordered(records: list[dict[str, Any]], order: dict[str, int]) -> list[dict[str, Any]]:
    return sorted(records, key=lambda one: order[one["id"]])


def _frame(record: dict[str, Any], children: dict[str, list[dict[str, Any]]], order: dict[str, int]) -> _Box:
    found = _ordered(children.get(record["id"], []), order)
    inner = [_frame(one, children, order) for one in found[:CHILDREN_MAX]]
    left = found[CHILDREN_MAX:]
    if left:
        counts: dict[str, int] = {}
        for one in left:
            counts[one["status"]] = counts.get(one["status"], 0) + 1
        inner.append(_Box(None, [], f"{len(left)} more: " + ", ".join(f"{n} {k.lower()}" for k, n in counts.items())))
    return _Box(record, inner)


def _lay_out(box: _Box, records: dict[str, dict[str, Any]]) -> None:
    """Gives what is in a box its places, and the box its size."""
    if not box.inner:
        return
    for one in box.inner:
        _lay_out(one, records)
    box.edges = _edges(box, records)
    columns: dict[int, list[_Box]] = {}
    for one, depth in _depths(box).items():
        columns.setdefault(depth, []).append(one)
    x, tallest = float(MARGIN), 0.0
    for depth in sorted(columns):
        column = columns[depth]
        y = float(MARGIN + TITLE)
        for one in column:
            one.x, one.y = x, y
            y += one.height + GAP_Y
        x += max(one.width for one in column) + GAP_X
        tallest = max(tallest, y - GAP_Y)
    for column in columns.values():  # each in the middle of the height
        low = column[-1].y + column[-1].height
        for one in column:
            one.y += (tallest - low) / 2
    box.width, box.height = x - GAP_X + MARGIN, tallest + MARGIN


def _edges(box: _Box, records: dict[str, dict[str, Any]]) -> list[tuple[_Box, _Box]]:
    """Who of these needs whom, by themselves or by what is in them."""
    own = {one.id: one for one in box.inner if one.id}
    found: dict[tuple[str, str], tuple[_Box, _Box]] = {}

    def lifted(step: str) -> str:
        while step and step not in own:
            step = records.get(step, {}).get("parent", "")
        return step

    for record in records.values():
        to = lifted(record["id"])
        if to:
            for one in record.get("after", []):
                source = lifted(one)
                if source and source != to:
                    found[source, to] = (own[source], own[to])
    return list(found.values())


def _depths(box: _Box) -> dict[_Box, int]:
    """The column of each: behind all that it needs."""
    before: dict[int, list[_Box]] = {}
    for source, to in box.edges:
        before.setdefault(id(to), []).append(source)
    depths: dict[int, int] = {}
    left = list(reversed(box.inner))
    under_way: set[int] = set()
    while left:
        one = left[-1]
        missing = [b for b in before.get(id(one), []) if id(b) not in depths and id(b) not in under_way]
        if missing and id(one) not in depths:
            under_way.add(id(one))
            left.extend(missing)
            continue
        left.pop()
        depths.setdefault(id(one), 1 + max((depths.get(id(b), -1) for b in before.get(id(one), [])), default=-1))
    return {one: depths[id(one)] for one in box.inner}


def _draw_inner(box: _Box, x: float, y: float, parts: list[str]) -> None:
    for source, to in box.edges:
        x1, y1 = x + source.x + source.width, y + source.y + source.height / 2
        x2, y2 = x + to.x, y + to.y + to.height / 2
        bend = max(20.0, (x2 - x1) / 2)
        parts.append(
            f'<path d="M{x1:g},{y1:g} C{x1 + bend:g},{y1:g} {x2 - bend:g},{y2:g} {x2:g},{y2:g}" fill="none" '
            'stroke="#777" marker-end="url(#arrow)"/>'
        )
    for one in box.inner:
        _draw_box(one, x + one.x, y + one.y, parts)


def _draw_box(box: _Box, x: float, y: float, parts: list[str]) -> None:
    if box.more:
        parts.append(f'<text x="{x:g}" y="{y + 14:g}" fill="#555">{html.escape(box.more)}</text>')
        return
    record = box.record
    fill, stroke = _COLORS.get(record["status"], _COLORS["WAITING"])
    kind = str(record.get("kind", "step"))
    name = box.id.rpartition("/")[2]
    dash = ' stroke-dasharray="4 3"' if record["status"] in ("SKIPPED", "WAITING") else ""
    tip = " ".join(filter(None, [box.id, record["status"].lower(), record.get("label", ""), record.get("error", "")]))
    shown = fill if not box.inner else "#fbfbfb"
    parts.append(
        f'<g><title>{html.escape(tip)}</title><rect x="{x:g}" y="{y:g}" width="{box.width:g}" '
        f'height="{box.height:g}" rx="5" fill="{shown}" stroke="{stroke}"{dash}/>'
    )
    color = stroke if box.inner else "#222"
    parts.append(f'<text x="{x + 8:g}" y="{y + 16:g}" fill="{color}">{html.escape(_cut(name))}</text>')
    if not box.inner:
        second = _second(record, kind)
        parts.append(f'<text x="{x + 8:g}" y="{y + 31:g}" fill="#666" font-size="10">{html.escape(second)}</text>')
    parts.append("</g>")
    _draw_inner(box, x, y, parts)


def _second(record: dict[str, Any], kind: str) -> str:
    if record.get("label"):
        return _cut(record["label"], TEXT_MAX + 4)
    words = [record["status"].lower()]
    if record.get("cached"):
        words.append("cached")
    if kind != "step":
        words.insert(0, kind.replace("_", " ") + ":")
    if record.get("tries", 1) > 1:
        words.append(f"try {record['tries']}")
    return _cut(" ".join(words), TEXT_MAX + 4)


def _cut(text: str, most: int = TEXT_MAX) -> str:
    return text if len(text) <= most else text[: most - 1] + "\u2026"
