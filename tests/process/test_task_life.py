"""Tasks beyond their attempts: graphs, resumption, dead letters, deadlines, checkpoints, services."""
import json
import time

from lib.uccp import NodeTest
from lib.wait import wait_until


class Graphs(NodeTest):
    feature_level = 2

    def graph(self, *tasks, **fields):
        return self.rest.post("tasks:graph", {"tasks": list(tasks), **fields})

    def test_a_graph_runs_in_its_order_and_hands_files_on(self):
        answer = self.graph(
            {"key": "join", "task": {"command": ["sh", "-c", "cat out/left out/right"]},
             "after": [{"key": "left", "files": ["out/left"]}, {"key": "right", "files": ["out/right"]}]},
            {"key": "left", "task": {"command": ["sh", "-c", "mkdir out; echo l > out/left"], "outputs": ["out/*"]}},
            {"key": "right", "task": {"command": ["sh", "-c", "mkdir out; echo r > out/right"], "outputs": ["out/*"]}})
        self.assertEqual(answer.status, 200, answer)
        tasks = answer.json["tasks"]
        self.assertEqual([t["status"] for t in tasks], ["QUEUED", "QUEUED", "PENDING"])
        self.assertEqual(self.node.wait_task(tasks[2]["id"])["status"], "SUCCEEDED")
        self.assertEqual(self.node.log(tasks[2]["id"]), [b"l", b"r"])

    def test_conditions_choose_what_runs(self):
        answer = self.graph(
            {"key": "try", "task": {"command": ["false"]}},
            {"key": "mend", "task": {"command": ["true"]}, "after": [{"key": "try", "condition": "FAILED"}]},
            {"key": "use", "task": {"command": ["true"]}, "after": [{"key": "try"}]},
            {"key": "clean", "task": {"command": ["true"]}, "after": [{"key": "use", "condition": "COMPLETED"}]})
        ended = [self.node.wait_task(t["id"])["status"] for t in answer.json["tasks"]]
        self.assertEqual(ended, ["FAILED", "SUCCEEDED", "FAILED", "SUCCEEDED"])

    def test_a_cycle_is_refused_with_its_way_and_nothing_is_made(self):
        before = self.rest.get("tasks", countTotal="true").json.get("totalSize", 0)
        task = {"command": ["true"]}
        answer = self.graph({"key": "build", "task": task, "after": [{"key": "test"}]},
                            {"key": "test", "task": task, "after": [{"key": "deploy"}]},
                            {"key": "deploy", "task": task, "after": [{"key": "build"}]})
        self.assert_problem(answer, 400, "DEPENDENCY_CYCLE")
        way = answer.json["detail"]
        self.assertTrue(any(one in way for one in ("build -> deploy -> test -> build", "deploy -> test -> build -> deploy",
                                                   "test -> build -> deploy -> test")), way)
        self.assert_problem(self.rest.post("tasks", {"id": "own", **task, "dependencies": [{"taskId": "own"}]}), 400,
                            "DEPENDENCY_CYCLE")
        self.assertEqual(self.rest.get("tasks", countTotal="true").json.get("totalSize", 0), before)

    def test_one_bad_task_refuses_all_and_is_named(self):
        answer = self.graph({"key": "a", "task": {"command": ["true"]}},
                            {"key": "b", "task": {"command": ["true"], "workingDir": "../x"}, "after": [{"key": "a"}]})
        self.assert_problem(answer, 400, "FIELD_INVALID")
        self.assertIn("tasks[1] (b)", answer.json["detail"])

    def test_it_is_checked_without_being_made_and_repeated_without_effect(self):
        task = {"key": "a", "task": {"command": ["true"], "id": "only-checked"}}
        self.assertEqual(self.graph(task, validateOnly=True).status, 200)
        self.assert_problem(self.rest.get("tasks/only-checked"), 404, "TASK_NOT_FOUND")
        twice = [self.rest.post("tasks:graph", {"tasks": [{"key": "a", "task": {"command": ["true"]}}]},
                                headers={"Idempotency-Key": "graph-1"}).json["tasks"][0]["id"] for _ in range(2)]
        self.assertEqual(twice[0], twice[1])

    def test_the_command_line_takes_the_graph_as_json(self):
        ran = self.node.cli("task", "graph", "--tasks", json.dumps({"key": "a", "task": {"command": ["true"]}}),
                            "--tasks", json.dumps({"key": "b", "task": {"command": ["true"]}, "after": [{"key": "a"}]}),
                            "-o", "json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(ran.stdout.count(b'"status"'), 2, ran.stdout)


class Resumption(NodeTest):
    feature_level = 2

    def test_a_dead_letter_is_listed_and_resumed(self):
        mark = self.node.shared / "mended"
        task = self.node.run(f"test -e {mark}", retry={"maxAttempts": 2, "initialBackoff": "0.01s"})
        self.assertEqual((task["status"], task["attempts"], task["deadLetter"]), ("FAILED", 2, True))
        dead = lambda: [t["id"] for t in self.rest.get("tasks", filter="deadLetter = true").json["tasks"]]
        self.assertIn(task["id"], dead())
        mark.touch()
        self.assertEqual(self.node.cli("task", "resume", task["id"], "--no-wait").returncode, 0)
        ended = self.node.wait_task(task["id"])
        self.assertEqual((ended["status"], ended["attempts"]), ("SUCCEEDED", 3))
        self.assertNotIn(task["id"], dead())
        self.assert_problem(self.rest.post(f"tasks/{task['id']}:resume", {}), 412, "TASK_SUCCEEDED")

    def test_what_was_cancelled_runs_again_and_what_runs_is_not_resumed(self):
        gate = self.node.gate("resumed")
        task = self.node.submit(gate.wait)
        self.node.wait_task(task["id"], "RUNNING")
        self.assert_problem(self.rest.post(f"tasks/{task['id']}:resume", {}), 412, "TASK_NOT_ENDED")
        self.rest.delete(f"tasks/{task['id']}")
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")
        self.assertEqual(self.rest.post(f"tasks/{task['id']}:resume", {}).json["status"], "QUEUED")
        gate.open()
        self.assertEqual(self.node.wait_task(task["id"])["status"], "SUCCEEDED")
        self.assert_problem(self.rest.post("tasks/none:resume", {}), 404, "TASK_NOT_FOUND")

    def test_classes_of_failures_rule_out_retries(self):
        policy = {"maxAttempts": 3, "initialBackoff": "0.01s", "nonRetryable": ["SIGNAL"]}
        killed = self.node.run("kill -KILL $$", retry=policy)
        self.assertEqual((killed["status"], killed["attempts"]), ("FAILED", 1))
        self.assertIn("nonRetryable has SIGNAL", killed["statusReason"])
        self.assertEqual(self.node.run("exit 3", retry=policy)["attempts"], 3)
        missing = self.node.run(["/no/such/program"], retry={**policy, "nonRetryable": ["LAUNCH"]})
        self.assertEqual(missing["attempts"], 1)
        slow = self.node.wait_task(self.node.submit("sleep 600", timeout="1s", gracePeriod="0s",
                                                    retry={**policy, "nonRetryable": ["TIMEOUT"]})["id"])
        self.assertEqual((slow["status"], slow["attempts"]), ("TIMED_OUT", 1))
        self.assert_problem(self.rest.post("tasks", {"command": ["true"], "retry": {"nonRetryable": ["WEATHER"]}}), 400)

    def test_a_budget_of_time_ends_retries(self):
        task = self.node.run("exit 1", retry={"maxAttempts": 1000, "initialBackoff": "0.3s", "multiplier": 1, "jitter": 0,
                                              "budget": "1s"})
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("budget", task["statusReason"])
        self.assertLess(task["attempts"], 6)

    def test_a_checkpoint_is_where_the_next_attempt_goes_on(self):
        gate = self.node.gate("checkpoint")
        task = self.node.submit('echo "from ${UCCP_CHECKPOINT_NAME:-nothing}"; '
                                '[ -z "$UCCP_CHECKPOINT_FILE" ] || exec cat "$UCCP_CHECKPOINT_FILE"; ' + gate.wait + "; exit 1")
        self.node.wait_task(task["id"], "RUNNING")
        for step in ("step-1", "step-2"):
            answer = self.rest.post(f"tasks/{task['id']}/checkpoints", {"name": step, "state": {"text": f"at {step}\n"}})
            self.assertEqual((answer.status, answer.json["attempt"]), (201, 1), answer)
        gate.open()
        self.node.wait_task(task["id"], "FAILED")
        self.assert_problem(self.rest.post(f"tasks/{task['id']}/checkpoints", {"name": "late", "state": {"text": "x"}}), 412,
                            "TASK_NOT_RUNNING")
        self.assert_problem(self.rest.post(f"tasks/{task['id']}:resume", {"checkpoint": "step-9"}), 404,
                            "CHECKPOINT_NOT_FOUND")
        self.rest.post(f"tasks/{task['id']}:resume", {"checkpoint": "step-1"})
        self.node.wait_task(task["id"], "SUCCEEDED")
        self.assertEqual(self.node.log(task["id"]), [b"from nothing", b"from step-1", b"at step-1"])

    def test_large_checkpoints_are_refused(self):
        gate = self.node.gate("large")
        task = self.node.submit(gate.wait)
        self.node.wait_task(task["id"], "RUNNING")
        self.assert_problem(self.rest.post(f"tasks/{task['id']}/checkpoints", {"name": "a", "state": {"text": "x" * 70_000}}),
                            400, "CHECKPOINT_TOO_LARGE")
        gate.open()


class Deadlines(NodeTest):
    feature_level = 2

    def test_what_runs_is_stopped_at_its_deadline_and_not_tried_again(self):
        task = self.node.submit("echo up; trap 'exit 7' TERM; while :; do sleep 0.05; done", deadline="5s",
                                retry={"maxAttempts": 5})
        ended = self.node.wait_task(task["id"])
        self.assertEqual((ended["status"], ended["attempts"]), ("TIMED_OUT", 1))
        self.assertIn("deadline", ended["statusReason"])

    def test_what_waits_ends_at_its_deadline_too(self):
        began = time.monotonic()
        task = self.node.run("true", deadline="1s", nodeSelector={"no": "worker"})
        self.assertEqual(task["status"], "TIMED_OUT")
        self.assertLess(time.monotonic() - began, 20)

    def test_a_new_leader_keeps_to_the_deadline(self):
        task = self.node.submit("true", deadline="3s", nodeSelector={"no": "worker"})
        self.node.kill()
        self.node.start()
        self.assertEqual(self.node.wait_task(task["id"])["status"], "TIMED_OUT")


class Services(NodeTest):
    feature_level = 2

    def test_a_service_is_started_again_until_it_is_cancelled(self):
        service = self.node.submit("echo run $UCCP_ATTEMPT; test $UCCP_ATTEMPT -ge 3 && exec sleep 600; exit 0", type="SERVICE",
                                   retry={"initialBackoff": "0.01s", "jitter": 0})
        wait_until(lambda: self.node.log(service["id"]) == [b"run 1", b"run 2", b"run 3"], what="the third run")
        self.node.wait_task(service["id"], "RUNNING")
        self.rest.delete(f"tasks/{service['id']}")
        self.assertEqual(self.node.wait_task(service["id"])["status"], "CANCELLED")

    def test_a_service_survives_the_agent(self):
        service = self.node.submit("echo up; exec sleep 600", type="SERVICE", retry={"initialBackoff": "0.01s"})
        wait_until(lambda: self.node.log(service["id"]) == [b"up"], what="the first run")
        self.node.kill_agent()
        wait_until(lambda: (t := self.node.task(service["id"]))["attempts"] == 2 and t["status"] == "RUNNING",
                   30, "the second run")
        self.rest.delete(f"tasks/{service['id']}", query={"gracePeriod": "0s"})
        self.assertEqual(self.node.wait_task(service["id"])["status"], "CANCELLED")
