"""The command line in front of a person: colors, progress, manual pages, and completion in the shells themselves."""
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from lib.terminal import Terminal
from lib.uccp import CLI, NodeTest, clean_environment

COLOR = b"\x1b["
CLEAR_LINE = b"\r\x1b[K"


class TerminalTest(NodeTest):
    agent = False

    def setUp(self):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="uccp-home-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)

    def surroundings(self, **more):
        path = f"{CLI.parent}:{clean_environment()['PATH']}"
        return {**clean_environment(HOME=str(self.home), UCCP_CONTEXT_FILE=str(self.node.context_file)), "PATH": path, **more}

    def terminal(self, *command, errors_only=False, **environment):
        opened = Terminal(command, self.surroundings(**environment), self.home, errors_only)
        self.addCleanup(opened.close)
        return opened

    def shown(self, *arguments, code=0, errors_only=False, **environment):
        """What a command writes to a terminal."""
        seen, ended = self.terminal(CLI, *arguments, errors_only=errors_only, **environment).rest()
        self.assertEqual(ended, code, seen)
        return seen

    def piped(self, *arguments, code=0, **environment):
        done = subprocess.run([CLI, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd=self.home,
                              env=self.surroundings(**environment))
        self.assertEqual(done.returncode, code, done.stderr)
        return done


class Colors(TerminalTest):
    def test_are_for_terminals(self):
        self.assertIn(COLOR + b"1mNAME", self.shown("get", "roles"))
        self.assertNotIn(COLOR, self.piped("get", "roles").stdout)
        # What programs read has none, wherever it goes.
        self.assertNotIn(COLOR, self.shown("get", "roles", "-o", "json"))

    def test_nobody_has_to_have_them(self):
        for arguments, environment in ((("--no-color",), {}), ((), {"NO_COLOR": "1"})):
            seen = self.shown("get", "roles", *arguments, **environment)
            self.assertIn(b"NAME", seen)
            self.assertNotIn(COLOR, seen)
            self.assertNotIn(COLOR, self.shown("get", "role", "no-such-role", *arguments, code=3, **environment))
        # As https://no-color.org has it: an empty one says nothing.
        self.assertIn(COLOR, self.shown("get", "roles", NO_COLOR=""))

    def test_errors_have_them_where_errors_go_to_a_terminal(self):
        self.assertIn(COLOR, self.shown("get", "role", "no-such-role", code=3, errors_only=True))
        self.assertNotIn(COLOR, self.piped("get", "role", "no-such-role", code=3).stderr)

    def test_a_diff_is_green_and_red(self):
        file = self.home / "role.yaml"
        file.write_text("role: {name: painted, permissions: [tasks.read]}\n")
        self.piped("apply", "-f", str(file))
        file.write_text("role: {name: painted, permissions: [tasks.write]}\n")
        seen = self.shown("diff", "-f", str(file), code=1)
        self.assertIn(b"\x1b[31m-", seen)
        self.assertIn(b"\x1b[32m+", seen)


class Bars(TerminalTest):
    def setUp(self):
        super().setUp()
        self.file = self.home / "roles.yaml"
        self.file.write_text("role:\n" + "".join(f"- {{name: bar-{n}, permissions: [tasks.read]}}\n" for n in range(12)))

    def test_show_on_a_terminal_and_go_when_it_is_done(self):
        seen = self.shown("apply", "-f", str(self.file), errors_only=True)
        bars = re.findall(rb"\[(#*)(-*)\] (\d+)/12 (\d+) %", seen)
        self.assertTrue(bars, seen)
        for filled, empty, done, percent in bars:
            self.assertEqual(len(filled) + len(empty), 30)
            self.assertEqual(int(percent), int(done) * 100 // 12)
        self.assertTrue(seen.rstrip().endswith(CLEAR_LINE.strip()) or seen.endswith(CLEAR_LINE), seen[-80:])

    def test_nothing_of_it_goes_to_a_file_or_a_program(self):
        done = self.piped("apply", "-f", str(self.file))
        self.assertNotIn(b"%", done.stdout + done.stderr)
        self.assertNotIn(b"\r", done.stdout + done.stderr)
        self.assertNotIn(b"#", self.shown("apply", "-f", str(self.file), "-q", errors_only=True))


@unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed: Debian's package mandoc")
class Manual(TerminalTest):
    @staticmethod
    def rendered(page):
        """A page as `man` would show it, in one paragraph."""
        done = subprocess.run(["mandoc", "-T", "ascii", "-O", "width=200", page], capture_output=True, timeout=60, check=True)
        # Bold and underlined letters are overstruck.
        return re.sub(r"\s+", " ", re.sub(".\b", "", done.stdout.decode()))

    def test_there_is_a_page_for_each_noun_with_all_of_its_commands(self):
        self.piped("man", "--dir", str(self.home))
        listed = self.piped("help").stdout.decode()
        nouns = self.piped("__complete", "").stdout.decode().split()
        pages = {path.name.removeprefix("uccp-cli-").removesuffix(".1"): path for path in self.home.glob("uccp-cli-*.1")}
        self.assertGreater(len(pages), 20)
        self.assertLessEqual(set(pages), set(nouns))
        main = self.rendered(self.home / "uccp-cli.1")
        for flag in re.findall(r"--[a-z][a-z-]+", listed[listed.index("Flags of every command"):]):
            self.assertIn(flag, main)
        for noun, page in sorted(pages.items()):
            text = self.rendered(page)
            self.assertIn(f"uccp-cli-{noun}(1)", main, "the main page names the others")
            for verb in self.piped("__complete", noun, "").stdout.decode().split():
                with self.subTest(f"{noun} {verb}"):
                    self.assertRegex(text, rf"\b{re.escape(verb)}\b")
                    self.assertIn(verb, main)

    def test_a_page_says_what_the_help_says(self):
        page = self.home / "page.1"
        for noun, verb, known in (("role", "create", "--permission"), ("task", "submit", "--depends-on"),
                                  ("task", "logs", "--tail"), ("cluster", "init", "--cluster-id"),
                                  ("cluster", "prepare", "--node"), ("cluster", "context", "--data-dir")):
            page.write_bytes(self.piped("man", noun).stdout)
            text = self.rendered(page)
            flags = re.findall(r"(?m)^ {6,}(--[a-z][a-z-]+) ", self.piped(noun, verb, "--help").stdout.decode())
            self.assertIn(known, flags)
            offered = self.piped("__complete", noun, verb, "--").stdout.decode().split()
            for flag in flags:
                self.assertIn(flag, text, f"man {noun}")
                self.assertIn(flag, offered, f"{noun} {verb}")
        self.assertIn('did you mean "task"', self.piped("man", "tsk", code=2).stderr.decode())


class Completion(TerminalTest):
    @unittest.skipUnless(shutil.which("fish"), "fish is not installed: Debian's package fish")
    def test_fish_completes_words_and_names(self):
        def completed(line):
            script = f"uccp-cli completion fish | source; complete -C '{line}'"
            done = subprocess.run(["fish", "--no-config", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=60, cwd=self.home, env=self.surroundings(TERM="xterm"))
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.split()

        self.assertEqual(completed("uccp-cli tas"), ["task"])
        self.assertEqual(completed("uccp-cli task can"), ["cancel"])
        self.assertEqual(completed("uccp-cli task list --status run"), ["running"])
        self.assertEqual(completed("uccp-cli get role vie"), ["viewer"])

    @unittest.skipUnless(shutil.which("zsh"), "zsh is not installed: Debian's package zsh")
    def test_zsh_completes_words_and_names(self):
        shell = self.terminal("zsh", "-f", "-i")
        prompt = b"ready> "
        shell.type(b"PS1='ready'\"> \"; unsetopt zle_bracketed_paste prompt_cr prompt_sp; autoload -Uz compinit && compinit -u -D\n")
        shell.until(prompt)
        shell.type(b"source <(uccp-cli completion zsh)\n")
        shell.until(prompt)
        # What is completed is on the line. A word in front makes the shell print the line as it has it.
        for typed, whole in ((b"uccp-cli tas\t", b"uccp-cli task"), (b"uccp-cli task canc\t", b"uccp-cli task cancel"),
                             (b"uccp-cli task list --status runn\t", b"uccp-cli task list --status running"),
                             (b"uccp-cli get role view\t", b"uccp-cli get role viewer")):
            with self.subTest(typed):
                shell.type(typed + b"\x01print -r -- \x05\n")
                # The prompt may come in the same piece, and is not waited for: what is typed before it is kept.
                shell.until(b"\n" + whole)


if __name__ == "__main__":
    unittest.main()
