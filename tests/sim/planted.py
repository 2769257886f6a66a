"""The planted bugs: within how many default seeds, from 1 on, each has to be caught, and by whom.

Names of checkers are as they report; `fatal` is a node that noticed it by itself, `check` an invariant of the code. A bug
that `uccp-sim --plant list` names and that is not here has no bound yet, because none was measured.
"""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIM = ROOT / "build" / "planted" / "bin" / "uccp-sim"
RUN_LIMIT_S = 900
CAUGHT_WITHIN = {
    "skip_fsync": (5, ("durability", "apply", "start", "fatal", "digest", "logs", "check")),
    "drop_dedup": (10, ("dedup", "durability", "linearizability")),
    "apply_twice": (5, ("apply", "durability")),
    "no_fence": (40, ("tasks", "runs")),
}


def build():
    subprocess.run([str(ROOT / "tools" / "b"), "-p", "planted", "uccp-sim"], check=True, stdout=subprocess.DEVNULL)


def run(first, count, bug=None):
    command = [str(SIM), "--seed", str(first), "--seeds", str(count), "--quiet"] + (["--plant", bug] if bug else [])
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def check_clean(case, seeds):
    """A program that always fails would seem to catch everything."""
    result = run(1, seeds)
    case.assertEqual(result.returncode, 0, result.stdout + result.stderr)


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
