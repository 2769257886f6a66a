"""Workers of several kinds: pool, zone, type and taints of an agent, and which tasks are placed there."""
import base64
import os
import signal
import subprocess

from lib.uccp import AGENT, NodeTest, clean_environment
from lib.wait import wait_until


class Kinds(NodeTest):
    """One plain worker by `uccp dev`, and one of the pool `batch` that is kept for the team ml."""

    flags = ("--heartbeat-interval", "200ms", "--worker-lease", "60s")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        command = [str(AGENT), "--data-dir", str(cls.node.base / "second"), "--context-file", str(cls.node.dir / "agent.json"),
                   "--name", "second", "--pool", "batch", "--region", "eu", "--zone", "eu-1", "--type", "spot",
                   "--taint", "team=ml:NO_SCHEDULE", "--label", "disk=fast"]
        cls.agent2 = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(),
                                      start_new_session=True)
        cls.addClassCleanup(cls.agent2.wait, 60)
        cls.addClassCleanup(cls.agent2.terminate)
        cls.second = wait_until(lambda: next((w["id"] for w in cls.node.rest.get("workers").json["workers"]
                                              if w["name"] == "second" and w["status"] == "READY"), None), 60, "the second worker")

    def get(self, worker):
        return self.rest.get(f"workers/{worker}").json

    def first(self):
        return next(w["id"] for w in self.rest.get("workers").json["workers"] if w["id"] != self.second)

    def test_what_the_agent_says_of_itself_is_shown_and_filtered_by(self):
        worker = self.get(self.second)
        self.assertEqual((worker["pool"], worker["region"], worker["zone"], worker["type"]), ("batch", "eu", "eu-1", "SPOT"))
        self.assertEqual(worker["taints"], [{"key": "team", "value": "ml", "effect": "NO_SCHEDULE"}])
        self.assertEqual(self.get(self.first())["type"], "DEDICATED")
        for condition in ('type = "SPOT"', 'pool = "batch"', 'zone = "eu-1"', 'labels.disk = "fast"'):
            with self.subTest(condition):
                found = self.rest.get("workers", filter=condition).json["workers"]
                self.assertEqual([w["id"] for w in found], [self.second])
        version = self.rest.get("version").json["version"]
        self.assertEqual(len(self.rest.get("workers", filter=f'version = "{version}"').json["workers"]), 2)
        self.assertEqual(self.rest.get("workers", filter='version = "0.0.1"').json["workers"], [])
        self.assertEqual(len(self.rest.get("workers", filter='capabilities:"executor.process"').json["workers"]), 2)
        # Measured with each heartbeat.
        load = wait_until(lambda: self.get(self.second).get("load"), 20, "the load of the machine")
        self.assertGreater(load["memoryUsed"], 0)
        self.assertGreater(load["loadAverage"], 0)

    def test_inputs_draw_tasks_to_where_they_were_fetched(self):
        common = {"tolerations": [{"key": "team"}], "preemptible": True,
                  "inputs": [{"path": "in", "data": base64.b64encode(os.urandom(200_000)).decode()}]}
        fetched = self.node.run("test -s in", nodeSelector={"uccp/pool": "default"}, **common)
        self.assertEqual(fetched["workerId"], self.first())
        # What may be stopped goes to the spot worker, unless it wishes otherwise.
        self.assertEqual(self.node.run("test -s in", **common)["workerId"], self.second)
        other = {**common, "inputs": [{"path": "in", "data": base64.b64encode(os.urandom(200_000)).decode()}]}
        self.assertEqual(self.node.run("true", affinity={"preferData": True}, **other)["workerId"], self.second)
        again = {**common, "inputs": [{"path": "in", "data": base64.b64encode(os.urandom(200_000)).decode()}]}
        self.node.run("test -s in", nodeSelector={"uccp/pool": "default"}, **again)
        drawn = self.node.run("test -s in", affinity={"preferData": True}, **again)
        self.assertEqual((drawn["status"], drawn["workerId"]), ("SUCCEEDED", self.first()))

    def test_pools_types_and_zones_are_selected_like_labels(self):
        for selector in ({"uccp/pool": "batch"}, {"uccp/type": "spot"}, {"uccp/zone": "eu-1", "uccp/region": "eu"}):
            with self.subTest(selector):
                task = self.node.run("true", nodeSelector=selector, tolerations=[{"key": "team"}])
                self.assertEqual((task["status"], task["workerId"]), ("SUCCEEDED", self.second))
        task = self.node.run("true", nodeSelector={"uccp/pool": "default"}, tolerations=[{"key": "team"}])
        self.assertEqual(task["workerId"], self.first())

    def test_a_taint_keeps_tasks_away_that_do_not_tolerate_it(self):
        for _ in range(5):
            self.assertEqual(self.node.run("true")["workerId"], self.first())
        for toleration in ({"key": "team", "value": "web"}, {"key": "other"}, {"key": "team", "effect": "NO_EXECUTE"}):
            with self.subTest(toleration):
                task = self.node.submit("true", nodeSelector={"uccp/pool": "batch"}, tolerations=[toleration])["id"]
                why = wait_until(lambda: next((w for w in [self.rest.get(f"tasks/{task}:explain").json] if "reasons" in w), None),
                                 20, "the reasons")
                self.assertEqual({r["cause"] for r in why["reasons"]}, {"LABELS", "TAINTS"})
                self.rest.delete(f"tasks/{task}")
        for toleration in ({"key": "team", "value": "ml", "effect": "NO_SCHEDULE"}, {}):
            with self.subTest(toleration):
                task = self.node.run("true", nodeSelector={"uccp/pool": "batch"}, tolerations=[toleration])
                self.assertEqual(task["workerId"], self.second)
        self.assert_problem(self.rest.post("tasks", {"command": ["true"], "tolerations": [{"duration": "5s"}]}), 400,
                            "TOLERATION_DURATION_UNIMPLEMENTED")

    def test_a_no_execute_taint_moves_what_runs(self):
        first = self.first()
        gate = self.node.gate("evict")
        # It could run on both; so that it begins on the first, the other is closed for a moment.
        self.rest.post(f"workers/{self.second}:cordon", {})
        moves = self.node.submit(gate.wait, tolerations=[{"key": "team"}])["id"]
        self.assertEqual(self.node.wait_task(moves, "RUNNING")["workerId"], first)
        self.rest.post(f"workers/{self.second}:uncordon", {})
        stays = self.node.submit(gate.wait, tolerations=[{"key": "team"}, {"key": "broken"}], nodeSelector={"uccp/pool": "default"})["id"]
        self.node.wait_task(stays, "RUNNING")
        self.rest.call("PATCH", f"workers/{first}", {"taints": [{"key": "broken", "effect": "NO_EXECUTE"}]})
        moved = wait_until(lambda: next((t for t in [self.node.task(moves)] if t.get("workerId") == self.second and
                                         t["status"] == "RUNNING"), None), 30, "it to run on the other worker")
        self.assertEqual((moved["attempts"], moved["attemptHistory"][0]["outcome"]), (2, "PREEMPTED"))
        self.assertIn("broken", moved["attemptHistory"][0]["reason"])
        self.assertEqual(self.node.task(stays)["attempts"], 1)
        cleared = self.rest.call("PATCH", f"workers/{first}?updateMask=taints", {})
        self.assertEqual(cleared.json.get("taints", []), [])
        gate.open()
        for task in (moves, stays):
            self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")

    def test_an_agent_that_hangs_loses_its_health_and_gets_nothing_until_it_is_back(self):
        os.kill(self.agent2.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.agent2.pid, signal.SIGCONT)
        sick = wait_until(lambda: next((w for w in [self.get(self.second)] if w["health"] == "DEGRADED"), None), 30, "a worse health")
        self.assertLess(sick["healthScore"], 1)
        self.assertGreater(sick["healthScore"], 0)
        self.assertIn("heartbeats are missing", sick["statusReason"])
        wait_until(lambda: self.get(self.second)["healthScore"] < sick["healthScore"], 30, "a score that falls on")
        task = self.node.submit("true", nodeSelector={"uccp/pool": "batch"}, tolerations=[{}])["id"]
        why = wait_until(lambda: next((w for w in [self.rest.get(f"tasks/{task}:explain").json] if "reasons" in w), None),
                         20, "the reasons")
        self.assertEqual({r["cause"] for r in why["reasons"]}, {"LABELS", "NOT_CONNECTED"})
        os.kill(self.agent2.pid, signal.SIGCONT)
        well = wait_until(lambda: next((w for w in [self.get(self.second)] if w["health"] == "HEALTHY"), None), 40, "its health")
        self.assertEqual((well["healthScore"], well["status"]), (1, "READY"))
        self.assertEqual(self.node.wait_task(task)["workerId"], self.second)

    def test_wrong_flags_are_refused(self):
        for flags, words in ((["--type", "huge"], b"--type huge"), (["--taint", "a=b:NEVER"], b"--taint a=b:NEVER"),
                             (["--taint", "=b"], b"--taint =b")):
            with self.subTest(flags):
                done = subprocess.run([str(AGENT), "--data-dir", str(self.node.base / "third"), *flags], capture_output=True,
                                      timeout=60, env=clean_environment())
                self.assertEqual(done.returncode, 2)
                self.assertIn(words, done.stderr)
