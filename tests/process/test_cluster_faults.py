# timeout: 300
# labels: cluster
"""Clients put, get and compare-and-set registers while nodes are killed, stopped, cut off and slowed down. The history that
they record has to be that of single registers, says porcupine and says our own checker.

UCCP_FAULT_ROUNDS: how often each list of faults is gone through, default 1.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest
import zlib

from lib.cluster import NetworkedCluster
from lib.history import check_with_ours, check_with_porcupine, porcupine_program
from lib.network import Network, leave_the_machine
from lib.registers import Registers
from lib.uccp import CLI, SERVER, is_running, require
from lib.wait import wait_until

ROUNDS = int(os.environ.get("UCCP_FAULT_ROUNDS", "1"))


def setUpModule():
    require(SERVER, CLI)
    # While there still is a network to have its module from.
    with contextlib.suppress(unittest.SkipTest):
        porcupine_program()


class Checkers(unittest.TestCase):
    """Both checkers take what is right, and refuse what is not: else the cases below would prove nothing."""

    RIGHT = ("1 a put 5 - ok 0 10", "2 a get 5 - ok 11 12", "1 a cas 6 5 ok 13 20", "3 a cas 7 5 no 14 25",
             "2 a get 6 - ok 21 30", "1 a put 8 - ? 31 -", "2 a get 6 - ok 40 50", "2 b get 0 - ok 41 51",
             "2 a get 8 - ok 60 70")
    WRONG = {"a read of what was overwritten": ("2 a get 6 - ok 21 30", "2 a get 5 - ok 21 30"),
             "a write that was lost": ("2 a get 5 - ok 11 12", "2 a get 0 - ok 11 12"),
             "two that compared and set the same": ("3 a cas 7 5 no 14 25", "3 a cas 7 5 ok 14 25"),
             "a value that nobody wrote": ("2 b get 0 - ok 41 51", "2 b get 9 - ok 41 51"),
             "an unknown write before it began": ("2 a get 6 - ok 21 30", "2 a get 8 - ok 21 30")}

    def verdicts(self, check):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "history")
            path.write_text("\n".join(self.RIGHT) + "\n")
            self.assertEqual(check(path)[0], True, check(path))
            for what, (line, changed) in self.WRONG.items():
                with self.subTest(what):
                    path.write_text("\n".join(changed if each == line else each for each in self.RIGHT) + "\n")
                    self.assertEqual(check(path)[0], False, check(path))

    def test_porcupine(self):
        program = porcupine_program()
        self.verdicts(lambda path: check_with_porcupine(path, program))

    def test_ours(self):
        self.verdicts(check_with_ours)


class Faults(unittest.TestCase):
    """One cluster of three nodes in a network that can be broken; each case breaks it in other ways."""

    relays = False
    flags = ()
    # How long a client waits for an answer before it asks another node.
    client_timeout = 3

    @classmethod
    def setUpClass(cls):
        leave_the_machine()
        cls.network = Network()
        cls.addClassCleanup(cls.network.close)
        cls.cluster = NetworkedCluster(cls.network, flags=cls.flags, relays=cls.relays)
        cls.addClassCleanup(cls.cluster.close)
        cls.prepare()
        cls.cluster.start()

    @classmethod
    def prepare(cls):
        """Before the nodes start."""

    def setUp(self):
        seed = zlib.crc32(self.id().encode()) % 100_000
        self.clients = Registers(self.cluster, seed=seed, timeout=self.client_timeout)
        self.addCleanup(self.clients.stop)
        self.clients.wait_progress()

    def tearDown(self):
        """Whatever was broken is mended: then everything answers, all replicas are equal, the history is that of registers."""
        self.network.heal()
        self.cluster.start()
        self.clients.wait_progress()
        self.clients.stop()
        self.assertEqual(self.clients.failures, [])
        self.cluster.wait_equal(self.cluster.names())
        path = self.clients.history.write(self.cluster.base / f"{self._testMethodName}.history")
        ours = check_with_ours(path)
        self.assertTrue(ours[0], ours[1])
        try:
            porcupine = check_with_porcupine(path, porcupine_program())
        except unittest.SkipTest as reason:  # Checkers says so
            porcupine = (True, str(reason))
        self.assertTrue(porcupine[0], porcupine[1])
        print(f"{ours[1]}; {porcupine[1]}; slowest {self.clients.slowest:.2f} s", flush=True)

    def group(self, name):
        """What a node says of the group `core`; {} if it does not answer."""
        health = self.cluster.health(name)
        return health.get("groups", {}).get("core", {}) if health else {}

    def leader(self, but=None):
        """The node, other than `but`, that says it leads. Waits for one."""
        def found():
            leading = [name for name in self.cluster.names() if name != but and self.group(name).get("role") == "leader"]
            return leading[0] if leading else None
        return wait_until(found, 60, f"a leader other than {but}")

    def followers(self):
        leader = self.leader()
        return [name for name in self.cluster.names() if name != leader]


class Processes(Faults):
    def test_nodes_are_killed(self):
        for _ in range(ROUNDS):
            for victims in ([self.leader()], [self.followers()[0]], self.cluster.names()[:2]):
                for name in victims:
                    self.cluster.kill(name)
                if len(victims) == 1:
                    self.clients.wait_progress()
                self.cluster.start()
                self.clients.wait_progress()

    def test_nodes_are_stopped_and_go_on(self):
        for _ in range(ROUNDS):
            for victim in (self.leader(), self.followers()[0]):
                pid = self.cluster.pid(victim)
                os.kill(pid, signal.SIGSTOP)
                try:
                    self.leader(but=victim)
                    self.clients.wait_progress()
                finally:
                    os.kill(pid, signal.SIGCONT)
                self.clients.wait_progress()


class Partitions(Faults):
    def test_a_node_is_cut_off(self):
        for _ in range(ROUNDS):
            for victim in (self.leader(), self.followers()[0]):
                self.network.isolate(victim)
                self.leader(but=victim)
                self.clients.wait_progress()
                self.network.heal()
                self.clients.wait_progress()

    def test_one_way_only(self):
        for _ in range(ROUNDS):
            leader = self.leader()
            for name in self.cluster.names():
                if name != leader:
                    self.network.cut(name, leader)  # it is heard and hears nobody
            self.leader(but=leader)
            self.clients.wait_progress()
            self.network.heal()
            self.clients.wait_progress()
            leader = self.leader()
            for name in self.cluster.names():
                if name != leader:
                    self.network.cut(leader, name)  # it hears and is not heard
            self.leader(but=leader)
            self.clients.wait_progress()
            self.network.heal()
            self.clients.wait_progress()

    def test_everybody_is_alone(self):
        for _ in range(ROUNDS):
            for name in self.cluster.names():
                self.network.isolate(name)
            # Nobody may lead: then nothing is confirmed.
            wait_until(lambda: all(self.group(name).get("role") != "leader" for name in self.cluster.names()), 40, "no leader")
            self.network.heal()
            self.clients.wait_progress()

    def test_packets_are_lost(self):
        for _ in range(ROUNDS):
            self.network.lose(10)
            self.clients.wait_progress(200)
            self.network.heal()


class SlowNetwork(Faults):
    relays = True

    def test_peers_are_far_away(self):
        for _ in range(ROUNDS):
            # 200 ms there and back are no reason for another leader. A machine that stands still may be one, but not each time.
            wait_until(self.keeps_its_leader, 120, "a time of long ways with one leader")

    def keeps_its_leader(self):
        terms = wait_until(self.terms, 30, "one term everywhere")
        self.network.delay(100)
        self.clients.wait_progress()
        self.network.heal()
        self.clients.wait_progress()
        return self.terms() == terms

    def terms(self):
        """The one term that all are in, None if they are in several or one does not answer."""
        terms = {self.group(name).get("term") for name in self.cluster.names()}
        return terms.pop() if len(terms) == 1 else None


class FullDisk(Faults):
    SIZE = 320 << 20  # three logs of 64 MiB, and room
    RESERVED = 16 << 20
    flags = ("--disk-reserved", str(RESERVED))

    @classmethod
    def prepare(cls):
        cls.disk = cls.cluster.dir / "n2"
        files = cls.cluster.base / "n2"
        cls.disk.rename(files)
        cls.disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={cls.SIZE}", "none", cls.disk], check=True)
        cls.addClassCleanup(subprocess.run, ["umount", "-l", cls.disk], check=True)
        subprocess.run(["cp", "-a", f"{files}/.", cls.disk], check=True)

    def fill(self):
        """Leaves half of what is reserved."""
        disk = os.statvfs(self.disk)
        ballast = self.disk / "ballast"
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - self.RESERVED // 2)
        return ballast

    def full(self):
        return self.cluster.rest("n2").get("/health/storage").json["outOfSpace"]

    def test_of_a_follower_and_of_the_leader(self):
        for leader in ("n1", "n2"):
            for group in ("core", "work"):
                self.cluster.lead(group, leader)
            ballast = self.fill()
            wait_until(self.full, 30, "n2 to notice")
            # The others have room: a leader gives way, a follower is no hindrance.
            self.clients.wait_progress(200)
            wait_until(lambda: self.leader() != "n2", 40, "another leader")
            ballast.unlink()
            wait_until(lambda: not self.full(), 30, "n2 to notice that there is room again")


class Replacement(Faults):
    def test_a_dead_node_is_replaced_while_clients_work(self):
        for _ in range(ROUNDS):
            self.cluster.kill("n2")
            self.clients.wait_progress()
            self.cluster.cli_ok("cluster", "remove", "n2", server="n1")
            shutil.rmtree(self.cluster.dir / "n2")
            self.cluster.add("n2")
            self.cluster.cli_ok("cluster", "join", "n2", "--learner", server="n1")
            self.cluster.start()
            self.clients.wait_progress()
            roles = {group["n2"]["role"] for group in self.cluster.wait_equal(["n2"]).values()}
            self.assertEqual(roles, {"learner"})
            self.cluster.cli_ok("cluster", "promote", "n2", server="n1")
            self.clients.wait_progress()
        # It counts: with it alone beside one of the old ones there is a majority.
        self.cluster.kill("n1")
        self.clients.wait_progress()


if __name__ == "__main__":
    unittest.main()
