"""Who gets how much of a full cluster: dominant resources, weights, and shares level by level, by REST."""
from lib.uccp import NodeTest
from lib.wait import wait_until


class Shares(NodeTest):
    """One worker, which something urgent fills until all that is to share it has been submitted."""

    flags = ("--heartbeat-interval", "200ms")
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        workers = wait_until(lambda: [w for w in cls.node.rest.get("workers").json["workers"] if w["status"] == "READY"],
                             30, "a worker")
        total = workers[0]["resources"]["total"]
        cls.cores, cls.memory = total["cpu"], int(total["memory"])

    def tearDown(self):
        for task in self.tasks():
            self.rest.delete(f"tasks/{task['id']}", dict(gracePeriod="0s", namespace=task["namespace"]))
        wait_until(lambda: all(w["runningTasks"] == 0 for w in self.rest.get("workers").json["workers"]), 30, "an idle worker")

    def setUp(self):
        self.namespaces = set()

    def tasks(self):
        everywhere = [t for name in sorted(self.namespaces)
                      for t in self.rest.get("tasks", pageSize=1000, namespace=name).json["tasks"]]
        return [t for t in everywhere if t["status"] not in ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT")]

    def submit(self, name_space, cpu, memory=0, **fields):
        """A task that takes these parts of the worker."""
        self.namespaces.add(name_space)
        resources = {"cpu": self.cores * cpu, "memory": str(int(self.memory * memory))}
        answer = self.rest.post("tasks", {"command": ["sleep", "600"], "resources": resources, **fields}, {"namespace": name_space})
        self.assertEqual(answer.status, 201, answer)
        return answer.json["id"]

    def share_out(self, submit_all, expected, key):
        """What runs, counted by `key`, once the room is given free."""
        urgent = self.submit("urgent", 1, priority=100)
        wait_until(lambda: self.rest.get(f"tasks/{urgent}", namespace="urgent").json["status"] == "RUNNING", 30, "all is taken")
        submit_all()
        self.rest.delete(f"tasks/{urgent}", dict(gracePeriod="0s", namespace="urgent"))

        def running():
            counts = {}
            for task in self.tasks():
                if task["status"] == "RUNNING" and task["id"] != urgent:
                    counts[key(task)] = counts.get(key(task), 0) + 1
            return counts
        wait_until(lambda: sum(running().values()) == sum(expected.values()), 30, f"{expected} to run")
        self.assertEqual(running(), expected)

    def test_the_resource_of_which_one_holds_most_counts(self):
        """The example of the paper: of 9 cores and 18 GB one asks for 1 and 4, the other for 3 and 1."""
        def submit_all():
            for _ in range(5):
                self.submit("hungry-for-memory", 0.999 / 9, 0.999 * 4 / 18)
                self.submit("hungry-for-cpu", 0.999 * 3 / 9, 0.999 / 18)
        self.share_out(submit_all, {"hungry-for-memory": 3, "hungry-for-cpu": 2}, lambda task: task["namespace"])

    def test_a_weight_makes_a_share_larger(self):
        answer = self.rest.post("quotas", {"namespace": "heavy", "weight": 300})
        self.assertEqual(answer.status, 201, answer)
        self.addCleanup(self.rest.delete, "quotas/heavy")

        def submit_all():
            for name_space in ("light", "heavy"):
                for _ in range(8):
                    self.submit(name_space, 0.999 / 8)
        self.share_out(submit_all, {"light": 2, "heavy": 6}, lambda task: task["namespace"])

    def test_what_a_namespace_gets_is_shared_by_its_queues(self):
        def submit_all():
            for name_space, queue in (("split", "a"), ("split", "b"), ("whole", "c")):
                for _ in range(8):
                    self.submit(name_space, 0.999 / 8, queue=queue)
        self.share_out(submit_all, {"a": 2, "b": 2, "c": 4}, lambda task: task["queue"])
