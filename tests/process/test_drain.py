"""Emptying a worker: nothing new is placed, what runs ends or is stopped at the deadline and runs again elsewhere or later."""
from lib.uccp import NodeTest
from lib.wait import wait_until


class Drain(NodeTest):
    def worker(self):
        return self.rest.get("workers").json["workers"][0]

    def tearDown(self):
        self.rest.post(f"workers/{self.worker()['id']}:uncordon", {})

    def test_what_runs_ends_and_nothing_new_begins(self):
        worker = self.worker()["id"]
        gate = self.node.gate("drain")
        running = self.node.submit(gate.wait)["id"]
        self.node.wait_task(running, "RUNNING")
        drained = self.rest.post(f"workers/{worker}:drain", {"reason": "new kernel"})
        self.assertEqual((drained.status, drained.json["status"], drained.json["statusReason"]), (200, "DRAINING", "new kernel"))
        self.assertIn("drainDeadline", drained.json)
        waiting = self.node.submit("true")["id"]
        why = wait_until(lambda: next((w for w in [self.rest.get(f"tasks/{waiting}:explain").json] if "reasons" in w), None),
                         20, "the reason why it waits")
        self.assertEqual((why["summary"], why["reasons"][0]["cause"]), ("no worker takes tasks just now", "CORDONED"))
        gate.open()
        ended = self.node.wait_task(running)
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 1))
        wait_until(lambda: self.worker()["status"] == "DRAINED", 20, "an empty worker")
        self.assertEqual(self.rest.get(f"tasks/{waiting}", wait="1s").json["status"], "QUEUED")
        opened = self.rest.post(f"workers/{worker}:uncordon", {})
        self.assertEqual((opened.json["status"], opened.json.get("drainDeadline")), ("READY", None))
        self.assertEqual(self.node.wait_task(waiting)["status"], "SUCCEEDED")

    def test_at_the_deadline_what_runs_is_stopped_gracefully_and_queued_again(self):
        worker = self.worker()["id"]
        marks = self.node.shared / "drain.marks"
        marks.touch()
        marks.chmod(0o666)
        task = self.node.submit(f"trap 'echo stopped >> {marks}; exit 1' TERM; echo start >> {marks}; "
                                f"[ $UCCP_ATTEMPT = 1 ] || exit 0; while :; do sleep 0.02; done")["id"]
        wait_until(lambda: "start" in marks.read_text(), 20, "the first attempt")
        self.rest.post(f"workers/{worker}:drain", {"deadline": "0.5s"})
        wait_until(lambda: self.worker()["status"] == "DRAINED", 30, "an empty worker")
        self.assertEqual(marks.read_text().split(), ["start", "stopped"])
        again = self.node.task(task)
        self.assertEqual((again["status"], again["attemptHistory"][0]["outcome"]), ("QUEUED", "PREEMPTED"), again)
        self.rest.post(f"workers/{worker}:uncordon", {})
        ended = self.node.wait_task(task)
        # It had one attempt by its policy: being moved costs none.
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 2))

    def test_a_drain_goes_on_over_a_restart_of_server_and_agent(self):
        worker = self.worker()["id"]
        self.rest.post(f"workers/{worker}:drain", {"deadline": "1h", "reason": "stays"})
        self.node.restart()
        wait_until(lambda: self.worker()["status"] == "DRAINED", 30, "the drain after a restart of the server")
        self.node.kill_agent()
        wait_until(lambda: self.worker()["epoch"] >= 2 and self.worker()["status"] == "DRAINED", 30, "the drain after a new agent")
        self.assertEqual(self.worker()["statusReason"], "stays")

    def test_cordon_tells_its_reason_and_fields_are_changed_by_name(self):
        worker = self.worker()["id"]
        cordoned = self.rest.post(f"workers/{worker}:cordon", {"reason": "noisy disk"}).json
        self.assertEqual((cordoned["status"], cordoned["statusReason"]), ("CORDONED", "noisy disk"))
        changed = self.rest.call("PATCH", f"workers/{worker}", {"labels": {"tier": "gold"}, "pricePerHour": 0.25})
        self.assertEqual((changed.status, changed.json["labels"], changed.json["pricePerHour"]), (200, {"tier": "gold"}, 0.25))
        refused = self.rest.call("PATCH", f"workers/{worker}?updateMask=epoch", {"labels": {}})
        self.assert_problem(refused, 400, "FIELD_INVALID")
        self.assert_problem(self.rest.post("workers/nobody:drain", {}), 404, "WORKER_NOT_FOUND")
        self.assert_problem(self.rest.post(f"workers/{worker}:drain", {"deadline": "900h"}), 400, "FIELD_INVALID")
