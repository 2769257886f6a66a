"""Tasks from end to end: submitted through REST and uccp-cli, run by a real agent, seen from outside and inside."""
import base64
import datetime
import hashlib
import json
import threading
import time
import unittest

from lib.uccp import NodeTest, processes_with
from lib.wait import wait_until


def seconds(time_text):
    return datetime.datetime.fromisoformat(time_text).timestamp()


class Life(NodeTest):
    def test_submit_answers_201_with_the_task_itself(self):
        response = self.rest.post("tasks", {"command": ["true"], "name": "quick", "labels": {"a": "b"}})
        self.assertEqual(response.status, 201, response)
        task = response.json
        self.assertRegex(task["id"], "^task_[0-9A-Z]{26}$")
        self.assertEqual(response.headers["Location"], f"/api/v1/tasks/{task['id']}")
        self.assertEqual(response.headers["ETag"], f'"{task["etag"]}"')
        self.assertIn(task["status"], ("PENDING", "QUEUED", "RUNNING"))
        self.assertEqual((task["name"], task["namespace"], task["type"], task["labels"]),
                         ("quick", "default", "BATCH", {"a": "b"}))
        self.assertNotIn("exitCode", task)
        self.assertNotIn("state", task)

    def test_success_and_failure_are_told_by_status_and_exit_code(self):
        for code, status in ((0, "SUCCEEDED"), (3, "FAILED"), (255, "FAILED")):
            with self.subTest(code):
                task = self.node.run(f"exit {code}")
                self.assertEqual((task["status"], task["exitCode"], task["attempts"]), (status, code, 1))
                self.assertTrue(task["statusReason"])
                self.assertTrue(task["workerId"])
                self.assertLessEqual(seconds(task["createTime"]), seconds(task["startTime"]))
                self.assertLessEqual(seconds(task["startTime"]), seconds(task["endTime"]))
                result = self.rest.get(f"tasks/{task['id']}/result").json
                self.assertEqual((result["status"], result["exitCode"]), (status, code))

    def test_a_signal_is_no_exit_code(self):
        task = self.node.run("kill -SEGV $$")
        self.assertEqual((task["status"], task["signal"]), ("FAILED", 11))
        self.assertNotIn("exitCode", task)

    def test_a_command_that_is_not_there_fails_and_says_so(self):
        task = self.node.run(["/no/such/program"])
        self.assertEqual(task["status"], "FAILED")
        self.assertIn("/no/such/program", task["statusReason"])
        self.assertEqual(task["attemptHistory"][-1]["outcome"], "LAUNCH_FAILED")

    def test_the_name_defaults_to_the_last_part_of_the_command(self):
        self.assertEqual(self.node.submit(["/bin/true"]).get("name"), "true")

    def test_waiting_reads_answer_at_the_end(self):
        gate = self.node.gate("waiting")
        task = self.node.submit(f"{gate.wait}; exit 0")
        self.assertEqual(self.rest.get(f"tasks/{task['id']}", wait="0.2s").json["status"] in ("QUEUED", "RUNNING"), True)
        opener = threading.Timer(0.3, gate.open)
        opener.start()
        self.addCleanup(opener.join)
        self.assertEqual(self.rest.get(f"tasks/{task['id']}", wait="30s").json["status"], "SUCCEEDED")

    def test_a_request_id_has_one_effect(self):
        first = self.node.submit("exit 0", request_id="once-1")
        again = self.node.submit("exit 0", request_id="once-1")
        self.assertEqual(first["id"], again["id"])
        self.assertNotEqual(self.node.submit("exit 0", request_id="once-2")["id"], first["id"])
        other = self.rest.post("tasks", {"command": ["false"]}, headers={"Idempotency-Key": "once-1"})
        self.assert_problem(other, 409)

    def test_what_is_not_there_is_404(self):
        for path in ("tasks/none", "tasks/none/result", "tasks/none/artifacts/a", "tasks/none/metrics"):
            with self.subTest(path):
                self.assert_problem(self.rest.get(path), 404, "TASK_NOT_FOUND")
        self.assert_problem(self.rest.delete("tasks/none"), 404, "TASK_NOT_FOUND")
        with self.rest.stream("tasks/none/logs") as stream:
            self.assertEqual(stream.status, 404)

    def test_watch_ends_when_the_named_tasks_have_ended(self):
        gate = self.node.gate("watched")
        task = self.node.submit(gate.wait)
        with self.rest.stream("tasks:watch", query={"ids": task["id"]}) as stream:
            stream.until(lambda item: item.get("kind") == "SYNCED")
            gate.open()
            seen = []
            for item in stream:
                seen.append(item)
                if "end" in item or item["task"]["status"] == "SUCCEEDED":
                    break
            self.assertEqual(seen[-1].get("task", {}).get("status"), "SUCCEEDED", seen)
            try:
                last = stream.next(30)
            except TimeoutError:
                self.fail("the stream goes on although its only task has ended")
        self.assertEqual(last["end"]["reason"], "COMPLETED")


