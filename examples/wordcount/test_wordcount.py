# timeout: 120
"""The example as its README shows it, against a server of its own."""
import os
import pathlib
import subprocess
import unittest

from lib.uccp import CLI, Node

HERE = pathlib.Path(__file__).resolve().parent


class WordCount(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        cls.folder = cls.node.base

    def run_example(self, *arguments):
        done = subprocess.run([HERE / "wordcount.sh", "--context-file", self.node.context_file, *arguments], timeout=90,
                              env={**os.environ, "UCCP_CLI": str(CLI)}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{self.node.errors()[-4000:]}")
        return done.stdout.splitlines()

    def test_counts_what_one_pipeline_counts(self):
        texts = []
        for number, text in enumerate(["The cat, the hat\n", "", 'a "quoted"\\ the\nCAT\n']):
            texts.append(self.folder / f"text {number}")
            texts[-1].write_text(text)
        lines = self.run_example("--top", "2", *texts)
        self.assertEqual(lines[-2:], ["3 the", "2 cat"])
        self.assertIn("5 words, the same as one pipeline counts", lines[-3])

    def test_licenses_of_the_system(self):
        if not pathlib.Path("/usr/share/common-licenses").is_dir():
            self.skipTest("this system has no /usr/share/common-licenses")
        lines = self.run_example()
        self.assertEqual(len(lines), 12)


if __name__ == "__main__":
    unittest.main()
