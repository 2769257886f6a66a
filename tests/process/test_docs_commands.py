"""The commands that README and docs show exist: their words, as help and completion know them."""
import functools
import os
import re
import shlex
import subprocess
import unittest

from lib.uccp import CLI, ROOT, clean_environment, require

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "python").glob("*.md"))]
# In code between lines of ``` and in text, up to the end of the command.
SHOWN = re.compile(r"(?<![\w/-])uccp-cli ([^`\n]*)")
END = re.compile(r"\s(?:[|;#]|&&|2>|>|<)|\\$|\)(?:\s|$)")


def shown():
    """(page, words) of each command."""
    for page in PAGES:
        for match in SHOWN.finditer(page.read_text()):
            text = END.split(match[1])[0].replace("…", "...")
            try:
                words = shlex.split(text)
            except ValueError:
                words = text.replace("'", "").replace('"', "").split()
            yield page.relative_to(ROOT), words


@functools.cache
def completed(*words):
    done = subprocess.run([CLI, "__complete", *words], capture_output=True, text=True, timeout=30, cwd="/",
                          env=clean_environment(HOME=os.devnull))
    return set(done.stdout.split())


@functools.cache
def verbs_of(noun):
    """Those of a noun, as its help lists them; none if it has none."""
    done = subprocess.run([CLI, "help", noun], capture_output=True, text=True, timeout=30, cwd="/", env=clean_environment(HOME=os.devnull))
    return set(re.findall(r"(?m)^  ([a-z][a-z-]*)", done.stdout.partition("\nCommands\n")[2]))


class Shown(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        require(CLI)
        cls.first = completed("")

    def test_every_command_exists(self):
        count = 0
        for page, words in shown():
            plain = [word for word in words if not word.startswith("-")]
            if not plain or words[0].startswith("-") or not re.fullmatch("[a-z][a-z-]*", plain[0]):
                continue  # a placeholder, a sentence about the program, or where the cluster is
            with self.subTest(f"{page}: uccp-cli {' '.join(words)}"):
                count += 1
                noun = plain[0]
                # Plurals and the word for any method stand for what is there.
                self.assertTrue(noun in self.first or noun.rstrip("s") in self.first or noun in ("nodes", "help", "api"), noun)
                verbs = verbs_of(noun)
                verb = plain[1] if len(plain) > 1 else ""
                of_a_kind = noun in ("get", "describe", "delete", "wait", "logs", "explain", "man", "help", "top", "completion")
                if not verbs or of_a_kind or not re.fullmatch("[a-z][a-z-]*", verb):
                    continue
                self.assertIn(verb, verbs)
        self.assertGreater(count, 100, "the pages were not read")


if __name__ == "__main__":
    unittest.main()
