# needs: uccp
# timeout: 120
"""The Python examples as their READMEs show them, against a server of their own."""
import pathlib
import subprocess
import sys
import unittest

from lib.uccp import Node

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent


class PythonExamples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        cls.folder = cls.node.base

    def run_example(self, name, *arguments):
        command = [sys.executable, EXAMPLES / name, "--context-file", self.node.context_file, *map(str, arguments)]
        done = subprocess.run(command, timeout=90, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{self.node.errors()[-4000:]}")
        return done.stdout.splitlines()

    def test_word_count(self):
        texts = []
        for number, text in enumerate(["The cat, the hat\n", "", 'a "quoted"\\ the\nCAT\n']):
            texts.append(self.folder / f"text {number}")
            texts[-1].write_text(text)
        lines = self.run_example("python_wordcount/wordcount.py", "--top", 2, *texts)
        top = "5 words of 3 texts, the same as counted here; the 2 most frequent:"
        self.assertEqual(lines, [top, "3 the", "2 cat"])

    def test_monte_carlo_with_actors(self):
        lines = self.run_example("python_actors/montecarlo.py", "--rounds", 10, "--points", 500)
        self.assertRegex(lines[0], r"^pi is about 3\.\d+, off by 0\.\d+, from 10000 points in")

    def test_orders_become_invoices_exactly_once(self):
        lines = self.run_example("python_transactions/invoices.py", "--orders", 40, "--failures", 0.3)
        self.assertRegex(lines[0], r"^40 orders, 40 invoices, each once; \d+ transactions failed$")

    def test_word_count_of_the_licenses_of_the_system(self):
        if not pathlib.Path("/usr/share/common-licenses").is_dir():
            self.skipTest("this system has no /usr/share/common-licenses")
        self.assertEqual(len(self.run_example("python_wordcount/wordcount.py")), 11)

    def test_monte_carlo(self):
        lines = self.run_example("python_montecarlo/montecarlo.py", "--calls", 400, "--points", 200, "--batch", 50)
        self.assertRegex(lines[0], r"^pi is about 3\.1\d+, off by 0\.\d+, from 400 calls in [0-9.]+ s$")

    def test_a_parameter_sweep_is_killed_and_resumed(self):
        program = EXAMPLES / "python_sweep" / "sweep.py"
        command = [sys.executable, program, "--context-file", self.node.context_file, "--rates", "4", "--rounds", "40"]
        killed = subprocess.Popen([*command, "--id", "sweep"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(killed.stderr.close)
        self.addCleanup(killed.kill)
        for line in killed.stderr:
            if line.startswith("train["):
                break
        killed.kill()
        killed.wait()
        done = subprocess.run([*command, "--resume", "sweep"], timeout=90, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertRegex(lines[0], r"^[1-9]\d* steps are there already$")
        self.assertRegex(lines[1], r"^rate 0\.9, penalty 0: y = [12]\.\d\d x -[01]\.\d\d, loss 0\.\d+, after")
        self.assertIn("sweep succeeded", done.stderr)


if __name__ == "__main__":
    unittest.main()
