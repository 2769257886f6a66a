"""What clients asked of registers and were told, and the two checkers that say whether one register could have done it.

A history is a text file, one operation a line, words separated by blanks:

  CLIENT KEY put VALUE - ok CALLED RETURNED
  CLIENT KEY get VALUE - ok CALLED RETURNED           VALUE: what was read, 0 for a register that was never written
  CLIENT KEY cas VALUE EXPECTED ok|no CALLED RETURNED no: it held something else than EXPECTED

Times are microseconds of one clock. An operation whose outcome its client never learned has `?` and `-` instead of the
outcome and RETURNED: it may have happened at any time after CALLED, or never.
"""
import functools
import shutil
import subprocess
import threading
import time
import unittest

from lib.once import making
from lib.uccp import BIN, ROOT

PORCUPINE = ROOT / "tests" / "clients" / "porcupine"
BUILD_S = 240
CHECK_S = 120


def now_us():
    return time.monotonic_ns() // 1000


class History:
    """Filled by many threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._lines = []
        self.unknown = 0

    def add(self, client, key, kind, value, called, expected=None, outcome="ok", returned=None):
        """`returned` None: the outcome is not known."""
        if returned is None:
            outcome = "?"
        line = (client, key, kind, value, "-" if expected is None else expected, outcome, called,
                "-" if returned is None else returned)
        with self._lock:
            self._lines.append(" ".join(map(str, line)))
            self.unknown += returned is None

    def __len__(self):
        with self._lock:
            return len(self._lines)

    def write(self, path):
        with self._lock:
            path.write_text("\n".join(self._lines) + "\n")
        return path


@functools.cache
def _build_porcupine():
    """(path, None), or (None, why there is none)."""
    go = shutil.which("go")
    if go is None:
        return None, "no Go on the path, so porcupine cannot be built"
    with making("porcupine-check") as target:
        done = subprocess.run([go, "build", "-o", str(target), "."], cwd=PORCUPINE, capture_output=True, text=True,
                              timeout=BUILD_S)
    if done.returncode != 0:
        return None, f"porcupine cannot be built: {done.stderr.strip()[-300:]}"
    return target, None


def porcupine_program():
    """The checker of a third party, built at the first call. SkipTest if there is no Go, or its module cannot be had."""
    target, reason = _build_porcupine()
    if target is None:
        raise unittest.SkipTest(reason)
    return target


def verdict_of(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=CHECK_S)
    if done.returncode not in (0, 1):
        raise AssertionError(f"{command}: {done.returncode} {done.stdout}{done.stderr}")
    return done.returncode == 0, done.stdout.strip()


def check_with_porcupine(path, program):
    """(whether the history is linearizable, what was said)."""
    return verdict_of([program, path])


def check_with_ours(path):
    program = BIN / "uccp-sim"
    if not program.exists():
        raise unittest.SkipTest(f"{program} is not built")
    return verdict_of([program, "--check-history", path])
