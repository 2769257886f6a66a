#!/usr/bin/env python3
"""Estimates pi with actors: samplers keep their state between calls, and send what they find as streams.

    build/venv/bin/python examples/python_actors/montecarlo.py [--context-file FILE] [--samplers N] [--rounds N]
        [--points N]

Each sampler has a seed of its own, so the estimate is the same wherever it runs; it is compared with what this process
computes from the same seeds. Exits with 1 when they differ.
"""

import argparse
import math
import random
import sys
import time

import uccp


@uccp.remote(cpu=0.4, memory="128Mi", restarts=3)
class Sampler:
    """Throws points; remembers where its numbers are and how many points it threw."""

    def __init__(self, seed):
        self.numbers = random.Random(seed)
        self.points = 0

    def inside(self, points):
        self.points += points
        return sum(self.numbers.random() ** 2 + self.numbers.random() ** 2 < 1 for _ in range(points))

    def rounds(self, count, points):
        for _ in range(count):
            yield self.inside(points)

    def thrown(self):
        return self.points


def main():
    arguments = argparse.ArgumentParser(description="Estimates pi with actors")
    arguments.add_argument("--context-file")
    arguments.add_argument("--samplers", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=50)
    arguments.add_argument("--points", type=int, default=2000)
    given = arguments.parse_args()

    uccp.init(context_file=given.context_file)
    began = time.monotonic()
    samplers = [Sampler.remote(seed) for seed in range(given.samplers)]
    streams = [sampler.rounds.remote(given.rounds, given.points) for sampler in samplers]
    hits = [sum(uccp.get(ref) for ref in stream) for stream in streams]
    thrown = uccp.get([sampler.thrown.remote() for sampler in samplers])
    took = time.monotonic() - began
    for sampler in samplers:
        uccp.kill(sampler)

    here = [Sampler(seed) for seed in range(given.samplers)]
    if hits != [sum(one.rounds(given.rounds, given.points)) for one in here] or thrown != [one.points for one in here]:
        print("montecarlo: the actors computed differently from this process", file=sys.stderr)
        return 1
    estimate = 4 * sum(hits) / sum(thrown)
    off = abs(estimate - math.pi)
    print(f"pi is about {estimate:.4f}, off by {off:.4f}, from {sum(thrown)} points in {took:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
