"""Real nodes for tests: starts, kills and stops `uccp`, its agent and `uccp-cli`, each node in a folder of its own.

Every port is a free one that the node chose. Nothing outlives Node.close().
"""
import atexit
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

from lib.rest import Rest, text_of
from lib.wait import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("UCCP_BIN", ROOT / "build" / "bin"))
SERVER, AGENT, CLI = BIN / "uccp", BIN / "uccp-agent", BIN / "uccp-cli"
START_S = 60.0
# So that a runner that is told to stop closes its nodes (atexit) instead of leaving them behind.
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT")


def require(*programs):
    """Skips the test file that calls it, if a program is not built."""
    for program in programs:
        if not program.exists():
            raise unittest.SkipTest(f"{program} is not built")


def is_running(pid):
    """True if a process with this id exists and is no zombie."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def freeze(pid):
    """SIGSTOP, and waits until every thread has stopped: the signal reaches one of them first, and on a busy machine the
    others go on for a while."""
    os.kill(pid, signal.SIGSTOP)

    def stopped():
        try:
            states = [(task / "stat").read_text().rpartition(")")[2].split()[0]
                      for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
        except OSError:  # a thread has ended meanwhile
            return False
        return all(state == "T" for state in states)
    wait_until(stopped, 30, f"process {pid} to stop")


def end_process(pid):
    """kill -9, of one that may have ended by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def processes_with(text):
    """Ids of processes whose command line contains `text`, this process apart."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = pathlib.Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if text.encode() in line and is_running(int(entry.name)):
                found.append(int(entry.name))
    return found


def clean_environment(**more):
    """The environment without what would configure a node."""
    keep = ("PATH", "HOME", "LANG", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")
    return {**{name: os.environ[name] for name in keep if name in os.environ}, **more}


class Node:
    """`uccp dev` in a folder, which stays until close(): start() may follow kill(), kill_group() and stop().

    With `ports=""` the node takes those that the flags name."""

    def __init__(self, agent=True, flags=(), environment=None, ports="auto", cwd=None):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="uccp-test-"))
        # Tasks have other users and reach this, but nothing beside it.
        self.base.chmod(0o711)
        self.dir = self.base / "data"
        self.shared = self.base / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o777)
        self.error_file = self.base / "server.err"
        self.output_file = self.base / "server.out"
        self.has_agent = agent
        self.flags = [str(flag) for flag in flags]
        self.environment = environment or {}
        self.ports = ports
        self.cwd = cwd
        self.process = None
        self.context = None
        self.agents = set()
        self._rest = None
        atexit.register(self.close)

    # --- life ---

    def launch(self):
        """Starts the server and does not wait."""
        command = [str(SERVER), "dev", "--data-dir", str(self.dir), *self.flags]
        if self.ports:
            command += ["--ports", self.ports]
        if not self.has_agent:
            command.append("--no-agent")
        with open(self.error_file, "ab") as err, open(self.output_file, "ab") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            env=clean_environment(**self.environment), start_new_session=True,
                                            cwd=self.cwd)
        return self

    def start(self):
        """Starts the server and waits until dev.json of this very process is there."""
        self.launch()
        self.context = wait_until(self._ready, START_S, "dev.json of the new server")
        if self.has_agent:
            self.agents.add(wait_until(self.agent_pid, START_S, "the agent's pid file"))
        return self

    def _ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.errors()[-3000:]}")
        try:
            context = json.loads(self.context_file.read_text())
        except (OSError, ValueError):
            return None
        return context if context.get("pid") == self.process.pid else None

    def errors(self):
        return self.error_file.read_text(errors="replace") if self.error_file.exists() else ""

    @property
    def context_file(self):
        return self.dir / "dev.json"

    def agent_pid(self):
        """The agent's id, None if there is none that runs."""
        try:
            pid = int((self.dir / "agent" / "agent.pid").read_text())
            name = pathlib.Path(f"/proc/{pid}/comm").read_text()
        except (OSError, ValueError):
            return None
        return pid if name.startswith("uccp-agent") and is_running(pid) else None

    def wait_worker(self):
        """The agent runs before it is known to the server: waits until it is a worker that takes tasks, and answers that."""
        def ready():
            workers = self.rest.get("workers").json["workers"]
            return next((worker for worker in workers if worker["status"] == "READY"), None)
        return wait_until(ready, START_S, "the agent to be a worker")

    def stop(self, number=signal.SIGINT, timeout=30):
        """Asks the server to stop and answers its exit code."""
        self._close_rest()
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def kill(self):
        """kill -9 of the server alone."""
        self._close_rest()
        self.process.kill()
        self.process.wait(10)

    def kill_group(self):
        """kill -9 of the server's process group, which the agent is not in."""
        self._close_rest()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def kill_agent(self, number=signal.SIGKILL):
        """Answers the id of the agent that was killed."""
        pid = wait_until(self.agent_pid, START_S, "a running agent")
        self.agents.add(pid)
        os.kill(pid, number)
        return pid

    def restart(self):
        self.kill()
        return self.start()

    def close(self):
        """Ends all that belongs to the node and removes its folder."""
        atexit.unregister(self.close)
        self._close_rest()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        pid = self.agent_pid()
        for agent in self.agents | ({pid} if pid else set()):
            # Its guard and the kernel end the tasks with it.
            if f"{self.dir}/agent" in self._command_line(agent):
                end_process(agent)
        end = time.monotonic() + 10
        while time.monotonic() < end and processes_with(str(self.dir)):
            time.sleep(0.02)
        for left in processes_with(str(self.dir)):
            end_process(left)
        shutil.rmtree(self.base, ignore_errors=True)

    @staticmethod
    def _command_line(pid):
        try:
            return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            return ""

    # --- clients ---

    @property
    def rest(self):
        """The admin's REST client for the main thread."""
        if self._rest is None:
            self._rest = self.client()
        return self._rest

    def client(self, **options):
        """A REST client with the admin's token unless other credentials are given."""
        if "token" not in options and "cert" not in options:
            options["token"] = self.context["token"]
        return Rest(self.context["https"], self.context["ca"], **options)

    def _close_rest(self):
        if self._rest is not None:
            self._rest.close()
            self._rest = None

    def cli(self, *arguments, stdin=b"", timeout=60, environment=None):
        """Runs uccp-cli; stdout and stderr of the answer are bytes."""
        return subprocess.run([str(CLI), "--context-file", str(self.context_file), *map(str, arguments)], input=stdin,
                              capture_output=True, timeout=timeout, env=clean_environment(**(environment or {})))

    # --- tasks ---

    def submit(self, command, request_id=None, **fields):
        """Submits a task and answers it. A text is run by sh."""
        argv = ["sh", "-c", command] if isinstance(command, str) else command
        # Small, so that several fit on this machine at once.
        fields.setdefault("resources", {"cpu": 0.1, "memory": "64Mi"})
        headers = {"Idempotency-Key": request_id} if request_id else None
        response = self.rest.post("tasks", {"command": argv, **fields}, headers=headers)
        assert response.status == 201, response
        return response.json

    def task(self, task_id):
        response = self.rest.get(f"tasks/{task_id}")
        assert response.status == 200, response
        return response.json

    def wait_task(self, task_id, *statuses, timeout=60.0):
        """Waits until the task is in one of `statuses`, by default a terminal one, and answers it."""
        wanted = statuses or TERMINAL
        task = {}

        def reached():
            nonlocal task
            task = self.task(task_id)
            assert task["status"] in wanted or task["status"] not in TERMINAL, f"ended otherwise: {task}"
            return task["status"] in wanted

        try:
            wait_until(reached, timeout, f"{task_id} in {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; the task: {task}") from None
        return task

    def run(self, command, timeout=60.0, **fields):
        """Submits a task, waits for its end and answers it."""
        return self.wait_task(self.submit(command, **fields)["id"], timeout=timeout)

    def log_items(self, task_id, **query):
        with self.rest.stream(f"tasks/{task_id}/logs", query=query) as stream:
            assert stream.status == 200, stream.response.read()
            return list(stream)

    def log(self, task_id, name="stdout", **query):
        """The lines of one stream of a task up to now, as bytes."""
        items = self.log_items(task_id, **query)
        assert "end" in items[-1], items
        return [text_of(item) for item in items[:-1] if item["stream"] == name]

    def gate(self, name):
        """A file that tasks wait for with `while [ ! -e GATE ]; do sleep 0.02; done`."""
        return Gate(self.shared / name)


