"""Quotas beyond what runs: tasks that have not ended, storage, budgets of the month, bursts, alerts on the bus."""
import json

from lib.uccp import NodeTest
from lib.wait import wait_until


class Budgets(NodeTest):
    feature_level = 2
    flags = ("--heartbeat-interval", "200ms")

    def tearDown(self):
        for name_space in ("default", "one", "two", "three"):
            self.end_all(name_space)
        for quota in self.rest.get("quotas", namespace="-").json["quotas"]:
            self.rest.delete(f"quotas/{quota['namespace']}", dict(scope=quota["scope"], subject=quota.get("subject", "")))

    def end_all(self, name_space):
        def left():
            tasks = self.rest.get("tasks", pageSize=1000, namespace=name_space).json["tasks"]
            return [t["id"] for t in tasks if t["status"] not in ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT")]

        for task in left():
            self.rest.delete(f"tasks/{task}", dict(gracePeriod="0s", namespace=name_space))
        # What has not ended counts against the quotas of the next test.
        wait_until(lambda: not left(), 20, "all tasks to end")

    def set(self, **quota):
        answer = self.rest.post("quotas", quota)
        self.assertEqual(answer.status, 201, answer)

    def submit(self, name_space, command=("sleep", "600"), **task):
        task.setdefault("resources", {"cpu": 0.1, "memory": "16Mi"})
        return self.rest.post("tasks", {"command": list(command), **task}, {"namespace": name_space})

    def used(self, name_space, limit):
        return self.rest.get(f"quotas/{name_space}").json["used"].get(limit, 0)

    def status(self, answer, name_space):
        return self.rest.get(f"tasks/{answer.json['id']}", namespace=name_space).json["status"]

    def test_tasks_that_have_not_ended_are_limited(self):
        self.set(namespace="one", hard={"tasksActive": 2})
        first = self.submit("one")
        self.assertEqual([first.status, self.submit("one", nodeSelector={"no": "worker"}).status], [201, 201])
        third = self.submit("one")
        self.assert_problem(third, 429, "QUOTA_TASKS_EXHAUSTED")
        self.assertIn("namespace:one has 2 of 2 tasks", third.json["detail"])
        self.assertEqual(self.submit("default").status, 201)
        wait_until(lambda: self.used("one", "tasksActive") == 2, 20, "the use to be shown")
        self.rest.delete(f"tasks/{first.json['id']}", dict(gracePeriod="0s", namespace="one"))
        wait_until(lambda: self.submit("one").status == 201, 20, "room for another")

    def test_what_is_stored_is_limited(self):
        self.set(namespace="two", hard={"storage": "2000"})
        task = self.submit("two", ("sh", "-c", "head -c 3000 /dev/zero > big"), outputs=["big"])
        wait_until(lambda: self.status(task, "two") == "SUCCEEDED", 20, "the task to end")
        self.assert_problem(self.submit("two"), 429, "QUOTA_STORAGE_EXHAUSTED")
        wait_until(lambda: int(self.used("two", "storage")) >= 3000, 20, "the use to be shown")

    def test_a_budget_of_cost_ends_starts_and_survives_the_server(self):
        worker = self.rest.get("workers").json["workers"][0]["id"]
        # A whole worker for a second is a thousand.
        self.assertEqual(self.node.cli("worker", "update", worker, "--price-per-hour", "3600000").returncode, 0)
        self.set(namespace="three", hard={"cost": 20})
        self.submit("three")
        wait_until(lambda: self.used("three", "cost") >= 20, 30, "the budget to be used up")
        late = self.submit("three")
        def why():
            return self.rest.get(f"tasks/{late.json['id']}:explain", namespace="three").json["summary"]
        wait_until(lambda: "of the cost of this month" in why(), 20, "the reason")
        explained = self.rest.get("quotas/three:explain", cpu=1).json
        self.assertFalse(explained.get("admitted", False))
        # Charged within ten seconds, and kept.
        before = self.charged("three")
        self.node.kill()
        self.node.start()
        wait_until(lambda: self.used("three", "cost") >= before, 30, "the use after the restart")
        again = self.submit("three")
        wait_until(lambda: "of the cost of this month" in self.rest.get(
            f"tasks/{again.json['id']}:explain", namespace="three").json["summary"], 20, "the reason after the restart")
        # A larger budget holds at once.
        self.set(namespace="three", hard={"cost": 1e12})
        wait_until(lambda: self.status(again, "three") == "RUNNING", 20, "it to run")
        self.node.cli("worker", "update", worker, "--price-per-hour", "0")

    def charged(self, name_space):
        """What is used, once it is charged: what was used before that survives the leader."""
        used, charges = self.used(name_space, "cost"), self.metric("uccp_quota_charges_total")
        wait_until(lambda: self.metric("uccp_quota_charges_total") > charges, 30, "a charge")
        return used

    def metric(self, name):
        return sum(float(line.rsplit(" ", 1)[1]) for line in self.metrics_text().splitlines() if line.startswith(name))

    def test_a_quota_is_exceeded_for_a_while(self):
        self.set(namespace="one", hard={"cpu": 0.2}, burstFactor=2, burstDuration="60s")
        tasks = [self.submit("one") for _ in range(5)]
        wait_until(lambda: sum(self.status(t, "one") == "RUNNING" for t in tasks) == 4, 20, "four of them to run")
        self.assertIn("quota", self.rest.get(f"tasks/{tasks[4].json['id']}:explain", namespace="one").json["summary"])
        self.assert_problem(self.rest.post("quotas", {"namespace": "one", "hard": {"cpu": 1}, "burstDuration": "60s"}), 400,
                            "FIELD_INVALID")

    def test_thresholds_are_told_on_the_bus(self):
        self.assertEqual(self.rest.post("events/topics", {"name": "uccp.quota"}, {"namespace": "one"}).status, 201)
        self.set(namespace="one", hard={"cpu": 0.2}, alertThresholds=[0.5])
        with self.rest.stream("events/subscribe", body={"namespace": "one", "topics": ["uccp.quota"], "start": "EARLIEST"}) as stream:
            self.submit("one")
            alert = stream.until(lambda item: "quota.threshold" in json.dumps(item))
        self.assertIn("namespace:one", json.dumps(alert))
