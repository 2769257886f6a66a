"""How values in shared memory were made, so that one that is lost is made again.

A recipe keeps what a call was made of: small values and what was put as they are, values of other calls as their
recipes. So the values on the way from what was put to a result need not be kept themselves.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from uccp.refs import DirectCall, ObjectRef, settled, shared_of

AGAIN_MAX = 3  # times that one value is made again


@dataclasses.dataclass
class Made:
    """Stands among the arguments of a recipe for the value of another call."""

    recipe: Recipe
    call: weakref.ref[DirectCall]

    def reference(self) -> ObjectRef[Any]:
        call = self.call()
        return self.recipe.run() if call is None else ObjectRef(call)


class Recipe:
    """A call that can be made once more."""

    __slots__ = ("_args", "_begin", "_kwargs", "left", "lock")

    def __init__(
        self,
        begin: Callable[[Sequence[Any], Mapping[str, Any]], ObjectRef[Any]],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._begin = begin
        self._args = [_kept(one) for one in args]
        self._kwargs = {name: _kept(one) for name, one in kwargs.items()}
        self.left = AGAIN_MAX
        self.lock = threading.Lock()  # of who makes it again

    def run(self) -> ObjectRef[Any]:
        """Begins the call again; first those that its arguments come from, where they are gone."""
        return self._begin(
            [_reference(one) for one in self._args], {name: _reference(one) for name, one in self._kwargs.items()}
        )


def _kept(one: Any) -> Any:
    if not isinstance(one, ObjectRef):
        return one
    call = one._pending
    if isinstance(call, DirectCall) and call.recipe is not None:
        return Made(call.recipe, weakref.ref(call))
    return one if shared_of(one) is not None else settled(one)


def _reference(one: Any) -> Any:
    return one.reference() if isinstance(one, Made) else one
