# needs: uccp
# timeout: 600
"""Functions, actors and jobs on a Ray cluster of this machine: equal values, errors, streams, stops, kills."""
import base64
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

try:
    import uccp
    import uccp_ray_task
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

import test_actors
import test_functions
from lib import ray
from lib.uccp import ROOT, Node, end_process, is_running, processes_with
from lib.wait import wait_until

SMALL = {"cpu": 0.2, "memory": "64Mi"}
# Ray starts processes for whatever comes, which takes seconds on a busy machine.
WAIT_S = 180


def sidecars(node):
    """Ids of the drivers of Ray of a node's agent: they write its ray.log."""
    found = []
    for pid in processes_with("uccp_ray"):
        try:
            if os.readlink(f"/proc/{pid}/fd/2") == str(node.dir / "agent" / "ray.log"):
                found.append(pid)
        except OSError:
            continue
    return found


class Refused(Exception):
    def __init__(self, code, why):
        super().__init__(f"{code}: {why}")
        self.code = code

    def __reduce__(self):
        return (Refused, (self.code, "again"))


if not MISSING:
    @uccp.remote(**SMALL)
    def echo(value):
        return value

    @uccp.remote(**SMALL)
    def add(*numbers, **named):
        return sum(numbers) + sum(named.values())

    @uccp.remote(restarts=1, **SMALL)
    class Counter:
        def __init__(self, start=0):
            self.value = start

        def add(self, n=1):
            self.value += n
            return self.value

        def upto(self, n):
            yield from range(n)

        def fail(self):
            raise Refused(9, "an actor does not want to")

        def process(self):
            return os.getpid()


CLUSTER = None


def setUpModule():
    global CLUSTER
    ray.install()
    CLUSTER = ray.Cluster(dashboard=True)
    unittest.addModuleCleanup(CLUSTER.close)


