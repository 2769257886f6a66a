"""Which task runs where and when: shares, bands, affinity, gangs, preemption, workers kept free, by REST and CLI."""
import subprocess

from lib.uccp import AGENT, NodeTest, clean_environment
from lib.wait import wait_until

GIB = 1 << 30


class Scheduling(NodeTest):
    """One node and two workers of 4 cores each, in two zones."""

    agent = False
    flags = ("--heartbeat-interval", "200ms")
    feature_level = 2  # of gangs

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.workers = {}
        for zone in ("a", "b"):
            command = [str(AGENT), "--data-dir", str(cls.node.base / f"agent-{zone}"), "--context-file",
                       str(cls.node.dir / "agent.json"), "--name", f"worker-{zone}", "--zone", zone, "--cpu", "4",
                       "--memory", "8Gi", "--label", f"rack={zone}1", *(("--label", "disk=ssd") if zone == "b" else ())]
            agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(),
                                     start_new_session=True)
            cls.addClassCleanup(agent.wait, 60)
            cls.addClassCleanup(agent.terminate)

        def ready():
            found = {w["name"]: w for w in cls.node.rest.get("workers").json["workers"] if w["status"] == "READY"}
            return found if len(found) == 2 else None

        found = wait_until(ready, 60, "two workers")
        cls.cores = min(w["resources"]["total"]["cpu"] for w in found.values())
        cls.ids = {name[-1]: w["id"] for name, w in found.items()}

    def tearDown(self):
        for task in self.rest.get("tasks", pageSize=1000).json["tasks"]:
            if task["status"] not in ("SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"):
                self.rest.delete(f"tasks/{task['id']}", dict(gracePeriod="0s"))
        wait_until(lambda: all(w["runningTasks"] == 0 for w in self.rest.get("workers").json["workers"]), 20, "idle workers")

    def whole(self):
        """Resources that fill a worker."""
        return {"cpu": self.cores}

    def sleeper(self, **task):
        return self.node.submit(["sleep", "600"], **task)["id"]

    def task(self, task):
        return self.rest.get(f"tasks/{task}").json

    def running(self, task):
        return wait_until(lambda: next((t for t in [self.task(task)] if t["status"] == "RUNNING"), None), 20, "it runs")

    def why(self, task):
        return self.rest.get(f"tasks/{task}:explain").json

    def waits_because(self, task, summary):
        return wait_until(lambda: next((w for w in [self.why(task)] if summary in w["summary"]), None), 20, summary)

    def test_the_cheaper_worker_is_taken(self):
        for cheap, dear in (("a", "b"), ("b", "a")):
            for name, price in ((cheap, 1), (dear, 10)):
                self.assertEqual(self.rest.call("PATCH", f"workers/{self.ids[name]}", {"pricePerHour": price}).status, 200)
                self.addCleanup(self.rest.call, "PATCH", f"workers/{self.ids[name]}", {"pricePerHour": 1})  # equal again
            self.assertEqual(self.node.run("true")["workerId"], self.ids[cheap])

    def test_spot_workers_are_for_what_may_be_stopped(self):
        for spot, firm in (("a", "b"), ("b", "a")):
            self.assertEqual(self.rest.call("PATCH", f"workers/{self.ids[spot]}", {"type": "SPOT"}).status, 200)
            self.addCleanup(self.rest.call, "PATCH", f"workers/{self.ids[spot]}", {"type": "DEDICATED"})
            self.rest.call("PATCH", f"workers/{self.ids[firm]}", {"type": "DEDICATED"})
            self.assertEqual(self.node.run("true", preemptible=True)["workerId"], self.ids[spot])
            self.assertEqual(self.node.run("true")["workerId"], self.ids[firm])
            # It runs there rather than not at all.
            full = self.sleeper(resources=self.whole(), nodeSelector={"uccp/type": "dedicated"})
            self.running(full)
            self.assertEqual(self.node.run("true", resources={"cpu": 1})["workerId"], self.ids[spot])
            self.rest.delete(f"tasks/{full}?gracePeriod=0s")
            self.node.wait_task(full)

    def test_affinity_to_workers_is_required_or_wished_for(self):
        for affinity in ({"workerRequired": ["uccp/zone in (b|c)", "rack"]}, {"workerRequired": ["disk=ssd"]},
                         {"workerPreferred": [{"selector": "disk=ssd", "weight": 10}, {"selector": "uccp/zone=a"}]}):
            with self.subTest(affinity):
                self.assertEqual(self.node.run("true", affinity=affinity)["workerId"], self.ids["b"])
        nowhere = self.sleeper(affinity={"workerRequired": ["disk=tape"]})
        why = self.waits_because(nowhere, "has the labels")
        self.assertEqual([(r["cause"], r["workers"]) for r in why["reasons"]], [("LABELS", 2)])
        self.assertIn("disk=tape of its affinity", why["reasons"][0]["message"])

    def test_the_fullest_worker_with_room_is_taken(self):
        first = self.sleeper(resources={"cpu": 0.5})
        worker = self.running(first)["workerId"]
        for _ in range(3):
            self.assertEqual(self.running(self.sleeper(resources={"cpu": 0.25}))["workerId"], worker)
        whole = self.sleeper(resources=self.whole())
        self.assertNotEqual(self.running(whole)["workerId"], worker, "the other one was left for it")

    def test_higher_priorities_first_then_first_come(self):
        hold = [self.sleeper(resources=self.whole(), priority=90) for _ in range(2)]
        for task in hold:
            self.running(task)
        waiting = {}
        for name, priority in (("late", 50), ("later", 50), ("urgent", 70)):
            waiting[name] = self.sleeper(resources=self.whole(), priority=priority)
        self.assertEqual(self.waits_because(waiting["later"], "waits for free").get("tasksAhead", 0), 2)
        order = []
        for holder in (hold[0], hold[1], None):
            if holder is None:
                holder = waiting[order[0]]
            self.rest.delete(f"tasks/{holder}", dict(gracePeriod="0s"))
            order.append(wait_until(lambda: next((n for n, t in waiting.items() if n not in order and
                                                  self.task(t)["status"] == "RUNNING"), None), 20, "the next one"))
        self.assertEqual(order, ["urgent", "late", "later"])

    def test_a_wrong_selector_is_refused_where_it_is(self):
        answer = self.rest.post("tasks", {"command": ["true"], "affinity": {"workerRequired": ["zone", "a b"]}})
        self.assert_problem(answer, 400, "SELECTOR_INVALID", field="task.affinity.workerRequired[1]")
        answer = self.rest.post("tasks", {"command": ["true"], "affinity": {"awayFromTasks": [{"selector": "=x"}]}})
        self.assert_problem(answer, 400, "SELECTOR_INVALID", field="task.affinity.awayFromTasks[0].selector")

    def test_tasks_run_near_others_and_away_from_them(self):
        database = self.sleeper(labels={"app": "db"}, affinity={"workerRequired": ["uccp/zone=b"]})
        self.running(database)
        near = self.sleeper(affinity={"nearTasks": [{"selector": "app=db", "topologyKey": "uccp/zone"}]})
        self.assertEqual(self.running(near)["workerId"], self.ids["b"])
        away = [self.sleeper(labels={"app": "db"}, affinity={"awayFromTasks": [{"selector": "app=db"}]}) for _ in range(2)]
        wait_until(lambda: sorted(self.task(t)["status"] for t in away) == ["QUEUED", "RUNNING"], 20, "one beside, one waits")
        first, second = sorted(away, key=lambda t: self.task(t)["status"], reverse=True)
        self.assertEqual(self.task(first)["workerId"], self.ids["a"])
        why = self.why(second)
        self.assertEqual(why["reasons"][0]["cause"], "NEAR")
        self.rest.delete(f"tasks/{database}")
        self.assertEqual(self.running(second)["workerId"], self.ids["b"])

    def test_a_gang_starts_when_all_are_there_and_fit(self):
        busy = self.sleeper(resources=self.whole())
        self.running(busy)
        members = [self.sleeper(resources=self.whole(), gang={"id": "train", "size": 2})]
        self.waits_because(members[0], "1 of 2 tasks are queued")
        members.append(self.sleeper(resources=self.whole(), gang={"id": "train", "size": 2}))
        self.waits_because(members[0], "room for all 2 tasks of its gang")
        # What is smaller goes by: the gang holds nothing meanwhile.
        small = self.sleeper(resources={"cpu": 1})
        self.running(small)
        self.assertEqual({self.task(m)["status"] for m in members}, {"QUEUED"})
        for task in (busy, small):
            self.rest.delete(f"tasks/{task}")
        workers = {self.running(m)["workerId"] for m in members}
        self.assertEqual(workers, set(self.ids.values()))

    def test_a_gang_larger_than_the_cluster_says_so(self):
        members = [self.sleeper(resources=self.whole(), gang={"id": "huge", "size": 3}) for _ in range(3)]
        self.waits_because(members[2], "its gang of 3 tasks does not fit into the cluster even if nothing else runs: there is room for 2")
        self.assert_problem(self.rest.post("tasks", {"command": ["true"], "gang": {"id": "g", "size": 2, "failTogether": True}}),
                            400, "TASK_FEATURE_UNIMPLEMENTED")

    def test_a_task_of_a_higher_band_stops_a_preemptible_one(self):
        low = [self.sleeper(resources=self.whole(), priority=30, preemptible=True) for _ in range(2)]
        for task in low:
            self.running(task)
        urgent = self.sleeper(resources=self.whole(), priority=80)
        worker = self.running(urgent)["workerId"]
        states = sorted(self.task(t)["status"] for t in low)
        self.assertEqual(states, ["QUEUED", "RUNNING"], "only one had to go")
        victim = self.task(next(t for t in low if self.task(t)["status"] == "QUEUED"))
        self.assertEqual(victim["attemptHistory"][0]["outcome"], "PREEMPTED")
        self.assertEqual(victim["attemptHistory"][0]["workerId"], worker)
        self.assertIn("priority 80", victim["attemptHistory"][0]["reason"])
        self.assertEqual(victim.get("retryCount", 0), 0, "it costs no retry")
        self.running(self.sleeper(resources=self.whole(), priority=85))
        firm = self.sleeper(resources=self.whole(), priority=90)
        self.waits_because(firm, "waits for free resources")
        self.assertEqual(self.task(urgent)["status"], "RUNNING", "it is not preemptible")

    def test_what_has_saved_a_checkpoint_is_stopped_rather_than_what_has_not(self):
        saved, unsaved = [self.sleeper(resources=self.whole(), priority=30, preemptible=True) for _ in range(2)]
        for task in (saved, unsaved):
            self.running(task)
        # Both have run for a while by now; of this one nothing is lost.
        answer = self.rest.post(f"tasks/{saved}/checkpoints", {"name": "half", "state": {"text": "1"}})
        self.assertEqual(answer.status, 201, answer)
        self.running(self.sleeper(resources=self.whole(), priority=80))
        self.assertEqual((self.task(saved)["status"], self.task(unsaved)["status"]), ("QUEUED", "RUNNING"))
        self.assertEqual(self.task(saved)["attemptHistory"][0]["outcome"], "PREEMPTED")

    def test_one_of_a_gang_that_a_drain_has_stopped_goes_on_elsewhere_at_once(self):
        gang = {"id": "drained", "size": 2}
        members = [self.sleeper(resources=self.whole(), gang=gang) for _ in range(2)]
        at = {task: self.running(task)["workerId"] for task in members}
        stays, moves = members
        self.rest.delete(f"tasks/{stays}", dict(gracePeriod="0s"))
        self.node.wait_task(stays)
        self.addCleanup(self.rest.post, f"workers/{at[moves]}:uncordon", {})
        self.assertEqual(self.rest.post(f"workers/{at[moves]}:drain", {"deadline": "0.5s"}).status, 200)
        moved = wait_until(lambda: next((t for t in [self.task(moves)] if t["status"] == "RUNNING" and t.get("attemptHistory")),
                                        None), 25, "it runs elsewhere, and does not wait half a minute for nobody")
        self.assertEqual((moved["attemptHistory"][0]["outcome"], moved["workerId"]), ("PREEMPTED", at[stays]))

    def test_a_gang_starts_with_the_least_that_it_needs_and_grows(self):
        gang = {"id": "grow", "size": 3, "minSize": 2}
        members = [self.sleeper(resources=self.whole(), gang=gang) for _ in range(3)]
        wait_until(lambda: sorted(self.task(m)["status"] for m in members) == ["QUEUED", "RUNNING", "RUNNING"], 20, "two run")
        late = next(m for m in members if self.task(m)["status"] == "QUEUED")
        self.rest.delete(f"tasks/{next(m for m in members if m != late)}", dict(gracePeriod="0s"))
        self.running(late)
        self.assert_problem(self.rest.post("tasks", {"command": ["true"], "gang": {"id": "g", "size": 2, "minSize": 3}}), 400,
                            "FIELD_INVALID", "task.gang.minSize")

    def test_a_gang_is_stopped_as_a_whole_and_starts_again_together(self):
        gang = {"id": "low", "size": 2}
        low = [self.sleeper(resources=self.whole(), priority=20, preemptible=True, gang=gang) for _ in range(2)]
        for task in low:
            self.running(task)
        urgent = self.sleeper(resources=self.whole(), priority=80)
        self.running(urgent)
        wait_until(lambda: all(self.task(t)["status"] == "QUEUED" for t in low), 20, "both halves are stopped")
        self.assertEqual([self.task(t)["attemptHistory"][0]["outcome"] for t in low], ["PREEMPTED"] * 2)
        self.waits_because(low[0], "room for all 2 tasks of its gang")
        self.rest.delete(f"tasks/{urgent}", dict(gracePeriod="0s"))
        self.assertEqual({self.running(t)["workerId"] for t in low}, set(self.ids.values()))

    def test_users_of_other_namespaces_get_their_share_of_a_full_cluster(self):
        """A backlog of one namespace does not keep out another: each gets half of what there is."""
        half = {"cpu": self.cores / 2}
        hold = [self.sleeper(resources=self.whole(), priority=90) for _ in range(2)]
        for task in hold:
            self.running(task)
        for _ in range(8):
            self.sleeper(resources=half)
        other = [self.rest.post("tasks", {"command": ["sleep", "600"], "resources": half}, {"namespace": "other"}).json["id"]
                 for _ in range(2)]
        for task in hold:
            self.rest.delete(f"tasks/{task}", dict(gracePeriod="0s"))
        for task in other:
            wait_until(lambda: self.rest.get(f"tasks/{task}", namespace="other").json["status"] == "RUNNING", 20, "its share")

        def others():
            return [t for t in self.rest.get("tasks", pageSize=100).json["tasks"] if t["status"] == "RUNNING"]

        wait_until(lambda: len(others()) == 2, 20, "the other half is in use")
        for task in other:
            self.rest.delete(f"tasks/{task}", dict(namespace="other", gracePeriod="0s"))
