# needs: uccp
# timeout: 280
"""Workflows on a real agent: what a definition can say, what is not run again, errors, versions, ends."""
import contextlib
import io
import pickle
import subprocess
import sys
import threading
import unittest
import unittest.mock

try:
    import uccp
    from uccp import workflow
    from uccp.workflow import digest, graph, holder, progress, states, store
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest
from lib.wait import wait_until

SMALL = {"cpu": 0.1, "memory": "128Mi"}
WAIT_S = 100

if not MISSING:
    @workflow.step(**SMALL)
    def add(a, b):
        return a + b

    @workflow.step(**SMALL)
    def square(x):
        return x * x

    @workflow.step(**SMALL)
    def total(values):
        return sum(values)

    @workflow.step(**SMALL)
    def above(x, least=10):
        return x > least

    @workflow.step(**SMALL)
    def boom(x):
        raise ValueError(f"no {x}")

    @workflow.step(dynamic=True, **SMALL)
    def sum_of_halves(values):
        if len(values) < 3:
            return sum(values)
        middle = len(values) // 2
        return add(sum_of_halves(values[:middle]), sum_of_halves(values[middle:]))

    @workflow.step(**SMALL)
    def noted(path, value):
        """Leaves a line for each time that it runs."""
        with open(path, "a") as file:
            file.write("ran\n")
        return value

    @workflow.define
    def square_and_add(x, y=1):
        return add(square(x), y)


def runs(path):
    """How often a step has run that notes it."""
    return path.read_text().count("ran") if path.exists() else 0


