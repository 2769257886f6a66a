# timeout: 300
"""Workers of a scaling group start for tasks that wait, go when they are idle, and are found again after a kill."""
import contextlib
import json
import os
import pathlib
import re
import subprocess
import tempfile
import unittest
import urllib.request

from lib.uccp import AGENT, SERVER, Node, clean_environment, end_process, is_running, processes_with, require
from lib.wait import wait_until

GROUP = {"name": "small", "min": 0, "max": 3,
         "worker": {"labels": {"tier": "spare"}, "resources": {"total": {"cpu": 1, "memory": "256Mi"}}}}
FLAGS = ("--min-workers", "0", "--scaling-metric", "none", "--scale-up-delay", "100ms", "--scale-down-idle", "1s",
         "--scaling-cool-down", "1s")


def setUpModule():
    require(SERVER, AGENT)


class Autoscaling(unittest.TestCase):
    def start(self, *some):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="uccp-scaling-"))
        self.addCleanup(lambda: subprocess.run(["rm", "-rf", str(folder)], check=True))
        groups = folder / "groups.json"
        groups.write_text(json.dumps({"groups": some or [GROUP]}))
        self.node = Node(agent=False, flags=("--scaling-groups", groups, *FLAGS))
        self.addCleanup(self.close)
        self.node.start()
        return self.node

    def close(self):
        self.node.close()
        for pid in self.agents():
            end_process(pid)

    def agents(self):
        found = []
        for pid in processes_with(f"{self.node.dir}/scaled/"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if pathlib.Path(f"/proc/{pid}/comm").read_text().startswith("uccp-agent"):
                    found.append(pid)
        return found

    def workers(self):
        return self.node.rest.get("workers").json["workers"]

    def instances(self):
        return sorted(os.listdir(self.node.dir / "scaled"))

    def submit(self, script):
        return self.node.submit(script, resources={"cpu": 1, "memory": "32Mi"})["id"]

    def gone(self):
        return not self.workers() and not self.instances() and not self.agents()

    def test_workers_start_for_what_waits_and_go_when_they_are_idle(self):
        node = self.start()
        self.assertEqual(self.workers(), [])
        gate = node.gate("many")
        tasks = [self.submit(gate.wait) for _ in range(5)]
        wait_until(lambda: sum(node.task(t)["status"] == "RUNNING" for t in tasks) == 3, 60, "three tasks that run")
        workers = self.workers()
        self.assertEqual([(w["labels"]["uccp/scaling-group"], w["labels"]["tier"]) for w in workers],
                         [("small", "spare")] * 3)
        waiting = next(t for t in tasks if node.task(t)["status"] == "QUEUED")
        wait_until(lambda: "group small, which could hold it, has its most workers, 3"
                   in node.rest.get(f"tasks/{waiting}:explain").json["summary"], 20, "the reason why no more are started")
        gate.open()
        self.assertEqual({node.wait_task(t)["status"] for t in tasks}, {"SUCCEEDED"})
        wait_until(self.gone, 60, "all workers to be gone")

    def test_agents_outlive_the_server_and_come_back_after_a_kill(self):
        node = self.start()
        gate = node.gate("kill")
        task = self.submit(gate.wait)
        node.wait_task(task, "RUNNING")
        first = self.instances()
        agent = self.agents()
        node.kill()
        node.start()
        wait_until(lambda: node.task(task)["status"] == "RUNNING", 60, "the task on the worker that was found again")
        self.assertEqual((self.agents(), self.instances()), (agent, first))
        for pid in agent:
            end_process(pid)
        again = wait_until(lambda: [pid for pid in self.agents() if pid not in agent], 60, "the agent to be started again")
        self.assertEqual(self.instances(), first)
        wait_until(lambda: node.task(task)["status"] == "RUNNING" and node.task(task).get("attempts", 0) >= 1, 60,
                   "the task to run again")
        gate.open()
        self.assertEqual(node.wait_task(task)["status"], "SUCCEEDED")
        wait_until(self.gone, 60, "the worker to be gone")
        self.assertFalse(any(is_running(pid) for pid in again))

    def decisions(self):
        """How often each was counted: {(kind, cause): times}."""
        with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        found = (re.fullmatch(r'uccp_autoscaler_decisions_total\{cause="(\w+)",kind="(\w+)"\} (\d+)', line) for line in lines)
        return {(match[2], match[1]): int(match[3]) for match in found if match}

    def audited(self, kind):
        records = self.node.rest.get("audit", method=f"autoscaler.{kind}", pageSize=100).json.get("records", [])
        self.assertEqual({record["principal"] for record in records} - {"autoscaler"}, set())
        return sorted(record["resource"].split("/")[0] for record in records)

    def test_prices_choose_the_group_and_each_decision_is_told(self):
        small = {**GROUP, "worker": {"pricePerHour": 0.5, "resources": {"total": {"cpu": 1, "memory": "256Mi"}}}}
        large = {"name": "large", "max": 2,
                 "worker": {"pricePerHour": 1, "resources": {"total": {"cpu": 3, "memory": "512Mi"}}}}
        node = self.start(small, large)
        wait_until(lambda: node.rest.get("version").json.get("featureLevel", 0) >= 2, 30, "feature level 2")
        self.assertEqual(node.rest.post("events/topics", {"name": "uccp.scaling"}).status, 201)
        gate = node.gate("prices")
        # All three at once: a large worker for 1 an hour, and not three small ones for 1.5.
        gang = [node.submit(gate.wait, resources={"cpu": 1, "memory": "32Mi"}, gang={"id": "three", "size": 3})["id"]
                for _ in range(3)]
        for task in gang:
            node.wait_task(task, "RUNNING")
        groups = lambda: sorted(w["labels"]["uccp/scaling-group"] for w in self.workers())
        self.assertEqual(groups(), ["large"])
        # One more: a small one for 0.5, and not a large one.
        single = self.submit(gate.wait)
        node.wait_task(single, "RUNNING")
        self.assertEqual(groups(), ["large", "small"])
        gate.open()
        self.assertEqual({node.wait_task(task)["status"] for task in [*gang, single]}, {"SUCCEEDED"})
        wait_until(self.gone, 90, "all workers to be gone")
        wait_until(lambda: self.audited("remove") == ["large", "small"], 30, "the decisions to be in the audit trail")
        self.assertEqual((self.audited("start"), self.audited("drain")), (["large", "small"], ["large", "small"]))
        self.assertEqual(node.rest.get("audit:verify").status, 200)
        counted = self.decisions()
        self.assertEqual((counted["start", "gang"], counted["start", "demand"], counted["drain", "idle"]), (1, 1, 2))
        with node.rest.stream("events/subscribe", body={"topics": ["uccp.scaling"], "start": "EARLIEST", "noFollow": True}) as stream:
            events = [item["event"] for item in stream.until(lambda item: "end" in item) if "event" in item]
        starts = [event for event in events if event["type"] == "scaling.start"]
        self.assertEqual([event["subject"] for event in starts], ["large", "small"])
        self.assertIn("group large at 1 an hour is the cheapest", starts[0]["json"]["reason"])
        self.assertEqual(sorted(e["subject"] for e in events if e["type"] == "scaling.remove"), ["large", "small"])

    def test_what_no_group_can_hold_starts_nothing(self):
        node = self.start()
        task = node.submit("true", resources={"cpu": 64})["id"]
        wait_until(lambda: "no scaling group could hold it: it asks for 64 CPU"
                   in node.rest.get(f"tasks/{task}:explain").json["summary"], 20, "the reason")
        self.assertEqual((self.workers(), self.instances()), ([], []))

    def test_a_worker_that_does_not_come_is_given_up_and_its_group_pauses(self):
        node = self.start({**GROUP, "agentFlags": ["--no-such-flag"]})
        task = self.submit("true")
        wait_until(lambda: "pauses for" in node.rest.get(f"tasks/{task}:explain").json["summary"], 60,
                   "the pause of the group")
        wait_until(lambda: not self.instances(), 20, "the directory to be removed")

    def test_ctrl_c_ends_its_workers_too(self):
        node = self.start()
        self.assertEqual(node.wait_task(self.submit("true"))["status"], "SUCCEEDED")
        self.assertEqual(node.stop(), 0)
        self.assertEqual(self.agents(), [])

    def test_groups_that_are_wrong_are_refused_at_start(self):
        with tempfile.TemporaryDirectory() as folder:
            groups = pathlib.Path(folder, "groups.json")
            groups.write_text('{"groups": [{"name": "a", "max": 0}]}')
            done = subprocess.run([SERVER, "dev", "--no-agent", "--ports", "auto", "--data-dir", f"{folder}/data",
                                   "--scaling-groups", str(groups)], capture_output=True, text=True, timeout=60,
                                  env=clean_environment(), check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("groups[0]: max must be at least 1 and at least min", done.stderr)
