# timeout: 600
# labels: cluster
"""Three real nodes as one cluster: any node serves, leaders die, nodes restart, join and leave, strangers are refused."""
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import unittest
import urllib.request
import uuid

from lib.cluster import Cluster, shared
from lib.uccp import CLI, SERVER, clean_environment, is_running, require
from lib.wait import wait_until

class Writer(threading.Thread):
    """Registers services until it is stopped: goes from node to node and repeats what failed with the same request id."""

    RETRY = (429, 500, 502, 503, 504)

    def __init__(self, cluster, label):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.label = label
        self.ended = threading.Event()
        self.acknowledged = []
        self.failures = []
        self.slowest = 0.0

    def run(self):
        clients = {}
        names = self.cluster.names()
        turn = hash(self.label) % len(names)
        number = 0
        while not self.ended.is_set():
            name = f"{self.label}-{number}"
            body = {"serviceName": name, "address": "10.9.0.1", "port": 1, "ttl": "3600s"}
            began = time.monotonic()
            last = None
            while time.monotonic() - began < 45:
                node = names[turn % len(names)]
                try:
                    client = clients.setdefault(node, self.cluster.rest(node, timeout=10))
                    last = client.post("services", body, headers={"Idempotency-Key": f"id-{name}"})
                    if last.status == 201:
                        break
                    if last.status not in self.RETRY:
                        break
                except OSError as error:
                    last = error
                except Exception as error:  # http.client raises its own kinds when a node dies
                    last = error
                clients.pop(node, None)
                turn += 1
                time.sleep(0.02)
            self.slowest = max(self.slowest, time.monotonic() - began)
            if getattr(last, "status", 0) == 201:
                self.acknowledged.append((name, last.json["id"]))
            else:
                self.failures.append((name, repr(last)))
            turn += 1
            number += 1

    def stop(self):
        self.ended.set()
        self.join(60)


def all_services(rest):
    """{name: [ids]} of all registered services, read linearizably."""
    found, token = {}, ""
    while True:
        query = {"pageSize": "1000", "consistency": "linearizable"}
        if token:
            query["pageToken"] = token
        response = rest.get("services", **query)
        assert response.status == 200, response
        for service in response.json.get("services", []):
            found.setdefault(service["serviceName"], []).append(service["id"])
        token = response.json.get("nextPageToken", "")
        if not token:
            return found


