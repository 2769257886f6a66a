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
SINGLE_MIN = 50  # far below what is measured: it only tells a stall
TRIES = 3

if not MISSING:
    @uccp.remote(cpu=0.5, memory="128Mi")
    def same(value):
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

    def test_one_call_a_task(self):
        rate = self.rate(1000, 1)
        began = time.monotonic()
        for value in range(50):
            uccp.get(same.remote(value), timeout=60)
        print(f"calls a second, one a task: {rate:.0f}; one after the other: {(time.monotonic() - began) / 50 * 1e3:.1f} ms")
        self.assertGreaterEqual(rate, SINGLE_MIN)
