# timeout: 600
# labels: backup
"""Backups: made under load, everything destroyed, restored, and all that was acknowledged before is there."""
import json
import shutil
import subprocess
import threading
import unittest
import uuid

from lib.cluster import Cluster
from lib.uccp import AGENT, CLI, SERVER, Node, clean_environment, require
from lib.wait import wait_until

require(SERVER, CLI)


def register(rest, name, key=None):
    headers = {"Idempotency-Key": key} if key else {}
    return rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": 1, "ttl": "86400s",
                                  "metadata": {"pad": "y" * 500}}, headers=headers)


def names(rest):
    found, token = set(), ""
    while True:
        page = rest.get("services", pageSize=1000, pageToken=token, consistency="linearizable")
        assert page.status == 200, page
        found |= {item["serviceName"] for item in page.json["services"]}
        token = page.json.get("nextPageToken", "")
        if not token:
            return found


def back_up(rest, **fields):
    """Makes a backup and answers it when it is complete."""
    begun = rest.post("backups", fields)
    assert begun.status == 201, begun
    assert begun.headers["Location"] == f"/api/v1/backups/{begun.json['id']}", begun.headers
    return wait_backup(rest, begun.json["id"])


def wait_backup(rest, backup_id, reason=""):
    def ended():
        backup = rest.get(f"backups/{backup_id}").json
        assert backup["status"] != "FAILED", backup
        return backup if backup["status"] == "SUCCEEDED" and reason in backup.get("statusReason", "") else None
    return wait_until(ended, 90, "the end of the backup job")


class Writers:
    """Clients that write as fast as they can; what was acknowledged is known at any time."""

    def __init__(self, clients):
        self.acknowledged = set()
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.failure = None
        self.threads = [threading.Thread(target=self.work, args=(number, rest), daemon=True)
                        for number, rest in enumerate(clients)]
        for thread in self.threads:
            thread.start()

    def work(self, number, rest):
        try:
            count = 0
            while not self.over.is_set():
                name = f"w{number}-{count}"
                response = register(rest, name, key=name)
                assert response.status == 201, response
                with self.lock:
                    self.acknowledged.add(name)
                count += 1
        except BaseException as error:  # told by the main thread
            self.failure = error

    def until_now(self):
        with self.lock:
            return set(self.acknowledged)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
        assert self.failure is None, self.failure