class Stopping(NodeTest):
    def test_cancel_asks_first_and_answers_200_with_the_task(self):
        task = self.node.submit("trap 'echo got TERM; exit 0' TERM; echo up; while :; do sleep 0.05; done")
        wait_until(lambda: self.node.log(task["id"]) == [b"up"], what="the trap")
        response = self.rest.delete(f"tasks/{task['id']}", query={"reason": "enough"})
        self.assertEqual((response.status, response.json["id"]), (200, task["id"]))
        self.assertIn(response.json["status"], ("STOPPING", "CANCELLED"))
        ended = self.node.wait_task(task["id"])
        self.assertEqual(ended["status"], "CANCELLED")
        self.assertIn("enough", ended["statusReason"])
        self.assertEqual(self.node.log(task["id"]), [b"up", b"got TERM"])
        again = self.rest.delete(f"tasks/{task['id']}")
        self.assertEqual((again.status, again.json["status"], again.json["etag"]), (200, "CANCELLED", ended["etag"]))

    def test_what_ignores_sigterm_is_killed_after_the_grace_period(self):
        task = self.node.submit("trap '' TERM; echo up; while :; do sleep 0.05; done", gracePeriod="1s")
        wait_until(lambda: self.node.log(task["id"]) == [b"up"], what="the trap")
        began = time.monotonic()
        self.rest.delete(f"tasks/{task['id']}")
        ended = self.node.wait_task(task["id"], timeout=30)
        self.assertGreater(time.monotonic() - began, 0.9, "it was killed before its grace period")
        self.assertEqual((ended["status"], ended["signal"]), ("CANCELLED", 9))

    def test_a_grace_period_of_the_call_wins(self):
        task = self.node.submit("trap '' TERM; echo up; while :; do sleep 0.05; done", gracePeriod="1h")
        wait_until(lambda: self.node.log(task["id"]) == [b"up"], what="the trap")
        self.rest.delete(f"tasks/{task['id']}", query={"gracePeriod": "0s"})
        self.assertEqual(self.node.wait_task(task["id"], timeout=30)["status"], "CANCELLED")

    def test_the_whole_family_dies(self):
        mark = f"98761.{time.monotonic_ns() % 10**9}"
        # A child, a grandchild in a session of its own, and one whose parents are gone.
        task = self.node.submit(f"sleep {mark} & (setsid sh -c 'sleep {mark} & sleep {mark}' &) ; "
                                f"(sleep {mark} &) ; echo up; sleep {mark}", gracePeriod="1s")
        wait_until(lambda: len([p for p in processes_with(mark)]) >= 5, what="the family")
        self.rest.delete(f"tasks/{task['id']}")
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")
        self.assertEqual(processes_with(mark), [], "alive although the task has ended")

    def test_children_do_not_outlive_a_task_that_ended_by_itself(self):
        mark = f"98762.{time.monotonic_ns() % 10**9}"
        task = self.node.run(f"setsid sleep {mark} >/dev/null 2>&1 & exit 0")
        self.assertEqual(task["status"], "SUCCEEDED")
        wait_until(lambda: processes_with(mark) == [], what="the end of its child")

    def test_queued_and_waiting_tasks_end_at_once(self):
        gate = self.node.gate("never")
        first = self.node.submit(gate.wait)
        waiting = self.node.submit("exit 0", dependencies=[{"taskId": first["id"]}])
        self.assertEqual(waiting["status"], "PENDING")
        queued = self.node.submit("exit 0", resources={"cpu": 100000})
        wait_until(lambda: self.node.task(queued["id"])["status"] == "QUEUED", what="the queue")
        for task in (waiting, queued):
            self.assertEqual(self.rest.delete(f"tasks/{task['id']}").json["status"], "CANCELLED")
            self.assertEqual(self.node.task(task["id"])["attempts"], 0)
        gate.open()

    def test_a_timeout_ends_it_as_timed_out(self):
        task = self.node.wait_task(self.node.submit("echo up; sleep 1000", **{"timeout": "1s"})["id"], timeout=40)
        self.assertEqual(task["status"], "TIMED_OUT")
        self.assertIn("1", task["statusReason"])
        self.assertEqual(task["attemptHistory"][-1]["outcome"], "TIMED_OUT")
        self.assertEqual(self.node.log(task["id"]), [b"up"])

    # The field is taken and has no effect yet. Passing, this fails: then the mark is to go.
    def test_a_queue_timeout_ends_what_never_fits(self):
        task = self.node.submit("exit 0", resources={"cpu": 100000}, queueTimeout="1s")
        ended = self.node.wait_task(task["id"], timeout=30)
        self.assertEqual((ended["status"], ended["attempts"]), ("TIMED_OUT", 0))


