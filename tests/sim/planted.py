"""The planted bugs: within how many default seeds, from 1 on, each has to be caught, and by whom.

Names of checkers are as they report; `fatal` is a node that noticed it by itself, `check` an invariant of the code.
"""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "src"
SIM = pathlib.Path(os.environ.get("UCCP_BIN", ROOT / "build" / "bin")) / "uccp-sim-planted"
RUN_LIMIT_S = 120
CAUGHT_WITHIN = {
}


def run(seed, bug=None, program=SIM):
    command = [str(program), "--seed", str(seed), "--quiet"] + (["--plant", bug] if bug else [])
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def hunt(bug):
    """The first seed that catches the bug, and who reported it; seed by seed, so that it ends there."""
    for seed in range(1, CAUGHT_WITHIN[bug][0] + 1):
        result = run(seed, bug)
        if result.returncode < 0:
            return seed, {"check"}
        if result.returncode == 1:
            return seed, {line.split(":")[0].strip() for line in result.stdout.splitlines() if line.startswith("  ")}
    return None, set()
