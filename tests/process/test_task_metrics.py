"""What a task used: while it runs and when it has ended."""
from lib.uccp import NodeTest
from lib.wait import wait_until


class Metrics(NodeTest):
    def test_use_is_measured_while_it_runs_and_summed_over_attempts(self):
        task = self.rest.post("tasks", {"command": ["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exit 1"],
                                        "retry": {"maxAttempts": 2, "initialBackoff": "0.01s"}}).json
        ended = self.rest.get(f"tasks/{task['id']}", wait="60s").json
        self.assertEqual((ended["status"], ended["attempts"]), ("FAILED", 2))
        metrics = self.rest.get(f"tasks/{task['id']}/metrics").json
        self.assertEqual((metrics["id"], metrics["attempts"]), (task["id"], 2))
        attempts = [a["usage"]["cpuSeconds"] for a in ended["attemptHistory"]]
        self.assertGreater(min(attempts), 0)
        self.assertAlmostEqual(metrics["total"]["cpuSeconds"], sum(attempts), places=6)
        self.assertGreater(metrics["total"]["memoryPeakBytes"], 100_000)
        self.assertRegex(metrics["running"], r"^\d")

    def test_a_running_task_shows_what_it_uses_now(self):
        task = self.rest.post("tasks", {"command": ["sh", "-c", "while :; do :; done"]}).json
        busy = wait_until(lambda: (self.rest.get(f"tasks/{task['id']}/metrics").json.get("current") or {}).get("cpuSeconds"),
                          30, "the use of the running task")
        self.assertGreater(busy, 0)
        self.rest.delete(f"tasks/{task['id']}?gracePeriod=0s")
