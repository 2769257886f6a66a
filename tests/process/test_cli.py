"""The command line as somebody's shell meets it: contexts, completion, explanations, waiting, forms for programs."""
import csv
import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from lib.terminal import Terminal
from lib.uccp import CLI, NodeTest, clean_environment


class CommandLine(NodeTest):
    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="uccp-home-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.dev = self.node.context_file

    def cli(self, *arguments, code=0, cwd=None, **environment):
        done = subprocess.run([CLI, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
                              text=True, cwd=cwd or self.home, env=clean_environment(HOME=str(self.home), **environment))
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stderr

    def test_a_context_is_made_used_and_private(self):
        self.cli("context", "set", "here", "--context-file", self.dev, "-n", "team-a")
        self.assertIn("here", self.cli("context", "list"))
        self.cli("service", "register", "ctx", "10.0.0.1:80")
        self.assertEqual(json.loads(self.cli("service", "list", "-o", "json"))[0]["namespace"], "team-a")
        self.assertEqual(self.cli("service", "list", "-n", "default", "-q"), "")
        context = self.node.context
        self.cli("context", "set", "copy", "--server", context["grpc"], "--ca", context["ca"], "--token", context["token"])
        file = self.home / ".config" / "uccp" / "contexts" / "copy.json"
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.cli("context", "use", "copy")
        self.cli("worker", "list")
        self.assertNotIn(context["token"], self.cli("context", "show"))
        self.assertIn('did you mean "copy"', self.cli("task", "list", "--context", "cpoy", code=2))

    def test_bash_completes_words_of_the_contract_and_names_from_the_cluster(self):
        self.cli("context", "set", "here", "--context-file", self.dev)
        task = self.cli("task", "submit", "-q", "--", "true").strip()

        def completed(*words):
            script = ('source <("$1" completion bash); shift; COMP_WORDS=(uccp-cli "$@"); COMP_CWORD=$#; '
                      'PATH="$BIN:$PATH" _uccp_cli; printf "%s\\n" "${COMPREPLY[@]}"')
            done = subprocess.run(["bash", "-c", script, "-", CLI, *words], capture_output=True, text=True, timeout=60,
                                  cwd=self.home, env=clean_environment(HOME=str(self.home), BIN=str(CLI.parent)))
            return done.stdout.split()

        self.assertEqual(completed("tas"), ["task"])
        self.assertEqual(completed("task", "can"), ["cancel"])
        self.assertEqual(completed("task", "list", "--status", "run"), ["running"])
        self.assertIn(task, completed("task", "get", "task_"))
        self.assertEqual(completed("--context", "he"), ["here"])

    def test_fields_are_explained_with_the_words_of_the_contract(self):
        text = self.cli("explain", "task.retry")
        self.assertIn("maxAttempts", text)
        self.assertIn("Tries in all", text)
        self.assertIn('did you mean "retry"', self.cli("explain", "task.retyr", code=2))

    def test_wait_ends_with_the_value_and_with_the_time(self):
        self.cli("context", "set", "here", "--context-file", self.dev)
        gate = self.node.gate("wait")
        task = self.cli("task", "submit", "-q", "--", "sh", "-c", gate.wait).strip()
        self.cli("wait", "task", task, "--for", "status=RUNNING")
        self.assertIn("status is RUNNING", self.cli("wait", "task", task, "--for", "status=SUCCEEDED", "--timeout", "3s",
                                                    code=6))
        gate.open()
        self.assertEqual(self.cli("wait", "task", task, "--for", "status=SUCCEEDED,FAILED"),
                         f"task/{task} status=SUCCEEDED\n")

    def test_forms_for_programs(self):
        self.cli("context", "set", "here", "--context-file", self.dev, "-n", "forms")
        self.cli("task", "submit", "-q", "--name", 'for-programs', "--wait", "--", "true")
        rows = list(csv.DictReader(self.cli("task", "list", "-o", "csv").splitlines()))
        self.assertEqual([(row["NAME"], row["STATUS"]) for row in rows], [('for-programs', "SUCCEEDED")])
        self.assertTrue(rows[0]["CREATE-TIME"].endswith("Z"))
        self.assertEqual(self.cli("task", "list", "-o", "jsonpath={[*].status}"), "SUCCEEDED\n")
        self.assertEqual(self.cli("task", "get", rows[0]["ID"], "-o", "jsonpath=status"), "SUCCEEDED\n")

    def test_the_shell_completes_keeps_a_history_and_survives_ctrl_c(self):
        self.cli("context", "set", "here", "--context-file", self.dev)
        shell = Terminal([CLI, "shell"], clean_environment(HOME=str(self.home)), self.home)
        self.addCleanup(shell.close)

        def typed(keys, awaited):
            shell.type(keys)
            return shell.until(awaited)
        prompt = b"uccp(here)> "
        typed(b"", prompt)
        # Words of the contract and names that the cluster knows, each completed; the line then is a command.
        typed(b"get ro\t", b"e ")
        typed(b"vie\t", b"er ")
        self.assertIn(b"role/viewer", typed(b"-o name\n", prompt))
        # Colors are for terminals.
        self.assertIn(b"\x1b[1mNAME", typed(b"get roles\n", prompt))
        typed(b"get roles --watch\n", b"viewer  ")
        typed(b"\x03", prompt)
        self.assertIn(b"role/admin", typed(b"get role admin -o name\n", prompt))
        typed(b"get worker w1 --token secret\n", prompt)
        shell.type(b"exit\n")
        self.assertEqual(shell.rest()[1], 0)
        history = self.home / ".config" / "uccp" / "history"
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)
        self.assertIn("viewer", history.read_text())
        self.assertNotIn("secret", history.read_text())


if __name__ == "__main__":
    unittest.main()
