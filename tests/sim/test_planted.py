# timeout: 900
# serial
"""Demands that the simulator's checkers catch known mistakes within a stated number of default seeds.

`uccp-sim-planted` is the simulator with the mistakes compiled in, of which `--plant` switches one on; without one it is
clean. Its other objects are those of `uccp-sim`.
"""
import concurrent.futures
import os
import re
import subprocess
import unittest

import planted


ALL = planted.CAUGHT_WITHIN | planted.EVENTS_CAUGHT_WITHIN


def includes(path):
    return re.findall(r'^#include "([^"]+)"', (planted.SOURCES / path).read_text(), re.MULTILINE)


class Planted(unittest.TestCase):
    def test_each_bug_is_caught(self):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            verdicts = pool.map(planted.hunt, ALL)
        for bug, (seed, found) in zip(ALL, verdicts):
            seeds, checkers = ALL[bug]
            with self.subTest(bug=bug):
                self.assertIsNotNone(seed, f"not caught within {seeds} seeds")
                self.assertTrue(found & checkers, f"seed {seed} was not clean because of {found}")

    def test_the_command_that_is_printed_finds_it_again(self):
        for bug in ("apply_twice", "trim_much"):
            seed, _ = planted.hunt(bug)
            first = planted.run(seed, bug, options=["--events"] if bug in planted.EVENTS_CAUGHT_WITHIN else [])
            printed = re.search(r"reproduce: build/bin/uccp-sim-planted (.*)", first.stdout)
            self.assertIsNotNone(printed, first.stdout)
            again = subprocess.run([str(planted.SIM), *printed[1].split()], capture_output=True, text=True, check=False,
                                   timeout=planted.RUN_LIMIT_S)
            found = [[line for line in run.stdout.splitlines() if line.startswith("  ")] for run in (first, again)]
            self.assertEqual(found[0], found[1])
            self.assertEqual((first.returncode, again.returncode), (1, 1))

    def test_every_bug_is_known(self):
        result = planted.run(1, "list")
        self.assertEqual(result.returncode, 2)
        self.assertEqual(set(result.stderr.split("there are ")[1].split()), ALL.keys() | planted.WITHOUT_BOUND)

    def test_without_a_bug_the_seeds_are_clean(self):
        """A program that always fails would seem to catch everything."""
        for seed in range(1, 6):
            result = planted.run(seed)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_a_bug_does_nothing_in_the_program_that_ships_without_it(self):
        result = planted.run(1, "drop_dedup", planted.SIM.with_name("uccp-sim"))
        self.assertEqual(result.returncode, 2)
        self.assertIn("uccp-sim-planted", result.stderr)

    def test_nothing_else_is_compiled_otherwise_for_the_simulation(self):
        """Outside of src/sim a condition of the compiler is one of the platform, a version, or a planted bug in its place."""
        allowed = re.compile(r"UCCP_VERSION|UCCP_COMMIT|__\w+__|__has_\w+")
        found = {}
        for path in sorted(planted.SOURCES.rglob("*.[ch]*")):
            name = str(path.relative_to(planted.SOURCES))
            if name.startswith("sim/") or path.suffix not in (".h", ".cc") or path.stem.endswith("_test"):
                continue
            for condition in re.findall(r"^\s*#\s*(?:el)?if(?:n?def)?\b(.*)$", path.read_text(), re.MULTILINE):
                if "UCCP_PLANTED_BUGS" in condition and path.stem == "planted":
                    continue
                if not allowed.search(condition):
                    found[name] = condition.strip()
        self.assertEqual(found, {})

    def test_the_simulator_compiles_no_file_of_the_server_itself(self):
        """What it runs is in the libraries of which the server is linked; only uccp-sim-planted compiles some anew."""
        foreign = {}
        for path in (planted.SOURCES / "sim").rglob("CMakeLists.txt"):
            text = re.sub(r"set\(planted [^)]*\)|#.*", "", path.read_text())
            foreign[str(path)] = [word for word in re.findall(r"[\w./${}-]+\.cc\b", text)
                                  if not (path.parent / word).is_file()]
        self.assertEqual({path: files for path, files in foreign.items() if files}, {})
        self.assertIn("uccp_program(uccp-sim SOURCES", (planted.SOURCES / "sim" / "CMakeLists.txt").read_text())

    def test_all_that_knows_of_a_bug_is_compiled_with_it(self):
        """Else the linker would take half of an inline function from a library, without the bug."""
        listed = re.search(r"set\(planted ([^)]*)\)", (planted.SOURCES / "sim" / "CMakeLists.txt").read_text())[1].split()
        files = {str(path.relative_to(planted.SOURCES)): None for path in planted.SOURCES.rglob("*.[ch]*")
                 if path.suffix in (".h", ".cc") and not path.stem.endswith(("_test", "_fuzz"))}
        known = {path: set(includes(path)) for path in files}
        knows = {path for path in files if path.endswith("/planted.h")}
        while more := {path for path, parts in known.items() if parts & knows} - knows:
            knows |= more
        self.assertGreater(len(knows), 20)
        self.assertEqual(set(listed), {path for path in knows if path.endswith(".cc")})


if __name__ == "__main__":
    unittest.main()
