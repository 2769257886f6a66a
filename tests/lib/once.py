"""What several tests need and the first one of them makes."""
import contextlib
import fcntl

from lib.uccp import ROOT


@contextlib.contextmanager
def making(name):
    """As long as this lasts nobody else makes build/NAME."""
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / f"{name}.lock", "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield ROOT / "build" / name
