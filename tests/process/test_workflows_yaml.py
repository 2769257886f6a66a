# needs: uccp
# timeout: 240
"""Workflows in YAML, their errors with places, their command line, and how runs are drawn."""
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

try:
    import uccp
    from uccp import workflow
    from uccp.workflow import expressions, svg, yaml_reader
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.terminal import Terminal
from lib.uccp import NodeTest, clean_environment

WAIT_S = 100
SEED = 20
MUTATIONS = 1500
SMALL = "cpu: 0.1\n    memory: 128Mi"
FLOW = f"""
workflow: sweep
description: Tries rates
parameters:
  rates: [1, 2, 3]
  name:
steps:
  load:
    python: |
      def run(n):
          return {{"rows": list(range(n))}}
    with: {{n: "${{len(parameters.rates)}}"}}
    {SMALL}
  train:
    call: functions:train
    each: ${{parameters.rates}}
    with: {{rate: "${{item}}", data: "${{load.rows[2]}}"}}
    retries: 2
    {SMALL}
  grow:
    python: "def run(x): return x * 2"
    until: ${{value > 10}}
    start: ${{train[2]}}
    with: {{x: "${{value}}"}}
    {SMALL}
  say:
    command: [echo, "${{parameters.name}} got ${{grow}} of $${{x}}"]
    when: ${{grow > 3 and len(train) == 3}}
    {SMALL}
  never:
    command: [echo, never]
    when: ${{grow < 3}}
    otherwise: skipped
    {SMALL}
  facts:
    command: [echo, '[1, {{"a": true}}]']
    output: json
    after: [say]
    {SMALL}
  fails:
    command: [sh, -c, "exit 3"]
    or_else: "it did: ${{error}}"
    {SMALL}
  sub:
    workflow: other
    each: ${{train}}
    with: {{n: "${{item}}", m: "${{grow}}"}}
result: {{said: "${{say}}", sub: "${{sub}}", all: "${{[train, grow]}}", facts: "${{facts}}", never: "${{never}}"}}
workflows:
  other:
    parameters: {{n: null, m: 1}}
    steps:
      add:
        python: "def run(a, b): return a + b"
        with: {{a: "${{parameters.n}}", b: "${{parameters.m}}"}}
        cpu: 0.1
        memory: 128Mi
    result: ${{add}}
"""
FUNCTIONS = "def train(rate, data):\n    return rate * data\n"
# What is wrong, what is written in its place, and what the error says with its line.
WRONG = [
    ("${load.rows[2]}", "${lod.rows}", r":\d+:\d+: there is no step 'lod'; did you mean 'load'\?"),
    ("retries: 2", "retry: 2", r": step train has no key 'retry'; did you mean 'retries'\?"),
    ("retries: 2", "retries: many", r": retries is a number, not 'many'"),
    ("retries: 2", "retries: -1", r": retries is a number, not -1"),
    ("memory: 128Mi", "memory: [1]", r": memory is a size"),
    ("start: ${train[2]}", "start: ${say}", r": they need each other in a circle: grow <- say <- grow"),
    ("return a + b", "return a +", r": the source cannot be run: SyntaxError"),
    ("def run(x)", "def walk(x)", r": the source defines no function `run`"),
    ("parameters.name", "parameters.nam", r": there is no parameter 'nam'; did you mean 'name'\?"),
    ("{a: ", "{c: ", r": step add: missing a required argument: 'a'"),
    ("workflow: other", "workflow: othr", r": there is no workflow 'othr' in this file; did you mean 'other'\?"),
    ('m: "${grow}"}', "k: 3}", r": workflow other has no parameter 'k'"),
    ('{n: "${item}", m', "{m", r": workflow other needs 'n'"),
    ("value > 10", "value.__class__()", r": .*there is no such function"),
    ("value > 10", "value >", r": .*is no expression"),
    ("until: ${value > 10}", "until: ${grow > 10}", r": until reads `value`"),
    ("until: ${value > 10}", "until: yes", r": until is one expression"),
    ("start: ${train[2]}", "limit: 3", r": until needs start"),
    ("output: json", "output: xml", r": output is one of text, json, lines"),
    ("after: [say]", "after: [sya]", r": there is no step 'sya'; did you mean 'say'\?"),
    ("after: [say]", "after: say", r": after is a list"),
    ("call: functions:train", "call: functions:tran", r": functions:tran cannot be loaded: AttributeError"),
    ("call: functions:train", "call: nowhere_at_all:train", r": nowhere_at_all:train cannot be loaded: ModuleNotFoundError"),
    ("call: functions:train", "call: functions", r': call is "module:function"'),
    ("call: functions:train", "cache: true", r": step train needs one of call, python, command, workflow; it has none"),
    ("  say:\n", "  item:\n", r": 'item' is no name of a step"),
    ("  say:\n", "  load:\n", r": it is no YAML|: 'load' is there twice"),
    ("steps:\n  load", "steps: &all\n  load", r": it is no YAML: anchors and aliases"),
    ("name:\n", "name: !!python/object:os.system 1\n", r": it is no YAML: tags are not used here"),
    ("[echo, never]", "[echo, never", r": it is no YAML: "),
    ("[echo, never]", "[]", r": the command is empty"),
    ("workflow: sweep", "workflow: 'a b'", r": 'a b' is no name"),
    ("\nworkflow: sweep", "\n", r":\d+:\d+: the key 'workflow' is missing"),
]