class Gate:
    def __init__(self, path):
        self.path = path
        self.wait = f"while [ ! -e {path} ]; do sleep 0.02; done"

    def open(self):
        self.path.touch()


class NodeTest(unittest.TestCase):
    """A test case whose class has one node; `agent`, `flags` and `environment` say which."""

    agent = True
    flags = ()
    environment = None
    feature_level = 1  # waited for: a new cluster rises to the newest within seconds
    node = None

    @classmethod
    def setUpClass(cls):
        require(SERVER, CLI, *([AGENT] if cls.agent else []))
        cls.node = Node(agent=cls.agent, flags=cls.flags, environment=cls.environment)
        cls.addClassCleanup(cls.node.close)
        cls.node.start()
        if cls.agent:
            cls.node.wait_worker()
        if cls.feature_level > 1:
            wait_until(lambda: cls.node.rest.get("version").json.get("featureLevel", 0) >= cls.feature_level,
                       START_S, f"feature level {cls.feature_level}")

    @property
    def rest(self):
        return self.node.rest

    def metrics_text(self):
        with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=20) as answer:
            return answer.read().decode()

    def assert_problem(self, response, status, reason=None, field=None):
        """The answer is a problem of this status, and names reason and field."""
        self.assertEqual(response.status, status, response)
        self.assertEqual(response.headers["Content-Type"], "application/problem+json")
        problem = response.json
        self.assertEqual(problem["status"], status)
        self.assertTrue(problem["detail"] and problem["code"] and problem["reason"], problem)
        # A request that never became a call has no id.
        self.assertEqual(problem.get("callId"), response.headers["X-Request-Id"], problem)
        if reason is not None:
            self.assertEqual(problem["reason"], reason, problem)
        if field is not None:
            self.assertIn(field, response.fields, problem)
