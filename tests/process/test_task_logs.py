"""Logs of tasks: live, whole once the task has ended, byte for byte, and to be taken up again at any cursor."""
import base64
import hashlib

from lib.rest import text_of
from lib.uccp import NodeTest
from lib.wait import wait_until


class Logs(NodeTest):
    def test_streams_are_kept_apart_and_bytes_are_kept(self):
        task = self.node.run("echo one; echo two >&2; printf 'a\\377b\\n'; printf '\\n'; printf last")
        items = self.node.log_items(task["id"])
        self.assertEqual(items[-1]["end"]["reason"], "COMPLETED")
        self.assertEqual([text_of(i) for i in items[:-1] if i["stream"] == "stderr"], [b"two"])
        out = [i for i in items[:-1] if i["stream"] == "stdout"]
        self.assertEqual([text_of(i) for i in out], [b"one", b"a\xffb", b"", b"last"])
        self.assertEqual([i for i in out if "base64" in i][0]["base64"], base64.b64encode(b"a\xffb").decode())
        self.assertNotIn("text", [i for i in out if "base64" in i][0])
        self.assertEqual({i["attempt"] for i in items[:-1]}, {1})
        self.assertEqual(self.node.log(task["id"], "stderr", stream="stderr"), [b"two"])
        self.assertEqual(self.node.log(task["id"], tailLines=1, stream="stdout"), [b"last"])

    def test_a_line_arrives_while_the_task_runs(self):
        gate = self.node.gate("live")
        task = self.node.submit(f"echo before; {gate.wait}; echo after")
        with self.rest.stream(f"tasks/{task['id']}/logs", query={"follow": "true"}) as stream:
            self.assertEqual(text_of(stream.next()), b"before")
            self.node.wait_task(task["id"], "RUNNING")
            gate.open()
            rest = list(stream)
        self.assertEqual(text_of(rest[0]), b"after")
        self.assertEqual(rest[-1]["end"]["reason"], "COMPLETED")
        self.assertEqual(len(rest), 2)

    def test_without_follow_it_ends_with_what_is_there(self):
        gate = self.node.gate("upto")
        task = self.node.submit(f"echo now; {gate.wait}; echo later")
        wait_until(lambda: self.node.log(task["id"]) == [b"now"], what="the first line")
        self.assertEqual(self.node.log_items(task["id"])[-1]["end"]["reason"], "CAUGHT_UP")
        gate.open()
        self.node.wait_task(task["id"])
        self.assertEqual(self.node.log(task["id"]), [b"now", b"later"])

    def test_the_whole_log_can_be_read_once_the_end_can(self):
        tasks = [self.node.submit(f"seq {n * 1000} {n * 1000 + 3000}")["id"] for n in range(1, 9)]
        for number, task_id in enumerate(tasks, 1):
            self.node.wait_task(task_id)
            lines = self.node.log(task_id)
            self.assertEqual(lines, [b"%d" % n for n in range(number * 1000, number * 1000 + 3001)])

    def test_goes_on_behind_any_cursor_without_gap_or_repeat(self):
        task = self.node.run("seq 1 500; seq 501 1000 >&2; echo end")
        whole = self.node.log_items(task["id"])
        self.assertEqual(len(whole), 1002)
        self.assertEqual(len({item["cursor"] for item in whole}), len(whole))
        for at in (0, 1, 250, 499, 500, 777, 999, 1000):
            with self.subTest(at):
                rest = self.node.log_items(task["id"], since=whole[at]["cursor"])
                self.assertEqual([text_of(i) for i in rest if "end" not in i],
                                 [text_of(i) for i in whole[at + 1:] if "end" not in i])

    def test_a_follower_that_breaks_off_again_and_again_loses_nothing(self):
        task = self.node.submit("i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; "
                                "[ $((i % 50)) = 0 ] && sleep 0.05; done")
        lines, cursor, connections, over = [], "", 0, False
        while not over:
            connections += 1
            query = {"follow": "true", **({"since": cursor} if cursor else {})}
            with self.rest.stream(f"tasks/{task['id']}/logs", query=query) as stream:
                for _ in range(37):
                    item = stream.next()
                    self.assertIsNotNone(item, "the stream ended without saying why")
                    if "end" in item:
                        over = True
                        break
                    cursor = item["cursor"]
                    lines.append(text_of(item))
        self.assertGreater(connections, 5)
        self.assertEqual(lines, [b"line %d" % n for n in range(1, 401)])

    def test_long_lines_come_in_parts_that_make_the_whole(self):
        task = self.node.run("head -c 200000 /dev/zero | tr '\\0' x; echo; echo short")
        items = [i for i in self.node.log_items(task["id"]) if "end" not in i]
        self.assertEqual(items[-1]["text"], "short")
        parts = items[:-1]
        self.assertEqual("".join(i["text"] for i in parts), "x" * 200000)
        self.assertTrue(all(i.get("partial") for i in parts[:-1]) and not parts[-1].get("partial"))
        self.assertLessEqual(max(len(i["text"]) for i in parts), 65536)

    def test_much_output_is_kept_whole(self):
        task = self.node.run("seq 1 200000", timeout=90)
        digest, count = hashlib.sha256(), 0
        for item in self.node.log_items(task["id"]):
            if "end" not in item:
                digest.update(text_of(item) + b"\n")
                count += 1
        self.assertEqual(count, 200000)
        expected = hashlib.sha256(b"".join(b"%d\n" % n for n in range(1, 200001)))
        self.assertEqual(digest.hexdigest(), expected.hexdigest())

    def test_sse_carries_ids_and_an_end(self):
        task = self.node.run("echo a; echo b")
        with self.rest.stream(f"tasks/{task['id']}/logs", sse=True, query={"follow": "true"}) as stream:
            items = list(stream)
        self.assertEqual([i.get("text") for i in items], ["a", "b", None])
        self.assertEqual([i["_id"] for i in items], [i["cursor"] for i in items])
        self.assertEqual(items[-1]["_event"], "end")
        with self.rest.stream(f"tasks/{task['id']}/logs", sse=True, headers={"Last-Event-ID": items[0]["_id"]}) as stream:
            self.assertEqual([i.get("text") for i in stream], ["b", None])

    def test_a_made_up_cursor_is_refused(self):
        task = self.node.run("echo a")
        for cursor in ("x", "1.2", "1.2.3.4", "-1.0.0"):
            with self.subTest(cursor):
                with self.rest.stream(f"tasks/{task['id']}/logs", query={"since": cursor}) as stream:
                    self.assertEqual(stream.status, 400, stream.response.read())
