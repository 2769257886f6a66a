# timeout: 120
"""The example as its README shows it, against a server of its own."""
import os
import pathlib
import subprocess
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(os.environ.get("UCCP_BIN", HERE.parent.parent / "build" / "bin"))
START_S = 30


class WordCount(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="uccp-wordcount-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.log = open(self.folder / "server.log", "w+b")
        self.addCleanup(self.log.close)
        self.server = subprocess.Popen([BIN / "uccp", "dev", "--data-dir", self.folder / "data", "--ports", "auto"],
                                       stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        self.addCleanup(self.stop)
        self.context = self.folder / "data" / "dev.json"
        deadline = time.monotonic() + START_S
        while not self.context.exists():
            if self.server.poll() is not None or time.monotonic() > deadline:
                self.fail(f"the server did not start:\n{self.written()}")
            time.sleep(0.05)

    def stop(self):
        self.server.terminate()
        self.server.wait(timeout=30)

    def written(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-4000:]

    def run_example(self, *arguments):
        done = subprocess.run([HERE / "wordcount.sh", "--context-file", self.context, *arguments], timeout=90,
                              env={**os.environ, "UCCP_CLI": str(BIN / "uccp-cli")}, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, f"{done.stdout}{done.stderr}\n{self.written()}")
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
