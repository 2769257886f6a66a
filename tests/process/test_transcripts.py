"""The command line against a real node, as golden transcripts: tests/cli/transcripts/*.txt.

A transcript has lines `$ COMMAND`, run one after the other by one bash in an empty folder that is also $HOME, with the
programs on the path; below each is what it prints, errors included, and `[exit N]` if N is not 0. Lines with # in front are
comments. What differs from run to run stands as <name>; the same id has the same number throughout a transcript.
$UCCP_CONTEXT_FILE names a node that runs, but in those with `# own node`, which start what they need.

UCCP_REWRITE=1 python3 tests/run.py tests/process/test_transcripts.py writes what happened into the files; review the diff.
"""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import unittest

from lib.uccp import BIN, CLI, ROOT, SERVER, NodeTest, clean_environment, require

require(CLI, SERVER)
FOLDER = ROOT / "tests" / "cli" / "transcripts"
END = "-- end of command "
COMMAND_S = 60
# What stands for values that differ, in this order.
REPLACED = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>"),
    (r"\bcli-[0-9a-f]{32}\b", "<request id>"),
    (r"\b127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
    (r"\b\d+(\.\d+)?(ms|s)\b(?=\s*$|   )", "<age>"),
    (r'"\d+\.\d+s"', '"<duration>"'),
    (r'(\betag"?: ?)"\d+"', r'\1"<etag>"'),
)
ID = re.compile(r"\b((?:task|svc|bind|backup|attempt|ten|key|lease|worker)_)(?:[0-9A-HJKMNP-TV-Z]{26}|[0-9a-f]{16})\b")


class Names:
    """Numbers for ids, by the order in which they are met."""

    def __init__(self):
        self.known = {}

    def stable(self, text):
        def number(match):
            return f"{match[1]}<{self.known.setdefault(match[0], len(self.known) + 1)}>"
        text = ID.sub(number, text)
        for pattern, name in REPLACED:
            text = re.sub(pattern, name, text, flags=re.MULTILINE)
        return text


class Shell:
    """One bash, its commands and what they print."""

    def __init__(self, folder, **environment):
        self.folder = str(folder)
        self.process = subprocess.Popen(
            ["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
            start_new_session=True,
            env=clean_environment(HOME=str(folder), PWD=str(folder), PATH=f"{BIN}:{os.environ['PATH']}", COLUMNS="120",
                                  **environment))

    def run(self, command):
        self.process.stdin.write(f"{{ {command}\n}} </dev/null\necho \"{END}$?\"\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            before, mark, code = line.partition(END)
            lines.append(before)
            if mark:
                text = "".join(lines).replace(self.folder, "<folder>")
                text += "" if text.endswith("\n") or not text else "\n"
                return text + (f"[exit {code.strip()}]\n" if code.strip() != "0" else "")
        raise AssertionError(f"the shell ended in: {command}\n{''.join(lines)}")

    def close(self):
        """Ends what it left in the background and waits for it."""
        if self.process.poll() is None:
            try:
                self.process.communicate("kill $(jobs -p) 2>/dev/null; wait\n", timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def commands_of(text):
    """Comments and commands of a transcript, in order: (comments, command), the last with None."""
    found, comments = [], []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((comments, line[2:]))
            comments = []
        elif line.startswith("#"):
            comments.append(line)
    return found + [(comments, None)]


class Transcripts(NodeTest):
    maxDiff = None

    def play(self, name):
        path = FOLDER / f"{name}.txt"
        wanted = path.read_text()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="uccp-transcript-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        environment = {} if "# own node" in wanted.splitlines() else {"UCCP_CONTEXT_FILE": str(self.node.context_file)}
        shell = Shell(folder, **environment)
        self.addCleanup(shell.close)
        names, out = Names(), ""
        for comments, command in commands_of(wanted):
            out += ("\n" if out and (comments or command) else "") + "".join(line + "\n" for line in comments)
            if command is not None:
                out += f"$ {command}\n" + names.stable(shell.run(command))
        shell.close()
        if os.environ.get("UCCP_REWRITE"):
            path.write_text(out)
        self.assertEqual(wanted, out, f"UCCP_REWRITE=1 writes what happened into {path.relative_to(ROOT)}")

    def test_all_transcripts_are_played(self):
        played = {name.removeprefix("test_play_") for name in dir(self) if name.startswith("test_play_")}
        self.assertEqual({path.stem for path in FOLDER.glob("*.txt")}, played)


for one in sorted(FOLDER.glob("*.txt")):
    setattr(Transcripts, f"test_play_{one.stem}", lambda self, name=one.stem: self.play(name))


if __name__ == "__main__":
    unittest.main()
