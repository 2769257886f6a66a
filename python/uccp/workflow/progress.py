"""Shows how far a run is: a bar on a terminal, a line for each step that ended elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable
from typing import IO

from uccp.workflow.states import ENDED, FAILED, RUNNING, SKIPPED, SUCCEEDED, State, brief

REDRAW_S = 0.1
BAR = 24
NAMES_MAX = 3  # of running steps


class Progress:
    """What is shown of one run; `wanted` None: only on a terminal."""

    def __init__(self, run_id: str, wanted: bool | None, file: IO[str] | None = None) -> None:
        self._file = file or sys.stderr
        self._terminal = self._file.isatty()
        self._shown = self._terminal if wanted is None else wanted
        self._run_id = run_id
        self._drawn = 0.0
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._shown:
            self._print(text)

    def changed(self, state: State) -> None:
        """A step is elsewhere now."""
        if self._shown and not self._terminal and state.node.kind == "step" and state.status in (SUCCEEDED, FAILED):
            how = "cached" if state.cached else state.status.lower() + (" earlier" if state.earlier else "")
            why = f": {brief(state.error)}" if state.error is not None else ""
            self._print(f"{state.id} {how}{why}")

    def show(self, states: Iterable[State]) -> None:
        """Draws the bar, not too often."""
        if self._shown and self._terminal and time.monotonic() - self._drawn >= REDRAW_S:
            self._drawn = time.monotonic()
            width = shutil.get_terminal_size().columns - 1
            self._file.write("\r\x1b[K" + bar(self._run_id, list(states))[:width])
            self._file.flush()

    def end(self, states: Iterable[State], status: str) -> None:
        if not self._shown:
            return
        if self._terminal:
            self._drawn = 0.0
            self.show(states)
            self._file.write("\n")
        self._print(f"{self._run_id} {status.lower()} after {time.monotonic() - self._began:.1f} s")

    def _print(self, text: str) -> None:
        self._file.write(text + "\n" if not self._terminal else f"\r\x1b[K{text}\n")
        self._file.flush()


def bar(run_id: str, states: list[State]) -> str:
    """One line: what has ended of the steps that are known, and what runs."""
    steps = [one for one in states if one.node.kind == "step" and one.status != SKIPPED]
    ended = sum(one.status in ENDED for one in steps)
    filled = BAR * ended // len(steps) if steps else 0
    running = [one.id for one in steps if one.status == RUNNING]
    cached = sum(one.cached for one in steps)
    failed = sum(one.status == FAILED for one in steps)
    text = f"{run_id} [{'#' * filled}{'.' * (BAR - filled)}] {ended}/{len(steps)}"
    text += f", {cached} cached" if cached else ""
    text += f", {failed} failed" if failed else ""
    if running:
        more = f" and {len(running) - NAMES_MAX} more" if len(running) > NAMES_MAX else ""
        text += f", running {', '.join(running[:NAMES_MAX])}{more}"
    return text