@unittest.skipIf(MISSING, MISSING or "")
class RayTest(unittest.TestCase):
    """A node for the cases of a class, on the cluster of all."""

    @classmethod
    def setUpClass(cls):
        cls.node = Node(environment=cls.environment())
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        cls.worker = cls.node.wait_worker()
        wait_until(lambda: cls.node.rest.get("version").json.get("featureLevel", 0) >= 2, WAIT_S, "feature level 2")
        uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    @classmethod
    def environment(cls):
        return ray.agent_environment(CLUSTER.address)

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def file(self):
        """The path of a file that is not there yet, which every user may make."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.node.shared))
        folder.chmod(0o777)
        return folder / "file"


class Functions(RayTest):
    def test_the_worker_says_that_it_runs_on_ray(self):
        self.assertEqual(self.worker["labels"]["uccp/ray"], "cluster")
        self.assertIn("executor.ray", self.worker["capabilities"])

    def test_calls_run_in_processes_of_ray(self):
        @uccp.remote(**SMALL)
        def where():
            import ray as module
            import sys as system

            return (module.get_runtime_context().get_job_id(), os.environ["UCCP_NAMESPACE"], os.environ["UCCP_TASK_ID"],
                    system.modules["uccp_worker"].__file__)

        ref = where.remote()
        job, namespace, task, module = self.get(ref)
        self.assertTrue(job)
        self.assertEqual((namespace, task), ("default", ref.task_id))
        self.assertEqual(module, "/uccp/uccp_worker.py", "it travelled, whatever the nodes of Ray have")

    def test_large_values_and_arguments_travel(self):
        content = os.urandom(3_000_000)
        ref = echo.remote(content)
        self.assertEqual(self.get(ref), content)
        self.assertEqual(self.node.task(ref.task_id)["artifacts"][0]["path"], ".value")

        @uccp.remote(**SMALL)
        def length(values, more):
            return len(values) + more

        self.assertEqual(self.get([length.remote(ref, n) for n in range(3)]), [3_000_000, 3_000_001, 3_000_002])

    def test_what_a_call_prints_is_its_log(self):
        @uccp.remote(**SMALL)
        def says(count):
            for number in range(count):
                print("line", number)
            print("to stderr", file=sys.stderr)
            return count

        ref = says.remote(3)
        self.assertEqual(self.get(ref), 3)
        self.assertEqual(self.node.log(ref.task_id), [b"line 0", b"line 1", b"line 2"])
        self.assertEqual(self.node.log(ref.task_id, "stderr"), [b"to stderr"])

    def test_an_exception_comes_back_with_its_class_and_traceback(self):
        @uccp.remote(**SMALL)
        def refuses():
            raise Refused(7, "does not want to")

        with self.assertRaises(uccp.RemoteError) as raised:
            self.get(refuses.remote())
        self.assertEqual(raised.exception.__cause__.code, 7)
        self.assertIn("in refuses", raised.exception.remote_traceback)
        self.assertNotIn("uccp_worker", raised.exception.remote_traceback)

    def test_values_that_cannot_be_pickled_are_named(self):
        @uccp.remote(**SMALL)
        def lock():
            import threading as module

            return module.Lock()

        with self.assertRaisesRegex(uccp.RemoteError, "cannot be pickled"):
            self.get(lock.remote())

    def test_attempts_are_ours(self):
        path = str(self.file())

        @uccp.remote(retries=2, **SMALL)
        def third_time():
            with open(path, "a+") as file:
                file.write("x")
                file.seek(0)
                tries = len(file.read())
            if tries < 3:
                raise RuntimeError(f"try {tries}")
            return tries

        ref = third_time.remote()
        self.assertEqual(self.get(ref), 3)
        self.assertEqual(self.node.task(ref.task_id)["attempts"], 3)

    def test_a_process_that_ends_is_a_crash_and_not_repeated_by_ray(self):
        path = str(self.file())

        @uccp.remote(**SMALL)
        def dies():
            with open(path, "a") as file:
                file.write("x")
            os._exit(3)

        with self.assertRaises(uccp.WorkerCrashed):
            self.get(dies.remote())
        self.assertEqual(pathlib.Path(path).read_text(), "x")
        self.assertEqual(self.get(add.remote(1)), 1, "the next call has another process")

    def test_requirements_are_refused_with_what_to_do(self):
        packages = echo.options(requirements=["left-pad==1.0"])
        with self.assertRaisesRegex(uccp.TaskError, "requirements do not run on Ray; install the packages on its nodes"):
            self.get(packages.remote(1))

    def stubborn(self):
        """A call that says which process it is in and listens to nobody, and that process."""
        path = self.file()

        @uccp.remote(**SMALL)
        def forever(at):
            pathlib.Path(at).write_text(str(os.getpid()))
            while True:
                try:
                    time.sleep(1000)
                except KeyboardInterrupt:
                    pass

        ref = forever.remote(str(path))
        wait_until(path.exists, WAIT_S, "the call")
        return ref, int(wait_until(path.read_text, what="its process"))

    def test_a_cancelled_call_ends_with_its_process(self):
        ref, pid = self.stubborn()
        self.node.rest.delete(f"tasks/{ref.task_id}", query={"gracePeriod": "0.2s", "reason": "enough"})
        with self.assertRaisesRegex(uccp.TaskCancelled, "enough"):
            self.get(ref)
        wait_until(lambda: not is_running(pid), WAIT_S, "the end of the process")

    def test_a_timeout_ends_a_call(self):
        @uccp.remote(timeout=2, **SMALL)
        def long():
            while True:
                time.sleep(0.01)

        with self.assertRaises(uccp.TaskTimeout):
            self.get(long.remote())


class OnRay:
    """The cases of the native executor."""

    @classmethod
    def setUpClass(cls):
        cls.environment = ray.agent_environment(CLUSTER.address)
        super().setUpClass()

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)


class Values(OnRay, test_functions.Values):
    test_what_a_function_prints_is_its_log = None  # what goes past Python's streams stays on the node


class Calls(OnRay, test_actors.Calls):
    pass


class StreamsOfActors(OnRay, test_actors.Streams):
    pass


class Coroutines(OnRay, test_actors.Coroutines):
    pass


class Examples(RayTest):
    def lines(self, node, *command):
        program, *arguments = command
        done = subprocess.run([sys.executable, ROOT / "examples" / program, "--context-file", node.context_file, *arguments],
                              capture_output=True, text=True, timeout=WAIT_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return [re.sub(r" in [0-9.]+ s$", "", line) for line in done.stdout.splitlines()]

    def test_the_same_scripts_say_the_same_as_natively(self):
        native = Node()
        self.addCleanup(native.close)
        native.start()
        native.wait_worker()
        text = self.file()
        text.write_text("The cat, the hat\nthe end\n")
        for command in (("python_wordcount/wordcount.py", "--top", "2", str(text)),
                        ("python_montecarlo/montecarlo.py", "--calls", "60", "--points", "100", "--batch", "20")):
            with self.subTest(command[0]):
                self.assertEqual(self.lines(self.node, *command), self.lines(native, *command))


class Streams(RayTest):
    def test_values_come_while_the_generator_runs(self):
        gate = self.file()

        @uccp.remote(**SMALL)
        def values(count, wait_for):
            for number in range(count):
                yield number
                if number == 1:
                    while not os.path.exists(wait_for):
                        time.sleep(0.02)

        stream = iter(values.remote(4, str(gate)))
        self.assertEqual([next(stream), next(stream)], [0, 1])
        gate.touch()
        self.assertEqual(list(stream), [2, 3])
        self.assertEqual(list(values.remote(30, str(gate))), list(range(30)), "known as a generator now")

    def test_a_generator_that_raises_is_seen_behind_its_values(self):
        @uccp.remote(**SMALL)
        def breaks():
            yield 1
            raise Refused(5, "no more")

        seen = []
        with self.assertRaises(uccp.RemoteError) as raised:
            for value in breaks.remote():
                seen.append(value)
        self.assertEqual((seen, raised.exception.__cause__.code), ([1], 5))


class Actors(RayTest):
    def test_calls_are_in_order_and_raise(self):
        counter = Counter.remote(10)
        self.assertEqual(self.get([counter.add.remote() for _ in range(300)]), list(range(11, 311)))
        self.assertEqual([self.get(ref) for ref in counter.upto.remote(200)], list(range(200)))
        with self.assertRaises(uccp.RemoteError) as raised:
            self.get(counter.fail.remote())
        self.assertEqual(raised.exception.__cause__.code, 9)
        self.assertEqual(self.get(counter.add.remote(5)), 315)
        uccp.kill(counter)

        def is_dead():  # its agent hears of it a moment later
            try:
                return not self.get(counter.add.remote())
            except uccp.ActorDied:
                return True

        wait_until(is_dead, WAIT_S, "the end of the actor")

    def test_an_object_whose_process_dies_is_made_again_as_often_as_asked(self):
        counter = Counter.remote(1)
        pid = self.get(counter.process.remote())
        self.assertEqual(self.get(counter.add.remote()), 2)
        os.kill(pid, signal.SIGKILL)

        def again():
            try:
                return self.get(counter.process.remote()) != pid
            except uccp.ActorDied:
                return False

        wait_until(again, WAIT_S, "another object")
        self.assertEqual(self.get(counter.add.remote()), 2, "a new object begins anew")
        uccp.kill(counter)

    def test_calls_that_are_not_durable(self):
        loose = add.options(durable=False, lanes=1)
        self.assertEqual(self.get([loose.remote(n, 1) for n in range(500)]), list(range(1, 501)))


class Killed(RayTest):
    def test_no_outcome_is_lost_when_the_driver_is_killed(self):
        path, gate = self.file(), self.file()

        @uccp.remote(**SMALL)
        def square(number, marks, wait_for):
            with open(marks, "a") as file:
                file.write(f"{number}\n")
            while number >= 5 and not os.path.exists(wait_for):
                time.sleep(0.02)
            return number * number

        before = wait_until(lambda: sidecars(self.node), WAIT_S, "the driver")
        refs = [square.remote(number, str(path), str(gate)) for number in range(40)]
        # More than the five that do not wait, and those have told their values.
        wait_until(lambda: path.exists() and path.read_text().count("\n") > 5, WAIT_S, "calls that run")
        self.get(refs[:5])
        for pid in before:
            end_process(pid)
        after = wait_until(lambda: set(sidecars(self.node)) - set(before), WAIT_S, "the next driver")
        gate.touch()
        self.assertEqual(self.get(refs), [number * number for number in range(40)])
        histories = [self.node.task(ref.task_id)["attemptHistory"] for ref in refs]
        self.assertEqual([len(history) for history in histories[:5]], [1] * 5, "what had ended is not run again")
        lost = [history for history in histories if len(history) > 1]
        self.assertTrue(lost)
        self.assertEqual({history[0]["outcome"] for history in lost}, {"LOST"})
        self.assertIn("the driver of Ray ended", lost[0][0]["reason"])
        self.assertTrue(after)


class Client(RayTest):
    """From outside of the cluster, by ray://."""

    @classmethod
    def environment(cls):
        return ray.agent_environment(cls.enterClassContext(CLUSTER.client_server()))

    def test_functions_and_actors_run_and_generators_are_refused(self):
        @uccp.remote(**SMALL)
        def values():
            yield 1

        self.assertEqual(self.worker["labels"]["uccp/ray"], "client")
        self.assertEqual(self.get([echo.remote(n) for n in range(5)]), list(range(5)))
        with self.assertRaises(uccp.RemoteError) as raised:
            self.get(add.remote(1, "x"))
        self.assertIsInstance(raised.exception.__cause__, TypeError)
        counter = Counter.remote(1)
        self.assertEqual(self.get([counter.add.remote() for _ in range(5)]), [2, 3, 4, 5, 6])
        uccp.kill(counter)
        with self.assertRaisesRegex(uccp.TaskError, "is a generator, which Ray cannot stream to a client"):
            list(values.remote())