class OneNode(unittest.TestCase):
    def setUp(self):
        self.node = Node(agent=False)
        self.addCleanup(self.node.close)
        self.backups = self.node.base / "backups"
        self.key = self.node.base / "backup.key"
        self.key.write_text("5a" * 32 + "\n")
        self.node.flags = ["--backup-dir", str(self.backups), "--backup-key-file", str(self.key)]
        self.node.start()

    def uccp(self, *arguments, key=None):
        command = [SERVER, *map(str, arguments), "--backup-key-file", str(key or self.key)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              env=clean_environment(), check=False)

    def test_all_that_was_acknowledged_before_survives_the_loss_of_everything(self):
        writers = Writers([self.node.client() for _ in range(4)])
        self.addCleanup(writers.over.set)
        wait_until(lambda: len(writers.until_now()) > 200, 30, "some writes")
        self.node.rest.post("locks", {"name": "l", "ttl": "3600s", "holder": "h"})
        blob = self.node.submit(["true"], name="task-before")
        before = writers.until_now()
        backup = back_up(self.node.rest, labels={"why": "test"})
        during = writers.until_now()
        wait_until(lambda: len(writers.until_now()) > len(during) + 50, 30, "writes after the backup")
        writers.stop()
        after = writers.until_now()
        self.assertGreater(len(during), len(before), "nothing was written while the backup was made")
        self.assertTrue(backup["encrypted"])
        self.assertEqual((backup["progress"], backup["labels"]), (1, {"why": "test"}))
        self.node.kill()
        shutil.rmtree(self.node.dir)
        folder = self.backups / backup["id"]
        verified = self.uccp("backup", "verify", "--from", folder)
        self.assertEqual(verified.returncode, 0, verified.stderr)
        self.assertIn(backup["sha256"], verified.stdout)
        restored = self.uccp("restore", "--from", folder, "--data-dir", self.node.dir)
        self.assertEqual(restored.returncode, 0, restored.stderr)
        self.node.start()
        found = names(self.node.rest)
        self.assertEqual(before - found, set(), "acknowledged before the backup, and lost")
        self.assertLess(found, after, "something that nobody wrote")
        self.assertEqual(self.node.task(blob["id"])["name"], "task-before")
        # It goes on, over a restart, and backs up again.
        self.assertEqual(register(self.node.rest, "afterwards").status, 201)
        again = back_up(self.node.rest)
        self.assertGreater(again["revision"], backup["revision"] + 1_000_000, "indexes of the lost log come again")
        self.node.restart()
        self.assertEqual(names(self.node.rest), found | {"afterwards"})
        listed = [item["id"] for item in self.node.rest.get("backups").json["backups"]]
        self.assertEqual(listed, [again["id"], backup["id"]])

    def test_a_running_node_goes_back(self):
        rest = self.node.rest
        cluster_id = self.node.context["clusterId"]
        kept = register(rest, "kept").json["id"]
        key = str(uuid.uuid4())
        begun = rest.post("backups", {}, headers={"Idempotency-Key": key})
        self.assertEqual(rest.post("backups", {}, headers={"Idempotency-Key": key}).json["id"], begun.json["id"])
        backup = wait_backup(rest, begun.json["id"])
        register(rest, "later")
        self.assertEqual(rest.delete(f"services/{kept}").status, 204)
        path = f"backups/{backup['id']}:restore"
        wrong = rest.post(path, {"confirmClusterId": "another"})
        self.assertEqual((wrong.status, wrong.reason), (412, "CLUSTER_NOT_CONFIRMED"), wrong)
        checked = rest.post(path, {"confirmClusterId": cluster_id, "validateOnly": True})
        self.assertEqual(checked.json["statusReason"], "verified; nothing was changed", checked)
        self.assertEqual(names(rest), {"later"})
        started = self.node.cli("backup", "restore", backup["id"], "--confirm-cluster-id", cluster_id, "--request-id", key,
                                "-o", "json")
        self.assertEqual(started.returncode, 0, started.stderr)
        self.assertEqual(json.loads(started.stdout)["status"], "RESTORING")
        wait_backup(rest, backup["id"], "restored as")
        self.assertEqual(names(rest), {"kept"})
        register(rest, "again")
        repeated = rest.post(path, {"confirmClusterId": cluster_id}, headers={"Idempotency-Key": key})
        self.assertEqual((repeated.status, repeated.json["status"]), (200, "SUCCEEDED"), repeated)
        self.assertEqual(names(rest), {"kept", "again"})
        self.node.restart()
        self.assertEqual(names(self.node.rest), {"kept", "again"})
        trail = self.node.rest.get("audit", method="RestoreBackup").json
        self.assertEqual([record["outcome"] for record in trail["records"]], ["ok"])

    def test_what_is_damaged_or_foreign_is_refused_and_changes_nothing(self):
        rest = self.node.rest
        register(rest, "kept")
        backup = back_up(rest)
        register(rest, "later")
        folder = self.backups / backup["id"]
        request = {"confirmClusterId": self.node.context["clusterId"]}
        path = f"backups/{backup['id']}:restore"
        missing = rest.post("backups/backup_00:restore", request)
        self.assertEqual((missing.status, missing.reason), (404, "BACKUP_NOT_FOUND"), missing)
        group = folder / "group-core"
        good = group.read_bytes()
        for bad, words in ((good[:-40], "cut off"), (good[:-1] + bytes([good[-1] ^ 1]), "not what was written"),
                           (b"x" * len(good), "no file of a backup")):
            group.write_bytes(bad)
            refused = rest.post(path, request)
            self.assertEqual(refused.reason, "BACKUP_DAMAGED", refused)
            self.assertIn(words, refused.json["detail"])
            self.assertIn("group-core", refused.json["detail"])
            offline = self.uccp("restore", "--from", folder, "--data-dir", self.node.base / "other")
            self.assertNotEqual(offline.returncode, 0)
            self.assertIn(words, offline.stderr)
            self.assertFalse((self.node.base / "other" / "identity").exists())
        group.write_bytes(good)
        other_key = self.node.base / "other.key"
        other_key.write_text("11" * 32)
        foreign = self.uccp("restore", "--from", folder, "--data-dir", self.node.base / "other", key=other_key)
        self.assertIn("was encrypted with the key", foreign.stderr)
        used = self.uccp("restore", "--from", folder, "--data-dir", self.node.dir)
        self.assertIn("has a node's data already", used.stderr)
        self.assertEqual(names(rest), {"kept", "later"})

    def test_a_restore_that_was_killed_is_not_started_from(self):
        backup = back_up(self.node.rest)
        self.node.kill()
        shutil.rmtree(self.node.dir)
        self.node.dir.mkdir()
        (self.node.dir / "restoring").write_text(backup["id"])
        started = subprocess.run([SERVER, "dev", "--no-agent", "--ports", "auto", "--data-dir", self.node.dir],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                                 env=clean_environment(), check=False)
        self.assertNotEqual(started.returncode, 0)
        self.assertIn("did not come to its end", started.stderr)


