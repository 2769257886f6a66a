# timeout: 300
"""Settings that change while nodes run: by command for the cluster, and in the file of a node."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from lib import credentials
from lib.cluster import Cluster
from lib.ports import free_ports
from lib.rest import Rest
from lib.uccp import CLI, SERVER, NodeTest, clean_environment, require
from lib.wait import wait_until


def setting(rest, name):
    found = [s for s in rest.get("config", prefix=name).json["settings"] if s["name"] == name]
    return found[0].get("value"), found[0]["source"]


def update(rest, *pairs, **more):
    return rest.put("config", {"settings": [{"name": name, "value": value} for name, value in pairs], **more})


class Settings(NodeTest):
    agent = False
    flags = ("--session-ttl", "3h")
    environment = {"RATE_LIMIT_READ": "100000"}

    def setUp(self):
        wait_until(lambda: self.rest.get("version").json.get("featureLevel", 1) >= 2, 20, "the feature level")

    def test_a_change_holds_at_once_and_survives_a_kill(self):
        done = update(self.rest, ("log_level", "DEBUG"), ("calls_waiting_max", 7))
        self.assertEqual(done.status, 200, done)
        self.assertEqual(setting(self.rest, "log_level"), ("DEBUG", "cluster"))
        self.assertEqual(setting(self.rest, "calls_waiting_max"), (7, "cluster"))
        self.node.restart()
        self.assertEqual(wait_until(lambda: setting(self.rest, "log_level")[1] == "cluster" and setting(self.rest, "log_level"), 20,
                                    "the setting after a restart"), ("DEBUG", "cluster"))
        before = len(self.node.errors())
        self.assertEqual(update(self.rest, ("log_level", None), ("calls_waiting_max", None)).status, 200)
        self.assertEqual(setting(self.rest, "log_level"), ("INFO", "default"))
        wait_until(lambda: "a setting has changed" in self.node.errors()[before:], what="a word about it in the log")
        record = json.loads(self.node.cli("audit", "search", "-o", "json").stdout)
        self.assertIn("uccp.v1.Administration/UpdateConfiguration", [r["method"] for r in record])

    def test_a_rate_is_enforced_as_soon_as_it_is_set(self):
        client = self.node.client(token=credentials.token(self.node.dir / "pki" / "token.key", sub="busy"))
        self.addCleanup(client.close)
        body = {"serviceName": "x", "address": "10.0.0.1", "port": 1}
        self.assertEqual([client.post("services", body).status for _ in range(5)], [201] * 5)
        self.assertEqual(update(self.rest, ("rate_limits", "principal:write:1/2")).status, 200)
        statuses = [client.post("services", body).status for _ in range(2)]
        self.assertEqual(statuses, [201, 201])
        # One comes back each second, in which many more can be asked for.
        wait_until(lambda: client.post("services", body).status == 429, what="the limit")
        wait_until(lambda: update(self.rest, ("rate_limits", None)).status == 200, 20, "a token for the admin")
        self.assertEqual([client.post("services", body).status for _ in range(5)], [201] * 5)

    def test_what_cannot_be_set_says_why(self):
        for pairs, status, reason, says in (
                ([("grpc_port", 1)], 412, "SETTING_FIXED", "restart"),
                ([("log_levle", "DEBUG")], 404, "SETTING_NOT_FOUND", "'log_level'"),
                ([("log_level", "LOUD")], 400, "SETTING_INVALID", "TRACE"),
                ([("calls_in_flight_max", "many")], 400, "SETTING_INVALID", "an integer"),
                ([("calls_in_flight_max", 0)], 400, "SETTING_INVALID", "at least 1"),
                ([("calls_in_flight_tenant_percent", 0)], 400, "SETTING_INVALID", "must be 1 to 100"),
                ([("calls_in_flight_tenant_percent", 101)], 400, "SETTING_INVALID", "must be 1 to 100"),
                ([("rate_limits", "moon:5")], 400, "RATE_LIMIT_INVALID", "moon"),
                ([("log_level", ["DEBUG"])], 400, "SETTING_INVALID", "a list"),
                ([("session_ttl", "1h")], 412, "SETTING_OVERRIDDEN", "--session-ttl"),
                ([("rate_limit_read", 5)], 412, "SETTING_OVERRIDDEN", "RATE_LIMIT_READ")):
            with self.subTest(pairs):
                answer = update(self.rest, ("certificate_alert", "9d"), *pairs)
                self.assert_problem(answer, status, reason)
                self.assertIn(says, answer.json["detail"])
        self.assertEqual(setting(self.rest, "certificate_alert"), ("14d", "default"), "all or none")

    def test_etags_and_dry_runs(self):
        read = self.rest.get("config").json
        tried = update(self.rest, ("certificate_alert", "20d"), validateOnly=True)
        self.assertEqual(tried.status, 200)
        self.assertEqual(setting(self.rest, "certificate_alert")[1], "default")
        done = update(self.rest, ("certificate_alert", "20d"), ifMatch=read["etag"])
        self.assertEqual(done.status, 200, done)
        self.assertNotEqual(done.json["etag"], read["etag"])
        late = update(self.rest, ("certificate_alert", "21d"), ifMatch=read["etag"])
        self.assertEqual(late.reason, "ETAG_MISMATCH", late)
        self.assertEqual(setting(self.rest, "certificate_alert"), ("20d", "cluster"))
        self.assertEqual(update(self.rest, ("certificate_alert", None)).status, 200)

    def test_only_who_may_administer_changes_settings(self):
        viewer = self.node.client(token=credentials.token(self.node.dir / "pki" / "token.key", sub="v", roles=["viewer"]))
        self.addCleanup(viewer.close)
        self.assert_problem(update(viewer, ("log_level", "DEBUG")), 403)

    def test_by_the_command_line(self):
        done = self.node.cli("config", "set", "certificate_alert=15d")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"15d", self.node.cli("config", "get", "certificate_alert").stdout)
        self.assertEqual(self.node.cli("config", "set", "certificate_alert=").returncode, 0)
        self.assertIn(b"default", self.node.cli("config", "get", "certificate_alert").stdout)


class File(unittest.TestCase):
    def test_a_file_that_changes_is_read_again(self):
        require(SERVER)
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        self.addCleanup(folder.cleanup)
        directory = pathlib.Path(folder.name)
        grpc, https, metrics, etcd, dns = free_ports(5)
        path, log = directory / "config.yaml", directory / "err"

        def write(more):
            (directory / "new").write_text(f"node_id: n1\nraft_dir: {directory}/raft\ngrpc_port: {grpc}\nhttps_port: {https}\n"
                                           f"metrics_port: {metrics}\netcd_port: {etcd}\ndns_port: {dns}\n{more}")
            os.rename(directory / "new", path)

        write("certificate_alert: 9d\n")
        with open(log, "wb") as err:
            process = subprocess.Popen([str(SERVER), "--config", str(path)], stderr=err, stdout=err, env=clean_environment())
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        pki = directory / "raft" / "pki"

        def connect():
            self.assertIsNone(process.poll(), log.read_text())
            if not (pki / "token.key").exists():
                return None
            try:
                rest = Rest(f"127.0.0.1:{https}", pki / "ca.crt", token=credentials.token(pki / "token.key"))
                return rest if rest.get("config").status == 200 else None
            except OSError:
                return None

        rest = wait_until(connect, 60, "a node that serves")
        self.addCleanup(rest.close)
        self.assertEqual(setting(rest, "certificate_alert"), ("9d", "file"))
        write("certificate_alert: 10d\ntask_timeout: 2h\n")
        wait_until(lambda: setting(rest, "certificate_alert") == ("10d", "file"), 30, "the new value")
        wait_until(lambda: "takes effect at the next start" in log.read_text(), 30, "a word about the restart")
        self.assertIn("task_timeout", log.read_text())
        # What the cluster sets is over the file; a broken file changes nothing.
        wait_until(lambda: rest.get("version").json.get("featureLevel", 1) >= 2, 20, "the feature level")
        self.assertEqual(update(rest, ("certificate_alert", "11d")).status, 200)
        self.assertEqual(setting(rest, "certificate_alert"), ("11d", "cluster"))
        write("certificate_alert: [")
        wait_until(lambda: "the configuration file cannot be used" in log.read_text(), 30, "an error")
        self.assertEqual(update(rest, ("certificate_alert", None)).status, 200)
        self.assertEqual(setting(rest, "certificate_alert"), ("10d", "file"))


class ThreeNodes(unittest.TestCase):
    def test_a_change_reaches_every_node(self):
        require(SERVER, CLI)
        cluster = Cluster()
        self.addCleanup(cluster.close)
        cluster.start()
        for name in cluster.names():
            wait_until(lambda: cluster.rest(name).get("version").json.get("featureLevel", 1) >= 2, 20, "the feature level")
        done = update(cluster.rest("n2"), ("rate_limits", "address:50000"))
        self.assertEqual(done.status, 200, done)
        for name in cluster.names():
            wait_until(lambda: setting(cluster.rest(name), "rate_limits") == ("address:50000", "cluster"), 30, f"the value on {name}")
            self.assertIn("RateLimit-Limit", cluster.rest(name).get("services").headers)


if __name__ == "__main__":
    unittest.main()
