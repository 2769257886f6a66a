# needs: uccp
# timeout: 180
"""Calls that are not tasks of their own: on leased workers, beside each other, over crashes, and back when idle."""
import os
import signal
import time
import unittest

try:
    import uccp
    from uccp import lanes
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest
from lib.wait import wait_until

SMALL = {"cpu": 0.2, "memory": "128Mi", "durable": False, "lanes": 3}
WAIT_S = 60

if not MISSING:
    @uccp.remote(**SMALL)
    def add(*numbers, **named):
        return sum(numbers) + sum(named.values())

    @uccp.remote(**SMALL)
    def process():
        return os.getpid()

    @uccp.remote(**SMALL)
    def held(path, value):
        while not os.path.exists(path):
            time.sleep(0.01)
        return value

    @uccp.remote(**SMALL)
    def dies(tries):
        with open(tries, "a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)


@unittest.skipIf(MISSING, MISSING or "")
class Lanes(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def leases(self, status="RUNNING"):
        return [task for task in uccp.current().tasks.list(filter='name = "uccp.lane"') if task.status == status]

    def test_values_errors_and_references(self):
        self.assertEqual(self.get([add.remote(n, c=1) for n in range(2000)]), list(range(1, 2001)))
        self.assertEqual(self.get(add.map(range(100), range(100))), [2 * n for n in range(100)])
        self.assertEqual(self.get(add.remote(add.remote(1, 2), c=add.remote(3))), 6)
        durable = add.options(durable=True)
        self.assertEqual(self.get(durable.remote(add.remote(4), 5)), 9, "a value of a lease as argument of a task")
        self.assertEqual(self.get(add.remote(durable.remote(4), 5)), 9)
        with self.assertRaisesRegex(TypeError, "unsupported operand") as caught:
            self.get(add.remote("x"))
        self.assertIsInstance(caught.exception, uccp.RemoteError)
        self.assertNotIn("uccp_actor", caught.exception.remote_traceback)
        self.assertLessEqual(len(self.leases()), 3)
        with self.assertRaisesRegex(uccp.FailedPrecondition, "not a task"):
            add.remote(1).task_id
        with self.assertRaisesRegex(uccp.InvalidRequest, "timeout"):
            uccp.remote(durable=False, timeout=3)(len)

    def test_a_call_that_takes_long_holds_up_no_other(self):
        gate = self.node.gate("lane")
        slow = [held.remote(str(gate.path), n) for n in range(2)]
        self.assertEqual(self.get([add.remote(n) for n in range(500)]), list(range(500)))
        self.assertFalse(any(ref.done() for ref in slow))
        gate.open()
        self.assertEqual(self.get(slow), [0, 1])

    def test_only_the_call_that_ends_its_process_fails(self):
        tries = self.node.shared / "dies"
        before = [add.remote(n) for n in range(200)]
        bad = dies.remote(str(tries))
        after = [add.remote(n) for n in range(200)]
        self.assertEqual(self.get(before + after), [*range(200), *range(200)])
        with self.assertRaisesRegex(uccp.WorkerCrashed, "signal 9"):
            self.get(bad)
        self.assertIn(tries.read_text(), ("x", "xx"), "by itself, to know that it was it")

    def test_a_killed_worker_loses_nothing(self):
        pids = set(self.get([process.remote() for _ in range(50)]))
        refs = [add.remote(n) for n in range(3000)]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.assertEqual(self.get(refs), list(range(3000)))

    def test_workers_that_died_at_rest_take_no_call_down(self):
        for n in range(5):
            for pid in set(self.get([process.remote() for _ in range(50)])):
                os.kill(pid, signal.SIGKILL)
            self.assertEqual(self.get([add.remote(n), add.remote(n, 2)]), [n, n + 2], f"round {n}")

    def test_leases_end_when_nothing_uses_them(self):
        self.get(add.remote(1))
        self.assertTrue(self.leases())
        wait_until(lambda: not self.leases(), lanes.IDLE_S + WAIT_S, "the leases' end")
        self.assertEqual(self.get(add.remote(1)), 1)


if __name__ == "__main__":
    unittest.main()