class Retries(NodeTest):
    def test_attempts_are_counted_listed_and_wait_longer_each_time(self):
        task = self.node.run("echo attempt $UCCP_ATTEMPT; exit 7", retry={"maxAttempts": 3, "initialBackoff": "0.4s",
                                                                          "multiplier": 2, "jitter": 0})
        self.assertEqual((task["status"], task["exitCode"], task["attempts"], task["retryCount"]), ("FAILED", 7, 3, 2))
        history = task["attemptHistory"]
        self.assertEqual([(a["number"], a["outcome"], a["exitCode"]) for a in history],
                         [(n, "EXITED", 7) for n in (1, 2, 3)])
        pauses = [seconds(b["startTime"]) - seconds(a["endTime"]) for a, b in zip(history, history[1:])]
        self.assertGreaterEqual(pauses[0], 0.39)
        self.assertGreaterEqual(pauses[1], 0.79)
        self.assertEqual(self.node.log(task["id"]), [b"attempt 1", b"attempt 2", b"attempt 3"])
        self.assertEqual(self.node.log(task["id"], attempt=2), [b"attempt 2"])

    def test_success_ends_the_attempts(self):
        marker = self.node.shared / "second"
        task = self.node.run(f"[ -e {marker} ] && exit 0; touch {marker}; exit 1",
                             retry={"maxAttempts": 5, "initialBackoff": "0.1s"})
        self.assertEqual((task["status"], task["exitCode"], task["attempts"]), ("SUCCEEDED", 0, 2))

    def test_some_exit_codes_are_not_tried_again(self):
        task = self.node.run("exit 42", retry={"maxAttempts": 5, "initialBackoff": "0.1s", "nonRetryableExitCodes": [42]})
        self.assertEqual((task["status"], task["attempts"]), ("FAILED", 1))

    def test_it_can_be_cancelled_between_attempts(self):
        task = self.node.submit("exit 1", retry={"maxAttempts": 5, "initialBackoff": "3600s"})
        pending = self.node.wait_task(task["id"], "PENDING")
        self.assertEqual(pending["attempts"], 1)
        self.assertTrue(pending["nextAttemptTime"])
        self.rest.delete(f"tasks/{task['id']}")
        self.assertEqual(self.node.wait_task(task["id"])["status"], "CANCELLED")