@unittest.skipIf(MISSING, MISSING or "")
class WorkflowTest(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def run_flow(self, build, *args, **options):
        return workflow.start(workflow.define(build, name="flow"), *args, **options).result(WAIT_S)


class Graphs(WorkflowTest):
    def test_values_of_steps_are_arguments_of_others(self):
        def build(a):
            one = add(a, 2)
            both = add({"x": [one, 5]}["x"][0], one)
            return {"both": both, "list": [one, (both, "text")], "nothing": None}

        self.assertEqual(self.run_flow(build, 1), {"both": 6, "list": [3, (6, "text")], "nothing": None})

    def test_what_is_in_a_value_is_named_by_its_keys(self):
        make = workflow.step(lambda: {"rows": [{"n": 4}, {"n": 5}]}, **SMALL).options(name="make")
        self.assertEqual(self.run_flow(lambda: [square(make()["rows"][1]["n"]), make.options(name="again")()["rows"]]),
                         [25, [{"n": 4}, {"n": 5}]])

    def test_a_step_runs_for_each_item_of_a_list_that_may_be_a_value(self):
        make = workflow.step(lambda n: list(range(n)), **SMALL).options(name="make")

        def build():
            fixed = square.map([1, 2, 3])
            return [fixed, total(add.map(make(4), b=add(0, 10))), square.map([]), square_and_add.map(fixed, y=fixed[1])]

        self.assertEqual(self.run_flow(build), [[1, 4, 9], 46, [], [5, 20, 85]])

    def test_only_the_branch_of_a_condition_runs_that_is_needed(self):
        def build(n):
            n = add(n, 0)
            return workflow.when(above(n), square(n), add(n, 1000))

        self.assertEqual(self.run_flow(build, 20, id="branch"), 400)
        self.assertEqual({one.id: one.status for one in workflow.list_steps("branch")},
                         {"add": "SUCCEEDED", "add-2": "SKIPPED", "above": "SUCCEEDED", "square": "SUCCEEDED",
                          "when": "SUCCEEDED"})
        self.assertEqual(self.run_flow(build, 2), 1002)

    def test_a_loop_ends_when_its_condition_holds(self):
        def build():
            return [square.until(above, 2), add.until(lambda value: value >= 7, add(1, 0), b=add(1, 1)),
                    square_and_add.until(lambda value: value > 20, 1, y=3)]

        self.assertEqual(self.run_flow(build), [16, 7, 364])
        with self.assertRaisesRegex(workflow.WorkflowFailed, "step square: .* did not hold after 3 rounds"):
            self.run_flow(lambda: square.until(lambda value: False, 1, limit=3))

    def test_a_step_may_answer_further_steps(self):
        self.assertEqual(self.run_flow(lambda: sum_of_halves(list(range(10))), id="halves"), 45)
        ids = [one.id for one in workflow.list_steps("halves")]
        self.assertIn("sum_of_halves/sum_of_halves-2/add", ids)

    def test_a_workflow_is_a_part_of_another_one(self):
        self.assertEqual(self.run_flow(lambda: square_and_add(square_and_add(2), y=add(1, 1))), 27)

    def test_another_value_takes_the_place_of_one_that_failed(self):
        text = workflow.step(lambda why: f"instead: {why}", **SMALL).options(name="text")

        def build():
            return [boom(1).or_else(-1), boom(2).or_else(text), add(1, 1).or_else(-1), add(boom(3), 1).or_else(add(2, 3))]

        self.assertEqual(self.run_flow(build), [-1, "instead: ValueError: no 2", 2, 5])

    def test_order_without_values(self):
        path = self.node.shared / "order"
        read = workflow.step(lambda name: open(name).read(), **SMALL).options(name="read")
        self.assertEqual(self.run_flow(lambda: read(str(path)).after(noted(str(path), 1))), "ran\n")

    def test_steps_that_nobody_takes_run_too(self):
        path = self.node.shared / "aside"

        def build():
            noted(str(path), 1)
            return 7

        self.assertEqual(self.run_flow(build), 7)
        self.assertEqual(runs(path), 1)

    def test_a_step_takes_the_values_of_hundreds(self):
        self.assertEqual(self.run_flow(lambda: total(square.map(list(range(230)))), id="wide"),
                         sum(n * n for n in range(230)))
        self.assertEqual([one.id for one in workflow.list_steps("wide") if "gather" in one.id],
                         ["total/gather-0", "total/gather-1"])

    def test_retries_and_timeouts_are_those_of_tasks(self):
        path = self.node.shared / "flaky"

        @workflow.step(retries=3, **SMALL)
        def flaky():
            with open(path, "a") as file:
                file.write("ran\n")
            if open(path).read().count("ran") < 3:
                raise OSError("not yet")
            return "there"

        self.assertEqual(self.run_flow(lambda: flaky(), id="flaky"), "there")
        self.assertEqual(self.node.task(workflow.list_steps("flaky")[0].task)["attempts"], 3)
        wait = self.node.gate("never").wait

        @workflow.step(timeout=1, **SMALL)
        def late():
            subprocess.run(["sh", "-c", wait])

        with self.assertRaises(workflow.WorkflowFailed) as raised:
            self.run_flow(lambda: late())
        self.assertIsInstance(raised.exception.__cause__, uccp.TaskTimeout)


class Cache(WorkflowTest):
    def test_an_equal_call_is_not_run_again(self):
        path = self.node.shared / "cached"

        def flow(function, argument, **options):
            step = workflow.step(function, cache=True, **SMALL, **options).options(name="cached")
            return self.run_flow(lambda: square(step(str(path), add(argument, 0))))

        def first(path, value):
            with open(path, "a") as file:
                file.write("ran\n")
            return value

        def second(path, value):
            with open(path, "a") as file:
                file.write("ran\n")
            return value + 1

        for count, expected, arguments in (
                (1, 9, (first, 3)), (1, 9, (first, 3)), (2, 16, (first, 4)), (3, 16, (second, 3)), (3, 16, (second, 3))):
            self.assertEqual(flow(*arguments), expected)
            self.assertEqual(runs(path), count, arguments)
        self.assertEqual(flow(first, 3, env={"MODE": "other"}), 9)
        self.assertEqual(runs(path), 4, "the environment is part of what it depends on")

    def test_digests_do_not_depend_on_the_process(self):
        program = ("import sys; sys.path[:0] = ['tests', 'tests/process']\n"
                   "import test_workflows as t; from uccp.workflow import digest\n"
                   "print(t.sum_of_halves.code_digest(), digest.of_value([{'a', 'b', 'c'}, {'x': (1, None, 2.5)}]))")
        seen = {subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                               env={"PYTHONHASHSEED": str(seed)}).stdout for seed in (1, 2)}
        self.assertEqual(len(seen), 1, seen)

    def test_digests_follow_what_a_function_refers_to(self):
        space = {"factor": 2}
        exec("def scaled(x):\n    return x * factor", space)
        before = digest.of_code(space["scaled"])
        space["factor"] = 3
        self.assertNotEqual(digest.of_code(space["scaled"]), before)
        self.assertEqual(digest.of_code(lambda x: x + 1), digest.of_code(lambda x: x + 1))


