"""`uccp dev` and `uccp --config`: what a start leaves on disk, how it stops, and what it refuses."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import unittest

from lib import credentials
from lib.ports import free_ports
from lib.rest import Rest
from lib.uccp import AGENT, SERVER, Node, clean_environment, is_running, require
from lib.wait import wait_until

require(SERVER)


def run_server(*arguments, environment=None, timeout=30):
    return subprocess.run([str(SERVER), *map(str, arguments)], capture_output=True, timeout=timeout, text=True,
                          env=clean_environment(**(environment or {})))


class ContextFile(unittest.TestCase):
    def setUp(self):
        self.node = Node(agent=False)
        self.addCleanup(self.node.close)

    def test_has_addresses_credentials_and_nodes(self):
        context = self.node.start().context
        for key in ("id", "grpc", "https", "metrics", "ca", "cert", "key", "token", "pid", "clusterId", "nodes"):
            self.assertTrue(context.get(key), f"{key} is missing in {sorted(context)}")
        self.assertEqual(context["pid"], self.node.process.pid)
        for key in ("grpc", "https", "metrics"):
            host, _, port = context[key].rpartition(":")
            self.assertEqual(host, "127.0.0.1")
            self.assertGreater(int(port), 0)
        self.assertEqual(len({context[key] for key in ("grpc", "https", "metrics")}), 3)
        for key in ("ca", "cert", "key"):
            self.assertTrue(pathlib.Path(context[key]).is_file(), context[key])
        self.assertEqual(len(context["nodes"]), 1)
        for key in ("id", "grpc", "https", "metrics", "ca", "pid"):
            self.assertEqual(context["nodes"][0][key], context[key])

    def test_secrets_are_readable_by_their_owner_only(self):
        self.node.start()
        for path in [self.node.context_file, self.node.dir / "agent.json", *(self.node.dir / "pki").glob("*.key")]:
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)
        self.assertEqual(self.node.dir.stat().st_mode & 0o077, 0, "the data folder is open to others")

    def test_is_never_seen_half_written(self):
        bad, done, seen = [], threading.Event(), [0]

        def read_on():
            while not done.is_set():
                try:
                    text = self.node.context_file.read_text()
                except FileNotFoundError:
                    continue
                seen[0] += 1
                try:
                    assert json.loads(text)["nodes"][0]["token"]
                except (ValueError, KeyError, AssertionError):
                    bad.append(text)

        reader = threading.Thread(target=read_on)
        reader.start()
        try:
            for _ in range(3):
                self.node.start()
                wait_until(lambda before=seen[0]: seen[0] > before, what="a reader that saw the file")
                self.node.stop()
        finally:
            done.set()
            reader.join()
        self.assertEqual(bad, [])
        # No temporary file of the atomic write stays behind either.
        self.assertEqual([p.name for p in self.node.dir.iterdir() if "dev.json" in p.name], [])

    def test_goes_away_at_a_clean_stop_and_its_number_is_zero(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            self.node.start()
            self.assertEqual(self.node.stop(number), 0, self.node.errors()[-2000:])
            self.assertFalse(self.node.context_file.exists())

    def test_of_a_killed_server_is_replaced_by_the_next_one(self):
        first = self.node.start().context
        self.node.kill()
        self.assertTrue(self.node.context_file.exists(), "nobody could have removed it")
        # start() itself waits for the new process's id in it.
        second = self.node.start().context
        self.assertNotEqual(first["pid"], second["pid"])
        self.assertEqual(first["clusterId"], second["clusterId"])
        self.assertEqual(pathlib.Path(first["ca"]).read_bytes(), pathlib.Path(second["ca"]).read_bytes())

    def test_token_of_an_earlier_start_is_still_good(self):
        token = self.node.start().context["token"]
        self.node.restart()
        self.assertEqual(self.node.client(token=token).get("services").status, 200)


class OneDirectoryOneServer(unittest.TestCase):
    def test_second_server_is_refused_and_the_first_goes_on(self):
        node = Node(agent=False)
        self.addCleanup(node.close)
        node.start()
        before = node.context_file.read_text()
        second = run_server("dev", "--data-dir", node.dir, "--ports", "auto", "--no-agent")
        self.assertEqual(second.returncode, 5, second)
        self.assertIn("error:", second.stderr)
        self.assertIn(str(node.dir), second.stderr)
        self.assertEqual(node.context_file.read_text(), before)
        self.assertEqual(node.rest.get("services").status, 200)

    def test_starts_in_a_working_directory_that_was_removed(self):
        gone = tempfile.mkdtemp(prefix="uccp-test-")
        here = os.open(gone, os.O_DIRECTORY)
        self.addCleanup(os.close, here)
        node = Node(agent=False, cwd=f"/proc/{os.getpid()}/fd/{here}")
        self.addCleanup(node.close)
        os.rmdir(gone)
        self.assertEqual(node.start().rest.get("services").status, 200)

    def test_a_taken_port_is_refused_clearly(self):
        node, other = Node(agent=False), Node(agent=False)
        self.addCleanup(node.close)
        self.addCleanup(other.close)
        port = node.start().context["https"].rpartition(":")[2]
        grpc, metrics, etcd, dns = free_ports(4)
        second = run_server("dev", "--data-dir", other.dir, "--no-agent", "--grpc-port", grpc, "--https-port", port,
                            "--metrics-port", metrics, "--etcd-port", etcd, "--dns-port", dns)
        self.assertNotEqual(second.returncode, 0)
        self.assertIn(port, second.stderr)
        self.assertFalse(other.context_file.exists())


class AgentOfDev(unittest.TestCase):
    def setUp(self):
        require(AGENT)
        self.node = Node()
        self.addCleanup(self.node.close)

    def test_stops_with_the_server(self):
        self.node.start()
        agent = self.node.agent_pid()
        self.assertNotEqual(os.getpgid(agent), os.getpgid(self.node.process.pid), "the agent has no group of its own")
        self.assertEqual(self.node.stop(), 0)
        self.assertFalse(is_running(agent))

    def test_is_started_again_when_it_dies(self):
        self.node.start()
        old = self.node.kill_agent()
        wait_until(lambda: self.node.agent_pid() not in (None, old), 30, "another agent")
        self.assertEqual(self.node.run("exit 0")["status"], "SUCCEEDED")

    def test_outlives_a_killed_server_and_is_taken_over(self):
        self.node.start()
        agent = self.node.agent_pid()
        self.node.kill_group()
        self.assertTrue(is_running(agent))
        self.node.start()
        self.assertEqual(self.node.agent_pid(), agent)
        self.assertEqual(self.node.run("exit 0")["status"], "SUCCEEDED")
        self.assertEqual(self.node.stop(), 0)
        self.assertFalse(is_running(agent), "the agent of an earlier server is left behind")

    def test_everything_acknowledged_is_there_after_a_kill_of_the_group(self):
        self.node.start()
        service = self.node.rest.post("services", {"serviceName": "durable", "address": "10.0.0.1", "port": 80,
                                                   "ttl": "3600s", "labels": {"a": "b"}}).json
        done = self.node.run("echo kept; exit 4")
        self.node.kill_group()
        self.node.start()
        again = self.node.rest.get(f"services/{service['id']}").json
        self.assertEqual({k: again[k] for k in ("id", "serviceName", "labels", "etag", "createTime")},
                         {k: service[k] for k in ("id", "serviceName", "labels", "etag", "createTime")})
        self.assertTrue(again["healthy"])
        self.assertEqual(self.node.task(done["id"]), done)
        self.assertEqual(self.node.log(done["id"]), [b"kept"])


class Configured(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def config(self, text):
        path = self.folder / "config.yaml"
        path.write_text(text)
        return path

    def serve(self, more=""):
        """Starts a configured node and waits until it is ready."""
        grpc, https, metrics = free_ports(3)
        path = self.config(f"node_id: n1\nraft_dir: {self.folder}/raft\ngrpc_port: {grpc}\nhttps_port: {https}\n"
                           f"metrics_port: {metrics}\netcd_port: 0\ndns_port: 0\nlog_format: text\n{more}")
        with open(self.folder / "err", "wb") as err:
            process = subprocess.Popen([str(SERVER), "--config", str(path)], stderr=err, stdout=err,
                                       env=clean_environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        certificate = self.folder / "raft" / "pki" / "ca.crt"

        def healthy():
            self.assertIsNone(process.poll(), (self.folder / "err").read_text())
            try:
                return Rest(f"127.0.0.1:{https}", certificate).get("/health/ready").status == 200
            except OSError:
                return False

        wait_until(healthy, 60, "a ready node")
        return process, grpc, https

    def test_without_mtls_agents_connect_and_the_rest_port_takes_no_certificate(self):
        _, grpc, https = self.serve("enable_mtls: false\n")
        pki = self.folder / "raft" / "pki"
        rest = Rest(f"127.0.0.1:{https}", pki / "ca.crt", cert=pki / "admin.crt", key=pki / "admin.key")
        self.addCleanup(rest.close)
        refused = rest.get("workers")
        self.assertEqual((refused.status, refused.reason), (401, "CREDENTIALS_MISSING"))
        token = credentials.token(pki / "token.key")
        rest = Rest(f"127.0.0.1:{https}", pki / "ca.crt", token=token)
        self.addCleanup(rest.close)
        self.assertEqual(rest.get("workers").json["workers"], [])
        with open(self.folder / "agent.err", "wb") as err:
            agent = subprocess.Popen([str(AGENT), "--data-dir", str(self.folder / "agent"), "--server",
                                      f"localhost:{grpc}", "--ca", str(pki / "ca.crt"), "--cert",
                                      str(pki / "agent.crt"), "--key", str(pki / "agent.key")],
                                     stderr=err, stdout=err, env=clean_environment())
        self.addCleanup(agent.wait)
        self.addCleanup(agent.terminate)
        wait_until(lambda: len(rest.get("workers").json["workers"]) == 1, 30, "the agent is a worker")

    def test_serves_on_the_ports_of_its_file(self):
        process, _, https = self.serve()
        certificate = self.folder / "raft" / "pki" / "ca.crt"
        pki = self.folder / "raft" / "pki"
        rest = Rest(f"127.0.0.1:{https}", certificate, cert=pki / "admin.crt", key=pki / "admin.key")
        self.addCleanup(rest.close)
        self.assertEqual(rest.get("services").status, 200)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(30), 0)

    def test_a_flag_wins_over_the_environment_and_that_over_the_file(self):
        path = self.config("grpc_port: 1111\nhttps_port: 1112\nmetrics_port: 1113\n")
        done = run_server("config", "explain", "--config", path, "--metrics-port", "3333",
                          environment={"HTTPS_PORT": "2222", "METRICS_PORT": "2223"})
        lines = {line.split()[0]: line.split()[1:3] for line in done.stdout.splitlines()}
        self.assertEqual(lines["grpc_port"], ["1111", "file"])
        self.assertEqual(lines["https_port"], ["2222", "environment"])
        self.assertEqual(lines["metrics_port"], ["3333", "flag"])
        self.assertEqual(lines["node_id"], ["n1", "default"])

    def test_explain_hides_secrets(self):
        done = run_server("config", "explain", environment={"S3_SECRET_KEY": "verysecret"})
        self.assertEqual(done.returncode, 0)
        self.assertNotIn("verysecret", done.stdout)

    def test_mistakes_end_with_2_and_say_what_is_wrong(self):
        table = [
            ("a misspelt key", "grpc_prot: 1\n", [], "grpc_port"),
            ("an unknown key", "no_such_thing_at_all: 1\n", [], "no_such_thing_at_all"),
            ("a word for a number", "https_port: many\n", [], "https_port"),
            ("a list for a value", "https_port: [1, 2]\n", [], "config.yaml:1"),
            ("a broken file", "a: b: c\n", [], "config.yaml"),
            ("no mapping", "- a\n", [], "config.yaml"),
            ("a bad level", "log_level: LOUD\n", [], "LOUD"),
            ("a misspelt flag", "", ["--htps-port", "1"], "https_port"),
            ("a flag without its value", "", ["--https-port"], "https-port"),
        ]
        for name, text, flags, said in table:
            with self.subTest(name):
                done = run_server("--config", self.config(text), *flags)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn(said, done.stderr)
                self.assertEqual(done.stdout, "")

    def test_a_number_that_is_no_port_is_refused(self):
        for value in ("70000", "-1"):
            with self.subTest(value):
                path = self.config(f"raft_dir: {self.folder}/raft\nhttps_port: {value}\ngrpc_port: 0\nmetrics_port: 0\n")
                try:
                    done = run_server("--config", path)
                except subprocess.TimeoutExpired:
                    self.fail("it serves on some other port")
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn("https_port", done.stderr)

    def test_a_file_that_is_not_there_and_a_wrong_command_end_with_2(self):
        for arguments in (["--config", self.folder / "none.yaml"], ["frobnicate"], ["dev", "--ports", "some"]):
            with self.subTest(arguments):
                done = run_server(*arguments)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn("error:", done.stderr)


class Usage(unittest.TestCase):
    def test_version_and_help_answer_on_standard_output(self):
        for arguments, said in ((["version"], "uccp "), (["--version"], "uccp "), (["help"], "uccp dev"),
                                (["--help"], "uccp dev"), ([], "uccp dev")):
            with self.subTest(arguments):
                done = run_server(*arguments)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertIn(said, done.stdout)
