"""What a tenant is told about others by logs, metrics, audit, workers and health: nothing."""
import http.client
import unittest

from lib.tenants import SECRET, TwoTenants
from lib.wait import wait_until


class Told(TwoTenants):
    """The victim's task says its secret; the rival listens wherever somebody may listen."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gate = cls.node.gate("told")
        cls.addClassCleanup(cls.gate.open)
        body = {"name": "victim-task", "command": ["sh", "-c", f"echo {SECRET}; {cls.gate.wait}"],
                "resources": {"cpu": 0.1, "memory": "64Mi"}}
        cls.task = cls.must(cls.victim.post("tasks", body))["id"]
        cls.must(cls.victim.post("services", {"serviceName": "victim-web", "address": "10.9.9.9", "port": 9, "ttl": "3600s"}))

        def says_it():
            with cls.victim.stream(f"tasks/{cls.task}/logs") as stream:
                return any(SECRET in item.get("text", "") for item in stream)

        wait_until(says_it, 60, "the log of the victim's task")

    def test_logs_are_for_who_may_see_the_task(self):
        # The victim's words come back to nobody else, by name or by id, at once or as they come.
        for path in (f"tasks/{self.task}/logs", f"tasks/{self.task}/logs?follow=true", f"tasks/{self.task}/logs?namespace=victim",
                     f"tasks/{self.task}/result", f"tasks/{self.task}"):
            answer = self.rival.get(path)
            self.assertEqual((answer.status, answer.reason), (404, "TASK_NOT_FOUND"), answer)
        mine = self.must(self.rival.post("tasks", {"command": ["true"], "resources": {"cpu": 0.1, "memory": "64Mi"}}))["id"]
        self.assertNotEqual(mine, self.task)
        self.assertEqual([task["id"] for task in self.must(self.rival.get("tasks"))["tasks"]], [mine])

    def test_workers_serve_all_and_name_nobody(self):
        workers = self.must(self.rival.get("workers"))["workers"]
        self.assertEqual(len(workers), 1)
        for path in ("workers", f"workers/{workers[0]['id']}"):
            body = self.rival.get(path).body.decode()
            self.assertNotIn(self.task, body)
            self.assertNotIn("victim", body)

    def test_metrics_and_the_inside_are_for_operators(self):
        for who in (self.rival, self.victim):
            for path in ("admin/metrics", "config"):
                answer = who.get(path)
                self.assertEqual(answer.status, 403, (path, answer))
                # A refusal names who asked, and nothing that somebody keeps.
                for name in ("victim-web", "victim-task", self.task):
                    self.assertNotIn(name.encode(), answer.body)
        # Nor have the doors that are open to all what the port of metrics has.
        for path in ("/metrics", "/debug", "/api/v1/metrics"):
            self.assertIn(self.rival.call("GET", path).status, (403, 404), path)
        self.assertNotIn(b"victim", self.rival.call("GET", "/health").body)

    def test_no_name_of_a_resource_is_a_label(self):
        # Who may reach that port sees of tenants what an operator needs: their name and namespaces, with numbers.
        connection = http.client.HTTPConnection(*self.node.context["metrics"].rsplit(":", 1), timeout=30)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        for name in (self.task, "victim-task", "victim-web", "victim-admin", SECRET):
            self.assertNotIn(name, text)

    def test_the_trail_is_ones_own(self):
        self.assertIn("victim-web", str(self.must(self.victim.get("audit"))), "the victim sees it")
        for path in ("audit", "audit?tenant=victim", 'audit?filter=principal%3D"victim-admin"'):
            body = self.rival.get(path).body
            self.assertNotIn(self.task.encode(), body)
            self.assertNotIn(b"victim-web", body)
        with self.rival.stream("audit:export") as stream:
            for item in stream:
                self.assertEqual(item.get("record", {}).get("tenant", "rival"), "rival", item)


if __name__ == "__main__":
    unittest.main()
