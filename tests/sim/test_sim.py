# timeout: 300
"""Runs the simulator over fixed seeds, over seeds that once found something, and over fresh ones of this commit."""
import os
import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIM = pathlib.Path(os.environ.get("UCCP_BIN", ROOT / "build" / "bin")) / "uccp-sim"
FIXED_SEEDS = 40
FRESH_SEEDS = 20
RUN_LIMIT_S = 240


def run(first, count, operations=3000):
    command = [str(SIM), "--seed", str(first), "--seeds", str(count), "--ops", str(operations)]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def fresh_seed():
    """The same for every run of a commit, so that a run can be repeated."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return int(commit.stdout.strip()[:8] or "1", 16)


class Seeds(unittest.TestCase):
    def check(self, result):
        failures = [line for line in result.stdout.splitlines() if " ok " not in line]
        self.assertEqual(result.returncode, 0, "\n".join(failures) + result.stderr)

    def test_fixed_seeds_are_clean(self):
        result = run(1, FIXED_SEEDS)
        self.check(result)
        self.assertEqual(result.stdout.count(" ok "), FIXED_SEEDS)

    def test_fresh_seeds_of_this_commit_are_clean(self):
        self.check(run(fresh_seed(), FRESH_SEEDS))

    def test_seeds_that_found_something_are_clean(self):
        lines = (pathlib.Path(__file__).parent / "regressions.txt").read_text().splitlines()
        for line in lines:
            if line and not line.startswith("#"):
                seed, operations = line.split()
                with self.subTest(seed=seed):
                    self.check(run(int(seed), 1, int(operations)))

    def test_a_seed_has_one_history(self):
        self.assertEqual(run(2, 1).stdout, run(2, 1).stdout)


if __name__ == "__main__":
    unittest.main()
