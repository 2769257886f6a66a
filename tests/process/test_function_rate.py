# needs: uccp
# serial
# timeout: 180
"""How many calls of functions a second come back, from the Python package to values, on this machine."""
import time
import unittest

try:
    import uccp
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest

BATCHED_MIN = 10_000
DIRECT_MIN = 3_000  # what is measured is some times more
SINGLE_MIN = 50  # far below what is measured: it only tells a stall
TRIES = 3

if not MISSING:
    @uccp.remote(cpu=0.5, memory="128Mi")
    def same(value):
        return value

    @uccp.remote(cpu=0.5, memory="128Mi")
    class Same:
        def same(self, value):
            return value


@unittest.skipIf(MISSING, MISSING or "")
class Rates(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)
        uccp.get(same.map(range(8)), timeout=60)

    def rate(self, count, batch):
        began = time.monotonic()
        values = uccp.get(same.map(range(count), batch=batch), timeout=100)
        took = time.monotonic() - began
        self.assertEqual(values, list(range(count)))
        return count / took

    def test_batches(self):
        rates = []
        while len(rates) < TRIES and max(rates, default=0) < BATCHED_MIN:
            rates.append(self.rate(20_000, 500))
        print(f"calls a second, 500 a task: {', '.join(f'{one:.0f}' for one in rates)}")
        self.assertGreaterEqual(max(rates), BATCHED_MIN)

    def direct(self, name, call):
        """Rate of many calls under way at a time, and milliseconds of one after the other."""
        uccp.get(call(0), timeout=60)
        rates = []
        while len(rates) < TRIES and max(rates, default=0) < DIRECT_MIN:
            began = time.monotonic()
            self.assertEqual(uccp.get([call(n) for n in range(10_000)], timeout=100), list(range(10_000)))
            rates.append(10_000 / (time.monotonic() - began))
        began = time.monotonic()
        for value in range(200):
            uccp.get(call(value), timeout=60)
        took = (time.monotonic() - began) / 200 * 1e3
        print(f"{name}: {', '.join(f'{one:.0f}' for one in rates)} a second; one after the other: {took:.2f} ms")
        self.assertGreaterEqual(max(rates), DIRECT_MIN)

    def test_calls_on_leased_workers(self):
        self.direct("calls on leased workers", same.options(durable=False, lanes=2).remote)

    def test_calls_of_an_actor(self):
        actor = Same.remote()
        self.direct("calls of an actor", actor.same.remote)

    def test_one_call_a_task(self):
        rate = self.rate(1000, 1)
        began = time.monotonic()
        for value in range(50):
            uccp.get(same.remote(value), timeout=60)
        print(f"calls a second, one a task: {rate:.0f}; one after the other: {(time.monotonic() - began) / 50 * 1e3:.1f} ms")
        self.assertGreaterEqual(rate, SINGLE_MIN)
