"""What runs a step of a workflow in a worker's process. It needs nothing of the package `uccp`, so that processes start
quickly; steps that make further steps load it.
"""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable, Iterable
from typing import Any


class Slot:
    """Stands in the arguments of a step, at any depth of lists, tuples and dictionaries, for the value of another step
    that follows them, or for what is in it under `path`."""

    __slots__ = ("number", "path")

    def __init__(self, number: int, path: tuple[Any, ...] = ()) -> None:
        self.number = number
        self.path = path

    def __reduce__(self) -> Any:
        return (Slot, (self.number, self.path))


def picked(value: Any, path: Iterable[Any]) -> Any:
    """What is in a value under the keys and indexes of a path."""
    for key in path:
        value = value[key]
    return value


def replaced(value: Any, kinds: Any, by: Callable[[Any], Any]) -> Any:
    """A value in which everything of these classes, in lists, tuples and dictionaries too, is replaced."""
    if isinstance(value, kinds):
        return by(value)
    if type(value) in (list, tuple):
        return type(value)(replaced(one, kinds, by) for one in value)
    if type(value) is dict:
        return {key: replaced(one, kinds, by) for key, one in value.items()}
    return value


class StepCall:
    """A function as the step of a workflow."""

    def __init__(self, function: Callable[..., Any], dynamic: bool) -> None:
        functools.update_wrapper(self, function)
        self.step_function = function
        self.step_dynamic = dynamic

    def __call__(self, template: Any, *values: Any) -> Any:
        args, kwargs = replaced(template, Slot, lambda slot: picked(values[slot.number], slot.path))
        if not self.step_dynamic:
            return self.step_function(*args, **kwargs)
        from uccp.workflow import graph  # which only these need

        return graph.continuation(self.step_function, args, kwargs)


def gathered(*values: Any) -> list[Any]:
    """The values of many steps as one, for a step that takes more of them than a call may have."""
    return list(values)


class CommandFailed(Exception):
    """A command that ended with another code than 0."""


def run_command(command: list[Any], output: str) -> Any:
    """Runs a command without a shell; its value is what it wrote: text, lines, or JSON."""
    done = subprocess.run([str(one) for one in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"{command[0]} ended with {done.returncode}; its log is that of the task")
    text = done.stdout.decode(errors="replace")
    if output == "json":
        return json.loads(text)
    return text.splitlines() if output == "lines" else text.removesuffix("\n")