class Errors(WorkflowTest):
    def test_a_step_that_failed_is_named_with_its_traceback_and_only_it_runs_again(self):
        path, mended = self.node.shared / "before", self.node.shared / "mended"

        @workflow.step(**SMALL)
        def fragile(value):
            with open(mended) as file:
                return file.read() + str(value)

        def build():
            return fragile(noted(str(path), 5))

        with self.assertRaises(workflow.WorkflowFailed) as raised:
            self.run_flow(build, id="mend")
        failure = raised.exception
        self.assertEqual((failure.run_id, failure.step), ("mend", "fragile"))
        self.assertIsInstance(failure.__cause__, FileNotFoundError)
        self.assertIn("with open(mended) as file:", str(failure))
        with self.assertRaisesRegex(workflow.WorkflowFailed, "failed at step fragile: FileNotFoundError"):
            workflow.result("mend")
        mended.write_text("now ")
        lines = io.StringIO()
        with contextlib.redirect_stderr(lines):
            self.assertEqual(workflow.resume("mend", progress=True), "now 5")
        self.assertRegex(lines.getvalue(), r"^noted succeeded earlier\nfragile succeeded\nmend succeeded after")
        self.assertEqual(runs(path), 1)
        self.assertEqual({one.id: one.tries for one in workflow.list_steps("mend")}, {"fragile": 2, "noted": 1})
        self.assertEqual(workflow.resume("mend"), "now 5", "its value is kept")
        self.assertEqual(workflow.result("mend"), "now 5")

    def test_definitions_that_cannot_be_right_are_refused(self):
        def circle():
            first = add(1, 2)
            second = add(first, 3)
            first.after(second)
            return second

        cases = {
            "in a circle: add <- add-2 <- add": circle,
            "step add: missing a required argument: 'b'": lambda: add(1),
            "two steps are named 'x'": lambda: [add.options(name="x")(1, 2), add.options(name="x")(1, 2)],
            "is no name": lambda: add.options(name="a b")(1, 2),
            "has no option 'cpus'": lambda: add.options(cpus=2)(1, 2),
            "a step or a workflow is needed": lambda: add(1, 2).or_else(len),
            "call add with its arguments": lambda: workflow.when(add(1, 2), add),
            "use if for others": lambda: workflow.when(True, add(1, 2)),
            "the limit of a loop is at least 1": lambda: square.until(above, 1, limit=0),
        }
        for expected, build in cases.items():
            with self.subTest(expected), self.assertRaises(workflow.WorkflowInvalid) as raised:
                self.run_flow(build)
            self.assertIn(expected, str(raised.exception))
        for expected, build in {"use workflow.when": lambda: 1 if add(1, 2) else 2, "loop with": lambda: list(add(1, 2))}.items():
            with self.assertRaisesRegex(TypeError, expected):
                self.run_flow(build)
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "missing a required argument: 'a'"):
            self.run_flow(lambda a: a)
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "is no workflow"):
            workflow.run(len)
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "is a generator"):
            workflow.step(lambda: (yield 1))

    def test_what_is_not_there_is_named(self):
        for call in (workflow.get, workflow.resume, workflow.result, workflow.cancel, workflow.delete, workflow.list_steps):
            with self.assertRaisesRegex(uccp.NotFound, "there is no run 'nowhere'"):
                call("nowhere")
        with self.assertRaisesRegex(uccp.NotFound, "there is no workflow 'nothing'"):
            workflow.run("nothing")
        with self.assertRaisesRegex(workflow.WorkflowInvalid, "is no id of a run"):
            self.run_flow(lambda: 1, id="a/b")
        self.run_flow(lambda: 1, id="once")
        with self.assertRaisesRegex(uccp.AlreadyExists, "workflow.resume"):
            self.run_flow(lambda: 2, id="once")

    def test_what_cannot_travel_is_told_before_anything_runs(self):
        lock = threading.Lock()
        with self.assertRaisesRegex(uccp.SerializationError, "cannot be pickled"):
            self.run_flow(lambda: add(lock, 1), id="locked")
        with self.assertRaises(uccp.NotFound):
            workflow.get("locked")
        with self.assertRaisesRegex(workflow.WorkflowFailed, "step add: .*ARGUMENTS_TOO_LARGE|step add: .* bytes, at most"):
            self.run_flow(lambda: add(b"x" * 4_000_000, b""))