class Content(NodeTest):
    def test_environment_stdin_and_folder_are_given(self):
        task = self.node.run('mkdir -p deep; echo "$GREETING"; cat; pwd; echo "$HOME"',
                             env={"GREETING": "hä  'llo\"$x"}, stdin=base64.b64encode(b"from stdin\n\xfe").decode())
        lines = self.node.log(task["id"])
        self.assertEqual(lines[0].decode(), "hä  'llo\"$x")
        self.assertEqual(lines[1], b"from stdin")
        self.assertTrue(lines[2].startswith(b"\xfe/"), lines)

    def test_without_stdin_it_reads_end_of_file(self):
        self.assertEqual(self.node.log(self.node.run("cat | wc -c")["id"])[0].strip(), b"0")

    def test_inputs_are_put_there_with_their_mode(self):
        data = bytes(range(256)) * 40
        task = self.node.run("sha256sum < in/a.bin; stat -c %a in/a.bin run.sh; ./run.sh; cd sub && pwd",
                             inputs=[{"path": "in/a.bin", "data": base64.b64encode(data).decode(), "mode": 0o600},
                                     {"path": "run.sh", "data": base64.b64encode(b"#!/bin/sh\necho ran\n").decode(),
                                      "mode": 0o755},
                                     {"path": "sub/x", "data": ""}])
        lines = self.node.log(task["id"])
        self.assertEqual(task["status"], "SUCCEEDED", self.node.log(task["id"], "stderr"))
        self.assertEqual(lines[0].split()[0].decode(), hashlib.sha256(data).hexdigest())
        self.assertEqual(lines[1:4], [b"600", b"755", b"ran"])

    def test_working_dir_is_below_the_folder_of_the_task(self):
        task = self.node.run("pwd; cat file", workingDir="a/b",
                             inputs=[{"path": "a/b/file", "data": base64.b64encode(b"here").decode()}])
        lines = self.node.log(task["id"])
        self.assertTrue(lines[0].endswith(b"/a/b"), lines)
        self.assertEqual(lines[1], b"here")

    def test_artifacts_are_kept_by_pattern_and_downloaded_as_bytes(self):
        task = self.node.run("mkdir -p out/deep other; head -c 3000000 /dev/urandom > out/deep/big.bin; "
                             "sha256sum out/deep/big.bin; : > out/empty; echo no > other/x; echo t > 'out/a b+c%.txt'; "
                             "chmod 750 out/empty", outputs=["out/**"])
        digest = self.node.log(task["id"])[0].split()[0].decode()
        kept = {a["path"]: a for a in task["artifacts"]}
        self.assertEqual(set(kept), {"out/deep/big.bin", "out/empty", "out/a b+c%.txt"})
        self.assertEqual((kept["out/deep/big.bin"]["size"], kept["out/deep/big.bin"]["sha256"]), (3000000, digest))
        self.assertEqual(kept["out/empty"]["mode"], 0o750)
        base = f"tasks/{task['id']}/artifacts/"
        big = self.rest.get(base + "out/deep/big.bin")
        self.assertEqual((big.status, big.headers["Content-Type"]), (200, "application/octet-stream"))
        self.assertEqual(hashlib.sha256(big.body).hexdigest(), digest)
        self.assertEqual(self.rest.get(base + "out/empty").body, b"")
        self.assertEqual(self.rest.get(base + "out/a%20b%2Bc%25.txt").body, b"t\n")
        tail = self.rest.get(base + "out/deep/big.bin", offset=2999990)
        self.assertEqual(tail.body, big.body[-10:])
        self.assert_problem(self.rest.get(base + "other/x"), 404, "ARTIFACT_NOT_FOUND")
        self.assertEqual(self.rest.get(f"tasks/{task['id']}/result").json["artifacts"], task["artifacts"])

    def test_outputs_do_not_follow_links_out_of_the_folder(self):
        task = self.node.run("ln -s /etc/passwd out.txt; ln -s /etc dir; mkfifo pipe; echo fine > ok", outputs=["**"])
        self.assertEqual([a["path"] for a in task.get("artifacts", [])], ["ok"])

    def test_artifacts_of_a_failed_task_are_kept_too(self):
        task = self.node.run("echo evidence > core; exit 1", outputs=["core"])
        self.assertEqual((task["status"], [a["path"] for a in task["artifacts"]]), ("FAILED", ["core"]))

    def test_bad_tasks_are_refused_with_their_field(self):
        good = {"command": ["true"]}
        data = base64.b64encode(b"x").decode()
        table = [
            ({}, "task.command"),
            ({"command": []}, "task.command"),
            ({"command": [""]}, "task.command"),
            ({"command": "true"}, "task.command"),
            ({"command": [5]}, "task.command[0]"),
            ({**good, "comand": ["x"]}, "task.comand"),
            ({**good, "priority": 101}, "task.priority"),
            ({**good, "type": "NONSENSE"}, "task.type"),
            ({**good, "env": {"A=B": "c"}}, None),
            ({**good, "env": {"A": "x" * 200000}}, "task.env"),
            ({**good, "timeout": "10 parsecs"}, "task.timeout"),
            ({**good, "timeout": "0s"}, "task.timeout"),
            ({**good, "workingDir": "/etc"}, "task.workingDir"),
            ({**good, "workingDir": "a/../../b"}, "task.workingDir"),
            ({**good, "inputs": [{"path": "../x", "data": data}]}, "task.inputs[0].path"),
            ({**good, "inputs": [{"path": "a/../../x", "data": data}]}, "task.inputs[0].path"),
            ({**good, "inputs": [{"path": "/etc/cron.d/x", "data": data}]}, "task.inputs[0].path"),
            ({**good, "inputs": [{"path": "a\0b", "data": data}]}, "task.inputs[0].path"),
            ({**good, "inputs": [{"path": "x"}]}, "task.inputs[0]"),
            ({**good, "inputs": [{"path": "x", "data": "no base64!"}]}, "task.inputs[0].data"),
            ({**good, "inputs": [{"path": "x", "data": data, "blob": {"sha256": "0" * 64}}]}, None),
            ({**good, "inputs": [{"path": "x", "blob": {"sha256": "../../etc/passwd"}}]}, "task.inputs[0].blob.sha256"),
            ({**good, "outputs": ["../**"]}, "task.outputs[0]"),
            ({**good, "outputs": ["/etc/*"]}, "task.outputs[0]"),
            ({**good, "resources": {"memory": "many"}}, "task.resources.memory"),
            ({**good, "resources": {"cpu": -1}}, "task.resources.cpu"),
            ({**good, "retry": {"maxAttempts": 100000}}, "task.retry.maxAttempts"),
            ({**good, "labels": {"a": "x" * 64}}, None),
            ({**good, "id": "a/b"}, "task.id"),
            ({**good, "command": ["x"] * 2000}, "task.command"),
        ]
        before = self.rest.get("tasks", countTotal="true", pageSize=1).json.get("totalSize", 0)
        for body, field in table:
            with self.subTest(json.dumps(body)[:80]):
                self.assert_problem(self.rest.post("tasks", body), 400, field=field)
        missing = self.rest.post("tasks", {**good, "dependencies": [{"taskId": "none"}]})
        self.assert_problem(missing, 404, "DEPENDENCY_NOT_FOUND", "task.dependencies[0].taskId")
        self.assertEqual(self.rest.get("tasks", countTotal="true", pageSize=1).json.get("totalSize", 0), before)

    def test_kinds_that_are_not_built_are_refused_and_not_half_done(self):
        for more in ({"type": "SPARK"}, {"executor": "VM"}, {"executor": "FUNCTION"},
                     {"gang": {"id": "g", "size": 2, "failTogether": True}}):
            with self.subTest(more):
                self.assert_problem(self.rest.post("tasks", {"command": ["true"], **more}), 400)


