# needs: uccp
# timeout: 240
"""Functions of Python on a real agent: values, errors, crashes, limits, environments, and kills in the middle."""
import asyncio
import json
import os
import pathlib
import signal
import sys
import tempfile
import threading
import time
import unittest
import zipfile

try:
    import uccp
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.ports import port_flags
from lib.uccp import Node, NodeTest, end_process, is_running, processes_with
from lib.wait import wait_until

SMALL = {"cpu": 0.2, "memory": "128Mi"}
WAIT_S = 60


def workers_of(node):
    """Ids of the processes that run functions for the agent of a node."""
    agent = node.agent_pid()
    found = []
    for pid in processes_with("uccp_worker"):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                parent = int(stat.read().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == agent:
            found.append(pid)
    return found


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x


class Refused(Exception):
    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")
        self.code = code

    def __reduce__(self):
        return (Refused, (self.code, "again"))


if not MISSING:
    @uccp.remote(**SMALL)
    def add(*numbers, **named):
        return sum(numbers) + sum(named.values())

    @uccp.remote(**SMALL)
    def echo(value):
        return value

    @uccp.remote(**SMALL)
    def process():
        return os.getpid()


@unittest.skipIf(MISSING, MISSING or "")
class FunctionTest(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)


class Values(FunctionTest):
    def test_a_call_returns_its_value(self):
        self.assertEqual(self.get(add.remote(1, 2, c=3)), 6)
        self.assertEqual(add(1, 2), 3, "called directly it runs here")

    def test_values_of_any_class_come_back(self):
        for value in (None, "text", b"\x00\xff", 1.5, [1, {"a": (2, 3)}], Point(4), {Point}, range(3)):
            with self.subTest(repr(value)):
                self.assertEqual(self.get(echo.remote(value)), value)

    def test_large_arguments_and_values_travel_by_the_blob_store(self):
        content = os.urandom(3_000_000)
        ref = echo.remote(content)
        self.assertEqual(self.get(ref), content)
        task = self.node.task(ref.task_id)
        self.assertEqual(task["artifacts"][0]["path"], ".value")
        self.assertEqual(self.get(echo.remote(b"y" * 20_000)), b"y" * 20_000)

    def test_a_reference_as_argument_arrives_as_its_value(self):
        large = echo.remote([7] * 100_000)  # a blob
        total = add.remote(add.remote(1, 2), echo.remote(10), c=add.remote(30))

        @uccp.remote(**SMALL)
        def length(values, more):
            return len(values) + more

        self.assertEqual(self.get(total), 43)
        self.assertEqual(self.get(length.remote(large, total)), 100_043)

    def test_put_stores_a_value_for_many_calls(self):
        ref = uccp.put({"table": list(range(1000))})

        @uccp.remote(**SMALL)
        def at(value, index):
            return value["table"][index]

        self.assertEqual(self.get([at.remote(ref, index) for index in (1, 500, 999)]), [1, 500, 999])

    def test_map_runs_every_item_once_in_order(self):
        self.assertEqual(self.get(add.map(range(20), range(20))), [2 * n for n in range(20)])
        refs = add.map(range(1000), batch=100)
        self.assertEqual(self.get(refs), list(range(1000)))
        self.assertEqual(len({ref.task_id for ref in refs}), 10)
        self.assertEqual(self.get(add.remote(refs[3], refs[999])), 1002)

    def test_wait_tells_what_has_ended(self):
        gate = self.node.gate("wait")

        @uccp.remote(**SMALL)
        def held(path):
            while not os.path.exists(path):
                time.sleep(0.02)
            return 1

        slow, fast = held.remote(str(gate.path)), add.remote(1)
        ended, waiting = uccp.wait([slow, fast], timeout=WAIT_S)
        self.assertEqual((ended, waiting), ([fast], [slow]))
        with self.assertRaises(uccp.DeadlineExceeded):
            uccp.get(slow, timeout=0.05)
        gate.open()
        self.assertEqual(uccp.wait([slow, fast], num_returns=2, timeout=WAIT_S), ([slow, fast], []))

    def test_references_can_be_awaited(self):
        async def main():
            return await asyncio.gather(*add.map(range(5)), add.remote(10))

        self.assertEqual(asyncio.run(main()), [0, 1, 2, 3, 4, 10])

    def test_what_a_function_prints_is_its_log(self):
        @uccp.remote(**SMALL)
        def talk():
            print("one")
            print("two", file=sys.stderr)
            os.write(1, b"three\n")
            sys.stdout.write("four")

        ref = talk.remote()
        self.get(ref)
        self.assertEqual(sorted(self.node.log(ref.task_id)), [b"four", b"one", b"three"])
        self.assertEqual(self.node.log(ref.task_id, "stderr"), [b"two"])

    def test_each_call_has_its_environment_and_folder(self):
        @uccp.remote(**SMALL, env={"MINE": "yes"})
        def look():
            found = (os.environ["MINE"], os.listdir("."), os.environ["UCCP_TASK_ID"])
            open("left", "w").close()
            os.environ["MINE"] = "changed"
            return found

        refs = [look.remote() for _ in range(4)]
        self.assertEqual(self.get(refs), [("yes", [], ref.task_id) for ref in refs])

    def test_a_process_serves_many_calls(self):
        self.get(process.remote())
        pids = set(self.get([process.remote() for _ in range(30)]))
        self.assertLessEqual(len(pids), 8, "a process a call would be 30")


class Contract(FunctionTest):
    """Functions by REST and the command line, with nothing of the Python package."""

    def test_source_is_registered_called_listed_and_removed(self):
        function = {"name": "adder", "entryPoint": "main:add", "source": "def add(a, b=10): return {'sum': a + b}"}
        made = self.rest.post("functions", function)
        self.assertEqual(made.status, 201, made)
        self.assertEqual((made.json["runtime"], len(made.json["version"])), ("python3.11", 16))
        self.assertNotIn("source", made.json)
        again = self.rest.post("functions", function)
        self.assertEqual(again.json["etag"], made.json["etag"])
        self.assertEqual(self.rest.get("functions/adder").json["source"], function["source"])
        self.assertIn("adder", [one["name"] for one in self.rest.get("functions").json["functions"]])
        call = {"function": {"name": "adder", "args": [{"json": 5}], "kwargs": {"b": {"json": 6}}},
                "resources": {"cpu": 0.2, "memory": "128Mi"}}
        task = self.rest.post("compute/tasks", call)
        self.assertEqual(task.status, 201, task)
        self.assertEqual((task.json["type"], task.json["executor"]), ("FUNCTION", "FUNCTION"))
        result = self.rest.get(f"tasks/{task.json['id']}/result?wait=20s").json
        self.assertEqual((result["status"], result["value"]["json"]), ("SUCCEEDED", {"sum": 11}))
        self.assertEqual(self.rest.delete("functions/adder").status, 204)
        self.assert_problem(self.rest.post("compute/tasks", call), 404, "FUNCTION_NOT_FOUND")

    def test_a_version_never_changes_and_the_newest_is_called(self):
        def register(version, source):
            return self.rest.post("functions", {"name": "v", "entryPoint": "m:f", "version": version, "source": source})

        self.assertEqual(register("1", "def f(): return 'one'").status, 201)
        self.assert_problem(register("1", "def f(): return 'other'"), 409, "FUNCTION_VERSION_EXISTS")
        self.assertEqual(register("2", "def f(): return 'two'").status, 201)
        values = []
        for version in ("", "1"):
            body = {"function": {"name": "v", "version": version}, "resources": {"cpu": 0.2, "memory": "128Mi"}}
            task = self.rest.post("compute/tasks", body).json
            values.append(self.rest.get(f"tasks/{task['id']}/result?wait=20s").json["value"]["json"])
        self.assertEqual(values, ["two", "one"])
        self.assertEqual(self.rest.delete("functions/v?version=2").status, 204)
        self.assertEqual(self.rest.get("functions/v").json["version"], "1")

    def test_what_is_wrong_is_refused(self):
        good = {"name": "w", "entryPoint": "m:f", "source": "def f(): pass"}
        for change, field in (({"source": ""}, "function.source"), ({"requirements": ["--index-url=x"]}, "function.requirements[0]"),
                              ({"runtime": "native"}, "function.runtime"), ({"entryPoint": "f"}, "function.entryPoint")):
            with self.subTest(field):
                self.assert_problem(self.rest.post("functions", {**good, **change}), 400, field=field)
        self.assert_problem(self.rest.post("functions", {**good, "concurrency": 4}), 400, "FUNCTION_FEATURE_UNIMPLEMENTED")
        self.rest.post("functions", good)
        other = {"function": {"name": "w", "args": [{"object": {"store": "default", "key": "k"}}]}}
        self.assert_problem(self.rest.post("compute/tasks", other), 404, "OBJECT_NOT_FOUND")
        nobody = {"function": {"name": "w", "args": [{"object": {"store": "tasks", "key": "task_none"}}]}}
        self.assert_problem(self.rest.post("compute/tasks", nobody), 404, "DEPENDENCY_NOT_FOUND")


class Failures(FunctionTest):
    environment = {"PIP_NO_INDEX": "1"}  # what is not there is looked for nowhere

    def test_an_exception_comes_back_with_its_class_and_traceback(self):
        @uccp.remote(**SMALL)
        def fails(x):
            raise {"value": ValueError, "key": KeyError}[x](f"no {x}")

        ref = fails.remote("value")
        with self.assertRaises(ValueError) as caught:
            self.get(ref)
        self.assertIsInstance(caught.exception, uccp.RemoteError)
        self.assertIn("in fails", caught.exception.remote_traceback)
        self.assertIn('raise {"value"', str(caught.exception))
        self.assertEqual((caught.exception.task_id, caught.exception.status), (ref.task_id, "FAILED"))
        self.assertEqual(self.node.task(ref.task_id)["statusReason"], "ValueError: no value")
        with self.assertRaises(KeyError):
            self.get(fails.remote("key"))

    def test_an_exception_of_an_own_class(self):
        @uccp.remote(**SMALL)
        def refuses():
            raise Refused(7, "why")

        with self.assertRaises(uccp.RemoteError) as caught:
            self.get(refuses.remote())
        self.assertIsInstance(caught.exception.cause, Refused)
        self.assertEqual(caught.exception.cause.code, 7)

    def test_one_item_of_a_batch_fails_alone(self):
        @uccp.remote(**SMALL)
        def odd(n):
            if n == 3:
                raise ArithmeticError("three")
            return n

        refs = odd.map(range(6), batch=6)
        self.assertEqual([self.get(ref) for ref in refs if ref is not refs[3]], [0, 1, 2, 4, 5])
        with self.assertRaisesRegex(ArithmeticError, "three"):
            self.get(refs[3])

    def test_items_of_a_batch_are_tried_again_one_by_one(self):
        @uccp.remote(**SMALL, retries=2)
        def flaky(folder, n):
            with open(f"{folder}/item-{n}", "a+") as file:
                file.write("x")
                file.seek(0)
                tries = len(file.read())
            if tries <= n:
                raise RuntimeError(f"try {tries}")
            return tries

        refs = flaky.map([str(self.node.shared)] * 4, range(4), batch=4)
        self.assertEqual(self.get(refs[:3]), [1, 2, 3])
        with self.assertRaisesRegex(RuntimeError, "try 3"):
            self.get(refs[3])

    def test_retries_follow_an_exception_and_a_crash(self):
        counter = self.node.shared / "tries"

        @uccp.remote(**SMALL, retries=3)
        def third_time(path):
            with open(path, "a+") as file:
                file.write("x")
                file.seek(0)
                tries = len(file.read())
            if tries == 1:
                raise RuntimeError("first")
            if tries == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return tries

        ref = third_time.remote(str(counter))
        self.assertEqual(self.get(ref), 3)
        history = self.node.task(ref.task_id)["attemptHistory"]
        self.assertEqual([one["outcome"] for one in history], ["EXITED", "SIGNALLED", "EXITED"])

    def test_a_process_that_ends_is_told_from_a_value(self):
        @uccp.remote(**SMALL)
        def leaves(code):
            os._exit(code)

        @uccp.remote(**SMALL)
        def segfaults():
            import ctypes
            ctypes.string_at(0)

        for code in (0, 5):
            with self.assertRaisesRegex(uccp.WorkerCrashed, f"exit code {code}"):
                self.get(leaves.remote(code))
        with self.assertRaisesRegex(uccp.WorkerCrashed, "signal 11"):
            self.get(segfaults.remote())
        with self.assertRaisesRegex(uccp.RemoteError, "SystemExit"):
            self.get(uccp.remote(**SMALL)(lambda: sys.exit(3)).remote())
        self.assertEqual(self.get(add.remote(1, 1)), 2, "the next call has another process")

    def test_what_cannot_be_pickled_is_said_where_it_is(self):
        with self.assertRaisesRegex(uccp.SerializationError, "an argument cannot be pickled"):
            echo.remote(threading.Lock())
        lock = threading.Lock()
        with self.assertRaisesRegex(uccp.SerializationError, "the function .* cannot be pickled"):
            uccp.remote(lambda: lock).remote()
        with self.assertRaisesRegex(uccp.SerializationError, "travels only as an argument by itself"):
            echo.remote([add.remote(1)])
        with self.assertRaisesRegex(uccp.RemoteError, "the value of .* a generator, cannot be pickled"):
            self.get(uccp.remote(**SMALL)(lambda: (n for n in range(3))).remote())
        with self.assertRaisesRegex(uccp.SerializationError, "at most 3500000 travel"):
            echo.remote(b"x" * 4_000_000)

    def test_a_timeout_ends_the_process(self):
        @uccp.remote(**SMALL, timeout=1)
        def sleeps():
            time.sleep(1000)

        ref = sleeps.remote()
        with self.assertRaises(uccp.TaskTimeout):
            self.get(ref)
        wait_until(lambda: not [pid for pid in workers_of(self.node) if self.sleeps(pid)], what="the end of the process")

    @staticmethod
    def sleeps(pid):
        try:
            with open(f"/proc/{pid}/wchan") as wchan:
                return "nanosleep" in wchan.read()
        except OSError:
            return False

    def test_cancel_stops_what_runs_and_what_waits(self):
        gate = self.node.gate("cancel")

        @uccp.remote(**SMALL)
        def held(path):
            while not os.path.exists(path):
                time.sleep(0.02)

        running = held.remote(str(gate.path))
        after = echo.remote(running)
        self.node.wait_task(running.task_id, "RUNNING")
        running.cancel(reason="enough", grace=0)
        with self.assertRaisesRegex(uccp.TaskCancelled, "enough"):
            self.get(running)
        with self.assertRaisesRegex(uccp.TaskError, "dependency"):
            self.get(after)

    def test_more_memory_than_asked_for_is_said(self):
        @uccp.remote(cpu=0.2, memory="64Mi")
        def eats():
            return len(bytearray(os.urandom(1 << 20) * 200))

        if "memory" not in str(self.node.rest.get("workers").json["workers"][0].get("isolation", "")):
            self.skipTest("this worker cannot limit memory: it has no control groups")
        with self.assertRaises((uccp.WorkerCrashed, MemoryError)) as caught:
            self.get(eats.remote())
        self.assertRegex(str(caught.exception), "(?i)memory")

    def test_an_environment_that_cannot_be_built_is_said(self):
        @uccp.remote(**SMALL, requirements=["no-such-package-of-anybody==99.99"])
        def never():
            return 1

        with self.assertRaisesRegex(uccp.TaskError, "environment of the function cannot be built(.|\n)*no-such-package"):
            self.get(never.remote())


def write_wheel(folder, name, version, source):
    """A wheel of one module, as pip takes it."""
    info = f"{name}-{version}.dist-info"
    path = pathlib.Path(folder) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", source)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    path.chmod(0o644)


class Environments(FunctionTest):
    """Requirements come from a folder, so that no index is needed."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="uccp-wheels-")
        cls.addClassCleanup(folder.cleanup)
        pathlib.Path(folder.name).chmod(0o755)
        for version in ("1.0", "2.0"):
            write_wheel(folder.name, "greeting", version, f"def hello(): return 'hello {version}'\n")
        cls.environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": folder.name}
        super().setUpClass()

    def test_each_function_has_the_packages_that_it_requires(self):
        def hello():
            import greeting
            return greeting.hello(), sys.prefix

        one = uccp.remote(**SMALL, requirements=["greeting==1.0"])(hello)
        two = uccp.remote(**SMALL, requirements=["greeting==2.0"])(hello)
        first = one.remote()
        values = self.get([first, two.remote(), one.remote()])
        self.assertEqual([text for text, _ in values], ["hello 1.0", "hello 2.0", "hello 1.0"])
        self.assertEqual(values[0][1], values[2][1], "equal requirements share an environment")
        self.assertNotEqual(values[0][1], values[1][1])
        with self.assertRaises(ModuleNotFoundError):
            self.get(uccp.remote(**SMALL)(hello).remote())
        self.assertTrue([line for line in self.node.log(first.task_id, "stderr") if b"environment: " in line])


class Limits(FunctionTest):
    flags = ("--function-versions-max", 2)

    def test_versions_of_a_namespace_are_limited(self):
        def register(name):
            return self.rest.post("functions", {"name": name, "entryPoint": "m:f", "source": f"def f(): return '{name}'"})

        self.assertEqual([register(name).status for name in ("a", "b", "b")], [201, 201, 201])
        self.assert_problem(register("c"), 429, "FUNCTIONS_EXHAUSTED")
        self.assertEqual(self.rest.delete("functions/a").status, 204)
        self.assertEqual(register("c").status, 201)


class Shell(FunctionTest):
    def test_the_command_line_registers_and_calls(self):
        def cli(*arguments):
            done = self.node.cli(*arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.decode()

        cli("function", "register", "adder", "--entry-point", "main:add", "--source", "def add(a, b): return a + b")
        self.assertIn("adder", cli("function", "list"))
        task = json.loads(cli("function", "call", "adder", '{"json": 2}', '{"json": 3}', "-o", "json"))
        result = json.loads(cli("task", "result", task["id"], "--wait", "20s", "-o", "json"))
        self.assertEqual((result["status"], result["value"]["json"]), ("SUCCEEDED", 5))


class Places(FunctionTest):
    def test_more_kinds_of_calls_than_processes_take_turns(self):
        kinds = [process.options(memory=f"{100 + n}Mi", cpu=0.1) for n in range(12)]
        pids = self.get([kind.remote() for kind in kinds for _ in range(2)])
        self.assertGreaterEqual(len(set(pids)), len(kinds), "each kind has processes of its own")


@unittest.skipIf(MISSING, MISSING or "")
class Killed(unittest.TestCase):
    """Workers, the agent and the server are killed while a map runs; its values are those of a quiet run."""

    def setUp(self):
        self.node = Node(flags=port_flags(), ports="")
        self.addCleanup(self.node.close)
        self.node.start()
        wait_until(lambda: self.node.rest.get("version").json.get("featureLevel", 0) >= 2, what="feature level 2")
        uccp.init(context_file=self.node.context_file)
        self.addCleanup(uccp.shutdown)

    def test_values_are_those_of_a_quiet_run(self):
        @uccp.remote(cpu=0.4, memory="128Mi", retries=10)
        def slow_square(n):
            time.sleep(0.05)
            return n * n

        refs = slow_square.map(range(120))

        def ended():
            return sum(ref.done() for ref in refs)

        def worker_pid():
            return next(iter(workers_of(self.node)), None)

        wait_until(lambda: ended() >= 10, WAIT_S, "ten values")
        for _ in range(3):
            end_process(wait_until(worker_pid, WAIT_S, "a worker"))
            before = ended()
            wait_until(lambda: ended() > min(before, len(refs) - 1), WAIT_S, "a value after the kill of a worker")
        old = workers_of(self.node)
        self.node.kill_agent()
        wait_until(lambda: not any(is_running(pid) for pid in old), 20, "the end of the workers with their agent")
        wait_until(self.node.agent_pid, WAIT_S, "another agent")
        before = ended()
        wait_until(lambda: ended() > min(before, len(refs) - 1), WAIT_S, "a value after the kill of the agent")
        self.node.restart()
        self.assertEqual(uccp.get(refs, timeout=120), [n * n for n in range(120)])
        # Each task has one outcome that counts, and no more attempts than were killed beside it.
        attempts = [self.node.task(ref.task_id)["attempts"] for ref in refs]
        self.assertLess(sum(attempts), 120 + 40)
