"""Tasks that make tasks: CRON at times of a zone, EVENT for each event, SYSTEM one service a worker."""
import datetime
import struct
import subprocess
import tempfile

from lib.rest import Rest
from lib.uccp import AGENT, NodeTest, clean_environment
from lib.wait import wait_until

SECOND_US = 1_000_000


def moment(text):
    return datetime.datetime.fromisoformat(text).timestamp()


class Cron(NodeTest):
    """The node's wall clock is moved through UCCP_TEST_WALL_OFFSET, so that nothing waits for a minute."""

    feature_level = 2

    @classmethod
    def setUpClass(cls):
        cls.offset = tempfile.NamedTemporaryFile(prefix="uccp-test-", buffering=0)
        cls.addClassCleanup(cls.offset.close)
        cls.offset.write(struct.pack("=q", 0))
        cls.shift = 0
        cls.environment = {"UCCP_TEST_WALL_OFFSET": cls.offset.name}
        super().setUpClass()
        # By certificate: a token could be over after a step ahead.
        context = cls.node.context
        cls.node._rest = Rest(context["https"], context["ca"], cert=context["cert"], key=context["key"])

    def cron(self, cron="0 0 1 1 *", command="true", **schedule):
        return self.node.submit(command, type="CRON", schedule={"cron": cron, **schedule})

    def now(self):
        """The node's wall clock, to a second: when it says a task was made."""
        task = self.rest.post("tasks", {"command": ["true"], "nodeSelector": {"no": "worker"}}).json
        self.rest.delete(f"tasks/{task['id']}")
        return moment(task["createTime"])

    def step_to(self, seconds):
        """Moves the wall clock so that it is `seconds` since 1970; only ahead."""
        type(self).shift += int((seconds - self.now()) * SECOND_US)
        self.offset.seek(0)
        self.offset.write(struct.pack("=q", self.shift))

    def runs(self, task, count):
        def made():
            found = self.rest.get("tasks", filter=f'parentId = "{task["id"]}"').json["tasks"]
            return found if len(found) >= count else None
        found = wait_until(made, 20, f"{count} runs of {task['id']}")
        self.assertEqual(len(found), count, found)
        return found

    def next_fire(self, task):
        return wait_until(lambda: self.node.task(task["id"]).get("nextFireTime"), 20, "the next time")

    def test_it_fires_at_its_time_in_its_zone(self):
        task = self.cron("30 6 * * *", "echo $UCCP_TASK_ID", timeZone="Asia/Kolkata")  # 01:00 UTC, all the year
        self.assertEqual((task["type"], task["status"]), ("CRON", "PENDING"))
        first = (int(self.now()) - 3600) // 86400 * 86400 + 86400 + 3600
        self.step_to(first)
        child, = self.runs(task, 1)
        self.assertEqual(child["id"], task["id"] + ".1")
        self.assertEqual(self.node.wait_task(child["id"])["status"], "SUCCEEDED")
        self.assertEqual(self.node.log(child["id"]), [child["id"].encode()])
        wait_until(lambda: moment(self.next_fire(task)) == first + 86400, 20, "the next time")
        self.rest.delete(f"tasks/{task['id']}")
        self.step_to(first + 86400)
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")
        self.runs(task, 1)

    def test_what_was_missed_is_made_up_for_as_far_back_as_it_says(self):
        now = self.now()
        at = datetime.datetime.fromtimestamp(now // 3600 * 3600, datetime.timezone.utc)
        begin = (at - datetime.timedelta(hours=9)).isoformat()
        task = self.cron("0 * * * *", startTime=begin, catchUp="18000s", overlap="ALLOW")
        wait_until(lambda: self.node.task(task["id"]).get("runs", 0) >= 5, 20, "what was missed")
        stored = self.node.task(task["id"])
        self.assertIn(stored["runs"], (5, 6))  # an hour may begin meanwhile
        self.assertGreaterEqual(stored["skippedRuns"], 4)
        self.rest.delete(f"tasks/{task['id']}")

    def test_runs_that_overlap_are_left_out_queued_or_replaced(self):
        gate = self.node.gate("overlap")
        begin = datetime.datetime.fromtimestamp(self.now() // 3600 * 3600 - 3600, datetime.timezone.utc).isoformat()
        tasks = {overlap: self.cron("0 * * * *", gate.wait, startTime=begin, catchUp="7200s", overlap=overlap)
                 for overlap in ("SKIP", "QUEUE", "REPLACE")}
        wait_until(lambda: self.node.task(tasks["SKIP"]["id"]).get("skippedRuns", 0) >= 1, 20, "the run that is left out")
        self.assertEqual(self.node.task(tasks["SKIP"]["id"])["runs"], 1)
        first, second = tasks["QUEUE"]["id"] + ".1", tasks["QUEUE"]["id"] + ".2"
        wait_until(lambda: self.rest.get(f"tasks/{second}").status == 200, 20, "the second run")
        self.assertEqual(self.node.task(second)["status"], "PENDING")
        self.assertEqual(self.node.wait_task(tasks["REPLACE"]["id"] + ".1")["status"], "CANCELLED")
        self.node.wait_task(tasks["REPLACE"]["id"] + ".2", "RUNNING")
        for task in tasks.values():
            self.rest.delete(f"tasks/{task['id']}")
        gate.open()
        self.assertEqual(self.node.wait_task(first)["status"], "SUCCEEDED")
        self.assertEqual(self.node.wait_task(second)["status"], "SUCCEEDED")

    def test_what_never_fires_or_cannot_be_read_is_refused(self):
        def refuse(reason, **schedule):
            self.assert_problem(self.rest.post("tasks", {"command": ["true"], "type": "CRON", "schedule": schedule}), 400, reason)
        refuse("CRON_NEVER_FIRES", cron="0 0 30 2 *")
        refuse("CRON_NEVER_FIRES", cron="@daily", endTime="2020-01-01T00:00:00Z")
        refuse("CRON_INVALID", cron="60 * * * *")
        refuse("TIME_ZONE_UNKNOWN", cron="@daily", timeZone="Mars/Olympus")
        self.assert_problem(self.rest.post("tasks", {"command": ["true"], "type": "CRON"}), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.post("tasks", {"command": ["true"], "schedule": {"cron": "@daily"}}), 400, "FIELD_INVALID")
        ran = self.node.cli("task", "submit", "--type", "CRON", "--schedule", '{"cron":"0 0 31 4 *"}', "--", "true")
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn(b"never fires", ran.stderr)

    def test_a_jump_of_the_clock_makes_up_for_nothing_that_was_not_asked_for(self):
        task = self.cron("0 * * * *")
        hour = int(self.now()) // 3600 * 3600 + 3600
        self.step_to(hour + 10 * 3600 + 1800)
        wait_until(lambda: moment(self.next_fire(task)) == hour + 11 * 3600, 20, "the next time")
        self.assertEqual(self.node.task(task["id"]).get("runs", 0), 0)
        self.rest.delete(f"tasks/{task['id']}")

    def test_a_paused_schedule_fires_once_it_is_resumed(self):
        task = self.cron("0 * * * *", paused=True)
        self.assertIn("paused", self.rest.get(f"tasks/{task['id']}:explain").json["summary"])
        hour = int(self.now()) // 3600 * 3600 + 3600
        self.step_to(hour)
        self.assertEqual(self.rest.post(f"tasks/{task['id']}:resume", {}).status, 200)
        self.step_to(hour + 3600)
        self.runs(task, 1)
        self.rest.delete(f"tasks/{task['id']}")

    def test_a_time_fires_once_although_the_server_is_killed(self):
        task = self.cron("0 * * * *")
        hour = int(self.now()) // 3600 * 3600 + 3600
        self.step_to(hour)
        self.runs(task, 1)
        self.node.kill()
        self.node.start()
        context = self.node.context
        self.node._rest = Rest(context["https"], context["ca"], cert=context["cert"], key=context["key"])
        self.step_to(hour + 3600)
        self.runs(task, 2)
        self.rest.delete(f"tasks/{task['id']}")


class Triggers(NodeTest):
    feature_level = 2

    def topic(self, name):
        self.assertEqual(self.rest.post("events/topics", {"name": name}).status, 201)
        return name

    def publish(self, topic, *texts, **fields):
        answer = self.rest.post("events/publish", {"topic": topic, "events": [{"text": text, **fields} for text in texts]})
        self.assertEqual(answer.status, 200, answer)

    def outputs(self, task, count):
        """Output of the tasks that it has made, in their order, once there are `count`."""
        def ended():
            found = self.rest.get("tasks", filter=f'parentId = "{task["id"]}"').json["tasks"]
            done = [t for t in found if t["status"] == "SUCCEEDED"]
            return found if len(done) >= count else None
        found = sorted(wait_until(ended, 30, f"{count} tasks"), key=lambda t: int(t["id"].rpartition(".")[2]))
        self.assertEqual(len(found), count)
        return [self.node.log(t["id"]) for t in found]

    def test_each_event_that_fits_makes_a_task_with_its_content(self):
        topic = self.topic("orders.made")
        task = self.node.submit('cat; echo " $UCCP_EVENT_TYPE $UCCP_EVENT_KEY"', type="EVENT",
                                trigger={"topic": "orders.*", "filter": 'type = "paid"'})
        self.assertEqual(task["status"], "PENDING")
        self.publish(topic, "one", type="paid", key="k")
        self.publish(topic, "left out", type="open", key="k")
        self.publish(topic, "two", type="paid", key="k")
        self.assertEqual(self.outputs(task, 2), [[b"one paid k"], [b"two paid k"]])
        self.assertEqual(self.node.task(task["id"])["runs"], 2)
        self.rest.delete(f"tasks/{task['id']}")
        self.publish(topic, "too late", type="paid")
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")

    def test_an_event_counts_once_although_the_server_is_killed(self):
        topic = self.topic("killed.events")
        task = self.node.submit("cat", type="EVENT", trigger={"topic": topic})
        self.publish(topic, *"abc", key="k")
        self.outputs(task, 3)
        self.node.kill()
        self.node.start()
        self.publish(topic, *"de", key="k")
        self.assertEqual(self.outputs(task, 5), [[letter.encode()] for letter in "abcde"])
        self.rest.delete(f"tasks/{task['id']}")

    def test_whoever_may_not_read_the_events_gets_no_tasks_of_them(self):
        self.assertEqual(self.rest.post("users", {"name": "eve", "password": "four small words here"}).status, 201)
        self.assertEqual(self.rest.post("roles", {"name": "tasks-only", "permissions": ["tasks.read", "tasks.write"]}).status, 201)
        self.assertEqual(self.rest.post("bindings", {"role": "tasks-only", "members": ["eve"]}).status, 201)
        key = self.rest.post("apikeys", {"principal": "eve"}).json
        eve = self.node.client(token=key["key"])
        self.addCleanup(eve.close)
        self.assertEqual(eve.post("tasks", {"command": ["true"]}).status, 201)
        denied = eve.post("tasks", {"command": ["true"], "type": "EVENT", "trigger": {"topic": "orders.>"}})
        self.assert_problem(denied, 403)

    def test_a_trigger_that_cannot_be_read_is_refused(self):
        self.assert_problem(self.rest.post("tasks", {"command": ["cat"], "type": "EVENT"}), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.post("tasks", {"command": ["cat"], "trigger": {"topic": "a"}}), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.post("tasks", {"command": ["cat"], "type": "EVENT", "trigger": {"topic": "a", "filter": "x ="}}), 400)


class System(NodeTest):
    feature_level = 2

    def second_agent(self, *flags):
        command = [str(AGENT), "--data-dir", str(self.node.base / "second"), "--context-file", str(self.node.dir / "agent.json"),
                   "--name", "second", *flags]
        agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(),
                                 start_new_session=True)
        self.addCleanup(agent.wait, 60)
        self.addCleanup(agent.terminate)
        return wait_until(lambda: next((w["id"] for w in self.rest.get("workers").json["workers"]
                                        if w["name"] == "second" and w["status"] == "READY"), None), 60, "the second worker")

    def services(self, task):
        found = self.rest.get("tasks", filter=f'parentId = "{task["id"]}"').json["tasks"]
        return {t["workerId"]: t for t in found if t["status"] == "RUNNING"}

    def test_each_worker_that_fits_runs_one_and_a_new_one_too(self):
        first = self.rest.get("workers").json["workers"][0]["id"]
        everywhere = self.node.submit("exec sleep 600", type="SYSTEM")
        tolerant = self.node.submit("exec sleep 600", type="SYSTEM", tolerations=[{"key": "team"}])
        labelled = self.node.submit("exec sleep 600", type="SYSTEM", nodeSelector={"uccp/zone": "z2"}, tolerations=[{"key": "team"}])
        for task in (everywhere, tolerant):
            wait_until(lambda: set(self.services(task)) == {first}, 20, "the service on the first worker")
        second = self.second_agent("--zone", "z2", "--taint", "team=ml:NO_SCHEDULE")
        wait_until(lambda: set(self.services(tolerant)) == {first, second}, 20, "the service on the second worker")
        wait_until(lambda: set(self.services(labelled)) == {second}, 20, "the service that its label asks for")
        self.assertEqual(set(self.services(everywhere)), {first})
        # One that is stopped comes again; it belongs to the worker.
        stopped = self.services(tolerant)[second]["id"]
        self.rest.delete(f"tasks/{stopped}", query={"gracePeriod": "0s"})
        wait_until(lambda: self.services(tolerant).get(second, {"id": stopped})["id"] != stopped, 20, "the service to come again")
        # A worker that is gone takes its service with it.
        self.rest.delete(f"workers/{second}", query={"force": "true"})
        wait_until(lambda: set(self.services(tolerant)) == {first} and not self.services(labelled), 30, "the services to be gone")
        # The services end with the task that keeps them.
        service = self.services(tolerant)[first]["id"]
        self.rest.delete(f"tasks/{tolerant['id']}")
        self.assertEqual(self.node.wait_task(service)["status"], "CANCELLED")
        self.assertEqual(self.node.wait_task(tolerant["id"])["status"], "CANCELLED")
        for task in (everywhere, labelled):
            self.rest.delete(f"tasks/{task['id']}")