@unittest.skipIf(MISSING, MISSING or "")
class Reading(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="uccp-workflow-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "functions.py").write_text(FUNCTIONS)

    def load(self, text):
        file = self.folder / "flow.yaml"
        file.write_text(text, encoding="utf-8")
        return workflow.load_yaml(file)

    def test_what_is_wrong_is_told_with_its_place(self):
        self.load(FLOW)
        for right, wrong, expected in WRONG:
            with self.subTest(wrong):
                self.assertIn(right, FLOW)
                with self.assertRaises(workflow.WorkflowInvalid) as raised:
                    self.load(FLOW.replace(right, wrong, 1))
                self.assertRegex(raised.exception.message, r"flow\.yaml:\d+:\d+.*" + expected.removeprefix(r":\d+:\d+"))

    def test_the_line_is_that_of_the_mistake(self):
        text = FLOW.replace("retries: 2", "retries: many")
        line = text[:text.index("retries: many")].count("\n") + 1
        with self.assertRaisesRegex(workflow.WorkflowInvalid, f"flow.yaml:{line}:14: "):
            self.load(text)

    def test_files_that_are_none(self):
        for content, expected in ((b"\xff\xfe\x00", "is not UTF-8"), (b"", "the file is empty"), (b"# x\n", "the file is empty"),
                                  (b"- a\n", "a workflow is a mapping"), (b"a: 1\n---\nb: 2\n", "it is no YAML"),
                                  (b"[" * 5000, "nested"), (b"a: \x07", "it is no YAML"), (b"x" * ((1 << 20) + 1), "more than")):
            file = self.folder / "other.yaml"
            file.write_bytes(content)
            with self.subTest(content[:20]), self.assertRaisesRegex(workflow.WorkflowInvalid, expected):
                workflow.load_yaml(file)
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "cannot be read: No such file"):
            workflow.load_yaml(self.folder / "none.yaml")

    def test_whatever_is_written_is_a_workflow_or_an_error_with_a_place(self):
        numbers = random.Random(SEED)
        source = 'python: "def run(**given): return 1"'
        base = re.sub(r"python: \|\n( {6}.*\n)+", source + "\n", FLOW)
        pieces = re.findall(r"\$\{[^}]*\}|[A-Za-z_]+|\s+|.", base)
        refused = 0
        for _ in range(MUTATIONS):
            mutated = list(pieces)
            for _ in range(numbers.randint(1, 4)):
                at = numbers.randrange(len(mutated))
                other = numbers.choice([numbers.choice(pieces), "", chr(numbers.randrange(1, 0x3000)), "${", "}", "\n", "- ", "!!int "])
                mutated[at:at + numbers.randint(0, 2)] = [other]
            # What a mutation made of a source of Python is not run here.
            text = re.sub(r'python: ".*"|call: .*', source, "".join(mutated))
            try:
                found = workflow.parse_yaml(text)
                found.build((), {name: 1 for name in found.document.parameters})
            except workflow.WorkflowInvalid as error:
                refused += 1
                self.assertRegex(error.where, r"^workflow\.yaml:\d+:\d+$|^workflow |^step ", f"{error}\n{text}")
            except Exception as error:
                raise AssertionError(f"{type(error).__name__}: {error} for:\n{text}") from error
        self.assertTrue(MUTATIONS // 10 < refused < MUTATIONS, refused)

    def test_scalars_are_those_of_the_core(self):
        text = "a: yes\nb: 010\nc: true\nd: ~\ne: 1e3\nf: '5'\ng: .inf\nh: 2001-01-01\ni: 1:30"
        self.assertEqual(yaml_reader.read(text, "f").plain(),
                         {"a": "yes", "b": 10, "c": True, "d": None, "e": 1000.0, "f": "5", "g": float("inf"),
                          "h": "2001-01-01", "i": "1:30"})


@unittest.skipIf(MISSING, MISSING or "")
class Expressions(unittest.TestCase):
    def test_values(self):
        names = {"a": {"b": [1, {"c": "x"}]}, "n": 7}
        for text, expected in {"a.b[0] + n * 2": 15, "a.b[1].c + 'y'": "xy", "1 < n <= 7 and not n == 8": True, "n if n > 9 else -n": -7,
                               "sum([1, 2, n]) // 2": 5, "len(a.b[0:1])": 1, "'x' in a.b[1].c or null": True, "{'k': n}.k": 7,
                               "max(range(n))": 6, "n % 4": 3, "a.b[1] is null": False}.items():
            with self.subTest(text):
                self.assertEqual(expressions.Expression(text).value(names), expected)

    def test_what_fails_says_in_which_expression(self):
        for text, expected in {"a.x": "there is no 'x'", "a[0] / 0": "", "1 / 0": "division by zero", "'x' * 1000000000": "for numbers",
                               "'%99999999d' % 1": "for numbers", "range(10000000)": "at most", "a + 1": "unsupported"}.items():
            with self.subTest(text), self.assertRaisesRegex(ValueError, re.escape("${" + text + "}") + ".*" + expected):
                expressions.Expression(text).value({"a": {}})

    def test_what_could_do_anything_else_is_refused(self):
        for text in ("open('x')", "a.b()", "lambda: 1", "[x for x in a]", "2 ** 9", "f'{a}'", "(a := 1)", "a; b", "", "len(a, key=1)",
                     "1 << 9", "{**a}", "*a", "(" * 500 + ")" * 500, "a" * 2000, "b'x'", "..."):
            with self.subTest(text[:20]), self.assertRaises(expressions.ExpressionInvalid):
                expressions.Expression(text)


@unittest.skipIf(MISSING, MISSING or "")
class Running(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)
        cls.folder = cls.node.base / "flows"
        cls.folder.mkdir()
        (cls.folder / "functions.py").write_text(FUNCTIONS)
        (cls.folder / "flow.yaml").write_text(FLOW)

    EXPECTED = {"said": "x got 12 of ${x}", "sub": [14, 16, 18], "all": [[2, 4, 6], 12], "facts": [1, {"a": True}], "never": "skipped"}

    def command(self, *arguments, code=0):
        done = subprocess.run([sys.executable, "-m", "uccp.workflow", "--context-file", self.node.context_file, *map(str, arguments)],
                              capture_output=True, text=True, timeout=WAIT_S, cwd=self.folder, env=clean_environment())
        self.assertEqual(done.returncode, code, f"{done.stdout}\n{done.stderr}")
        return done

    def test_a_file_says_the_same_as_python(self):
        found = workflow.load_yaml(self.folder / "flow.yaml")
        self.assertEqual(workflow.start(found, name="x", id="yaml").result(WAIT_S), self.EXPECTED)
        steps = {one.id: one.status for one in workflow.list_steps("yaml")}
        self.assertEqual((steps["never"], steps["fails"], steps["fails-or-else"], steps["train[1]/train"]),
                         ("SKIPPED", "FAILED", "SUCCEEDED", "SUCCEEDED"))
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "parameter 'name' is missing"):
            workflow.run(found)
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "there is no parameter 'nam'; did you mean 'name'"):
            workflow.run(found, nam=1)

    def test_it_is_run_shown_and_drawn_from_the_command_line(self):
        done = self.command("run", "flow.yaml", "--set", "name=x", "--id", "shell")
        self.assertEqual(json.loads(done.stdout), self.EXPECTED)
        self.assertIn("train[0]/train succeeded\n", done.stderr)
        self.assertIn("shell succeeded after", done.stderr)
        self.assertRegex(self.command("list", "--status", "succeeded").stdout, r"\nshell +sweep +- +SUCCEEDED +\d+/\d+ ")
        self.assertEqual([one["id"] for one in json.loads(self.command("list", "-o", "json", "--workflow", "sweep").stdout)
                          if one["id"] == "shell"], ["shell"])
        shown = self.command("show", "shell").stdout
        self.assertIn("status: SUCCEEDED\n", shown)
        self.assertRegex(shown, r"\ngrow +until +SUCCEEDED +- +train\n")
        self.command("show", "shell", "--svg", "shell.svg")
        root = ET.parse(self.folder / "shell.svg").getroot()
        texts = {one.text for one in root.iter("{http://www.w3.org/2000/svg}text")}
        self.assertLessEqual({"shell: sweep, succeeded", "load", "train[0]", "grow", "skipped"}, texts)
        self.assertEqual(self.command("show", "shell", "--svg").stdout, (self.folder / "shell.svg").read_text())
        self.command("delete", "shell")
        self.assertIn("there is no run 'shell'", self.command("show", "shell", code=1).stderr)

    def test_a_registered_file_runs_without_its_folder_and_goes_back(self):
        self.assertEqual(self.command("register", "flow.yaml").stdout, "sweep is at version 1\n")
        other = self.folder / "other"
        other.mkdir()
        (other / "functions.py").write_text(FUNCTIONS.replace("rate * data", "rate * data * 10"))
        (other / "flow.yaml").write_text(FLOW)
        self.assertEqual(self.command("register", "other/flow.yaml").stdout, "sweep is at version 2\n")
        self.assertEqual(json.loads(self.command("run", "sweep", "--set", "name=x", "--set", "rates=[1]", "-q", code=1).stdout or "0"), 0)
        newest = json.loads(self.command("run", "sweep", "--set", "name=x", "-q").stdout)
        self.assertEqual(newest["all"][0], [20, 40, 60])
        self.assertEqual(self.command("rollback", "sweep").stdout, "sweep is at version 1\n")
        self.assertEqual(json.loads(self.command("run", "sweep", "--set", "name=x", "-q").stdout), self.EXPECTED)
        self.assertRegex(self.command("versions", "sweep").stdout, r"\n1 +yes +\S+ +Tries rates\n2 +\S+ +Tries rates\n")

    def test_the_program_of_the_platform_hands_them_to_python(self):
        python = {"UCCP_PYTHON": sys.executable}
        file = self.folder / "flow.yaml"
        done = self.node.cli("workflow", "run", file, "--set", "name=x", "--id", "cli", "-q", environment=python)
        self.assertEqual((done.returncode, json.loads(done.stdout)), (0, self.EXPECTED), done.stderr)
        done = self.node.cli("workflow", "show", "cli", environment=python)
        self.assertIn(b"status: SUCCEEDED\n", done.stdout)
        done = self.node.cli("workflow", "show", "cli", "--svg", environment=python)
        self.assertTrue(done.stdout.startswith(b"<svg "), done)
        done = self.node.cli("workflow", "show", "nowhere", environment=python)
        self.assertEqual((done.returncode, b"there is no run 'nowhere'" in done.stderr), (1, True), done)
        done = self.node.cli("workflow", "list", environment={"UCCP_PYTHON": "/no/such/python"})
        self.assertIn(b"cannot run /no/such/python: No such file or directory; UCCP_PYTHON names", done.stderr)
        self.assertNotEqual(done.returncode, 0)
        done = self.node.cli("workflow")
        self.assertEqual((done.returncode, b"workflow show ID" in done.stderr), (2, True), done)

    def test_on_a_terminal_a_bar_shows_how_far_it_is(self):
        command = [sys.executable, "-m", "uccp.workflow", "--context-file", self.node.context_file, "run", "flow.yaml",
                   "--set", "name=x", "--id", "bar"]
        terminal = Terminal(command, clean_environment(), self.folder, errors_only=True)
        self.addCleanup(terminal.close)
        seen, code = terminal.rest(WAIT_S)
        self.assertEqual(code, 0, seen)
        self.assertRegex(seen, rb"\r\x1b\[Kbar \[#{24}\] (\d+)/\1, 1 failed\r\n")
        self.assertRegex(seen, rb"bar succeeded after \d+\.\d s\r\n$")
        self.assertNotIn(b"load succeeded", seen)

    def test_what_is_wrong_ends_with_one(self):
        (self.folder / "bad.yaml").write_text(FLOW.replace("retries: 2", "retry: 2"))
        for arguments in (("check", "bad.yaml"), ("run", "bad.yaml")):
            self.assertRegex(self.command(*arguments, code=1).stderr, r"^error: bad\.yaml:\d+:\d+: step train has no key 'retry'")
        self.assertEqual(self.command("check", "flow.yaml").stdout, "flow.yaml: workflow sweep with 8 steps\n")
        self.assertIn("NAME=VALUE", self.command("run", "flow.yaml", "--set", "name", code=1).stderr)
        self.command("nothing", code=2)


