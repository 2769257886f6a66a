#!/usr/bin/env python3
"""Runs one file of unittest tests: python3 tests/run.py FILE [CASE...]

Writes build/test-results/NAME.xml (JUnit; $UCCP_TEST_RESULTS names another folder) and exits 1 when a case failed, a
case was skipped without a reason, or there was none. CASE is part of a case's name: `Class.method`.

Uses the interpreter of build/venv-test when there is one, so that every test can import what is in
tests/clients/requirements.txt; that of build/venv, which has python/uccp, for a file that asks for it. $UCCP_TEST_DEADLINE_S ends the case that is running after that many seconds, with the
stacks of all threads, while there is still time to clean up. Processes that a test leaves behind are killed.

First lines of a test file may hold, each as a comment line of its own:
  # serial           nothing else runs at the same time
  # full             only in `make test-full`
  # timeout: 600     seconds, default 300
  # labels: load     further ctest labels, separated by blanks
  # needs: uccp      the Python package, as tools/python builds it
"""
import ctypes
import faulthandler
import importlib.util
import os
import pathlib
import signal
import sys
import time
import traceback
import unittest
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parent.parent
PR_SET_CHILD_SUBREAPER = 36
HEAD_LINES = 40


def use_test_interpreter(file):
    with open(file) as lines:
        head = [line.rstrip("\n") for _, line in zip(range(HEAD_LINES), lines)]
    venv = ROOT / "build" / ("venv" if "# needs: uccp" in head else "venv-test")
    python = venv / "bin" / "python3"
    if python.exists() and pathlib.Path(sys.prefix) != venv:
        os.execv(python, [str(python)] + sys.argv)


class Recorder(unittest.TextTestResult):
    """Keeps one entry a case: (name, seconds, kind, text); kind is passed, failed or skipped."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.entries = []
        self.started = 0.0
        self.problems = []

    @staticmethod
    def name_of(test):
        parts = test.id().split(".")
        return ".".join(parts[-2:]) if isinstance(test, unittest.TestCase) else test.id()

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()
        self.problems = []

    def stopTest(self, test):
        super().stopTest(test)
        name = self.name_of(test)
        if self.problems:
            self.record(name, "failed", "\n".join(self.problems))
        elif not any(entry[0] == name for entry in self.entries):
            self.record(name, "passed", "")

    def record(self, name, kind, text):
        self.entries.append((name, time.monotonic() - self.started, kind, text))

    def problem(self, test, error):
        text = self._exc_info_to_string(error, test)
        if isinstance(test, unittest.TestCase):
            self.problems.append(text)
        else:  # setUpClass or setUpModule, which no case stands for
            self.record(self.name_of(test), "failed", text)

    def addError(self, test, error):
        super().addError(test, error)
        self.problem(test, error)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.problem(test, error)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.problems.append(f"{subtest}\n{self._exc_info_to_string(error, test)}")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.problems.append("was expected to fail and passed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if reason.strip():
            self.record(self.name_of(test), "skipped", reason.strip())
        else:
            self.problems.append("was skipped without saying why")


def load(path):
    sys.path.insert(0, str(path.parent))
    sys.path.insert(0, str(ROOT / "tests"))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def cases_of(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from cases_of(test)
        else:
            yield test


def set_deadline(seconds):
    def expired(number, frame):
        faulthandler.dump_traceback(all_threads=True)
        raise TimeoutError(f"the file's {seconds} s are over")

    signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)


def adopt_orphans():
    """Makes this process the parent of what its children leave behind, so that none of it can get lost."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children():
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = pathlib.Path(entry.path, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def kill_leftovers():
    # Killing a parent hands its children to us, hence the rounds.
    for _ in range(20):
        left = children()
        if not left:
            break
        for pid in left:
            print(f"run.py: killing process {pid}, which a test left behind", file=sys.stderr)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def write_xml(path, program, entries):
    count = {kind: sum(entry[2] == kind for entry in entries) for kind in ("failed", "skipped")}
    suite = ET.Element("testsuite", name=program, tests=str(len(entries)), failures=str(count["failed"]),
                       skipped=str(count["skipped"]))
    for name, seconds, kind, text in entries:
        case = ET.SubElement(suite, "testcase", classname=program, name=name, time=f"{seconds:.3f}")
        text = "".join(c for c in text if c in "\n\t" or c >= " ")
        if kind == "failed":
            ET.SubElement(case, "failure", message=(text.strip().splitlines() or [""])[-1]).text = text
        elif kind == "skipped":
            ET.SubElement(case, "skipped", message=text)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__)
        return 2
    path = pathlib.Path(arguments[0]).resolve()
    results = pathlib.Path(os.environ.get("UCCP_TEST_RESULTS", ROOT / "build" / "test-results"))
    adopt_orphans()
    deadline = int(os.environ.get("UCCP_TEST_DEADLINE_S", "0"))
    if deadline > 0:
        set_deadline(deadline)
    try:
        cases = [c for c in cases_of(load(path)) if not arguments[1:] or any(a in c.id() for a in arguments[1:])]
        suite = unittest.TestSuite(cases)
        entries = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Recorder).run(suite).entries
    except BaseException:  # an import that fails or skips, or the deadline outside a case
        text = traceback.format_exc()
        print(text)
        skip = sys.exc_info()[1]
        kind = "skipped" if isinstance(skip, unittest.SkipTest) and str(skip).strip() else "failed"
        entries = [(path.stem, 0.0, kind, str(skip) if kind == "skipped" else text)]
    signal.alarm(0)
    kill_leftovers()
    if not entries:
        entries = [(path.stem, 0.0, "failed", "the file has no test case")]
    write_xml(results / f"{path.stem}.xml", path.stem, entries)
    return 1 if any(kind == "failed" for _, _, kind, _ in entries) else 0


if __name__ == "__main__":
    use_test_interpreter(sys.argv[1] if len(sys.argv) > 1 else __file__)
    sys.exit(main(sys.argv[1:]))
