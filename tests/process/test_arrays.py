"""Arrays: many elements in one task, by REST and CLI."""
import json

from lib.uccp import NodeTest
from lib.wait import wait_until


class Arrays(NodeTest):
    feature_level = 2

    def submit(self, size, script, **fields):
        array = {"size": size, **fields.pop("array", {})}
        answer = self.rest.post("tasks", {"command": ["sh", "-c", script], "array": array,
                                          "resources": {"cpu": 0.01, "memory": "16Mi"}, **fields})
        self.assertEqual(answer.status, 201, answer)
        return answer.json["id"]

    def counts(self, array):
        return self.rest.get(f"tasks/{array}").json.get("elements", {})

    def test_each_element_runs_once_with_its_index(self):
        array = self.submit(20, "echo $UCCP_ARRAY_ID $UCCP_ARRAY_INDEX of $UCCP_ARRAY_SIZE")
        ended = self.node.wait_task(array)
        self.assertEqual((ended["status"], ended["statusReason"]), ("SUCCEEDED", "all 20 elements succeeded"))
        self.assertEqual(self.counts(array)["succeeded"], 20)
        for index in (0, 7, 19):
            self.assertEqual(self.node.log(f"{array}:{index}"), [f"{array} {index} of 20".encode()])
        self.assert_problem(self.rest.get(f"tasks/{array}:20"), 404, "TASK_NOT_FOUND")
        self.assert_problem(self.rest.get("tasks?array=none"), 400, "FIELD_INVALID")
        self.assertEqual([t["id"] for t in self.rest.get("tasks", filter=f'id = "{array}"').json["tasks"]], [array])

    def test_no_more_run_at_a_time_than_its_parallelism(self):
        gate = self.node.shared / "gate"
        array = self.submit(6, f"until test -e {gate}; do sleep 0.05; done", array={"parallelism": 2})
        wait_until(lambda: self.counts(array).get("running") == 2, what="two elements to run")
        self.assertEqual(self.counts(array).get("waiting"), 4)
        why = self.rest.get(f"tasks/{array}:explain").json["summary"]
        self.assertIn("2 run, which is as many as its parallelism allows", why)
        self.assertIn("its turn", self.rest.get(f"tasks/{array}:5:explain").json["summary"])
        gate.write_text("")
        self.assertEqual(self.node.wait_task(array)["status"], "SUCCEEDED")

    def test_elements_are_retried_listed_and_resumed_one_by_one(self):
        mark = self.node.shared / "mended"
        array = self.submit(5, f'test $UCCP_ARRAY_INDEX -lt 3 || test -e {mark}',
                            retry={"maxAttempts": 2, "initialBackoff": "0.01s"})
        ended = self.node.wait_task(array)
        self.assertEqual((ended["status"], ended["statusReason"]), ("FAILED", "2 of 5 elements failed"))
        failed = self.rest.get("tasks", array=array, status="FAILED").json["tasks"]
        self.assertEqual([(t["id"], t["arrayIndex"], t["attempts"]) for t in failed],
                         [(f"{array}:3", 3, 2), (f"{array}:4", 4, 2)])
        page = self.rest.get("tasks", array=array, pageSize=2).json
        rest = self.rest.get("tasks", array=array, pageSize=3, pageToken=page["nextPageToken"]).json
        self.assertEqual([t["arrayIndex"] for t in page["tasks"] + rest["tasks"]], [0, 1, 2, 3, 4])
        mark.write_text("")
        ran = self.node.cli("task", "resume", array)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.assertEqual(self.node.wait_task(array)["status"], "SUCCEEDED")
        self.assertEqual(self.rest.get(f"tasks/{array}:4").json["attempts"], 3)
        self.assertEqual(self.rest.get(f"tasks/{array}:0").json["attempts"], 1)

    def test_some_elements_or_all_are_cancelled(self):
        array = self.submit(8, "sleep 1000", array={"parallelism": 3}, gracePeriod="0.1s")
        wait_until(lambda: self.counts(array).get("running") == 3, what="three elements to run")
        ran = self.node.cli("task", "cancel", array, "--elements", "0-1,7", "-o", "json")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        wait_until(lambda: self.counts(array).get("cancelled") == 3, what="three elements to be cancelled")
        wait_until(lambda: self.counts(array).get("running") == 3, what="others to take their places")
        self.assertEqual(self.rest.get(f"tasks/{array}:7").json["status"], "CANCELLED")
        self.assertEqual(self.rest.delete(f"tasks/{array}:2").status, 200)
        self.assertEqual(self.node.wait_task(f"{array}:2")["status"], "CANCELLED")
        self.assertEqual(self.rest.delete(f"tasks/{array}", dict(reason="enough")).status, 200)
        ended = self.node.wait_task(array)
        self.assertEqual((ended["status"], ended["statusReason"]), ("CANCELLED", "enough"))
        self.assertEqual(ended["elements"]["cancelled"], 8)

    def test_a_task_waits_for_an_array_and_takes_what_an_element_left(self):
        array = self.submit(3, "mkdir out; echo $UCCP_ARRAY_INDEX > out/n", outputs=["out/*"])
        after = self.rest.post("tasks", {"command": ["cat", "in"], "dependencies": [{"taskId": array}], "inputs": [
            {"path": "in", "taskOutput": {"taskId": f"{array}:2", "path": "out/n"}}]}).json["id"]
        self.assertEqual(self.node.wait_task(after)["status"], "SUCCEEDED")
        self.assertEqual(self.node.log(after), [b"2"])

    def test_a_map_reduce_job_counts_words(self):
        texts = ["a b a", "b c", "a", ""]
        words = "i=0; for t in " + " ".join(f"'{t}'" for t in texts) + "; do test $i = $UCCP_ARRAY_INDEX && break; i=$((i+1)); done"
        answer = self.rest.post("tasks:graph", {"tasks": [
            {"key": "reduce", "after": [{"key": "map", "files": ["out/words"]}],
             "task": {"type": "MAP_REDUCE", "command": ["sh", "-c", "cat */out/words | sort | uniq -c | awk '{print $2, $1}'"]}},
            {"key": "map", "task": {"type": "MAP_REDUCE", "array": {"size": len(texts)}, "outputs": ["out/*"],
                                    "command": ["sh", "-c", f"{words}; mkdir out; for w in $t; do echo $w; done > out/words"]}}]})
        self.assertEqual(answer.status, 200, answer)
        mapped, reduced = answer.json["tasks"]
        self.assertEqual(self.node.wait_task(reduced["id"])["status"], "SUCCEEDED")
        self.assertEqual(self.node.log(reduced["id"]), [b"a 3", b"b 2", b"c 1"])
        self.assertEqual(self.counts(mapped["id"])["succeeded"], len(texts))

    def test_what_makes_no_sense_is_refused_with_the_field(self):
        for fields, why in (({"type": "SERVICE"}, "task.array is only for tasks of type BATCH and MAP_REDUCE"),
                            ({"gang": {"id": "g", "size": 2}}, "task.gang is not for arrays"),
                            ({"queueTimeout": "5s"}, "task.queueTimeout is not for arrays"),
                            ({"array": {"size": 100_001}}, "task.array.size"), ({"array": {}}, "task.array.size")):
            answer = self.rest.post("tasks", {"command": ["true"], "array": {"size": 2}, **fields})
            self.assert_problem(answer, 400, "FIELD_INVALID")
            self.assertIn(why, json.dumps(answer.json), fields)
        array = self.submit(2, "true")
        self.assert_problem(self.rest.get(f"tasks/{array}/logs"), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.delete(f"tasks/{array}", dict(elements="1-5")), 400, "FIELD_INVALID")
        self.assert_problem(self.rest.put(f"tasks/{array}:0/priority", {"priority": 9}), 412, "TASK_IS_ELEMENT")

    def test_nothing_of_an_array_is_lost_or_doubled_by_kill_9(self):
        ran = self.node.shared / "ran"
        ran.write_text("")
        ran.chmod(0o666)  # tasks have another user
        array = self.submit(60, f"echo $UCCP_ARRAY_INDEX >> {ran}", array={"parallelism": 8})
        for acknowledged in (5, 25, 45):
            wait_until(lambda: self.counts(array).get("succeeded", 0) >= acknowledged, what="elements to succeed")
            seen = {t["id"] for t in self.rest.get("tasks", array=array, status="SUCCEEDED", pageSize=100).json["tasks"]}
            self.node.kill()
            self.node.start()
            kept = {t["id"] for t in self.rest.get("tasks", array=array, status="SUCCEEDED", pageSize=100).json["tasks"]}
            self.assertLessEqual(seen, kept, "what was answered as ended has ended")
        self.assertEqual(self.node.wait_task(array)["status"], "SUCCEEDED")
        self.assertEqual(self.counts(array)["succeeded"], 60)
        self.assertEqual(sorted(map(int, ran.read_text().split())), list(range(60)), "each element ran once")

    def test_a_hundred_thousand_elements_are_accepted_and_ended_at_once(self):
        array = self.submit(100_000, "sleep 1000", array={"parallelism": 1}, gracePeriod="0s")
        wait_until(lambda: self.counts(array).get("running") == 1, what="the first element to run")
        self.assertEqual(self.counts(array)["waiting"], 99_999)
        self.assertEqual(self.rest.delete(f"tasks/{array}").status, 200)
        self.assertEqual(self.node.wait_task(array)["elements"]["cancelled"], 100_000)
