#!/usr/bin/env python3
"""A pipeline over arrays in shared memory: windows of a signal are filtered, and their spectra are summed.

    build/venv/bin/python examples/python_arrays/pipeline.py [--context-file FILE] [--samples N] [--windows N]

No step copies the signal: the functions read it where this process has put it, and each hands its own array on in the
same memory. Needs NumPy here and, by `requirements`, in the functions' environment. Compares with the same steps in
this process, and exits with 1 when they differ.
"""

import argparse
import sys
import time

import uccp

NUMPY = "numpy==2.2.6"
RESOURCES = {"cpu": 0.4, "memory": "512Mi", "requirements": [NUMPY], "durable": False, "lanes": 2}


def filtered(signal, window, count):
    """A window of the signal without its mean, smoothed."""
    import numpy

    size = len(signal) // count
    part = signal[window * size : (window + 1) * size]
    return numpy.convolve(part - part.mean(), numpy.ones(8) / 8, mode="same")


def spectrum(part):
    import numpy

    return numpy.abs(numpy.fft.rfft(part)) ** 2


def main():
    arguments = argparse.ArgumentParser(description="Spectra of a signal, through shared memory")
    arguments.add_argument("--context-file")
    arguments.add_argument("--samples", type=int, default=4_000_000)
    arguments.add_argument("--windows", type=int, default=8)
    given = arguments.parse_args()
    try:
        import numpy
    except ImportError:
        print(f"pipeline: this process needs NumPy: build/venv/bin/pip install {NUMPY}", file=sys.stderr)
        return 2

    client = uccp.init(context_file=given.context_file)
    time_axis = numpy.arange(given.samples) / 1000
    signal = numpy.sin(2 * numpy.pi * 50 * time_axis) + numpy.random.default_rng(1).normal(size=given.samples)
    began = time.monotonic()
    shared = uccp.put(signal)
    first, second = uccp.remote(**RESOURCES)(filtered), uccp.remote(**RESOURCES)(spectrum)
    spectra = [second.remote(first.remote(shared, window, given.windows)) for window in range(given.windows)]
    total = sum(uccp.get(spectra))
    took = time.monotonic() - began

    here = sum(spectrum(filtered(signal, window, given.windows)) for window in range(given.windows))
    if not numpy.array_equal(total, here):
        print("pipeline: the functions computed differently from this process", file=sys.stderr)
        return 1
    peak = total.argmax() * 1000 / (given.samples // given.windows)
    through = "through the cluster" if client.memory is None else "in shared memory"
    print(f"strongest at {peak:.1f} Hz; {signal.nbytes / 1e6:.0f} MB {through}, {took:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
