# full
# timeout: 3000
"""Demands that the simulator's checkers catch known mistakes within a stated number of default seeds.

Builds the preset `planted`, in which the mistakes can be switched on; the same program without one of them is clean.
"""
import pathlib
import subprocess
import unittest

import planted


class Planted(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        planted.build()

    def setUp(self):
        planted.check_clean(self, 3)

    def test_each_bug_is_caught(self):
        for bug in planted.CAUGHT_WITHIN:
            with self.subTest(bug=bug):
                planted.check(self, bug)

    def test_every_bug_with_a_bound_exists(self):
        result = subprocess.run([str(planted.SIM), "--plant", "list"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 2)
        known = set(result.stderr.split("there are ")[1].split())
        self.assertEqual(set(planted.CAUGHT_WITHIN) - known, set())

    def test_without_a_bug_the_seeds_are_clean(self):
        result = planted.run(1, max(seeds for seeds, _ in planted.CAUGHT_WITHIN.values()))
        self.assertEqual(result.returncode, 0, result.stdout)


if __name__ == "__main__":
    unittest.main()
