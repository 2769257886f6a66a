#!/usr/bin/env python3
"""Counts the words of many texts on the cluster: one call a text, and one that adds up what they counted.

    build/venv/bin/python examples/python_wordcount/wordcount.py [--context-file FILE] [--top N] [TEXT...]

Prints the N (10) most frequent words of the TEXTs (the licenses of the system), and compares the whole result with what
this process counts by itself. Exits with 1 when they differ.
"""

import argparse
import collections
import pathlib
import re
import sys

import uccp

LICENSES = pathlib.Path("/usr/share/common-licenses")


@uccp.remote(cpu=0.2, memory="128Mi", retries=3)
def count(text):
    return collections.Counter(re.findall(r"[a-z0-9]+", text.lower()))


@uccp.remote(cpu=0.2, memory="128Mi", retries=3)
def add(*counts):
    return sum(counts, collections.Counter())


def main():
    arguments = argparse.ArgumentParser(description="Counts words on the cluster")
    arguments.add_argument("texts", nargs="*", type=pathlib.Path)
    arguments.add_argument("--context-file")
    arguments.add_argument("--top", type=int, default=10)
    given = arguments.parse_args()
    files = given.texts or sorted(file for file in LICENSES.iterdir() if file.is_file())
    texts = [file.read_text(errors="replace") for file in files]

    uccp.init(context_file=given.context_file)
    counts = count.map(texts)
    # The counts go from worker to worker: they do not pass through here.
    words = uccp.get(add.remote(*counts))

    if words != add(*map(count, texts)):
        print("wordcount: the cluster counted differently from this process", file=sys.stderr)
        return 1
    print(f"{len(words)} words of {len(texts)} texts, the same as counted here; the {given.top} most frequent:")
    for word, number in sorted(words.items(), key=lambda one: (-one[1], one[0]))[: given.top]:
        print(number, word)
    return 0


if __name__ == "__main__":
    sys.exit(main())
