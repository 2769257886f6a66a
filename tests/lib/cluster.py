"""Clusters of real nodes for tests: made by scripts/start-cluster.sh, each in a folder of its own."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import urllib.request

from lib.rest import PatientRest, Rest
from lib.uccp import (AGENT, CLI, ROOT, SERVER, clean_environment, end_process, is_running, processes_with,
                      require)
from lib.wait import wait_until

START = ROOT / "scripts" / "start-cluster.sh"
STOP = ROOT / "scripts" / "stop-cluster.sh"
# Of node k, k - 1 steps further, when no other ports are asked for.
RAFT_PORT, PORT_STEP = 50061, 10


class Cluster:
    """A cluster made by scripts/start-cluster.sh, in a folder of its own."""

    def __init__(self, nodes=3, agents=0):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="uccp-cluster-"))
        self.base.chmod(0o711)
        self.dir = self.base / "data"
        self.nodes = nodes
        self.agents = agents
        self.context = None
        self._rest = {}

    def start(self):
        """Starts the nodes that do not run and waits until the cluster serves."""
        done = subprocess.run([START, "--nodes", str(self.nodes), "--data-dir", self.dir, "--ports", "auto", "--agents",
                               str(self.agents), "--timeout", "120"], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=180, env=clean_environment(UCCP_BIN=str(SERVER.parent)))
        assert done.returncode == 0, (done.stdout + done.stderr).decode() + self.logs()
        self.context = json.loads((self.dir / "cluster.json").read_text())
        self._rest = {}
        return self

    def logs(self):
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-1500:]}" for path in self.dir.glob("n*/uccp.log"))

    def stop(self):
        subprocess.run([STOP, "--data-dir", self.dir, "--timeout", "10"], capture_output=True, timeout=60, check=False)

    def close(self):
        self.stop()
        for pid in processes_with(str(self.dir)):
            end_process(pid)
        shutil.rmtree(self.base, ignore_errors=True)

    def node(self, name):
        return next(node for node in self.context["nodes"] if node["id"] == name)

    def names(self):
        return [node["id"] for node in self.context["nodes"]]

    def rest(self, name, timeout=20):
        """A new REST client of one node."""
        return Rest(self.node(name)["https"], self.context["ca"], token=self.context["token"], timeout=timeout)

    def patient(self, name):
        """One that goes on asking that node while there is no leader."""
        return PatientRest(self.node(name)["https"], self.context["ca"], token=self.context["token"], timeout=20)

    def cli(self, *arguments, server=None, timeout=60):
        where = ["--server", self.node(server)["grpc"]] if server else []
        return subprocess.run([CLI, "--context-file", self.dir / "cluster.json", *where, *map(str, arguments)],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=clean_environment())

    def cli_ok(self, *arguments, **options):
        done = self.cli(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stderr.decode()}{self.logs()}"
        return done.stdout.decode()

    def status(self, **options):
        """{group: {node: replica}}; {} if nobody could say just now."""
        groups = {}
        done = self.cli("cluster", "status", "-o", "json", **options)
        for replica in json.loads(done.stdout) if done.returncode == 0 else ():
            groups.setdefault(replica.get("group", ""), {})[replica["nodeId"]] = replica
        return groups

    def role(self, group, name):
        return self.status().get(group, {}).get(name, {}).get("role")

    def leader(self, group):
        def found():
            for name, replica in self.status().get(group, {}).items():
                if replica.get("role") == "leader":
                    return name
            return None
        return wait_until(found, 40, f"a leader of {group}")

    def lead(self, group, name):
        """Moves the leadership of a group. On a machine with much to do a node may not take over in time: one asks again."""
        def leads():
            if self.role(group, name) == "leader":
                return True
            self.cli("cluster", "transfer", group, name)
            return False
        wait_until(leads, 60, f"{name} to lead {group}")

    def health(self, name, timeout=2):
        """What a node says of itself, None if it does not answer. Nobody else is asked."""
        rest = self.rest(name, timeout=timeout)
        try:
            answer = rest.get("/health/raft")
            return answer.json if answer.status in (200, 503) else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            rest.close()

    def wait_equal(self, names, timeout=60):
        """Waits until all replicas on `names` are healthy and have the same state."""
        status = {}

        def equal():
            nonlocal status
            status = self.status()
            for group in ("core", "work"):
                replicas = [status.get(group, {}).get(name) for name in names]
                if any(r is None or r["status"] != "HEALTHY" for r in replicas):
                    return None
                if len({(r.get("appliedIndex"), r["digest"]) for r in replicas}) != 1:
                    return None
            return status
        try:
            return wait_until(equal, timeout, f"equal state on {names}")
        except AssertionError as error:
            raise AssertionError(f"{error}; at last: {json.dumps(status)}") from None

    def pid(self, name):
        return int((self.dir / name / "uccp.pid").read_text())

    def kill(self, name, number=signal.SIGKILL):
        pid = self.pid(name)
        os.kill(pid, number)
        wait_until(lambda: not is_running(pid), 40, f"the end of {name}")

    def run_node(self, directory, timeout=60, **flags):
        """Runs a node in the foreground until it ends; answers exit code and standard error."""
        command = [str(SERVER), "--config", str(directory / "uccp.yaml")]
        for key, value in flags.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout,
                              env=clean_environment())
        return done.returncode, done.stderr.decode()


def shared(agents=0):
    """Decorates a test class: one cluster for all its cases."""
    def decorate(case):
        def set_up(cls):
            require(SERVER, CLI, *([AGENT] if agents else []))
            cls.cluster = Cluster(agents=agents)
            cls.addClassCleanup(cls.cluster.close)
            cls.cluster.start()
        case.setUpClass = classmethod(set_up)
        return case
    return decorate


class NetworkedCluster(Cluster):
    """Nodes on the hosts of a lib.network.Network, so that they can be cut off from each other.

    `flags` go to every node; `relays`: what nodes send to each other's raft ports goes through relays."""

    def __init__(self, network, nodes=3, flags=(), relays=False):
        super().__init__(nodes)
        self.network = network
        self.flags = list(flags)
        for k in range(1, nodes + 1):
            self.add(f"n{k}", first=k == 1)
        if relays:
            for k in range(1, nodes + 1):
                network.add_relay(f"n{k}", RAFT_PORT + PORT_STEP * (k - 1))

    def add(self, name, first=False):
        """A host and the files of a node, which joins when it is started."""
        make = ["init", "--nodes", "1"] if first else ["prepare", "--node", name]
        address = self.network.add(name) if name not in self.network.hosts else self.network.address(name)
        subprocess.run([SERVER, "cluster", *make, "--data-dir", self.dir, "--host", address], check=True,
                       capture_output=True, timeout=30, env=clean_environment())

    def start(self):
        started = []
        for path in sorted(self.dir.glob("n[0-9]*/uccp.yaml")):
            name = path.parent.name
            try:
                if is_running(self.pid(name)):
                    continue
            except (OSError, ValueError):
                pass
            started.append((name, self.launch(name)))
            if self.context is None and len(started) == 1:
                self.wait_ready(*started[0])  # the others join there
        for name, process in started:
            self.wait_ready(name, process)
        subprocess.run([SERVER, "cluster", "context", "--data-dir", self.dir], check=True, capture_output=True,
                       timeout=30, env=clean_environment())
        self.context = json.loads((self.dir / "cluster.json").read_text())
        return self

    def launch(self, name):
        directory = self.dir / name
        (directory / "node.json").unlink(missing_ok=True)
        command = [*self.network.enter(name), SERVER, "--config", directory / "uccp.yaml", "--metrics-host",
                   self.network.address(name), *self.flags]
        with open(directory / "uccp.log", "ab") as log:
            process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=log, env=clean_environment(), start_new_session=True)
        (directory / "uccp.pid").write_text(f"{process.pid}\n")
        return process

    def wait_ready(self, name, process):
        def ready():
            assert process.poll() is None, f"{name} ended with {process.returncode}\n{self.logs()}"
            try:
                metrics = json.loads((self.dir / name / "node.json").read_text())["metrics"]
                with urllib.request.urlopen(f"http://{metrics}/health/ready", timeout=2) as answer:
                    return answer.status == 200
            except (OSError, ValueError):
                return False
        wait_until(ready, 60, f"{name} to be ready")
