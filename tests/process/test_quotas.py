"""Quotas and resources: limits that hold when tasks are placed, borrowing, reports, costs, by REST, CLI and metrics."""
import json
import time

from lib.uccp import NodeTest
from lib.wait import wait_until

SLEEP = ["sleep", "600"]


class Quotas(NodeTest):
    flags = ("--heartbeat-interval", "200ms")
    feature_level = 2

    def tearDown(self):
        for name_space in ("default", "one", "two"):
            for task in self.rest.get("tasks", pageSize=1000, namespace=name_space).json["tasks"]:
                if task["status"] not in ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"):
                    self.rest.delete(f"tasks/{task['id']}", dict(gracePeriod="0s", namespace=name_space))
        for _ in range(3):  # children before their parents
            for quota in self.rest.get("quotas", namespace="-").json["quotas"]:
                self.rest.delete(f"quotas/{quota['namespace']}", dict(scope=quota["scope"], subject=quota.get("subject", "")))
        wait_until(lambda: all(w["runningTasks"] == 0 for w in self.rest.get("workers").json["workers"]), 20, "an idle worker")

    def set(self, **quota):
        answer = self.rest.post("quotas", quota)
        self.assertEqual(answer.status, 201, answer)
        return answer.json

    def submit(self, name_space="default", **task):
        task.setdefault("resources", {"cpu": 0.1, "memory": "16Mi"})
        answer = self.rest.post("tasks", {"command": SLEEP, **task}, {"namespace": name_space})
        self.assertEqual(answer.status, 201, answer)
        return answer.json["id"]

    def status(self, task, name_space="default"):
        return self.rest.get(f"tasks/{task}", namespace=name_space).json["status"]

    def runs(self, task, name_space="default"):
        wait_until(lambda: self.status(task, name_space) == "RUNNING", 20, "it runs")

    def waits_for_quota(self, task, name_space="default"):
        return wait_until(lambda: next((w for w in [self.rest.get(f"tasks/{task}:explain", namespace=name_space).json]
                                        if w["summary"].startswith("waits for quota")), None), 20, "it waits for quota")

    def test_a_namespace_gets_no_more_than_its_hard_limit(self):
        self.set(namespace="default", hard={"cpu": 0.2})
        first, second = self.submit(), self.submit()
        self.runs(first)
        self.runs(second)
        third = self.submit()
        why = self.waits_for_quota(third)
        self.assertIn("the quota namespace:default has 0.2 of 0.2 CPU in use, 0.1 more are asked for", why["summary"])
        self.assertEqual([r["cause"] for r in why["reasons"]], ["QUOTA"])
        other = self.submit("one")
        self.runs(other, "one")
        quota = wait_until(lambda: next((q for q in [self.rest.get("quotas/default").json] if q["used"]["cpu"] == 0.2), None),
                           20, "what is used")
        self.assertEqual((quota["used"]["tasksRunning"], quota["dominantShare"]), (2, 1))
        self.assertEqual(self.status(third), "QUEUED")
        self.rest.delete(f"tasks/{first}", dict(gracePeriod="0s"))
        self.runs(third)

    def test_a_higher_limit_holds_at_once(self):
        self.set(namespace="default", hard={"tasksRunning": 1})
        first, second = self.submit(), self.submit()
        self.waits_for_quota(second)
        self.set(namespace="default", hard={"tasksRunning": 2})
        self.runs(second)
        self.assertEqual(self.rest.delete("quotas/default").status, 204)
        self.assertEqual(self.rest.get("quotas/default").status, 404)
        self.runs(first)

    def test_users_teams_projects_and_all_have_limits(self):
        me = self.rest.post("tasks", {"command": ["true"]}).json["principal"]
        for scope, subject, parent in (("USER", me, ""), ("TEAM", "search", "team:search"), ("PROJECT", "web", "project:web"),
                                       ("GLOBAL", "", "")):
            with self.subTest(scope):
                key = {"USER": f"user:one/{me}", "GLOBAL": "global:"}.get(scope, parent)
                self.set(namespace="one" if scope == "USER" else "default", scope=scope, subject=subject, hard={"memory": "16Mi"})
                if parent:
                    self.set(namespace="one", parent=parent)
                running = self.submit("one")
                self.runs(running, "one")
                waiting = self.submit("one")
                self.assertIn(f"the quota {key} has", self.waits_for_quota(waiting, "one")["summary"])
                self.tearDown()

    def test_what_is_idle_is_borrowed_and_what_is_not_lent_stays(self):
        self.set(scope="GLOBAL", hard={"tasksRunning": 4})
        self.set(namespace="one", soft={"tasksRunning": 2}, hard={"tasksRunning": 4})
        self.set(namespace="two", soft={"tasksRunning": 2}, lend={"tasksRunning": 1})
        mine = [self.submit("one") for _ in range(4)]
        wait_until(lambda: sum(self.status(t, "one") == "RUNNING" for t in mine) == 3, 20, "two of its own and one borrowed")
        waiting = next(t for t in mine if self.status(t, "one") != "RUNNING")
        self.assertIn("to lend", self.waits_for_quota(waiting, "one")["summary"])
        theirs = self.submit("two")
        self.runs(theirs, "two")

    def test_a_template_gives_what_is_absent(self):
        self.set(scope="TEMPLATE", subject="small", hard={"tasksRunning": 1, "cpu": 8})
        self.set(namespace="default", template="small", hard={"cpu": 0.1})
        self.runs(self.submit())
        waiting = self.submit()
        self.waits_for_quota(waiting)
        self.set(scope="TEMPLATE", subject="small", hard={"tasksRunning": 9})
        self.set(namespace="default", template="small")
        self.runs(waiting)

    def test_quotas_are_listed_by_namespace(self):
        self.set(namespace="one", hard={"cpu": 1})
        self.set(namespace="two", hard={"cpu": 2})
        self.set(scope="GLOBAL", hard={"cpu": 8})
        keys = lambda **query: {(q["namespace"], q["scope"]) for q in self.rest.get("quotas", **query).json["quotas"]}
        self.assertEqual(keys(namespace="-"), {("one", "NAMESPACE"), ("two", "NAMESPACE"), ("default", "GLOBAL")})
        self.assertEqual(keys(namespace="two"), {("two", "NAMESPACE")})
        self.assertEqual(keys(namespace="-", filter='scope = "GLOBAL"'), {("default", "GLOBAL")})
        table = self.node.cli("quota", "list", "--namespace", "two").stdout.decode()
        self.assertIn("two", table)

    def test_wrong_quotas_are_refused_with_what_to_do(self):
        self.set(scope="TEAM", subject="a", hard={"cpu": 1})
        self.set(scope="TEAM", subject="b", parent="team:a")
        post = lambda **quota: self.rest.post("quotas", quota)
        self.assert_problem(post(scope="TEAM", subject="a", parent="team:b"), 412, "QUOTA_CYCLE")
        self.assert_problem(post(namespace="default", parent="team:none"), 404, "QUOTA_PARENT_NOT_FOUND")
        self.assert_problem(post(namespace="default", parent="team:a", hard={"cpu": 2}), 400, "QUOTA_EXCEEDS_PARENT")
        self.assert_problem(post(namespace="default", template="none"), 404, "QUOTA_TEMPLATE_NOT_FOUND")
        self.assert_problem(post(namespace="default", hard={"locks": 5}), 400, "QUOTA_LIMIT_UNIMPLEMENTED")
        self.assert_problem(post(namespace="default", soft={"gpuHours": 5}), 400, "FIELD_INVALID")
        self.assert_problem(post(scope="USER", hard={"cpu": 1}), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.delete("quotas/default", dict(scope="TEAM", subject="a")), 412, "QUOTA_IN_USE")
        answer = self.rest.post("quotas", {"namespace": "default", "hard": {"cpu": 1}}, {"validateOnly": "true"})
        self.assertEqual(answer.status, 201)
        self.assertEqual(self.rest.get("quotas/default").status, 404, "it was only checked")

    def test_explain_goes_the_way_of_a_task(self):
        self.assert_problem(self.rest.get("quotas/default:explain"), 404, "QUOTA_NOT_FOUND")
        self.set(scope="GLOBAL", hard={"cpu": 8})
        self.set(namespace="default", hard={"cpu": 1, "memory": "1Gi"})
        why = self.rest.get("quotas/default:explain", cpu=1).json
        self.assertTrue(why["admitted"])
        self.assertEqual([s["quota"] for s in why["steps"]], ["global:", "namespace:default"])
        why = self.rest.get("quotas/default:explain", cpu=2).json
        self.assertFalse(why.get("admitted", False))
        self.assertEqual([s.get("room", False) for s in why["steps"]], [True, False])
        self.assertIn("the quota namespace:default has 0 of 1 CPU in use, 2 more are asked for", why["summary"])
        shown = self.node.cli("quota", "explain", "default", "--cpu", "2", "-o", "json")
        self.assertEqual(json.loads(shown.stdout)["summary"], why["summary"])

    def test_a_part_is_kept_for_urgent_tasks(self):
        self.set(namespace="default", hard={"tasksRunning": 2, "networkBps": 1000},
                 reserve={"minPriority": 80, "amounts": {"tasksRunning": 1}})
        self.runs(self.submit(priority=50))
        waiting = self.submit(priority=79)
        self.assertIn("1 are kept for priorities from 80", self.waits_for_quota(waiting)["summary"])
        why = self.rest.get("quotas/default:explain", priority=50).json
        self.assertIn("kept for priorities from 80", why["summary"])
        self.assertTrue(self.rest.get("quotas/default:explain", priority=80).json["admitted"])
        self.runs(self.submit(priority=80))
        self.assertEqual(self.status(waiting), "QUEUED")
        post = lambda **quota: self.rest.post("quotas", quota)
        self.assert_problem(post(namespace="one", hard={"cpu": 1}, reserve={"minPriority": 80, "amounts": {"cpu": 2}}), 400,
                            "FIELD_INVALID")
        self.assert_problem(post(namespace="one", hard={"cpu": 1}, reserve={"minPriority": 0, "amounts": {"cpu": 1}}), 400,
                            "FIELD_INVALID")

    def test_network_bandwidth_is_limited(self):
        self.set(namespace="default", hard={"networkBps": 1_000})
        wide, narrow = (self.submit(resources={"cpu": 0.1, "memory": "16Mi", "networkBps": bps}) for bps in (1_001, 1_000))
        self.assertIn("0 of 1000 bits a second of network in use, 1001 more are asked for", self.waits_for_quota(wide)["summary"])
        self.assertNotIn("quota", self.rest.get(f"tasks/{narrow}:explain").json["summary"])
        self.set(namespace="default", hard={"networkBps": 1_001})
        wait_until(lambda: "quota" not in self.rest.get(f"tasks/{wide}:explain").json["summary"], 20, "the higher limit to hold")

    def test_quotas_survive_kill_nine(self):
        self.set(namespace="default", hard={"tasksRunning": 1}, weight=300)
        running, waiting = self.submit(), self.submit()
        self.runs(running)
        self.node.kill()
        self.node.restart()
        self.assertEqual(self.rest.get("quotas/default").json["weight"], 300)
        wait_until(lambda: sorted((self.status(running), self.status(waiting))) == ["QUEUED", "RUNNING"], 30, "one runs again")
        self.waits_for_quota(next(t for t in (running, waiting) if self.status(t) == "QUEUED"))

    def test_limits_and_use_are_metrics(self):
        self.set(namespace="one", hard={"cpu": 2, "memory": "1Gi", "gpu": 1})
        self.runs(self.submit("one"), "one")

        def values():
            text = self.metrics_text()
            found = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                     if line.startswith("uccp_quota_") and 'namespace="one"' in line}
            return found if found.get("uccp_quota_cpu_used") == 0.1 else None

        found = wait_until(values, 20, "the metrics of the quota")
        self.assertEqual(found, {"uccp_quota_cpu_limit": 2, "uccp_quota_cpu_used": 0.1, "uccp_quota_memory_limit": 1 << 30,
                                 "uccp_quota_memory_used": 16 << 20, "uccp_quota_gpu_limit": 1, "uccp_quota_gpu_used": 0})


