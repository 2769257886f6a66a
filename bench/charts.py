#!/usr/bin/env python3
"""Draws rows of the benchmarks growth and scheduling-traces as SVG charts.

bench/charts.py RESULTS.jsonl DIRECTORY      RESULTS.jsonl: what `uccp-bench run NAME --json` printed
"""
import json
import math
import pathlib
import re
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 390, 70, 70, 56, 76
RATE, COST = "#1f5fa8", "#b3541e"
CPU_BUSY_PERCENT, DISK_MEGABYTES = 85, 20
# An axis whose values differ by more than this is logarithmic.
LOGARITHMIC_RATIO = 30
CHARTS = {
    "value": ("Puts over the size of values", "size of a value", "put"),
    "groups": ("Changes over the number of groups", "groups", "change"),
    "nodes": ("Puts over the number of nodes", "nodes", "put"),
    "keys": ("Linearizable gets over the number of keys", "keys", "get"),
}


def read(path):
    """{subject: [(x, rate, CPU of all servers an operation, what bounds it)]}"""
    points = {}
    for line in pathlib.Path(path).read_text().splitlines():
        row = json.loads(line) if line.startswith("{") else {}
        named = re.fullmatch(r"growth (\w+) (\d+) \w+", row.get("metric", ""))
        if named and row.get("ours"):
            points.setdefault(named[1], []).append((int(named[2]), row["ours"], row["details"]["serverUsPerOp"],
                                                    bound(row["details"])))
    return {subject: sorted(rows) for subject, rows in points.items()}


def bound(details):
    busy = details["busyPercent"]
    if busy >= CPU_BUSY_PERCENT:
        return f"bound: CPU, {busy:.0f} % busy"
    written = details.get("megabytesPerSecond", 0)
    if written >= DISK_MEGABYTES:
        return f"bound: the disk, {written:.0f} MB/s to each log"
    return f"bound: waiting for syncs and messages, CPU {busy:.0f} % busy"


def short(value):
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def in_bytes(value):
    for limit, unit in ((1 << 20, " MiB"), (1 << 10, " KiB")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g} B"


