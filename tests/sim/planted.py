"""The planted bugs: within how many default seeds, from 1 on, each has to be caught, and by whom.

Names of checkers are as they report; `fatal` is a node that noticed it by itself, `check` an invariant of the code.
"""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIM = ROOT / "build" / "planted" / "bin" / "uccp-sim"
RUN_LIMIT_S = 900
CAUGHT_WITHIN = {
}


def build():
    subprocess.run([str(ROOT / "tools" / "b"), "-p", "planted", "uccp-sim"], check=True, stdout=subprocess.DEVNULL)


def run(first, count, bug=None):
    command = [str(SIM), "--seed", str(first), "--seeds", str(count), "--quiet"] + (["--plant", bug] if bug else [])
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def check(case, bug):
    """Seed by seed, so that it ends with the first that catches it."""
    seeds, checkers = CAUGHT_WITHIN[bug]
    for seed in range(1, seeds + 1):
        result = run(seed, 1, bug)
        if result.returncode == 0:
            continue
        if result.returncode < 0:
            case.assertIn("check", checkers, f"{bug} with seed {seed}: {result.stdout}{result.stderr}")
            return
        found = {line.split(":")[0].strip() for line in result.stdout.splitlines() if line.startswith("  ")}
        case.assertTrue(found & set(checkers), f"{bug} with seed {seed}: {result.stdout}")
        return
    case.fail(f"{bug} was not caught within {seeds} seeds")
