#!/usr/bin/env python3
"""Estimates pi by throwing points, in many short calls that share tasks.

    build/venv/bin/python examples/python_montecarlo/montecarlo.py [--context-file FILE] [--calls N] [--points N]
        [--batch N]

Each call has a seed of its own, so the estimate is the same wherever and however often a call ran; it is compared with
what this process computes from the same seeds. Exits with 1 when they differ.
"""

import argparse
import math
import random
import sys
import time

import uccp


@uccp.remote(cpu=0.4, memory="128Mi", retries=3)
def inside(seed, points):
    """How many of the points lie inside of the circle."""
    numbers = random.Random(seed)
    return sum(numbers.random() ** 2 + numbers.random() ** 2 < 1 for _ in range(points))


def main():
    arguments = argparse.ArgumentParser(description="Estimates pi on the cluster")
    arguments.add_argument("--context-file")
    arguments.add_argument("--calls", type=int, default=2000)
    arguments.add_argument("--points", type=int, default=500)
    arguments.add_argument("--batch", type=int, default=100)
    given = arguments.parse_args()

    uccp.init(context_file=given.context_file)
    began = time.monotonic()
    refs = inside.map(range(given.calls), [given.points] * given.calls, batch=given.batch)
    hits = sum(uccp.get(refs))
    took = time.monotonic() - began

    if hits != sum(inside(seed, given.points) for seed in range(given.calls)):
        print("montecarlo: the cluster computed differently from this process", file=sys.stderr)
        return 1
    estimate = 4 * hits / (given.calls * given.points)
    print(f"pi is about {estimate:.4f}, off by {abs(estimate - math.pi):.4f}, from {given.calls} calls in {took:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