class Life(WorkflowTest):
    def held(self, name):
        """A workflow whose second step waits for a gate."""
        gate, path = self.node.gate(name), self.node.shared / f"{name}-runs"
        until_open = gate.wait

        @workflow.step(**SMALL)
        def wait(value):
            subprocess.run(["sh", "-c", until_open], check=True)
            return value

        return workflow.define(lambda: add(wait(noted(str(path), 1)), 1), name="held"), gate, path

    def running(self, run_id, step):
        def reached():
            found = next((one for one in workflow.list_steps(run_id) if one.id == step), None)
            self.assertIn(found and found.status, (None, "WAITING", "RUNNING"), found)
            return found and found.task and self.node.task(found.task)["status"] == "RUNNING"

        wait_until(reached, WAIT_S, f"{step} runs")

    def test_a_run_is_cancelled_with_its_tasks(self):
        flow, _, _ = self.held("cancelled")
        run = workflow.start(flow, id="cancelled")
        self.running("cancelled", "wait")
        run.cancel("not needed")
        with self.assertRaisesRegex(workflow.WorkflowCancelled, "not needed"):
            run.result(WAIT_S)
        self.assertEqual(workflow.get("cancelled").status, "CANCELLED")
        steps = {one.id: one for one in workflow.list_steps("cancelled")}
        self.assertEqual({name: one.status for name, one in steps.items()},
                         {"noted": "SUCCEEDED", "wait": "CANCELLED", "add": "SKIPPED"})
        self.assertEqual(self.node.task(steps["wait"].task)["status"], "CANCELLED")
        with self.assertRaisesRegex(workflow.WorkflowCancelled, "not needed"):
            workflow.result("cancelled")

    def test_a_cancelled_run_can_be_resumed(self):
        flow, gate, path = self.held("again")
        run = workflow.start(flow, id="again")
        self.running("again", "wait")
        run.cancel()
        with self.assertRaises(workflow.WorkflowCancelled):
            run.result(WAIT_S)
        gate.open()
        self.assertEqual(workflow.resume("again"), 2)
        self.assertEqual(runs(path), 1)
        self.assertEqual(workflow.get("again").resumes, 1)

    def test_a_run_has_one_driver(self):
        flow, gate, path = self.held("one")
        run = workflow.start(flow, id="one")
        self.running("one", "wait")
        with unittest.mock.patch.object(holder, "LOCK_WAIT_S", 0.2):
            with self.assertRaisesRegex(uccp.FailedPrecondition, "driven by another process"):
                workflow.resume("one")
        # A driver that lost its lock, as one that stood still for long, holds it again if nobody else does.
        self.client.call("Coordination/BreakLock", name="uccp/workflows/one")
        wait_until(lambda: self.lock("owner"), 60, "the lock is held again")
        # Otherwise it is the other one that goes on.
        outcome = []
        other = threading.Thread(target=lambda: outcome.append(workflow.resume("one")), daemon=True)
        other.start()
        wait_until(lambda: self.lock("waiters"), 25, "somebody waits for the lock")
        self.client.call("Coordination/BreakLock", name="uccp/workflows/one")
        wait_until(lambda: workflow.get("one").resumes == 1, WAIT_S, "it is taken over")
        gate.open()
        other.join(WAIT_S)
        self.assertEqual((outcome, runs(path)), ([2], 1))
        with self.assertRaisesRegex(uccp.LeaseLost, "taken over"):
            run.result(WAIT_S)

    def lock(self, field):
        try:
            return getattr(self.client.call("Coordination/GetLock", name="uccp/workflows/one"), field)
        except uccp.NotFound:
            return None

    def test_runs_are_listed_and_removed(self):
        flow, gate, _ = self.held("listed")
        run = workflow.start(flow, id="listed")
        self.running("listed", "wait")
        self.assertEqual([one.id for one in workflow.list_runs(workflow="held", status="RUNNING")], ["listed"])
        with self.assertRaisesRegex(uccp.FailedPrecondition, "is not over"):
            workflow.delete("listed")
        with self.assertRaisesRegex(uccp.FailedPrecondition, "is not over"):
            workflow.result("listed")
        gate.open()
        self.assertEqual(run.result(WAIT_S), 2)
        found = workflow.get("listed")
        self.assertEqual((found.status, found.counts, found.arguments), ("SUCCEEDED", {"SUCCEEDED": 3}, ""))
        workflow.delete("listed")
        with self.assertRaises(uccp.NotFound):
            workflow.get("listed")
        self.assertEqual(list(self.client.kv.range("uccp/workflows/steps/listed/")), [])
        self.assertEqual(workflow.start(flow, id="listed").result(WAIT_S), 2, "nothing of the run before is used")

    def test_versions_are_kept_and_an_earlier_one_comes_back(self):
        def made(factor):
            scale = workflow.step(lambda x: x * factor, **SMALL).options(name="scale")
            return workflow.define(lambda x: scale(x), name="scaled")

        self.assertEqual([workflow.register(made(factor)) for factor in (2, 2, 3)], [1, 1, 2])
        self.assertEqual(workflow.start("scaled", 5, id="newest").result(WAIT_S), 15)
        self.assertEqual(workflow.start("scaled", 5, version=1).result(WAIT_S), 10)
        self.assertEqual(workflow.rollback("scaled"), 1)
        self.assertEqual(workflow.start("scaled", 5).result(WAIT_S), 10)
        self.assertEqual([(one.version, one.current) for one in workflow.versions("scaled")], [(1, True), (2, False)])
        self.assertEqual(workflow.get("newest").version, 2)
        self.assertEqual(workflow.rollback("scaled", 2), 2)
        for wrong in (lambda: workflow.rollback("scaled", 9), lambda: workflow.run("scaled", 5, version=9)):
            with self.assertRaisesRegex(uccp.NotFound, "has no version 9"):
                wrong()
        self.assertIn("scaled", workflow.list_workflows())
        workflow.unregister("scaled")
        self.assertNotIn("scaled", workflow.list_workflows())

    def test_progress_is_told_by_lines_and_by_a_bar(self):
        lines = io.StringIO()
        shown = progress.Progress("run", True, lines)
        state = self.states(succeeded=1)[0]
        shown.changed(state)
        shown.end([state], "SUCCEEDED")
        self.assertRegex(lines.getvalue(), r"^add succeeded\nrun succeeded after \d+\.\d s\n$")
        self.assertEqual(progress.bar("run", self.states(succeeded=3, running=4, waiting=1)),
                         "run [#########...............] 3/8, running add-4, add-5, add-6 and 1 more")

    @staticmethod
    def states(**counts):
        found = []
        with graph.Scope():
            for status in [status for status, count in counts.items() for _ in range(count)]:
                node = add(1, 2)
                node.id = node.name
                found.append(states.State(node, ""))
                found[-1].status = status.upper()
        return found


