# full
# timeout: 1800
"""Demands that the simulator's checkers catch known mistakes within a stated number of default seeds.

Builds the preset `planted`, in which the mistakes can be switched on; the same program without one of them is clean.
"""
import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIM = ROOT / "build" / "planted" / "bin" / "uccp-sim"
RUN_LIMIT_S = 600
# Bug: default seeds, from 1 on, of which at least one has to fail, and the checkers that may notice it.
CAUGHT_WITHIN = {
    "skip_fsync": (5, ("durability", "apply", "start", "fatal", "digest")),
    "drop_dedup": (10, ("dedup", "durability", "registers", "linearizability")),
    "apply_twice": (5, ("apply", "durability")),
    "no_fence": (40, ("tasks", "runs")),
}


def run(seeds, plant=None):
    command = [str(SIM), "--seed", "1", "--seeds", str(seeds)] + (["--plant", plant] if plant else [])
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


class Planted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        subprocess.run([str(ROOT / "tools" / "b"), "-p", "planted", "uccp-sim"], check=True, stdout=subprocess.DEVNULL)

    def test_each_bug_is_caught(self):
        for bug, (seeds, checkers) in CAUGHT_WITHIN.items():
            with self.subTest(bug=bug):
                result = run(seeds, bug)
                self.assertEqual(result.returncode, 1, f"{bug} was not caught within {seeds} seeds")
                found = [line for line in result.stdout.splitlines() if line.startswith("  ")]
                self.assertTrue(any(line.strip().startswith(checkers) for line in found), "\n".join(found))

    def test_without_a_bug_the_seeds_are_clean(self):
        result = run(max(seeds for seeds, _ in CAUGHT_WITHIN.values()))
        self.assertEqual(result.returncode, 0, result.stdout)


if __name__ == "__main__":
    unittest.main()
