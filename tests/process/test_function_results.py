# needs: uccp
# timeout: 180
"""Values of functions that are more than one or live longer than their task: generators, and objects of stores."""
import json
import os
import signal
import time
import unittest

try:
    import uccp
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest

SMALL = {"cpu": 0.2, "memory": "128Mi"}
WAIT_S = 60


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Point) and self.x == other.x


if not MISSING:
    @uccp.remote(**SMALL)
    def add(*numbers):
        return sum(numbers)


@unittest.skipIf(MISSING, MISSING or "")
class ResultTest(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)


class Generators(ResultTest):
    def test_values_come_while_the_function_runs_and_are_kept(self):
        gate = self.node.gate("yield")

        @uccp.remote(**SMALL)
        def count(path, n):
            for number in range(n):
                if number == n // 2:
                    while not os.path.exists(path):
                        time.sleep(0.01)
                yield Point(number)

        values = count.remote(str(gate.path), 1000)
        first = iter(values)
        self.assertEqual([next(first) for _ in range(500)], [Point(n) for n in range(500)])
        gate.open()
        self.assertEqual(list(first), [Point(n) for n in range(500, 1000)])
        self.assertEqual(list(values), [Point(n) for n in range(1000)], "from what is stored")

    def test_an_exception_comes_behind_the_values_and_what_came_is_not_sent_again(self):
        tries = self.node.shared / "yield-tries"

        @uccp.remote(**SMALL, retries=1)
        def count(path):
            with open(path, "a+") as file:
                file.write("x")
                file.seek(0)
                tries = len(file.read())
            yield from range(3)
            if tries == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield 3
            raise LookupError("no more")

        got = []
        with self.assertRaisesRegex(LookupError, "no more"):
            for value in count.remote(str(tries)):
                got.append(value)
        self.assertEqual(got, [0, 1, 2, 3])

    def test_by_rest_with_a_cursor(self):
        self.rest.post("functions", {"name": "gen", "entryPoint": "m:f", "source": "def f(n):\n  yield from range(n)"})
        call = {"function": {"name": "gen", "args": [{"json": 5}]}, "resources": {"cpu": 0.2, "memory": "128Mi"}}
        task = self.rest.post("compute/tasks", call).json["id"]
        self.rest.get(f"tasks/{task}/result?wait=20s")

        def items(query=""):
            text = self.rest.get(f"tasks/{task}/results{query}").body.decode()
            return [json.loads(line) for line in text.splitlines() if line.strip()]

        whole = items()
        self.assertEqual([one["value"]["json"] for one in whole if "value" in one], [0, 1, 2, 3, 4])
        self.assertEqual([one.get("result", {}).get("status") for one in whole][-2:], ["SUCCEEDED", None])
        rest = items(f"?since={whole[2]['cursor']}")
        self.assertEqual([one["value"]["json"] for one in rest if "value" in one], [3, 4])
        self.assert_problem(self.rest.get(f"tasks/{task}/results?since=nothing"), 400, "CURSOR_INVALID")
        self.assert_problem(self.rest.get("tasks/task_none/results"), 404, "TASK_NOT_FOUND")


class StoredObjects(ResultTest):
    def test_values_are_stored_by_key_and_arrive_as_arguments(self):
        objects = self.client.objects
        stored = objects.put("points/1", [Point(4)] * 3, labels={"kind": "points"})
        self.assertEqual(objects.get("points/1"), [Point(4)] * 3)

        @uccp.remote(**SMALL)
        def count(values, more):
            return len(values) + more

        ref = count.remote(stored, add.remote(1))
        objects.put("points/1", [])
        self.assertEqual(self.get(ref), 4, "the version of the moment of the call")
        self.assertEqual(self.get(count.remote(objects.describe("points/1"), 5)), 5)
        self.assertEqual([one.key for one in objects.list("points/")], ["points/1"])
        objects.delete("points/1")
        with self.assertRaises(uccp.NotFound):
            objects.get("points/1")

    def test_large_content_travels_as_a_stream(self):
        content = os.urandom(9_000_000)
        stored = self.client.objects.put("large", content)
        self.assertEqual((stored.size, self.client.objects.get("large") == content), (9_000_000, True))

        @uccp.remote(**SMALL)
        def size(value):
            return len(value)

        self.assertEqual(self.get(size.remote(stored)), 9_000_000)

    def test_versions_and_etags(self):
        objects = self.client.objects
        objects.create_store("kept", versioning=True)
        first = objects.put("k", "one", store="kept")
        objects.put("k", "two", store="kept", if_match=first.etag)
        with self.assertRaises(uccp.Conflict):
            objects.put("k", "three", store="kept", if_match=first.etag)
        self.assertEqual(objects.get("k", store="kept"), "two")
        self.assertEqual(objects.get("k", store="kept", version=first.version), "one")
        objects.delete_store("kept", force=True)


if __name__ == "__main__":
    unittest.main()
