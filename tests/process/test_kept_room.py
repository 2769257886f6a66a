"""Room that is kept for some: headroom for interactive tasks, workers for all that wait (conservative backfilling)."""
from lib.uccp import NodeTest
from lib.wait import wait_until


class Room(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        workers = wait_until(lambda: [w for w in cls.node.rest.get("workers").json["workers"] if w["status"] == "READY"],
                             20, "a worker")
        cls.cores = workers[0]["resources"]["total"]["cpu"]

    def tearDown(self):
        for task in self.rest.get("tasks", pageSize=1000).json["tasks"]:
            if task["status"] not in ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"):
                self.rest.delete(f"tasks/{task['id']}", dict(gracePeriod="0s"))
        wait_until(lambda: all(w["runningTasks"] == 0 for w in self.rest.get("workers").json["workers"]), 20, "idle workers")

    def sleeper(self, part, **fields):
        """A task that takes a part of the worker."""
        return self.node.submit(["sleep", "600"], resources={"cpu": self.cores * part}, **fields)["id"]

    def runs(self, task):
        self.node.wait_task(task, "RUNNING", timeout=20)

    def waits_because(self, task, cause, text=""):
        def reason():
            why = self.rest.get(f"tasks/{task}:explain").json
            return next((r for r in why.get("reasons", []) if r["cause"] == cause and text in r["message"]), None)
        return wait_until(reason, 20, f"{task} waits because of {cause}")


class Headroom(Room):
    flags = ("--interactive-headroom", "50")

    def test_only_interactive_tasks_use_the_headroom(self):
        self.runs(self.sleeper(0.5))
        batch = self.sleeper(0.5)
        self.waits_because(batch, "BUSY", "headroom")
        self.runs(self.sleeper(0.5, type="INTERACTIVE"))
        self.assertEqual(self.node.task(batch)["status"], "QUEUED")
        worker = self.rest.get("workers").json["workers"][0]["resources"]
        self.assertNotIn("extended", worker["allocated"], "how the headroom is counted is nobody's business")

    def test_what_would_never_leave_the_headroom_is_told_so(self):
        answer = self.rest.post("tasks", {"command": ["true"], "resources": {"cpu": self.cores}}, dict(rejectUnplaceable="true"))
        self.assert_problem(answer, 412, "TASK_UNPLACEABLE")
        self.assertIn("headroom", answer.json["detail"])


class Conservative(Room):
    flags = ("--backfill", "conservative")

    def test_nothing_that_comes_later_delays_what_waits(self):
        self.runs(self.sleeper(0.5, timeout="60s"))
        large = self.sleeper(1)
        self.waits_because(large, "BUSY")
        self.waits_because(self.sleeper(0.5, timeout="600s"), "RESERVED")
        self.runs(self.sleeper(0.5, timeout="5s"))
        self.assertEqual(self.node.task(large)["status"], "QUEUED")


class ByQueue(Room):
    flags = ("--backfill", "easy, default/urgent:conservative")

    def test_a_queue_has_its_own_way_of_backfilling(self):
        self.runs(self.sleeper(0.5, timeout="600s"))
        urgent = self.sleeper(1, queue="urgent")
        # Others have to wait half a minute for that.
        wait_until(lambda: "is kept free for it" in self.rest.get(f"tasks/{urgent}:explain").json["summary"], 20,
                   "a worker to be kept for it at once")
        self.waits_because(self.sleeper(0.25, timeout="1200s"), "RESERVED")


class Streams(NodeTest):
    feature_level = 2

    def test_a_stream_is_started_again_until_it_says_that_it_is_over(self):
        mark = self.node.shared / "tries"
        task = self.node.run(f"echo x >> {mark}; test $(wc -l < {mark}) -ge 3", type="STREAMING",
                             retry={"initialBackoff": "0.01s", "maxBackoff": "0.01s"})
        self.assertEqual((task["status"], task["attempts"]), ("SUCCEEDED", 3))

    def test_steps_of_a_pipeline_run_as_a_graph(self):
        step = {"command": ["true"], "type": "PIPELINE"}
        answer = self.rest.post("tasks:graph", {"tasks": [{"key": "b", "task": step, "after": [{"key": "a"}]},
                                                          {"key": "a", "task": step}]})
        self.assertEqual([self.node.wait_task(t["id"])["status"] for t in answer.json["tasks"]], ["SUCCEEDED"] * 2)