@unittest.skipIf(MISSING, MISSING or "")
class Drawing(unittest.TestCase):
    def test_what_needs_others_is_right_of_them_and_many_alike_are_counted(self):
        records = [{"id": "load", "kind": "step", "status": "SUCCEEDED"},
                   {"id": "train", "kind": "map", "status": "RUNNING", "after": ["load"]},
                   {"id": "best", "kind": "step", "status": "WAITING", "after": ["train"], "label": "<&>"},
                   *({"id": f"train[{n}]", "kind": "step", "status": "WAITING", "parent": "train", "after": ["load"]} for n in range(30))]
        root = ET.fromstring(svg.draw("a <run>", records))
        places = {one.find("{*}title").text.split()[0]: one.find("{*}rect") for one in root.iter("{http://www.w3.org/2000/svg}g")}
        x = {name: float(place.get("x")) for name, place in places.items()}
        self.assertLess(x["load"], x["train"])
        self.assertLess(x["train"], x["train[0]"])
        self.assertLess(x["train"] + float(places["train"].get("width")), x["best"])
        self.assertIn("train[7]", x)
        self.assertNotIn("train[8]", x)
        texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("22 more: 22 waiting", texts)
        self.assertEqual(svg.draw("a <run>", records), svg.draw("a <run>", list(reversed(records))), "the order does not matter")


if __name__ == "__main__":
    unittest.main()
