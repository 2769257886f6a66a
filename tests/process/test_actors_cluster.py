# needs: uccp
# timeout: 240
"""Actors on a cluster of three nodes and two agents: the leader, an agent and a process are killed under load."""
import os
import random
import signal
import threading
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
    @uccp.remote(cpu=0.2, memory="128Mi", restarts=100)
    class Counter:
        def __init__(self):
            self.value = 0

        def add(self):
            self.value += 1
            return self.value

        def pid(self):
            return os.getpid()

        def square(self, n):
            return n * n


@unittest.skipIf(MISSING, MISSING or "")
class Actors(unittest.TestCase):
    def setUp(self):
        require(SERVER, AGENT, CLI)
        self.cluster = Cluster(agents=2)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.client = uccp.init(context_file=self.cluster.dir / "cluster.json")
        self.addCleanup(uccp.shutdown)
        wait_until(lambda: self.client.call("Administration/GetVersion").feature_level >= 2, 30, "feature level 2")

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def test_calls_run_once_and_in_order_when_leaders_are_killed(self):
        counter = Counter.remote()
        self.get(counter.add.remote())
        refs = []
        killed = threading.Event()

        def kill():
            wait_until(lambda: len(refs) >= 500, WAIT_S, "calls under way")
            self.cluster.kill(self.cluster.leader("work"))
            killed.set()

        killer = threading.Thread(target=kill)
        killer.start()
        while not killed.is_set() or len(refs) < 2000:
            refs.append(counter.add.remote())
            if len(refs) % 50 == 0:
                self.get(refs[-1])
        killer.join()
        refs.extend(counter.add.remote() for _ in range(200))
        self.assertEqual(self.get(refs), list(range(2, len(refs) + 2)), "none was lost, repeated or overtaken")
        self.assertEqual(self.client.tasks.get(counter.task_id).status, "RUNNING", "it is the same object still")

    def test_results_are_those_of_a_quiet_run_when_processes_are_killed(self):
        chance = random.Random(8)
        workers = [Counter.options(call_retries=-1).remote() for _ in range(3)]
        pids = self.get([worker.pid.remote() for worker in workers])
        refs = []
        for n in range(1500):
            refs.append(workers[n % 3].square.remote(n))
            if n in (300, 700, 1100):
                os.kill(chance.choice(pids), signal.SIGKILL)
                pids = self.get([worker.pid.remote() for worker in workers])
        self.assertEqual(self.get(refs), [n * n for n in range(1500)])


if __name__ == "__main__":
    unittest.main()