class Jobs(RayTest):
    """Whole programs, by the job API."""

    @classmethod
    def environment(cls):
        return {"RAY_ADDRESS": f"http://{CLUSTER.dashboard}", **ray.ACCESS}

    def submit(self, command, **fields):
        return self.node.submit(command, executor="RAY", **fields)

    def test_a_program_with_its_inputs_is_a_job(self):
        program = b"import os, ray\nray.init(log_to_driver=False)\nprint(open('in/text').read(), os.environ['GREETING'])\n" \
                  b"print('sum', sum(ray.get([ray.remote(lambda n: n * n).remote(n) for n in range(4)])))\n"
        inputs = [{"path": name, "data": base64.b64encode(content).decode()}
                  for name, content in (("main.py", program), ("in/text", b"hello"))]
        task = self.node.wait_task(self.submit([str(ray.PYTHON), "main.py"], inputs=inputs, env={"GREETING": "wörld"})["id"],
                                   timeout=WAIT_S)
        lines = self.node.log(task["id"])
        self.assertEqual((task["status"], task["exitCode"]), ("SUCCEEDED", 0), (task, lines))
        self.assertIn("hello wörld".encode(), lines)
        self.assertIn(b"sum 14", lines)
        self.assertEqual(self.node.rest.get("workers").json["workers"][0]["labels"]["uccp/ray"], "jobs")

    def test_its_exit_code_is_the_tasks(self):
        task = self.node.wait_task(self.submit("echo before; exit 7")["id"], timeout=WAIT_S)
        self.assertEqual((task["status"], task["exitCode"]), ("FAILED", 7))
        self.assertIn(b"before", self.node.log(task["id"]))

    def test_cancel_stops_it(self):
        path = self.file()
        task = self.submit(f"echo $$ > {path}; exec sleep 1000", gracePeriod="120s")
        pid = int(wait_until(lambda: path.exists() and path.read_text().strip(), WAIT_S, "the job"))
        self.node.rest.delete(f"tasks/{task['id']}")
        self.assertEqual(self.node.wait_task(task["id"], timeout=WAIT_S)["status"], "CANCELLED")
        wait_until(lambda: not is_running(pid), WAIT_S, "the end of the job")

    def test_what_a_job_cannot_have_is_said(self):
        for fields, words in (({"outputs": ["x"]}, "leaves no artifacts"), ({"stdin": "eA=="}, "reads no standard input")):
            task = self.node.wait_task(self.submit("true", **fields)["id"], timeout=WAIT_S)
            self.assertEqual(task["status"], "FAILED")
            self.assertIn(words, task["statusReason"])

    def test_commands_that_do_not_ask_for_it_run_here(self):
        task = self.node.run("echo $UCCP_TASK_DIR", executor="PROCESS")
        self.assertEqual(task["status"], "SUCCEEDED")
        self.assertNotIn(b"ray", self.node.log(task["id"])[0])


