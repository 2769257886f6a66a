"""The worker registry through REST: registration, resources, cordon, status, and what is refused."""
from lib.uccp import NodeTest
from lib.wait import wait_until


class Workers(NodeTest):
    def worker(self):
        return self.node.wait_worker()

    def test_an_agent_registers_itself_with_what_the_machine_has(self):
        worker = self.worker()
        self.assertGreater(worker["resources"]["total"]["cpu"], 0)
        self.assertGreater(worker["resources"]["total"]["memory"], 1 << 20)
        wait_until(lambda: (self.worker()["health"], self.worker()["healthScore"]) == ("HEALTHY", 1), what="its health")
        self.assertGreaterEqual(worker["epoch"], 1)
        self.assertTrue(worker["version"])
        one = self.rest.get(f"workers/{worker['id']}")
        self.assertEqual((one.status, one.json["id"]), (200, worker["id"]))

    def test_the_load_of_the_machine_is_measured_again_and_again(self):
        task = self.node.submit("while :; do :; done", resources={"cpu": 0.5, "memory": "32Mi"})["id"]
        self.addCleanup(self.rest.delete, f"tasks/{task}?gracePeriod=0s")
        self.node.wait_task(task, "RUNNING")
        busy = wait_until(lambda: next((w["load"] for w in [self.worker()] if w.get("load", {}).get("cpu", 0) > 0.05), None), 30,
                          "the loop to be seen")
        self.assertLessEqual(busy["cpu"], 1)
        with open("/proc/meminfo") as file:
            total = int(next(line for line in file if line.startswith("MemTotal:")).split()[1]) << 10
        self.assertGreater(int(busy["memoryUsed"]), 1 << 20)
        self.assertLess(int(busy["memoryUsed"]), total)
        wait_until(lambda: self.worker()["load"]["measureTime"] > busy["measureTime"], 30, "the next measurement")

    def test_what_runs_is_seen_as_allocated_and_given_back(self):
        wait_until(lambda: self.worker().get("runningTasks", 0) == 0, 20, "the worker to be free of what ran before")
        task = self.rest.post("tasks", {"command": ["sleep", "600"], "resources": {"cpu": 0.5, "memory": "32Mi"}}).json
        busy = wait_until(lambda: next((w for w in self.rest.get("workers").json["workers"]
                                        if w.get("runningTasks", 0) > 0), None), 20, "a worker with a task")
        self.assertEqual(busy["resources"]["allocated"]["cpu"], 0.5)
        self.assertEqual(busy["resources"]["allocated"]["memory"], 32 << 20)
        self.rest.delete(f"tasks/{task['id']}?gracePeriod=0s")
        wait_until(lambda: self.worker().get("runningTasks", 0) == 0, 20, "the worker to be free")
        self.assertEqual(self.worker()["resources"]["allocated"].get("cpu", 0), 0)

    def test_a_declared_worker_is_registered_updated_and_removed(self):
        made = self.rest.post("workers", {"id": "rack7-01", "labels": {"rack": "7"},
                                          "resources": {"total": {"cpu": 4, "memory": "8Gi"}}})
        self.assertEqual(made.status, 201, made)
        self.assertEqual((made.json["status"], made.json["resources"]["total"]["cpu"]), ("REGISTERED", 4))
        changed = self.rest.put("workers/rack7-01/resources", {"total": {"cpu": 2, "memory": "1Gi"}})
        self.assertEqual((changed.status, changed.json["resources"]["total"]["cpu"]), (200, 2))
        self.assertNotEqual(changed.json["etag"], made.json["etag"])
        stale = self.rest.put("workers/rack7-01/resources", {"total": {"cpu": 1}, "ifMatch": made.json["etag"]})
        self.assert_problem(stale, 412, "ETAG_MISMATCH")
        self.assertEqual(self.rest.delete("workers/rack7-01").status, 204)
        self.assert_problem(self.rest.get("workers/rack7-01"), 404, "WORKER_NOT_FOUND")

    def test_workers_are_listed_by_label_status_and_page(self):
        for number in range(3):
            self.rest.post("workers", {"id": f"list-{number}", "labels": {"list": "yes"}})
        listed = self.rest.get("workers", labels="list=yes").json["workers"]
        self.assertEqual([w["id"] for w in listed], ["list-0", "list-1", "list-2"])
        first = self.rest.get("workers", labels="list=yes", pageSize=2).json
        rest = self.rest.get("workers", labels="list=yes", pageSize=2, pageToken=first["nextPageToken"]).json
        self.assertEqual([w["id"] for w in first["workers"] + rest["workers"]], ["list-0", "list-1", "list-2"])
        self.assertEqual(self.rest.get("workers", labels="list=yes", status="READY").json["workers"], [])

    def test_a_cordoned_worker_takes_no_tasks_until_it_is_opened_again(self):
        worker = self.worker()
        self.assertEqual(self.rest.post(f"workers/{worker['id']}:cordon", {}).json["status"], "CORDONED")
        task = self.rest.post("tasks", {"command": ["true"]}).json
        self.assertEqual(self.rest.get(f"tasks/{task['id']}", wait="1s").json["status"], "QUEUED")
        self.assertEqual(self.rest.post(f"workers/{worker['id']}:uncordon", {}).json["status"], "READY")
        self.assertEqual(self.rest.get(f"tasks/{task['id']}", wait="30s").json["status"], "SUCCEEDED")

    def test_a_busy_worker_is_removed_only_by_force(self):
        task = self.rest.post("tasks", {"command": ["sleep", "600"]}).json
        worker = wait_until(lambda: self.rest.get(f"tasks/{task['id']}").json.get("workerId"), 20, "the task to run")
        self.assert_problem(self.rest.delete(f"workers/{worker}"), 412, "WORKER_BUSY")
        self.rest.delete(f"tasks/{task['id']}?gracePeriod=0s")

    def test_what_is_no_worker_is_refused(self):
        self.assert_problem(self.rest.get("workers/nobody"), 404, "WORKER_NOT_FOUND")
        self.assert_problem(self.rest.post("workers", {"id": "../evil"}), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.put("workers/nobody/resources", {}), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.put("workers/nobody/resources", {"total": {"cpu": 1}}), 404, "WORKER_NOT_FOUND")
