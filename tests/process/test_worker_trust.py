"""A worker that breaks what it is given: quarantine, probation, recovery."""
import base64
import os
import subprocess

from lib.uccp import AGENT, NodeTest, clean_environment
from lib.wait import wait_until


class Trust(NodeTest):
    """One worker by `uccp dev`, and one whose folder for tasks can be broken."""

    feature_level = 2
    flags = ("--worker-quarantine", "3s", "--heartbeat-interval", "200ms")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.folder = cls.node.base / "second"
        command = [str(AGENT), "--data-dir", str(cls.folder), "--context-file", str(cls.node.dir / "agent.json"), "--name", "second"]
        agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(),
                                 start_new_session=True)
        cls.addClassCleanup(agent.wait, 60)
        cls.addClassCleanup(agent.terminate)
        cls.second = wait_until(lambda: next((w["id"] for w in cls.node.rest.get("workers").json["workers"]
                                              if w["name"] == "second" and w["status"] == "READY"), None), 60, "the second worker")

    def worker(self):
        return self.rest.get(f"workers/{self.second}").json

    def submit(self, **fields):
        """A task with an input of its own, that the worker has to store."""
        content = base64.b64encode(os.urandom(16)).decode()
        return self.node.submit("true", nodeSelector={"uccp/worker": self.second}, inputs=[{"path": "in", "data": content}],
                                retry={"initialBackoff": "0.05s"}, **fields)

    def break_it(self):
        """Inputs of tasks cannot be stored."""
        (self.folder / "cache").rename(self.folder / "cache.away")
        (self.folder / "cache").write_text("no folder")

    def mend_it(self):
        (self.folder / "cache").unlink()
        (self.folder / "cache.away").rename(self.folder / "cache")

    def test_faults_lead_to_quarantine_and_work_to_trust(self):
        self.assertEqual(self.node.wait_task(self.submit()["id"])["status"], "SUCCEEDED")
        wait_until(lambda: self.worker()["healthScore"] == 1, 20, "trust")
        self.break_it()
        tasks = [self.submit()["id"] for _ in range(3)]
        worker = wait_until(lambda: w if (w := self.worker())["status"] == "QUARANTINED" else None, 20, "the quarantine")
        self.assertIn("quarantineUntil", worker)
        self.assertLess(worker["healthScore"], 0.5)
        self.assertEqual(worker["health"], "DEGRADED")
        self.assertIn("fault", worker["statusReason"])
        self.assertEqual([w["id"] for w in self.rest.get("workers", status="QUARANTINED").json["workers"]], [self.second])
        # What went wrong is no fault of the tasks: they run once the worker is mended, first one at a time.
        self.mend_it()
        for task in tasks:
            self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")
        wait_until(lambda: self.worker()["healthScore"] == 1, 20, "trust")
        self.assertEqual(self.worker().get("recentFaults", 0), 0)

    def test_an_operator_ends_a_quarantine(self):
        self.break_it()
        tasks = [self.submit()["id"] for _ in range(3)]
        # Grown by now, or cut short: whatever its length, uncordon ends it.
        wait_until(lambda: self.worker()["status"] == "QUARANTINED", 20, "the quarantine")
        self.mend_it()
        self.assertEqual(self.node.cli("worker", "uncordon", self.second).returncode, 0)
        for task in tasks:
            self.assertEqual(self.node.wait_task(task)["status"], "SUCCEEDED")
        self.assertEqual(self.worker()["status"], "READY")