class Graphs(NodeTest):
    def test_outputs_flow_into_inputs_along_the_edges(self):
        source = self.node.submit("seq 1 100 > numbers", outputs=["numbers"])

        def branch(command):
            return self.node.submit(f"{command} > sum", outputs=["sum"], inputs=[
                {"path": "in/numbers", "taskOutput": {"taskId": source["id"], "path": "numbers"}}])

        odd = branch("awk '$1 % 2 == 1 {s += $1} END {print s}' in/numbers")
        even = branch("awk '$1 % 2 == 0 {s += $1} END {print s}' in/numbers")
        total = self.node.submit("cat a b", inputs=[
            {"path": "a", "taskOutput": {"taskId": odd["id"], "path": "sum"}},
            {"path": "b", "taskOutput": {"taskId": even["id"], "path": "sum"}}])
        ended = self.node.wait_task(total["id"])
        self.assertEqual(ended["status"], "SUCCEEDED", ended)
        self.assertEqual(self.node.log(total["id"]), [b"2500", b"2550"])
        for before, after in ((source, odd), (source, even), (odd, total), (even, total)):
            self.assertLessEqual(seconds(self.node.task(before["id"])["endTime"]), seconds(self.node.task(after["id"])["startTime"]))

    def test_a_failed_dependency_fails_all_that_depend_on_it(self):
        gate = self.node.gate("fail")
        bad = self.node.submit(f"{gate.wait}; exit 1")
        child = self.node.submit("exit 0", dependencies=[{"taskId": bad["id"]}])
        grandchild = self.node.submit("exit 0", dependencies=[{"taskId": child["id"]}])
        self.assertEqual((child["status"], grandchild["status"]), ("PENDING", "PENDING"))
        gate.open()
        for task, cause in ((child, bad), (grandchild, child)):
            ended = self.node.wait_task(task["id"])
            self.assertEqual((ended["status"], ended["attempts"]), ("FAILED", 0))
            self.assertIn(cause["id"], ended["statusReason"])

    def test_conditions_decide_what_counts(self):
        bad = self.node.run("exit 1")
        good = self.node.run("exit 0")
        table = [(bad, "COMPLETED", "SUCCEEDED"), (bad, "FAILED", "SUCCEEDED"), (bad, "SUCCEEDED", "FAILED"),
                 (good, "COMPLETED", "SUCCEEDED"), (good, "FAILED", "FAILED"), (good, "SUCCEEDED", "SUCCEEDED")]
        for dependency, condition, status in table:
            with self.subTest(f"{dependency['status']} {condition}"):
                task = self.node.run("exit 0", dependencies=[{"taskId": dependency["id"], "condition": condition}])
                self.assertEqual(task["status"], status)

    def test_an_output_that_was_not_made_fails_the_reader(self):
        source = self.node.submit("exit 0", outputs=["x"])
        reader = self.node.submit("cat x", inputs=[{"path": "x", "taskOutput": {"taskId": source["id"], "path": "x"}}])
        ended = self.node.wait_task(reader["id"])
        self.assertEqual(ended["status"], "FAILED")
        self.assertIn("x", ended["statusReason"])