@unittest.skipIf(MISSING, MISSING or "")
class Formats(unittest.TestCase):
    def test_long_chains_travel(self):
        with graph.Scope() as scope:
            node = add(0, 1)
            for _ in range(3000):
                node = add(node, 1)
        again = graph.thaw(graph.freeze(graph.Graph(scope.nodes, [node]).check()))
        self.assertEqual(len(again.nodes), 3001)
        self.assertIs(again.result[0], again.nodes[-1])
        self.assertIs(again.nodes[-1].args[0], again.nodes[-2])
        self.assertEqual([one.name for one in again.wanted()], ["add-3001"])

    def test_a_step_inside_of_a_function_is_refused(self):
        with graph.Scope():
            node = add(1, 2)
        with self.assertRaisesRegex(uccp.SerializationError, "give it to that as an argument"):
            pickle.dumps(node)

    def test_records_are_read_only_if_they_are_some(self):
        record = store.encoded({"id": "a"})
        self.assertEqual(record, b'{"format":1,"id":"a"}')
        self.assertEqual(store.decoded(record, "k"), {"format": 1, "id": "a"})
        with self.assertRaisesRegex(uccp.FailedPrecondition, "newer version .format 2."):
            store.decoded(b'{"format":2}', "k")
        for damaged in (b"", b"[]", b'{"id":1}', b"\xff", b'{"format":"1"}'):
            with self.assertRaisesRegex(uccp.Corruption, "key k is no record"):
                store.decoded(damaged, "k")


if __name__ == "__main__":
    unittest.main()
