# needs: uccp
# timeout: 180
"""Functions on a cluster of three nodes and two agents whose leader is killed while they run."""
import time
import unittest

try:
    import uccp
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.cluster import Cluster
from lib.uccp import AGENT, CLI, SERVER, require
from lib.wait import wait_until

WAIT_S = 100

if not MISSING:
    # Large enough that the two of them do not fit into one agent's place for it.
    @uccp.remote(cpu=0.5, memory="128Mi", retries=10)
    def slow_square(value):
        time.sleep(0.05)
        return value * value

    @uccp.remote(cpu=0.2, memory="128Mi", retries=10)
    def total(content, *values):
        return len(content) + sum(values)


@unittest.skipIf(MISSING, MISSING or "")
class Functions(unittest.TestCase):
    def setUp(self):
        require(SERVER, AGENT, CLI)
        self.cluster = Cluster(agents=2)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.client = uccp.init(context_file=self.cluster.dir / "cluster.json")
        self.addCleanup(uccp.shutdown)
        wait_until(lambda: self.client.call("Administration/GetVersion").feature_level >= 2, 30, "feature level 2")

    def test_values_survive_the_leader(self):
        content = uccp.put(b"x" * 100_000)  # in the blob store, which the nodes share
        refs = slow_square.map(range(100))
        wait_until(lambda: sum(ref.done() for ref in refs) >= 10, WAIT_S, "ten values")
        self.cluster.kill(self.cluster.leader("work"))
        values = uccp.get(refs, timeout=WAIT_S)
        self.assertEqual(values, [n * n for n in range(100)])
        self.assertEqual(uccp.get(total.remote(content, *refs[:3], refs[99]), timeout=WAIT_S), 100_000 + 0 + 1 + 4 + 9801)
        def listed():
            return list(self.client.tasks.list(filter='name = "test_functions_cluster.slow_square"'))
        # A list may be some seconds old.
        wait_until(lambda: {task.status for task in listed()} == {"SUCCEEDED"}, 30, "the list to show that all have ended")
        tasks = listed()
        self.assertEqual(len(tasks), 100, "each call is one task, however often it was sent")
        self.assertEqual(len({task.worker_id for task in tasks}), 2, "both agents had a share")
