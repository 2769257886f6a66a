"""Data directories that earlier versions wrote are opened, and their content is served (made by tests/upgrade/make_node.py)."""
import json
import pathlib
import subprocess
import tarfile
import unittest

from lib.cluster import Cluster
from lib.uccp import AGENT, SERVER, Node, clean_environment, require
from lib.wait import wait_until

require(SERVER, AGENT)

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "upgrade"
ARCHIVES = sorted(FOLDER.glob("node-*.tar.xz"))


class Upgrade(unittest.TestCase):
    def open(self, archive):
        node = Node()
        self.addCleanup(node.close)
        node.dir.mkdir(mode=0o700)
        with tarfile.open(archive) as tar:
            tar.extractall(node.dir)
        return node.start(), json.loads(archive.with_name(archive.name.replace(".tar.xz", ".json")).read_text())

    def assert_contains(self, found, expected):
        """Everything that was there is there; a later version may say more."""
        for key, value in expected.items():
            if isinstance(value, dict) and key in found:
                self.assert_contains(found[key], value)
            else:
                self.assertEqual(found.get(key), value, key)

    def test_what_was_written_is_served(self):
        self.assertTrue(ARCHIVES, f"no data directory in {FOLDER}")
        for archive in ARCHIVES:
            with self.subTest(archive.name):
                node, expected = self.open(archive)
                for task in expected["tasks"]:
                    self.assert_contains(node.task(task["id"]), task)
                for task, lines in expected["logs"].items():
                    self.assertEqual([[i["stream"], i["text"]] for i in node.log_items(task)[:-1]], lines)
                for task, files in expected["artifacts"].items():
                    for path, text in files.items():
                        self.assertEqual(node.rest.get(f"tasks/{task}/artifacts/{path}").body, text.encode())
                for service in expected["services"]:
                    found = node.rest.get(f"services/{service['id']}")
                    self.assertEqual(found.status, 200, found)
                    for key in ("serviceName", "version", "address", "port", "labels", "revision"):
                        self.assertEqual(found.json.get(key), service.get(key), key)
                for worker in expected["workers"]:
                    # The agent of this node is that worker, once it has told the server.
                    found = wait_until(lambda: next((w for w in [node.rest.get(f"workers/{worker['id']}").json]
                                                     if w["status"] == worker["status"]), None), 30, f"{worker['id']} to be back")
                    self.assert_contains(found, {k: worker[k] for k in ("labels", "resources", "status", "createTime")})
                records = [r["id"] for r in node.rest.get("audit/logs", pageSize=1000).json.get("records", [])]
                self.assertLessEqual(set(expected["audit"]), set(records))

    def test_life_goes_on_in_it(self):
        for archive in ARCHIVES:
            with self.subTest(archive.name):
                node, expected = self.open(archive)
                # The same worker, in a new epoch: its agent was killed.
                wait_until(lambda: next(w for w in node.rest.get("workers").json["workers"] if w["id"] != "declared")["epoch"] >
                           expected["epoch"], 30, "the next epoch of the worker")
                known = expected["request"]
                task = node.task(known["id"])
                data = [{"path": "in", "taskOutput": {"taskId": known["id"], "path": "out"}}]
                done = node.run("cat in", inputs=data)
                self.assertEqual((done["status"], node.log(done["id"])), ("SUCCEEDED", [b"made"]))
                self.assertGreater(done["revision"], max(t["revision"] for t in expected["tasks"]))
                waiting = next(t["id"] for t in expected["tasks"] if t["status"] == "QUEUED")
                self.assertEqual(node.rest.delete(f"tasks/{waiting}").json["status"], "CANCELLED")
                node.restart()
                self.assertEqual(node.task(known["id"]), task)
                self.assertEqual(node.task(done["id"])["status"], "SUCCEEDED")


class UpgradeOfACluster(unittest.TestCase):
    def open(self, archive, expected):
        """The directories of its nodes in a cluster with new keys and addresses."""
        cluster = Cluster()
        self.addCleanup(cluster.close)
        subprocess.run([SERVER, "cluster", "init", "--data-dir", cluster.dir, "--nodes", "3", "--ports", "auto",
                        "--cluster-id", expected["clusterId"]], check=True, capture_output=True, timeout=30,
                       env=clean_environment())
        with tarfile.open(archive) as tar:
            tar.extractall(cluster.dir)
        return cluster.start()

    def test_three_nodes_go_on_with_what_they_had(self):
        archives = sorted(FOLDER.glob("cluster-*.tar.xz"))
        self.assertTrue(archives, f"no data directories of a cluster in {FOLDER}")
        for archive in archives:
            with self.subTest(archive.name):
                expected = json.loads(archive.with_name(archive.name.replace(".tar.xz", ".json")).read_text())
                cluster = self.open(archive, expected)
                for name in cluster.names():
                    rest = cluster.patient(name)
                    self.assertEqual(rest.get("kv", prefix="up/", limit="100").json["pairs"], expected["keys"], name)
                    middle = rest.get("kv", prefix="up/", revision=expected["middle"], limit="100")
                    self.assertEqual(middle.json["pairs"], expected["keysAtMiddle"], name)
                again = cluster.patient("n2").post("services", {"serviceName": "upgraded", "address": "10.0.0.1", "port": 80,
                                                             "ttl": "86400s"},
                                                headers={"Idempotency-Key": expected["requestId"]})
                self.assertEqual(again.json["id"], expected["service"]["id"], "the request is known")
                self.assertEqual(cluster.patient("n3").put("kv/after", {"value": "x"}).status, 200)
                cluster.lead("core", "n1")
                status = cluster.wait_equal(["n1", "n2", "n3"])
                self.assertEqual({r["goal"] for r in status["core"].values()}, {"voter"})
