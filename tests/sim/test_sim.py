# timeout: 600
# serial
"""Runs the simulator over fixed seeds, over fresh ones derived from the commit, and over those that once found something.

The seeds are cut into ranges that run at the same time, one a core. A seed that is not clean is reported with the command
that repeats it.
"""
import concurrent.futures
import importlib.machinery
import importlib.util
import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SIM = pathlib.Path(os.environ.get("UCCP_BIN", ROOT / "build" / "bin")) / "uccp-sim"
SEEDS = 200
EVENT_SEEDS = 60
ARRAY_SEEDS = 40
GANG_SEEDS = 20
RANGE = 20
RUN_LIMIT_S = 300


def run(first, count, operations=3000, *options):
    command = [str(SIM), "--seed", str(first), "--seeds", str(count), "--ops", str(operations), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def fresh_seed():
    """The same for every run of a commit, so that a run can be repeated; another one for every commit."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return 1_000_000 + int(commit.stdout.strip()[:8] or "1", 16) * SEEDS


def facts(path):
    return dict(line.split("\t") for line in pathlib.Path(path).read_text().splitlines())


class Seeds(unittest.TestCase):
    def check(self, result):
        failures = [line for line in result.stdout.splitlines() if " ok " not in line]
        self.assertEqual(result.returncode, 0, "\n".join(failures) + result.stderr)

    def check_range(self, first, count, *options):
        ranges = [(at, min(RANGE, first + count - at)) for at in range(first, first + count, RANGE)]
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda part: run(*part, 3000, *options), ranges))
        for result in results:
            self.check(result)
        self.assertEqual(sum(result.stdout.count(" ok ") for result in results), count)
        return [line for result in results for line in result.stdout.splitlines() if line.startswith("seed ")]

    def test_fixed_seeds_are_clean_and_meet_every_fault(self):
        lines = self.check_range(1, SEEDS)
        met = {word.split("=")[0] for line in lines for word in line.split() if "=" in word}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "evidence.tsv"
            run(1, 1, 300, "--evidence", str(path))
            kinds = {name.removeprefix("fault_") for name in facts(path) if name.startswith("fault_")}
        self.assertGreater(len(kinds), 25)
        self.assertEqual(kinds - met, set(), "these faults never fired")

    def test_fresh_seeds_of_this_commit_are_clean(self):
        self.check_range(fresh_seed(), SEEDS)

    def test_seeds_of_events_are_clean(self):
        for first in (1, fresh_seed()):
            lines = self.check_range(first, EVENT_SEEDS, "--events")
            self.assertTrue(any("snapshot=" in line for line in lines), "no node was brought up by a snapshot")

    def test_seeds_of_arrays_are_clean(self):
        for first in (1, fresh_seed()):
            self.check_range(first, ARRAY_SEEDS, "--arrays")

    def test_seeds_of_gangs_are_clean(self):
        for first in (1, fresh_seed()):
            self.check_range(first, GANG_SEEDS, "--gangs")

    def test_seeds_that_found_something_are_clean(self):
        lines = (pathlib.Path(__file__).parent / "regressions.txt").read_text().splitlines()
        seeds = [line.split()[:3] for line in lines if line and not line.startswith("#")]
        self.assertGreater(len(seeds), 0)

        def run_one(words):
            return run(int(words[0]), 1, int(words[1]), *(option for option in words[2:] if option in ("--events", "--arrays", "--gangs")))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for result in pool.map(run_one, seeds):
                self.check(result)

    def test_a_seed_has_one_history(self):
        self.assertEqual(run(2, 1).stdout, run(2, 1).stdout)

    def test_evidence_that_lacks_a_fault_is_not_clean(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "evidence.tsv"
            result = run(7, 1, 300, "--evidence", str(path), "--commit", "c0ffee")
            self.assertEqual(result.returncode, 1)
            self.assertIn("never fired:", result.stdout)
            found = facts(path)
        self.assertEqual(found["commit"], "c0ffee")
        self.assertEqual(found["seeds_not_clean"], "0")
        self.assertEqual(found["fault_crash"], "0")
        self.assertEqual(len(found["hash"]), 16)

    def test_ranges_become_one_evidence(self):
        loader = importlib.machinery.SourceFileLoader("sim_evidence", str(ROOT / "tools" / "sim_evidence"))
        tool = importlib.util.module_from_spec(importlib.util.spec_from_loader("sim_evidence", loader))
        loader.exec_module(tool)
        with tempfile.TemporaryDirectory() as folder:
            parts = {}
            for first in (1, 3):
                parts[first, 2] = pathlib.Path(folder) / f"{first}.tsv"
                printed = run(first, 2, 300, "--evidence", str(parts[first, 2]), "--commit", "c0ffee").stdout
                self.assertIn(f"hash {facts(parts[first, 2])['hash']}", printed)
            merged = tool.merge(parts)
            both = [facts(path) for path in parts.values()]
        self.assertEqual((merged["commit"], merged["first_seed"], merged["seeds"]), ("c0ffee", 1, 4))
        for name in ("operations", "events", "fault_call_lost", "fault_kill"):
            self.assertEqual(merged[name], sum(int(one[name]) for one in both), name)
        self.assertEqual([merged["range_1_2"], merged["range_3_4"]], [one["hash"] for one in both])
        self.assertTrue(tool.text_of(merged).startswith("commit\tc0ffee\nfirst_seed\t1\nseeds\t4\nseeds_not_clean\t0\nhash\t"))

    def test_the_evidence_that_is_kept_is_whole(self):
        for path in sorted((ROOT / "docs" / "evidence").glob("sim-*.tsv")):
            with self.subTest(path.name):
                kept = facts(path)
                self.assertEqual(path.name, f"sim-{kept['commit']}.tsv")
                self.assertEqual(kept["seeds_not_clean"], "0")
                ranges = [name.split("_")[1:] for name in kept if name.startswith("range_")]
                self.assertEqual(sum(int(last) - int(first) + 1 for first, last in ranges), int(kept["seeds"]))
                fired = {name: int(count) for name, count in kept.items() if name.startswith("fault_")}
                self.assertEqual([name for name, count in fired.items() if count == 0], [])

    def test_a_wrong_command_line_is_explained(self):
        for arguments in (["--seed", "x"], ["--seeds"], ["--what", "1"], ["--plant", "forget_vote"]):
            result = subprocess.run([str(SIM), *arguments], capture_output=True, text=True, timeout=RUN_LIMIT_S)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertTrue(result.stderr)


if __name__ == "__main__":
    unittest.main()