class Resources(NodeTest):
    flags = ("--heartbeat-interval", "200ms")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.started = time.monotonic()

    def most(self):
        """What a whole worker costs at one a second, since there is one."""
        return time.monotonic() - self.started + 1

    def worker(self):
        return self.rest.get("workers").json["workers"][0]

    def test_the_cluster_is_the_sum_of_its_workers(self):
        task = self.node.submit(SLEEP, resources={"cpu": 0.5, "memory": "64Mi"})["id"]
        self.node.wait_task(task, "RUNNING")
        total = self.worker()["resources"]["total"]
        cluster = wait_until(lambda: next((c for c in [self.rest.get("resources/cluster").json]
                                           if c.get("allocated", {}).get("cpu") == 0.5), None), 20, "what is allocated")
        self.assertEqual((cluster["workersTotal"], cluster["workersReady"], cluster["tasksRunning"]), (1, 1, 1))
        self.assertEqual(cluster["total"]["cpu"], total["cpu"])
        self.assertEqual(cluster["available"]["cpu"], total["cpu"] - 0.5)
        self.assertEqual([p["pool"] for p in cluster["pools"]], ["default"])
        self.assertEqual(self.rest.get("resources/cluster", pool="none").json.get("workersTotal", 0), 0)
        waiting = self.node.submit(SLEEP, resources={"cpu": 100_000})["id"]
        expected = {"uccp_workers_total": 1, "uccp_workers_healthy": 1, "uccp_tasks_running": 1, "uccp_tasks_pending": 1,
                    "uccp_cluster_cpu_total": total["cpu"], "uccp_cluster_cpu_available": total["cpu"] - 0.5,
                    "uccp_cluster_memory_total": cluster["total"]["memory"],
                    "uccp_cluster_memory_available": cluster["available"]["memory"],
                    "uccp_cluster_gpu_total": 0, "uccp_cluster_gpu_available": 0}

        def metrics():
            lines = [line.split() for line in self.metrics_text().splitlines() if not line.startswith("#")]
            found = {line[0]: float(line[1]) for line in lines if line[0] in expected}
            return found if found == {name: float(value) for name, value in expected.items()} else None

        wait_until(metrics, 20, "metrics of the cluster")
        self.rest.delete(f"tasks/{waiting}")
        self.rest.delete(f"tasks/{task}", dict(gracePeriod="0s"))

    def test_usage_and_cost_follow_from_what_ran(self):
        worker = self.worker()
        cores = worker["resources"]["total"]["cpu"]
        self.assertEqual(self.node.cli("worker", "update", worker["id"], "--price-per-hour", "3600").returncode, 0)
        task = self.node.run("sleep 1", resources={"cpu": cores / 2}, labels={"team": "x"}, queue="nightly")
        usage = self.rest.get("resources/usage").json
        self.assertEqual([e["key"] for e in usage["entries"]], ["default"])
        # Half a worker for a second at one a second.
        self.assertGreaterEqual(usage["total"]["cost"], 0.5)
        self.assertLess(usage["total"]["cost"], self.most())
        self.assertAlmostEqual(usage["total"]["cpuHours"] / usage["total"]["cost"], cores / 3600, delta=0.01 * cores / 3600)
        for group, key in (("user", task["principal"]), ("queue", "nightly"), ("pool", "default"), ("label:team", "x")):
            with self.subTest(group):
                entries = self.rest.get("resources/usage", groupBy=group).json["entries"]
                self.assertIn(key, [e.get("key", "") for e in entries])
        self.assertEqual(self.rest.get("resources/usage", namespace="nobody").json.get("entries", []), [])
        before = {"startTime": "2020-01-01T00:00:00Z", "endTime": "2020-01-02T00:00:00Z"}
        self.assertEqual(self.rest.get("resources/usage", **before).json["total"].get("cost", 0), 0)
        self.assert_problem(self.rest.get("resources/usage", startTime="2020-01-02T00:00:00Z", endTime="2020-01-01T00:00:00Z"),
                            400, "FIELD_INVALID")
        table = self.node.cli("resource", "usage", "-o", "csv").stdout.decode()
        self.assertIn("cost", table.splitlines()[0].lower())

    def test_costs_are_metrics(self):
        worker = self.worker()
        self.assertEqual(self.node.cli("worker", "update", worker["id"], "--price-per-hour", "3600").returncode, 0)
        task = self.node.submit(SLEEP, resources={"cpu": worker["resources"]["total"]["cpu"]})
        self.node.wait_task(task["id"], "RUNNING")

        def costs():
            found = {}
            for line in self.metrics_text().splitlines():
                for name, label in (("uccp_cost_total", 'resource="cpu"'), ("uccp_cost_per_namespace", 'namespace="default"'),
                                    ("uccp_cost_per_user", f'user="{task["principal"]}"')):
                    if line.startswith(name + "{") and label in line:
                        found[name] = float(line.rsplit(" ", 1)[1])
            return found if len(found) == 3 and min(found.values()) > 0 else None

        found = wait_until(costs, 20, "costs")
        self.assertLess(max(found.values()), self.most())
        self.rest.delete(f"tasks/{task['id']}", dict(gracePeriod="0s"))