def ceiling(value):
    """The next of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


class Axis:
    """From the bottom to the top: from 0 in four steps, or in powers of ten."""

    def __init__(self, values):
        if max(values) > LOGARITHMIC_RATIO * min(values):
            self.low, self.high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
            self.marks = [10.0 ** power for power in range(self.low, self.high + 1)]
        else:
            top = ceiling(max(values))
            self.low, self.high = None, top
            self.marks = [top * part / 4 for part in range(5)]

    def y_of(self, value):
        part = value / self.high if self.low is None else (math.log10(value) - self.low) / (self.high - self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - part)


def line(points, color):
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{color}"/>' for x, y in points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>{dots}'


def text(x, y, words, anchor="middle", color="#222", size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" font-size="{size}">{words}</text>'


def chart(subject, rows):
    title, axis, verb = CHARTS[subject]
    linear = subject == "nodes"
    place = (lambda v: v) if linear else math.log10
    low, high = place(rows[0][0]), place(rows[-1][0])
    label = in_bytes if subject == "value" else short

    def x_of(value):
        return LEFT + (WIDTH - LEFT - RIGHT) * (place(value) - low) / ((high - low) or 1)
    rates, costs = Axis([row[1] for row in rows]), Axis([row[2] for row in rows])
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', text(WIDTH / 2, 22, title, size=15)]
    for mark in rates.marks:
        y = rates.y_of(mark)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(text(LEFT - 6, y + 4, short(mark), "end", RATE))
    for mark in costs.marks:
        out.append(text(WIDTH - RIGHT + 6, costs.y_of(mark) + 4, short(mark), "start", COST))
    for value, *_ in rows:
        out.append(text(x_of(value), HEIGHT - BOTTOM + 18, label(value)))
    out.append(text(WIDTH / 2, HEIGHT - BOTTOM + 36, axis))
    for row, y, x, anchor in ((rows[0], HEIGHT - 24, LEFT, "start"), (rows[-1], HEIGHT - 8, WIDTH - RIGHT, "end")):
        out.append(text(x, y, f"{label(row[0])}: {row[3]}", anchor, size=11))
    out.append(text(LEFT, TOP - 14, f"{verb}s a second", "start", RATE))
    out.append(text(WIDTH - RIGHT, TOP - 14, f"CPU of all nodes, us a {verb}", "end", COST))
    out.append(line([(x_of(v), rates.y_of(rate)) for v, rate, *_ in rows], RATE))
    out.append(line([(x_of(v), costs.y_of(cost)) for v, _, cost, _ in rows], COST))
    return "\n".join(out + ["</svg>"]) + "\n"


# Of replayed workloads: the measure, its title, and its unit.
MEASURES = {
    "utilisation": ("Processors in use while jobs arrive", "share of the machine"),
    "mean wait": ("Mean time in the queue", "seconds"),
    "bounded slowdown": ("Mean bounded slowdown", "(wait + run) / max(run, 10 s)"),
    "Jain index": ("Fairness between users", "Jain's index of their slowdowns"),
}
POLICIES = {"scheduler": ("UCCP", "#1f5fa8"), "fcfs": ("FCFS", "#9a9a9a"), "easy": ("EASY", "#b3541e"),
            "conservative": ("conservative", "#5b8c3e")}


def read_traces(path):
    """{measure: [(load, {policy: value})]}"""
    rows = {}
    for line in pathlib.Path(path).read_text().splitlines():
        row = json.loads(line) if line.startswith("{") else {}
        named = re.fullmatch(r"(.+) at load ([0-9.]+)", row.get("metric", ""))
        if named and named[1] in MEASURES:
            rows.setdefault(named[1], []).append((float(named[2]), row["details"]))
    return {measure: sorted(loads, key=lambda one: one[0]) for measure, loads in rows.items()}


def bars(measure, loads):
    title, unit = MEASURES[measure]
    axis = Axis([max(value, 1e-9) for _, values in loads for value in values.values()])
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', text(WIDTH / 2, 22, title, size=15),
           text(LEFT, TOP - 14, unit, "start")]
    for mark in axis.marks:
        y = axis.y_of(mark)
        out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(text(LEFT - 6, y + 4, short(mark), "end"))
    group = (WIDTH - LEFT - RIGHT) / len(loads)
    width = group / (len(POLICIES) + 1.5)
    for number, (load, values) in enumerate(loads):
        left = LEFT + group * number + width * 0.75
        for place, (policy, (_, color)) in enumerate(POLICIES.items()):
            top = axis.y_of(max(values[policy], axis.marks[0] or 1e-9))
            x = left + width * place
            height = HEIGHT - BOTTOM - top
            size = f'width="{width - 3:.1f}" height="{height:.1f}"'
            out.append(f'<rect x="{x:.1f}" y="{top:.1f}" {size} fill="{color}"/>')
            out.append(text(x + width / 2 - 1.5, top - 4, f"{values[policy]:.3g}", size=10))
        out.append(text(LEFT + group * (number + 0.5), HEIGHT - BOTTOM + 18, f"load {load:g}"))
    for place, (name, color) in enumerate(POLICIES.values()):
        x = LEFT + place * 130
        out.append(f'<rect x="{x}" y="{HEIGHT - 32}" width="12" height="12" fill="{color}"/>')
        out.append(text(x + 18, HEIGHT - 22, name, "start"))
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    target = pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    points = read(sys.argv[1])
    for subject in CHARTS:
        if subject in points:
            (target / f"growth-{subject}.svg").write_text(chart(subject, points[subject]))
            print(target / f"growth-{subject}.svg")
    traces = read_traces(sys.argv[1])
    for measure, loads in traces.items():
        path = target / f"scheduling-{measure.replace(' ', '-').lower()}.svg"
        path.write_text(bars(measure, loads))
        print(path)
    if not points and not traces:
        sys.exit(f"error: {sys.argv[1]} has no rows of growth or scheduling-traces; see 'uccp-bench list'")


if __name__ == "__main__":
    main()
