# timeout: 300
# labels: cluster
"""How fresh a read is: linearizable, lease, bounded and session, over REST and gRPC, on nodes that lose their majority."""
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from test_cluster import Cluster  # noqa: E402

from lib.uccp import CLI, SERVER, clean_environment, freeze, require  # noqa: E402
from lib.wait import wait_until  # noqa: E402


class ConfiguredCluster(Cluster):
    """A cluster whose nodes have further settings."""

    def __init__(self, settings):
        super().__init__()
        done = subprocess.run([SERVER, "cluster", "init", "--data-dir", self.dir, "--nodes", "3", "--ports", "auto"],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=30, env=clean_environment())
        assert done.returncode == 0, done.stderr.decode()
        for config in self.dir.glob("n*/uccp.yaml"):
            with config.open("a") as file:
                file.write("".join(f"{key}: {value}\n" for key, value in settings.items()))


def register(rest, name):
    response = rest.post("services", {"serviceName": name, "address": "10.4.0.1", "port": 1, "ttl": "3600s"})
    assert response.status == 201, response
    return response.json["id"], response.headers["Uccp-Session"]


class ReadLevels(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        require(SERVER, CLI)
        # Long enough that followers can be frozen well inside of the lease.
        cls.cluster = ConfiguredCluster({"raft_lease_reads": "true", "raft_election_timeout": "3s", "state_age_max": "60s"})
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()

    def by_rest(self, node, service, level):
        return self.cluster.rest(node).get(f"services/{service}", consistency=level)

    def by_grpc(self, node, service, level):
        return self.cluster.cli("service", "get", service, "--consistency", level, "--timeout", "10s", server=node)

    def test_a_session_token_passed_to_another_client_shows_it_the_write(self):
        for writer in self.cluster.names():
            service, token = register(self.cluster.rest(writer), f"session-{writer}")
            self.assertRegex(token, r"^session:\d+=\d+$")
            for reader in self.cluster.names():
                self.assertEqual(self.by_rest(reader, service, token).status, 200)
                header = self.cluster.rest(reader).call("GET", f"services/{service}", headers={"Uccp-Consistency": token})
                self.assertEqual(header.status, 200, header)
                done = self.by_grpc(reader, service, token)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_node_that_has_not_applied_the_token_does_not_answer(self):
        service, token = register(self.cluster.rest("n1"), "ahead")
        group, index = token.removeprefix("session:").split("=")
        ahead = f"session:{group}={int(index) + 1_000_000}"
        refused = self.by_rest("n2", service, ahead)
        self.assertEqual((refused.status, refused.reason), (503, "READ_NOT_CONFIRMED"), refused)
        done = self.by_grpc("n2", service, ahead)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"no leader confirmed in time", done.stderr)

    def test_levels_that_do_not_exist_are_refused_through_every_door(self):
        service, _ = register(self.cluster.rest("n1"), "words")
        for level in ("fresh", "bounded:", "bounded:-1", "bounded:1s", "session:1", "session:a=1", "session:1=2=3"):
            refused = self.by_rest("n1", service, level)
            self.assertEqual((refused.status, refused.reason), (400, "CONSISTENCY_INVALID"), level)
            done = self.by_grpc("n1", service, level)
            self.assertNotEqual(done.returncode, 0, level)
            self.assertIn(b"none of linearizable, lease, bounded:MILLISECONDS, session:TOKEN", done.stderr, level)

    def test_what_each_level_answers_when_the_majority_is_frozen(self):
        leader = self.cluster.leader("core")
        others = [name for name in self.cluster.names() if name != leader]
        service, token = register(self.cluster.rest(leader), "frozen")
        rest = self.cluster.rest(leader)
        self.assertEqual(rest.get(f"services/{service}", consistency="linearizable").status, 200)
        for name in others:
            self.addCleanup(os.kill, self.cluster.pid(name), signal.SIGCONT)
            freeze(self.cluster.pid(name))
        # The lease vouches for the state; a round does not get through, though this leader does not know it yet.
        self.assertEqual(rest.get(f"services/{service}", consistency="lease").status, 200)
        refused = rest.get(f"services/{service}", consistency="linearizable")
        self.assertEqual((refused.status, refused.reason), (503, "READ_NOT_CONFIRMED"), refused)
        # It ends before the others could elect anybody.
        def lease_over():
            answer = rest.get(f"services/{service}", consistency="lease")
            return answer if answer.status != 200 else None
        over = wait_until(lease_over, 30, "the end of the lease")
        self.assertEqual((over.status, over.reason), (503, "READ_NOT_CONFIRMED"), over)
        for level in ("bounded:3600000", token):
            self.assertEqual(rest.get(f"services/{service}", consistency=level).status, 200, level)
            done = self.by_grpc(leader, service, level)
            self.assertEqual(done.returncode, 0, done.stderr)
        stale = rest.get(f"services/{service}", consistency="bounded:100")
        self.assertEqual((stale.status, stale.reason), (503, "READ_NOT_CONFIRMED"), stale)
        for name in others:
            os.kill(self.cluster.pid(name), signal.SIGCONT)
        wait_until(lambda: rest.get(f"services/{service}", consistency="lease").status == 200, 30, "a lease again")


class CutOff(unittest.TestCase):
    def test_a_node_that_hears_from_no_majority_tells_health_and_status_only(self):
        require(SERVER, CLI)
        cluster = ConfiguredCluster({"state_age_max": "1500ms"})
        self.addCleanup(cluster.close)
        cluster.start()
        leader = cluster.leader("core")
        rest = cluster.rest(leader)
        service, token = register(rest, "cut-off")
        for name in cluster.names():
            if name != leader:
                self.addCleanup(os.kill, cluster.pid(name), signal.SIGCONT)
                freeze(cluster.pid(name))
        read = lambda level: rest.get(f"services/{service}", consistency=level)
        wait_until(lambda: read("bounded:3600000").reason == "STATE_STALE", 40, "it to notice")
        for level in ("bounded:3600000", token, "linearizable"):
            self.assertEqual((read(level).status, read(level).reason), (503, "STATE_STALE"), level)
        self.assertEqual(rest.get("services/discover", name="cut-off").reason, "STATE_STALE")
        refused = cluster.cli("service", "list", server=leader)
        self.assertNotEqual(refused.returncode, 0)
        self.assertEqual(rest.get("version").status, 200)
        self.assertEqual(cluster.health(leader)["nodeId"], leader)
        self.assertEqual(cluster.status(server=leader)["core"][leader]["appliedIndex"] > 0, True)
        for name in cluster.names():
            if name != leader:
                os.kill(cluster.pid(name), signal.SIGCONT)
        wait_until(lambda: read("linearizable").status == 200, 60, "it to serve again")


class Settings(unittest.TestCase):
    def test_timeouts_out_of_range_end_the_program_with_place_and_range(self):
        require(SERVER)
        for flag, value, said in (("raft-election-timeout", "200ms", "it must be 1000ms to 10000ms"),
                                  ("raft-heartbeat-interval", "501ms", "it must be 100ms to 500ms"),
                                  ("raft-heartbeat-interval", "400ms", "at least 4 heartbeats"),
                                  ("raft-lease-reads", "maybe", "is not true or false")):
            cluster = ConfiguredCluster({})
            self.addCleanup(cluster.close)
            code, text = cluster.run_node(cluster.dir / "n1", **{flag: value})
            self.assertEqual(code, 2, text)
            self.assertIn(said, text)
            self.assertIn(flag.replace("-", "_"), text)


if __name__ == "__main__":
    unittest.main()
