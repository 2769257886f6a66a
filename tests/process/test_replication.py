# timeout: 300
# labels: cluster
"""How entries travel from the leader to the others: in batches, ahead of answers, as snapshots to who lacks too much, to
learners whenever they can; and that a node which was away does not unseat the leader."""
import concurrent.futures
import json
import os
import signal
import statistics
import subprocess
import time
import unittest
import urllib.request

from lib.cluster import Cluster, NetworkedCluster
from lib.network import Network, leave_the_machine
from lib.uccp import CLI, SERVER, clean_environment, freeze, require
from lib.wait import wait_until


def setUpModule():
    require(SERVER, CLI)


def write(rest, name):
    answer = rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": 1, "ttl": "3600s"},
                       headers={"Idempotency-Key": name})
    assert answer.status == 201, answer
    return answer


def metric(cluster, node, name):
    """The sum over all labels."""
    total = 0.0
    with urllib.request.urlopen(f"http://{cluster.node(node)['metrics']}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.split("{")[0].split(" ")[0] == name:
                total += float(line.split()[-1])
    return total


class Replication(unittest.TestCase):
    """Nodes in networks of their own, with relays between them that can be made slow."""

    ROUND_TRIP_MS = 200
    KEPT = 100
    TRIES = 5

    @classmethod
    def setUpClass(cls):
        leave_the_machine()
        cls.network = Network()
        cls.addClassCleanup(cls.network.close)
        cls.cluster = NetworkedCluster(cls.network, flags=("--snapshot-threshold", str(cls.KEPT)), relays=True)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    def tearDown(self):
        self.network.heal()

    def followers(self):
        leader = self.cluster.leader("core")
        return [name for name in self.cluster.names() if name != leader]

    def write_many(self, prefix, count, every_s=0.0):
        """Through the leader, all under way at the same time. Answers how long each took, in seconds."""
        leader = self.cluster.leader("core")

        def one(number):
            rest = self.cluster.rest(leader)
            rest.get("version")  # the connection is there before the clock runs
            time.sleep(every_s * number)
            begin = time.monotonic()
            write(rest, f"{prefix}{number}")
            rest.close()
            return time.monotonic() - begin

        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))

    def test_changes_made_at_the_same_time_share_messages_and_syncs(self):
        leader, follower = self.cluster.leader("core"), self.followers()[0]
        rests = [self.cluster.rest(leader) for _ in range(128)]
        for rest in rests:
            self.addCleanup(rest.close)
            rest.get("version")
        body = json.dumps({"serviceName": "batch", "address": "10.0.0.1", "port": 1, "ttl": "3600s"}).encode()
        head = {"Content-Type": "application/json", "Authorization": f"Bearer {self.cluster.context['token']}"}
        before = self.batches(follower)
        # All are sent before the first answer is read.
        for rest in rests:
            rest.connection.request("POST", "/api/v1/services", body, head)
        for rest in rests:
            answer = rest.connection.getresponse()
            self.assertEqual(answer.status, 201, answer.read())
        self.cluster.wait_equal(self.cluster.names())
        entries, syncs = (after - earlier for after, earlier in zip(self.batches(follower), before))
        self.assertGreaterEqual(entries, len(rests))
        self.assertLess(syncs, entries / 2)

    def batches(self, node):
        return [metric(self.cluster, node, f"uccp_raft_batch_entries_{what}") for what in ("sum", "count")]

    def test_the_leader_sends_on_before_earlier_entries_are_answered(self):
        self.network.delay(self.ROUND_TRIP_MS // 2)
        medians = []
        # A machine with much to do adds to some of the times; waiting for the one before would add to all of them.
        while len(medians) < self.TRIES and min(medians, default=self.ROUND_TRIP_MS * 2) >= self.ROUND_TRIP_MS * 1.35:
            took = self.write_many(f"ahead{len(medians)}-", 40, every_s=self.ROUND_TRIP_MS / 1000 / 10)
            self.assertGreater(min(took) * 1000, self.ROUND_TRIP_MS * 0.9)
            medians.append(statistics.median(took) * 1000)
        # One at a time, a change would wait for the one before it: half a round trip more in the middle.
        self.assertLess(min(medians), self.ROUND_TRIP_MS * 1.35, medians)

    def test_who_lacks_what_the_log_has_no_more_gets_a_snapshot(self):
        leader = self.cluster.leader("core")
        rest = self.cluster.patient(leader)
        name = self.followers()[0]
        # Whoever leads then: on a busy machine that may be another one.
        others = [other for other in self.cluster.names() if other != name]

        def sent_bytes():
            return sum(metric(self.cluster, other, "uccp_snapshot_bytes_sent_total") for other in others)
        sent = sent_bytes()
        self.cluster.kill(name)
        for number in range(4 * self.KEPT):
            write(rest, f"kept{number}")
        self.cluster.start()
        self.cluster.wait_equal(self.cluster.names())
        self.assertGreater(sent_bytes(), sent)
        found = self.cluster.rest(name).get("services/discover", name=f"kept{4 * self.KEPT - 1}").json["services"]
        self.assertEqual(len(found), 1)


class Return(unittest.TestCase):
    def setUp(self):
        leave_the_machine()
        self.network = Network()
        self.addCleanup(self.network.close)
        self.cluster = NetworkedCluster(self.network)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def core(self, name):
        return wait_until(lambda: self.cluster.health(name, timeout=20), 40, f"{name} to answer")["groups"]["core"]

    def terms(self):
        return {name: self.core(name)["term"] for name in self.cluster.names()}

    def test_a_node_that_was_cut_off_does_not_unseat_the_leader(self):
        # A machine that stands still may be a reason for another leader, but not each time.
        wait_until(self.keeps_its_leader, 150, "a return that leaves the leader where it is")

    def keeps_its_leader(self):
        self.cluster.wait_equal(self.cluster.names())
        leader, terms = self.cluster.leader("core"), self.terms()
        away = next(name for name in self.cluster.names() if name != leader)
        self.network.isolate(away)
        # It asks for votes again and again, and a term of its own would grow with each time.
        wait_until(lambda: not self.core(away).get("leader"), 40, f"{away} to miss the leader")
        write(self.cluster.patient(leader), "meanwhile")
        self.network.heal()
        self.cluster.wait_equal(self.cluster.names())
        return self.terms() == terms and self.cluster.leader("core") == leader


class Learner(unittest.TestCase):
    def test_a_learner_is_replicated_to_whenever_it_can(self):
        cluster = Cluster(nodes=1)
        self.addCleanup(cluster.close)
        cluster.start()
        subprocess.run([SERVER, "cluster", "prepare", "--data-dir", cluster.dir, "--node", "n2", "--ports", "auto"],
                       check=True, capture_output=True, timeout=30, env=clean_environment())
        cluster.cli_ok("cluster", "join", "n2", "--learner")
        cluster.start()
        cluster.wait_equal(["n1", "n2"])
        try:
            freeze(cluster.pid("n2"))
            for number in range(20):
                write(cluster.rest("n1"), f"without{number}")  # nobody waits for a learner
            wait_until(lambda: metric(cluster, "n1", "uccp_raft_peer_lag_entries") >= 20, 30, "the leader to tell the lag")
        finally:
            os.kill(cluster.pid("n2"), signal.SIGCONT)
        cluster.wait_equal(["n1", "n2"])
        found = cluster.rest("n2").get("services/discover", name="without19").json["services"]
        self.assertEqual(len(found), 1)


if __name__ == "__main__":
    unittest.main()
