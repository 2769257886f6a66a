# needs: uccp
# timeout: 400
"""Objects that were put on one machine are read on another: two agents beside one server, each with a memory of its own."""
import gc
import os
import subprocess
import unittest

try:
    import uccp
    import uccp_memory
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import AGENT, NodeTest, clean_environment
from lib.wait import wait_until

SMALL = {"cpu": 0.5, "memory": "256Mi"}
WAIT_S = 60
MIB = 1 << 20

if not MISSING:
    @uccp.remote(**SMALL, durable=False)
    def size(value):
        return len(value)

    @uccp.remote(**SMALL, durable=False)
    def twice(value):
        return value + value

    @uccp.remote(**SMALL)
    class Keeper:
        def keep(self, value):
            self.value = value
            return len(value)

        def give(self):
            return self.value


@unittest.skipIf(MISSING, MISSING)
class RemoteTest(NodeTest):
    """This process is on the machine `here`, which is too small for functions; they run on `there`."""

    agent = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.agents = {}
        for name, cores in (("here", "0.25"), ("there", "4")):
            cls.start_agent(name, cores)
        wait_until(lambda: cls.ready() == {"here", "there"}, WAIT_S, "two workers")
        os.environ["UCCP_OBJECTS_FILE"] = str(cls.folder("here") / "objects.json")
        cls.addClassCleanup(os.environ.pop, "UCCP_OBJECTS_FILE", None)
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)
        cls.there = uccp_memory.of_file(str(cls.folder("there") / "objects.json"), "default", "default")
        cls.addClassCleanup(cls.there.close)

    @classmethod
    def folder(cls, name):
        return cls.node.base / f"agent-{name}"

    @classmethod
    def start_agent(cls, name, cores):
        agent = subprocess.Popen(
            [str(AGENT), "--data-dir", str(cls.folder(name)), "--context-file", str(cls.node.dir / "agent.json"),
             "--name", name, "--cpu", cores, "--memory", "4Gi", "--objects-memory", "256Mi", "--objects-lease", "2s"],
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(), start_new_session=True)
        cls.agents[name] = agent
        cls.addClassCleanup(agent.wait, WAIT_S)
        cls.addClassCleanup(agent.terminate)

    @classmethod
    def ready(cls):
        return {one["name"] for one in cls.node.rest.get("workers").json["workers"] if one["status"] == "READY"}

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def here(self):
        return self.client.memory.stats()


class Reading(RemoteTest):
    def test_what_was_put_here_is_read_there_once_however_many_calls_read_it(self):
        value = os.urandom(9 * MIB + 3)
        ref = uccp.put(value)
        before, served = self.there.stats(), self.here()["served"]
        self.assertEqual(self.get([size.remote(ref) for _ in range(4)]), [len(value)] * 4)
        after = self.there.stats()
        self.assertEqual(after["fetched"] - before["fetched"], 1, "the copy there serves all of them")
        self.assertGreaterEqual(after["fetched_bytes"] - before["fetched_bytes"], len(value))
        wait_until(lambda: self.here()["served"] == served + 1, WAIT_S, "this machine has served it once")

    def test_results_come_from_there_when_they_are_read(self):
        fetched = self.here()["fetched"]
        doubled = twice.remote(uccp.put(b"ab" * (4 * MIB)))
        self.assertEqual(self.get(size.remote(doubled)), 16 * MIB, "an argument that never was here")
        self.assertEqual(self.here()["fetched"], fetched)
        self.assertEqual(self.get(doubled), b"ab" * (8 * MIB))
        self.assertEqual(self.here()["fetched"], fetched + 1)

    def test_what_is_asked_for_ahead_is_here_when_it_is_read(self):
        refs = [twice.remote(bytes([number]) * MIB) for number in range(6)]
        for ref in refs:
            ref._pending.ended.result(WAIT_S)
        fetched = self.here()["fetched"]
        uccp.prefetch(refs)
        wait_until(lambda: self.here()["fetched"] == fetched + 6, WAIT_S, "all have come")
        for number, ref in enumerate(refs):
            self.assertTrue(self.client.memory.size_of(ref._pending.shared.identity))
            self.assertEqual(self.get(ref), bytes([number]) * (2 * MIB))

    def test_actors_keep_and_give_what_came_from_elsewhere(self):
        keeper = Keeper.remote()
        self.addCleanup(uccp.kill, keeper)
        self.assertEqual(self.get(keeper.keep.remote(uccp.put(b"k" * (5 * MIB)))), 5 * MIB)
        self.assertEqual(self.get(keeper.give.remote()), b"k" * (5 * MIB))

    def test_small_values_travel_along(self):
        fetched = self.there.stats()["fetched"]
        self.assertEqual(self.get(size.remote(uccp.put(b"s" * 1000))), 1000)
        self.assertEqual(self.get(twice.remote(uccp.put("s" * 100_000))), "s" * 200_000)
        self.assertEqual(self.there.stats()["fetched"], fetched)

    def test_a_result_there_lives_as_long_as_it_is_referred_to_here(self):
        begin = self.there.stats()["objects"]
        doubled = twice.remote(b"d" * MIB)
        doubled._pending.ended.result(WAIT_S)
        self.assertEqual(self.there.stats()["objects"], begin + 1)
        self.assertEqual(self.get(doubled), b"d" * (2 * MIB))
        wait_until(lambda: self.there.stats()["objects"] == begin, WAIT_S, "what has come here is not kept there")
        self.assertEqual(self.get(doubled), b"d" * (2 * MIB))
        del doubled
        gc.collect()

    def test_another_namespace_reads_nothing_by_a_location_of_this_one(self):
        ref = uccp.put(b"secret" * MIB)
        other = uccp_memory.of_file(str(self.folder("there") / "objects.json"), "default", "other")
        self.addCleanup(other.close)
        with self.assertRaises(uccp_memory.MemoryRefused) as caught:
            other.get(ref._pending.identity)
        self.assertEqual(caught.exception.reason, "OBJECT_UNKNOWN")
        location = bytearray(ref._pending.location())
        at = location.index(b"x\0\0\0\x40") + 5
        location[at:at + 64] = b"0" * 64
        with self.assertRaises(uccp_memory.MemoryRefused) as caught:
            other.take(ref._pending.identity, bytes(location))
        self.assertEqual(caught.exception.reason, "OBJECT_LOST")
        self.assertIn("the grant is not of this agent", str(caught.exception))


class Deaths(RemoteTest):
    def test_what_died_with_its_machine_is_made_again_or_is_said_to_be_lost(self):
        base = uccp.put(b"b" * MIB)
        doubled = twice.remote(base)
        doubled._pending.ended.result(WAIT_S)
        keeper = Keeper.remote()
        self.assertEqual(self.get(keeper.keep.remote(uccp.put(b"k" * (3 * MIB)))), 3 * MIB)
        given = keeper.give.remote()
        given._pending.ended.result(WAIT_S)
        self.agents["there"].kill()
        self.agents["there"].wait(WAIT_S)
        self.start_agent("there", "4")  # with an empty memory; what ran is lost
        with self.assertRaisesRegex(uccp.Corruption, "put on another machine and cannot be read from there") as caught:
            self.get(given)
        self.assertEqual(caught.exception.reason, "OBJECT_LOST")
        self.assertEqual(self.get(doubled), b"b" * (2 * MIB))


if __name__ == "__main__":
    unittest.main()