class Modules(unittest.TestCase):
    def test_each_module_that_travels_comes_behind_those_that_it_imports(self):
        there = set()
        for name in uccp_ray_task.MODULES:
            there.add(name)
            source = (ROOT / "python" / f"{name}.py").read_text()
            imported = set(re.findall(r"^(?:import|from) (uccp_\w+)", source, re.MULTILINE))
            self.assertLessEqual(imported, there, f"imported by {name}")


class Elsewhere(unittest.TestCase):
    """Agents that cannot use the Ray that they are told of say what is wrong."""

    def reason_of_failure(self, **environment):
        node = Node(environment=environment)
        self.addCleanup(node.close)
        node.start()
        node.wait_worker()
        wait_until(lambda: node.rest.get("version").json.get("featureLevel", 0) >= 2, WAIT_S, "feature level 2")
        node.rest.post("functions", {"name": "f", "entryPoint": "m:f", "source": "def f(): return 1"})
        task = node.rest.post("compute/tasks", {"function": {"name": "f"}}).json

        def ended():
            history = node.task(task["id"]).get("attemptHistory", [])
            return next((one["reason"] for one in history if one["outcome"] == "LAUNCH_FAILED"), None)

        return wait_until(ended, WAIT_S, "the first attempt")

    def test_nobody_at_the_address(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
            reason = self.reason_of_failure(**ray.agent_environment(address))
        self.assertIn(f"there is no connection to Ray at {address}: nobody answers at {address}", reason)

    def test_a_python_without_ray(self):
        venv = str(ROOT / "build" / "venv" / "bin" / "python")
        reason = self.reason_of_failure(**ray.agent_environment("auto", UCCP_AGENT_PYTHON=venv))
        self.assertIn("has no package ray", reason)
        self.assertIn("pip install", reason)

    def test_another_version_than_the_cluster(self):
        fake = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        fake.chmod(0o755)
        (fake / "ray.py").write_text("__version__ = '1.0'\ndef init(**_):\n"
                                     "    raise RuntimeError('Version mismatch: the cluster has Ray 2.60.0')\n")
        path = f"{fake}:{ROOT / 'python'}"
        reason = self.reason_of_failure(**ray.agent_environment("auto", PYTHONPATH=path))
        self.assertIn("RuntimeError: Version mismatch: the cluster has Ray 2.60.0 (this is Ray 1.0 with Python 3.", reason)


if __name__ == "__main__":
    unittest.main()