class WithAgent(unittest.TestCase):
    def test_tasks_logs_and_agents_come_back(self):
        require(AGENT)
        node = Node()
        self.addCleanup(node.close)
        backups, key = node.base / "backups", node.base / "backup.key"
        key.write_text("5a" * 32)
        node.flags = ["--backup-dir", str(backups), "--backup-key-file", str(key)]
        node.start()
        first = node.run("echo before")["id"]
        backup = back_up(node.rest)
        later = node.run("echo later")["id"]
        # Into the running node: its agent goes on.
        path = f"backups/{backup['id']}:restore"
        node.rest.post(path, {"confirmClusterId": node.context["clusterId"]})
        wait_backup(node.rest, backup["id"], "restored as")
        self.assertEqual(node.log(first), [b"before"])
        self.assertEqual(node.rest.get(f"tasks/{later}").status, 404)
        self.assertEqual(node.run("echo again")["status"], "SUCCEEDED")
        # Everything is lost, the agent's directory too.
        node.kill()
        node.kill_agent()
        shutil.rmtree(node.dir)
        done = subprocess.run([SERVER, "restore", "--from", backups / backup["id"], "--data-dir", node.dir,
                               "--backup-key-file", key], capture_output=True, timeout=60, env=clean_environment())
        self.assertEqual(done.returncode, 0, done.stderr)
        node.start()
        self.assertEqual(node.log(first), [b"before"])
        self.assertEqual(node.run("echo anew")["status"], "SUCCEEDED")


class Scheduled(unittest.TestCase):
    def test_backups_are_made_by_themselves_and_removed_in_time(self):
        node = Node(agent=False, flags=("--backup-every", "1s", "--backup-retention", "3s"))
        self.addCleanup(node.close)
        node.start()

        def listed():
            return [item["id"] for item in node.rest.get("backups").json["backups"] if item["status"] == "SUCCEEDED"]
        first = wait_until(listed, 30, "a backup that nobody asked for")
        seen = set()
        wait_until(lambda: seen.update(set(listed()) - set(first)) or len(seen) >= 2, 60, "more of them")
        wait_until(lambda: first[0] not in listed(), 60, "the end of the first")
        wait_until(listed, 30, "others after it")


class ThreeNodes(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster()
        self.addCleanup(self.cluster.close)
        self.backups = self.cluster.base / "backups"
        self.key = self.cluster.base / "backup.key"
        self.key.write_text("5a" * 32 + "\n")
        self.prepare("test-" + uuid.uuid4().hex[:8])
        self.cluster.start()

    def prepare(self, cluster_id):
        """Keys and configurations of three nodes that share a backup directory."""
        made = subprocess.run([SERVER, "cluster", "init", "--data-dir", self.cluster.dir, "--nodes", "3", "--ports", "auto",
                               "--cluster-id", cluster_id], capture_output=True, timeout=60, env=clean_environment())
        self.assertEqual(made.returncode, 0, made.stderr)
        for name in ("n1", "n2", "n3"):
            with open(self.cluster.dir / name / "uccp.yaml", "a", encoding="utf-8") as config:
                config.write(f"backup_dir: {self.backups}\nbackup_key_file: {self.key}\n")

    def wait_names(self, node, expected):
        wait_until(lambda: names(self.cluster.patient(node)) == expected, 60, f"{node} has {sorted(expected)[:5]}")

    def test_the_cluster_goes_back_and_comes_back(self):
        cluster = self.cluster
        writers = Writers([cluster.patient(name) for name in cluster.names()])
        self.addCleanup(writers.over.set)
        wait_until(lambda: len(writers.until_now()) > 100, 30, "some writes")
        before = writers.until_now()
        backup = back_up(cluster.patient("n2"))
        writers.stop()
        register(cluster.patient("n1"), "later")
        restored = cluster.cli("backup", "restore", backup["id"], "--confirm-cluster-id", cluster.context["clusterId"])
        self.assertEqual(restored.returncode, 0, restored.stderr)
        wait_backup(cluster.patient("n3"), backup["id"], "restored as")
        state = names(cluster.patient("n1"))
        self.assertEqual(before - state, set())
        self.assertNotIn("later", state)
        for name in cluster.names():
            self.wait_names(name, state)
        self.assertEqual(register(cluster.patient("n2"), "again").status, 201)
        # All three directories are lost; the keys and configurations are made anew.
        cluster_id = cluster.context["clusterId"]
        cluster.stop()
        shutil.rmtree(cluster.dir)
        self.prepare(cluster_id)
        for name in ("n1", "n2", "n3"):
            done = subprocess.run([SERVER, "restore", "--from", self.backups / backup["id"], "--data-dir",
                                   cluster.dir / name, "--node", name, "--cluster-id", cluster_id,
                                   "--backup-key-file", self.key], capture_output=True, timeout=60,
                                  env=clean_environment())
            self.assertEqual(done.returncode, 0, done.stderr)
        cluster.start()
        for name in cluster.names():
            self.wait_names(name, state)
        self.assertEqual(register(cluster.patient("n3"), "once-more").status, 201)
