#!/usr/bin/env python3
"""Finds the best settings of a small model, as a workflow that goes on where it stood after any crash.

    build/venv/bin/python examples/python_sweep/sweep.py [--context-file FILE] [--id ID] [--rates N] [--rounds N]
    build/venv/bin/python examples/python_sweep/sweep.py [--context-file FILE] --resume ID

Each of N learning rates is tried with three penalties; the best pair is trained until it does not get better. The
numbers are the same wherever and however often a step ran; they are compared with what this process computes. Exits
with 1 when they differ.
"""

import argparse
import random
import sys
import time

import uccp
from uccp import workflow

SMALL = {"cpu": 0.4, "memory": "128Mi", "retries": 2}
PENALTIES = [0.0, 0.01, 0.1]
NOISE = 0.1
LEAST_GAIN = 1e-6


@workflow.step(cache=True, **SMALL)
def load(points):
    """Points around a line."""
    numbers = random.Random(7)
    xs = [numbers.uniform(-1, 1) for _ in range(points)]
    return [(x, 2 * x - 1 + numbers.gauss(0, NOISE)) for x in xs]


def descend(data, slope, offset, rate, penalty, rounds):
    for _ in range(rounds):
        errors = [slope * x + offset - y for x, y in data]
        slope -= rate * (sum(e * x for e, (x, _) in zip(errors, data)) / len(data) + penalty * slope)
        offset -= rate * sum(errors) / len(data)
    loss = sum((slope * x + offset - y) ** 2 for x, y in data) / len(data)
    return {"slope": slope, "offset": offset, "rate": rate, "penalty": penalty, "loss": loss}


@workflow.step(**SMALL)
def train(settings, data, rounds):
    return descend(data, 0.0, 0.0, settings["rate"], settings["penalty"], rounds)


@workflow.step(**SMALL)
def best(models):
    return min(models, key=lambda model: (model["loss"], model["rate"], model["penalty"]))


@workflow.step(**SMALL)
def refine(model, data):
    """Trains further."""
    better = descend(data, model["slope"], model["offset"], model["rate"], model["penalty"], 20)
    return {**better, "gain": model["loss"] - better["loss"]}


@workflow.define
def sweep(rates, rounds):
    data = load(200)
    settings = [{"rate": rate, "penalty": penalty} for rate in rates for penalty in PENALTIES]
    winner = best(train.map(settings, data=data, rounds=rounds))
    return refine.until(lambda model: model["gain"] < LEAST_GAIN, winner, data=data)


def expected(rates, rounds):
    """The same, here."""
    data = load(200)
    model = best([train({"rate": rate, "penalty": one}, data, rounds) for rate in rates for one in PENALTIES])
    while True:
        model = refine(model, data)
        if model["gain"] < LEAST_GAIN:
            return model


def main():
    arguments = argparse.ArgumentParser(description="Finds the best settings on the cluster")
    arguments.add_argument("--context-file")
    arguments.add_argument("--id", help="name of the run")
    arguments.add_argument("--resume", metavar="ID", help="go on with a run")
    arguments.add_argument("--rates", type=int, default=8)
    arguments.add_argument("--rounds", type=int, default=100)
    given = arguments.parse_args()

    uccp.init(context_file=given.context_file)
    began = time.monotonic()
    rates = [0.9 * (number + 1) / given.rates for number in range(given.rates)]
    if given.resume:
        there = sum(one.status == "SUCCEEDED" and one.kind == "step" for one in workflow.list_steps(given.resume))
        print(f"{there} steps are there already")
        model = workflow.resume(given.resume, progress=True)
    else:
        model = workflow.run(sweep, rates, given.rounds, id=given.id, progress=True)

    if model != expected(rates, given.rounds):
        print("sweep: the cluster computed differently from this process", file=sys.stderr)
        return 1
    took = time.monotonic() - began
    print(
        f"rate {model['rate']:.3g}, penalty {model['penalty']:g}: y = {model['slope']:.2f} x {model['offset']:+.2f}, "
        f"loss {model['loss']:.4f}, after {took:.1f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