class Lists(NodeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ids = [cls.node.submit(f"exit {n % 2}", name=f"job-{n}", labels={"of": "list", "parity": "odd" if n % 2 else "even"})["id"]
                   for n in range(9)]
        for task_id in cls.ids:
            cls.node.wait_task(task_id)

    def ids_of(self, **query):
        response = self.rest.get("tasks", pageSize=1000, **query)
        self.assertEqual(response.status, 200, response)
        return [task["id"] for task in response.json["tasks"]]

    def paged(self, **query):
        seen, token = [], ""
        while True:
            page = self.rest.get("tasks", pageSize=4, pageToken=token, labels="of=list", **query).json
            self.assertLessEqual(len(page["tasks"]), 4)
            seen += [task["id"] for task in page["tasks"]]
            token = page.get("nextPageToken", "")
            if not token:
                return seen

    def test_pages_cover_everything_once(self):
        seen = self.paged()
        self.assertEqual(sorted(seen), sorted(self.ids))
        self.assertEqual(len(seen), len(set(seen)))

    def test_the_order_is_the_one_that_is_asked_for(self):
        self.assertEqual(self.paged(orderBy="createTime"), self.ids)
        self.assertEqual(self.paged(orderBy="createTime desc"), self.ids[::-1])
        names = [task["name"] for task in self.rest.get("tasks", orderBy="name desc").json["tasks"]]
        self.assertEqual(names, sorted(names, reverse=True))
        # A filter and an order go together.
        chosen = self.rest.get("tasks", orderBy="name desc", filter=f'name != "{names[0]}"').json["tasks"]
        self.assertEqual([task["name"] for task in chosen], [name for name in names if name != names[0]])

    # By creation is the contract's default; it is by id, which within a millisecond is another order.
    def test_the_order_without_asking_is_by_id_which_is_by_creation(self):
        first = self.node.submit("exit 0")
        milliseconds = len("task_") + 10
        second = self.node.submit("exit 0")
        while second["id"][:milliseconds] == first["id"][:milliseconds]:
            second = self.node.submit("exit 0")
        ids = self.ids_of()
        self.assertLess(ids.index(first["id"]), ids.index(second["id"]))

    def test_selects_by_status_labels_and_filter(self):
        odd, even = self.ids[1::2], self.ids[0::2]
        self.assertCountEqual(self.ids_of(status="FAILED", labels="of=list"), odd)
        self.assertCountEqual(self.ids_of(status=["FAILED", "SUCCEEDED"], labels="of=list"), self.ids)
        self.assertCountEqual(self.ids_of(labels="parity=even"), even)
        self.assertCountEqual(self.ids_of(filter='status = FAILED AND name = "job-3"'), [self.ids[3]])
        self.assertCountEqual(self.ids_of(filter='labels.parity = "odd" AND NOT name = "job-3"'),
                         [i for i in odd if i != self.ids[3]])
        self.assertCountEqual(self.ids_of(filter="exitCode = 1"), odd)
        self.assertCountEqual(self.ids_of(status="RUNNING"), [])

    def test_a_bad_question_is_refused(self):
        for query in ({"filter": "status ="}, {"filter": "nothing = 1"}, {"orderBy": "labels"}, {"pageSize": -1},
                      {"status": "DONE"}, {"labels": "a in ("}, {"pageToken": "AAAA"}):
            with self.subTest(query):
                self.assert_problem(self.rest.get("tasks", **query), 400)

    def test_priority_changes_only_while_it_waits(self):
        task = self.node.submit("exit 0", resources={"cpu": 100000})
        changed = self.rest.call("PUT", f"tasks/{task['id']}/priority", {"priority": 90})
        self.assertEqual((changed.status, changed.json["priority"]), (200, 90), changed)
        self.assert_problem(self.rest.call("PUT", f"tasks/{task['id']}/priority", {"priority": 101}), 400,
                            field="priority")
        self.rest.delete(f"tasks/{task['id']}")
        self.assert_problem(self.rest.call("PUT", f"tasks/{self.ids[0]}/priority", {"priority": 90}), 412,
                            "TASK_ENDED")


class CommandLine(NodeTest):
    def test_wait_tells_success_by_its_exit_code(self):
        self.assertEqual(self.node.cli("task", "submit", "--wait", "--", "true").returncode, 0)
        failed = self.node.cli("task", "submit", "--wait", "--", "sh", "-c", "exit 3")
        self.assertEqual(failed.returncode, 1)
        self.assertIn(b"exit code 3", failed.stderr)

    def test_follow_prints_what_the_task_prints(self):
        done = self.node.cli("task", "submit", "--follow", "--", "sh", "-c", r"echo out; echo err >&2; printf '\377\n'")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"out\n", done.stdout)
        self.assertIn(b"\xff\n", done.stdout)

    def test_submit_list_get_logs_and_cancel(self):
        task_id = self.node.cli("task", "submit", "-q", "--label", "by=cli", "--", "sh", "-c", "echo hi; sleep 1000")
        self.assertEqual(task_id.returncode, 0, task_id.stderr)
        task_id = task_id.stdout.decode().strip()
        wait_until(lambda: self.node.log(task_id) == [b"hi"], what="its line")
        listed = json.loads(self.node.cli("task", "list", "--labels", "by=cli", "-o", "json").stdout)
        self.assertEqual([task["id"] for task in listed], [task_id])
        self.assertEqual(self.node.cli("task", "logs", task_id).stdout, b"hi\n")
        self.assertEqual(self.node.cli("task", "cancel", task_id).returncode, 0)
        self.node.wait_task(task_id)
        got = json.loads(self.node.cli("task", "get", task_id, "-o", "json").stdout)
        self.assertEqual(got["status"], "CANCELLED")

    def test_errors_have_their_exit_codes(self):
        self.assertEqual(self.node.cli("task", "get", "none").returncode, 3)
        self.assertEqual(self.node.cli("task", "submit", "--priority", "500", "--", "true").returncode, 2)
        self.assertEqual(self.node.cli("task", "frobnicate").returncode, 2)
        problem = json.loads(self.node.cli("task", "get", "none", "-o", "json").stderr)
        self.assertEqual(problem["reason"], "TASK_NOT_FOUND")

    def test_one_request_id_is_one_task(self):
        runs = [self.node.cli("task", "submit", "-q", "--request-id", "cli-once", "--", "true") for _ in range(2)]
        self.assertEqual([run.returncode for run in runs], [0, 0])
        self.assertEqual(runs[0].stdout, runs[1].stdout)