@shared()
class AnyNode(unittest.TestCase):
    def test_a_write_through_any_node_is_read_on_every_node(self):
        for writer in self.cluster.names():
            response = self.cluster.patient(writer).post("services", {"serviceName": f"by-{writer}", "address": "10.1.0.1",
                                                                   "port": 80, "ttl": "600s"})
            self.assertEqual(response.status, 201, response)
            for reader in self.cluster.names():
                found = self.cluster.patient(reader).get("services/discover", name=f"by-{writer}", consistency="linearizable")
                self.assertEqual([s["id"] for s in found.json["services"]], [response.json["id"]], (writer, reader))

    def test_errors_of_a_forwarded_call_are_those_of_the_leader(self):
        problems = {name: self.cluster.patient(name).delete("services/svc_nope") for name in self.cluster.names()}
        self.assertEqual({(p.status, p.reason) for p in problems.values()}, {(404, "SERVICE_NOT_FOUND")}, problems)
        logs = {name: self.cluster.patient(name).get("tasks/task_nope") for name in self.cluster.names()}
        self.assertEqual({(p.status, p.reason) for p in logs.values()}, {(404, "TASK_NOT_FOUND")}, logs)

    def test_a_request_id_has_one_effect_through_different_nodes(self):
        body = {"serviceName": "once", "address": "10.2.0.1", "port": 1, "ttl": "600s"}
        ids = {self.cluster.patient(name).post("services", body, headers={"Idempotency-Key": "same"}).json["id"]
               for name in self.cluster.names()}
        self.assertEqual(len(ids), 1)

    def test_health_of_raft_names_nodes_groups_leader_and_members(self):
        names = self.cluster.names()
        self.assertEqual(names, ["n1", "n2", "n3"])
        for name in names:
            # A node is ready before the groups of the bus have a leader.
            health = wait_until(lambda: (got := self.cluster.rest(name).get("/health/raft")).status == 200 and got, 30,
                                f"{name} to say that all its groups serve")
            self.assertEqual(health.json["nodeId"], name)
            for group in ("core", "work"):
                state = health.json["groups"][group]
                self.assertIn(state["leader"], names)
                self.assertEqual(state["members"], names)
                self.assertGreaterEqual(state["commitIndex"], state["appliedIndex"])
                self.assertGreater(state["term"], 0)

    def test_metrics_say_who_leads_and_how_far_each_member_is(self):
        def metrics(name):
            with urllib.request.urlopen(f"http://{self.cluster.node(name)['metrics']}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
            return dict(line.rsplit(" ", 1) for line in lines if line.startswith(("uccp_raft_", "uccp_node_")))

        def told():
            seen = {name: metrics(name) for name in self.cluster.names()}
            applied = {float(m['uccp_raft_applied_index{group="core"}']) for m in seen.values()}
            leaders = {float(m['uccp_raft_leader{group="core"}']) for m in seen.values()}
            return (seen, leaders.pop()) if len(applied) == len(leaders) == 1 and min(applied) > 0 and min(leaders) > 0 else None
        nodes, number = wait_until(told, 30, "equal indexes and one leader in the metrics")
        leader = f"n{number:.0f}"
        for name, seen in nodes.items():
            self.assertEqual(float(seen['uccp_raft_is_leader{group="core"}']), float(name == leader), name)
            self.assertEqual(float(seen['uccp_node_state{state="ready"}']), 1, name)
            self.assertEqual(float(seen['uccp_node_state{state="no_leader"}']), 0, name)
            self.assertGreater(float(seen['uccp_raft_fsync_seconds_count']), 0, name)
            if name == leader:
                lags = {key for key in seen if key.startswith('uccp_raft_peer_lag_entries{group="core"')}
                self.assertEqual(len(lags), 3, lags)

    def test_cluster_json_has_the_shape_of_a_context_and_all_nodes(self):
        context = self.cluster.context
        self.assertEqual({"id", "grpc", "https", "metrics", "ca", "cert", "key", "token", "pid"} - context.keys(), set())
        self.assertEqual(context["id"], "n1")
        self.assertEqual(context["grpc"], self.cluster.node("n1")["grpc"])
        for node in context["nodes"]:
            self.assertEqual({"id", "pid", "grpc", "https", "metrics", "raft", "dataDir"} - node.keys(), set())
            self.assertTrue(is_running(node["pid"]))
            self.assertEqual(pathlib.Path(node["dataDir"]), self.cluster.dir / node["id"])

    def test_leadership_moves_to_the_named_node(self):
        for name in self.cluster.names():
            self.cluster.lead("work", name)
        refused = self.cluster.cli("cluster", "transfer", "work", "n9")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(b"n9", refused.stderr)

    def test_nodes_outlive_the_script_in_sessions_of_their_own_without_its_descriptors(self):
        for node in self.cluster.context["nodes"]:
            self.assertEqual(os.getsid(node["pid"]), node["pid"])
            for fd in ("0", "1", "2"):
                target = os.readlink(f"/proc/{node['pid']}/fd/{fd}")
                self.assertTrue(target == "/dev/null" or target.endswith("uccp.log"), target)
            pipes = [os.readlink(f.path) for f in os.scandir(f"/proc/{node['pid']}/fd")
                     if os.path.islink(f.path) and os.readlink(f.path).startswith("pipe:")]
            self.assertEqual(pipes, [])


class Failures(unittest.TestCase):
    def setUp(self):
        require(SERVER, CLI)
        self.cluster = Cluster()
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def writers(self, count=4):
        writers = [Writer(self.cluster, f"w{uuid.uuid4().hex[:6]}") for _ in range(count)]
        for writer in writers:
            writer.start()
        wait_until(lambda: all(len(w.acknowledged) > 5 for w in writers), 30, "the first writes")
        return writers

    def check(self, writers):
        for writer in writers:
            writer.stop()
        self.assertEqual([f for w in writers for f in w.failures], [])
        acknowledged = dict(a for w in writers for a in w.acknowledged)
        for name in self.cluster.names():
            found = all_services(self.cluster.patient(name))
            lost = [n for n, i in acknowledged.items() if found.get(n) != [i]]
            self.assertEqual(lost, [], f"acknowledged, and not so on {name}: {[(n, found.get(n)) for n in lost[:3]]}")
        return len(acknowledged), max(w.slowest for w in writers)

    def test_nothing_acknowledged_is_lost_when_leaders_are_killed(self):
        writers = self.writers()
        for _ in range(3):
            leader = self.cluster.leader("core")
            self.cluster.kill(leader)
            before = sum(len(w.acknowledged) for w in writers)
            wait_until(lambda before=before: sum(len(w.acknowledged) for w in writers) > before + 20, 60, "writes without it")
            self.cluster.start()
        count, slowest = self.check(writers)
        self.cluster.wait_equal(self.cluster.names())
        print(f"{count} acknowledged writes over 3 kills of the leader, slowest {slowest:.2f} s")

    def test_rolling_restart_without_a_failed_request(self):
        writers = self.writers()
        for name in self.cluster.names():
            before = sum(len(w.acknowledged) for w in writers)
            self.cluster.kill(name, signal.SIGTERM)
            self.cluster.start()
            wait_until(lambda before=before: sum(len(w.acknowledged) for w in writers) > before + 20, 60, "further writes")
            registered = self.cluster.cli("service", "register", f"cli-{name}", "10.0.0.1", "80")
            self.assertEqual(registered.returncode, 0, registered.stderr)
        count, slowest = self.check(writers)
        self.cluster.wait_equal(self.cluster.names())
        print(f"{count} writes over a rolling restart, slowest {slowest:.2f} s")

    def test_a_minority_serves_no_writes_and_comes_back(self):
        first, second, third = self.cluster.names()
        self.cluster.kill(second)
        self.cluster.kill(third)
        rest = self.cluster.rest(first, timeout=30)
        refused = rest.post("services", {"serviceName": "alone", "address": "10.0.0.1", "port": 1},
                            headers={"Idempotency-Key": "alone"})
        self.assertIn(refused.status, (503, 504), refused)
        self.cluster.start()
        again = self.cluster.patient(first).post("services", {"serviceName": "alone", "address": "10.0.0.1", "port": 1},
                                              headers={"Idempotency-Key": "alone"})
        self.assertEqual(again.status, 201, again)


@shared()
class Members(unittest.TestCase):
    def prepare(self, name, directory=None, host=None):
        subprocess.run([SERVER, "cluster", "prepare", "--data-dir", directory or self.cluster.dir, "--node", name,
                        "--ports", "auto"], check=True, capture_output=True, timeout=30, env=clean_environment())

    def test_a_node_joins_as_a_learner_is_promoted_and_removed(self):
        for i in range(50):
            self.cluster.cli_ok("service", "register", f"before-{i}", "10.0.0.1", str(i + 1)) if i < 5 else None
        self.prepare("n4")
        self.cluster.cli_ok("cluster", "join", "n4", "--learner")
        self.cluster.start()
        self.assertEqual(self.cluster.names(), ["n1", "n2", "n3", "n4"])
        status = self.cluster.wait_equal(self.cluster.names())
        self.assertEqual({group[ "n4"]["role"] for group in status.values()}, {"learner"})
        # A learner serves like any other node.
        written = self.cluster.patient("n4").post("services", {"serviceName": "by-n4", "address": "10.1.0.4", "port": 4})
        self.assertEqual(written.status, 201, written)

        self.cluster.cli_ok("cluster", "promote", "n4")
        wait_until(lambda: (status := self.cluster.status()) and not any(group["n4"].get("learners") for group in status.values()),
                   30, "n4 to know that nobody is a learner any more")
        self.cluster.lead("core", "n4")

        # Also while it leads.
        self.cluster.cli_ok("cluster", "remove", "n4")
        status = wait_until(lambda: (lambda s: s if "n4" not in s.get("core", {"n4": {}}) else None)(self.cluster.status(server="n1")), 30,
                            "n4 is gone")
        self.assertEqual(set(status["core"]), {"n1", "n2", "n3"})
        pid = self.cluster.pid("n4")
        wait_until(lambda: not is_running(pid), 30, "the end of the removed node")
        self.assertIn("NODE_REMOVED", (self.cluster.dir / "n4" / "uccp.log").read_text())
        code, error = self.cluster.run_node(self.cluster.dir / "n4")
        self.assertNotEqual(code, 0)
        self.assertIn("was removed", error)

        # The id may come back with an empty directory.
        shutil.rmtree(self.cluster.dir / "n4")
        self.prepare("n4")
        self.cluster.start()
        status = self.cluster.wait_equal(["n1", "n2", "n3", "n4"])
        self.assertEqual({group["n4"].get("goal") for group in status.values()}, {"voter"})
        self.cluster.cli_ok("cluster", "remove", "n4")
        wait_until(lambda: not is_running(self.cluster.pid("n4")), 30, "the end of the removed node")
        shutil.rmtree(self.cluster.dir / "n4")
        self.cluster.start()

    def test_a_second_node_with_the_same_id_is_refused(self):
        other = self.cluster.base / "other"
        shutil.copytree(self.cluster.dir / "n2" / "pki", other / "pki")
        shutil.copy(self.cluster.dir / "n2" / "uccp.yaml", other / "uccp.yaml")
        code, error = self.cluster.run_node(other, raft_dir=other, grpc_port=0, https_port=0, raft_port=0, metrics_port=0)
        self.assertEqual(code, 5, error)
        self.assertIn("n2 is a member with another data directory", error)

    def test_a_data_directory_of_another_node_is_refused(self):
        for key, value in (("node_id", "n7"), ("cluster_id", "elsewhere")):
            code, error = self.cluster.run_node(self.cluster.dir / "n1", **{key: value})
            self.assertEqual(code, 5, error)
            self.assertIn("n1 of cluster", error)

    def test_a_certificate_of_another_cluster_is_refused(self):
        elsewhere = self.cluster.base / "elsewhere"
        subprocess.run([SERVER, "cluster", "init", "--data-dir", elsewhere, "--nodes", "1", "--ports", "auto", "--cluster-id",
                        self.cluster.context["clusterId"]], check=True, capture_output=True, env=clean_environment())
        self.prepare("n5", elsewhere)
        code, error = self.cluster.run_node(elsewhere / "n5", join_address=self.cluster.node("n1")["grpc"])
        self.assertNotEqual(code, 0)
        self.assertIn("refuses this node", error)
        # The same authority, and another name of the cluster.
        foreign = self.cluster.base / "foreign"
        (foreign / "pki").mkdir(parents=True)
        for path in (self.cluster.dir / "pki").iterdir():
            if path.name in ("ca.crt", "ca.key", "token.key"):
                shutil.copy(path, foreign / "pki" / path.name)
        (foreign / "cluster-id").write_text("foreign\n")
        subprocess.run([SERVER, "cluster", "init", "--data-dir", foreign, "--nodes", "1", "--ports", "auto"], check=True,
                       capture_output=True, env=clean_environment())
        self.prepare("n6", foreign)
        code, error = self.cluster.run_node(foreign / "n6", join_address=self.cluster.node("n1")["grpc"])
        self.assertNotEqual(code, 0)
        self.assertIn("of cluster foreign", error)

    def test_users_cannot_call_what_nodes_call(self):
        refused = self.cluster.cli("api", "uccp.internal.v1.NodeLink/GetReplicas")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(b"NODES_ONLY", refused.stderr)


@shared(agents=1)
class Tasks(unittest.TestCase):
    def submit(self, name, command, request_id):
        response = self.cluster.patient(name).post("tasks", {"command": ["sh", "-c", command],
                                                          "resources": {"cpu": 0.1, "memory": "32Mi"}},
                                                headers={"Idempotency-Key": request_id})
        self.assertEqual(response.status, 201, response)
        return response.json["id"]

    def wait_task(self, task_id, *statuses, timeout=90):
        last = None

        def reached():
            nonlocal last
            name = self.cluster.names()[int(time.monotonic() * 10) % len(self.cluster.names())]
            try:
                response = self.cluster.rest(name).get(f"tasks/{task_id}")
            except (OSError, http.client.HTTPException) as error:
                last = error
                return None
            last = response
            return response.json if response.status == 200 and response.json["status"] in statuses else None

        try:
            return wait_until(reached, timeout, f"{task_id} in {statuses}")
        except AssertionError as error:
            logs = (self.cluster.dir / "agents" / "a1.log").read_text()[-3000:]
            raise AssertionError(f"{error}; last: {last!r}\n{logs}{self.cluster.logs()}") from None

    def test_tasks_and_their_logs_through_every_node(self):
        for name in self.cluster.names():
            output = self.cluster.cli_ok("task", "submit", "--follow", "--", "sh", "-c", f"echo from {name}", server=name)
            self.assertIn(f"from {name}", output)

    def test_tasks_run_on_when_the_leader_is_killed(self):
        gate = self.cluster.base / "gate"
        wait = f"while [ ! -e {gate} ]; do sleep 0.05; done"
        tasks = [self.submit("n1", f"{wait}; echo done {i}", f"kill-{i}") for i in range(4)]
        for task in tasks:
            self.wait_task(task, "RUNNING")
        leader = self.cluster.leader("work")
        self.cluster.kill(leader)
        gate.touch()
        for i, task in enumerate(tasks):
            ended = self.wait_task(task, "SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT")
            self.assertEqual((ended["status"], ended.get("attempts", 1)), ("SUCCEEDED", 1), ended)
            self.assertIn(f"done {i}", self.cluster.cli_ok("task", "logs", task))
        after = self.submit(next(n for n in self.cluster.names() if n != leader), "echo after", "after")
        self.wait_task(after, "SUCCEEDED")
        self.cluster.start()
        self.cluster.wait_equal(self.cluster.names())


if __name__ == "__main__":
    unittest.main()
