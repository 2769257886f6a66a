# timeout: 300
# labels: cluster
"""The life of clusters: made by hand and by script, of one to seven voters, with learners, by command line and by REST."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

from lib.cluster import START, STOP, Cluster
from lib.rest import Rest
from lib.uccp import CLI, SERVER, clean_environment, end_process, is_running, processes_with, require
from lib.wait import wait_until


def setUpModule():
    require(SERVER, CLI)


def write(rest, name):
    return rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": 1, "ttl": "600s"},
                     headers={"Idempotency-Key": name})


class Voters(unittest.TestCase):
    def cluster(self, nodes):
        cluster = Cluster(nodes=nodes)
        self.addCleanup(cluster.close)
        return cluster.start()

    def survive(self, cluster, dead):
        """A majority is left, and then it is not: with one more dead nothing is confirmed, and with it back all is well."""
        leader = cluster.leader("core")
        victims = [leader, *(name for name in cluster.names() if name != leader)][:dead + 1]
        # The last one of the victims goes last.
        for name in victims[:-1]:
            cluster.kill(name)
        left = next(name for name in cluster.names() if name not in victims)
        self.assertEqual(write(cluster.patient(left), "majority").status, 201)
        cluster.kill(victims[-1])
        refused = write(cluster.rest(left, timeout=30), "minority")
        self.assertIn(refused.status, (503, 504), refused)
        cluster.start()
        self.assertEqual(write(cluster.patient(left), "minority").status, 201)
        cluster.wait_equal(cluster.names())

    def test_three(self):
        self.survive(self.cluster(3), 1)

    def test_five_with_a_learner_that_does_not_count(self):
        cluster = self.cluster(5)
        subprocess.run([SERVER, "cluster", "prepare", "--data-dir", cluster.dir, "--node", "n6", "--ports", "auto"],
                       check=True, capture_output=True, timeout=30, env=clean_environment())
        cluster.cli_ok("cluster", "join", "n6", "--learner")
        cluster.start()
        roles = {name: replica["role"] for name, replica in cluster.wait_equal(cluster.names())["core"].items()}
        self.assertEqual(roles.pop("n6"), "learner")
        self.assertEqual(sorted(roles.values()), ["follower"] * 4 + ["leader"])
        refused = cluster.cli("cluster", "transfer", "core", "n6")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(b"voter", refused.stderr)
        self.survive(cluster, 2)

    def test_seven(self):
        self.survive(self.cluster(7), 3)


class ByHand(unittest.TestCase):
    """Without the script: uccp-cli makes the files, nodes are started one by one, JOIN_ADDRESS says where to join."""

    def setUp(self):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="uccp-by-hand-"))
        self.addCleanup(self.clean_up)
        self.dir = self.base / "data"

    def clean_up(self):
        for pid in processes_with(str(self.dir)):
            end_process(pid)
        shutil.rmtree(self.base, ignore_errors=True)

    def cli(self, *arguments, check=True):
        done = subprocess.run([CLI, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, env=clean_environment(), cwd=self.base)
        if check:
            self.assertEqual(done.returncode, 0, (arguments, done.stderr))
        return done

    def start(self, name, **environment):
        log = self.dir / name / "uccp.log"
        with open(log, "ab") as out:
            process = subprocess.Popen([SERVER, "--config", self.dir / name / "uccp.yaml"], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=out, env=clean_environment(**environment))
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def serving():
            self.assertIsNone(process.poll(), log.read_text())
            try:
                return json.loads((self.dir / name / "node.json").read_text())
            except (OSError, ValueError):
                return None
        return process, wait_until(serving, 60, f"{name} to serve")

    def status(self, group="core"):
        """Replicas by node; {} if nobody could say just now."""
        done = self.cli("--context-file", self.dir / "cluster.json", "cluster", "status", "-o", "json", check=False)
        replicas = json.loads(done.stdout) if done.returncode == 0 else []
        return {r["nodeId"]: r for r in replicas if r.get("group") == group}

    def lead(self, name):
        """On a machine with much to do a node may not take over in time: nothing is lost then, and one asks again."""
        def leads():
            if self.status().get(name, {}).get("role") == "leader":
                return True
            self.cli("--context-file", self.dir / "cluster.json", "cluster", "transfer", "core", name, check=False)
            return False
        wait_until(leads, 60, f"{name} to lead")

    def test_one_node_becomes_three_and_one_again(self):
        self.cli("cluster", "init", "--data-dir", self.dir, "--nodes", "1", "--ports", "auto")
        first = self.start("n1")[1]
        for name in ("n2", "n3"):
            self.cli("cluster", "prepare", "--data-dir", self.dir, "--node", name, "--ports", "auto")
            config = self.dir / name / "uccp.yaml"
            text = config.read_text()
            self.assertIn("join_address", text)
            config.write_text("".join(line for line in text.splitlines(True) if not line.startswith("join_address")))
            self.start(name, JOIN_ADDRESS=first["grpc"])
        self.cli("cluster", "context", "--data-dir", self.dir)
        context = ["--context-file", self.dir / "cluster.json"]
        wait_until(lambda: [r.get("goal") for r in self.status().values()] == ["voter"] * 3 and
                   not any(r.get("learners") for r in self.status().values()), 60, "three voters")
        wait_until(lambda: self.cli(*context, "cluster", "health", check=False).returncode == 0, 30, "its health")
        self.lead("n3")
        # Also the one that leads, and the founder.
        for name in ("n3", "n2"):
            def removed(name=name):
                self.cli(*context, "cluster", "remove", name, check=False)
                status = self.status()
                return status and name not in status
            wait_until(removed, 60, f"{name} to be removed")
        wait_until(lambda: set(self.status()) == {"n1"}, 30, "n1 alone")
        self.cli(*context, "service", "register", "after", "10.0.0.1", "1")

    def test_founders_find_each_other_without_join_address(self):
        self.cli("cluster", "init", "--data-dir", self.dir, "--nodes", "3", "--ports", "auto")
        for path in self.dir.glob("n*/uccp.yaml"):
            lines = path.read_text().splitlines(True)
            path.write_text("".join(line for line in lines if not line.startswith("join_address")))
        nodes = [self.start(name)[1] for name in ("n1", "n2", "n3")]
        self.cli("cluster", "context", "--data-dir", self.dir)
        context = ["--context-file", self.dir / "cluster.json"]
        wait_until(lambda: set(self.status()) == {"n1", "n2", "n3"}, 60, "all to be in the table of members")
        # Whoever leads, all of them know where it is.
        for leader in ("n1", "n2", "n3"):
            self.lead(leader)
            for node in nodes:
                self.cli(*context, "--server", node["grpc"], "service", "register", f"by-{node['id']}", "10.0.0.1", "1")

    def test_a_cluster_that_cannot_be_joined_is_named(self):
        self.cli("cluster", "init", "--data-dir", self.dir, "--nodes", "1", "--ports", "auto")
        refused = self.cli("cluster", "prepare", "--data-dir", self.base / "nothing", "--node", "n2", check=False)
        self.assertEqual(refused.returncode, 5, refused.stderr)
        self.assertIn("there is no cluster in", refused.stderr)
        for arguments in (["prepare", "--data-dir", self.dir], ["init", "--data-dir", self.base / "x", "--nodes", "0"],
                          ["init", "--data-dir", self.base / "x", "--nodes", "99"], ["init", "--nods", "3"]):
            refused = self.cli("cluster", *arguments, check=False)
            self.assertEqual(refused.returncode, 2, (arguments, refused.stderr))
            self.assertIn("error:", refused.stderr)
        self.assertFalse((self.base / "x" / "n1").exists())


class Scripts(unittest.TestCase):
    def setUp(self):
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="uccp-scripts-"))
        self.addCleanup(shutil.rmtree, self.base, True)
        self.addCleanup(self.run_script, STOP, "--timeout", "5")

    def run_script(self, script, *arguments):
        return subprocess.run([script, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120, cwd=self.base, env=clean_environment(UCCP_BIN=str(SERVER.parent)))

    def test_defaults_stop_and_start_again(self):
        started = self.run_script(START, "--ports", "auto")
        self.assertEqual(started.returncode, 0, started.stderr)
        context = json.loads((self.base / "data" / "cluster.json").read_text())
        self.assertEqual([node["id"] for node in context["nodes"]], ["n1", "n2", "n3"])
        self.assertEqual((self.base / "data" / "cluster.json").stat().st_mode & 0o777, 0o600)
        rest = Rest(context["https"], context["ca"], token=context["token"])
        self.assertEqual(rest.get("workers").json["workers"], [], "nobody asked for agents")
        self.assertEqual(write(rest, "kept").status, 201)

        # Started again, it leaves alone what runs.
        again = self.run_script(START, "--ports", "auto")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual([n["pid"] for n in json.loads((self.base / "data" / "cluster.json").read_text())["nodes"]],
                         [n["pid"] for n in context["nodes"]])

        # A node that hangs does not keep the others from stopping.
        os.kill(context["nodes"][1]["pid"], signal.SIGSTOP)
        stopped = self.run_script(STOP, "--timeout", "3")
        self.assertEqual(stopped.returncode, 0, stopped.stderr)
        self.assertIn("did not stop in 3 s", stopped.stderr)
        self.assertFalse([n["pid"] for n in context["nodes"] if is_running(n["pid"])])
        self.assertFalse((self.base / "data" / "cluster.json").exists())

        self.assertEqual(self.run_script(START, "--ports", "auto").returncode, 0)
        after = json.loads((self.base / "data" / "cluster.json").read_text())
        self.assertEqual([n["grpc"] for n in after["nodes"]], [n["grpc"] for n in context["nodes"]])
        rest = Rest(after["https"], after["ca"], token=after["token"])
        self.addCleanup(rest.close)
        # As n1 knows it, which may be behind for a moment.
        wait_until(lambda: [s["serviceName"] for s in rest.get("services/discover", name="kept").json.get("services", [])] == ["kept"],
                   30, "what was registered before")

    def test_mistakes(self):
        for script, arguments, said in ((START, ["--node", "3"], "unknown argument --node"),
                                        (START, ["--nodes", "0"], "--nodes must be"),
                                        (START, ["--nodes"], "needs a value"),
                                        (STOP, ["--data-dir", "nowhere"], "there is no directory nowhere")):
            with self.subTest(said):
                done = self.run_script(script, *arguments)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(said, done.stderr)


class Rpcs(unittest.TestCase):
    def test_members_by_rest(self):
        cluster = Cluster()
        self.addCleanup(cluster.close)
        cluster.start()
        rest = cluster.rest("n2")
        members = lambda: {m["id"] for m in rest.get("cluster").json["members"]}  # as this node knows it: it may be behind
        wait_until(lambda: members() == {"n1", "n2", "n3"}, 30, "all three to be known")
        added = rest.post("cluster/members", {"id": "n4", "learner": True})
        self.assertEqual(added.status, 201, added)
        again = rest.post("cluster/members", {"id": "n4", "learner": True})
        self.assertEqual(again.status, 409, again)
        self.assertEqual(rest.post("cluster/members/n9:promote").status, 404)
        # On a machine with much to do it may not take over in time.
        wait_until(lambda: rest.post("cluster/groups/work:transfer", {"nodeId": "n3"}).status == 200, 60, "n3 to lead")
        self.assertEqual(rest.post("cluster/groups/nothing:transfer", {"nodeId": "n3"}).status, 404)
        self.assertIn(rest.delete("cluster/members/n4").status, (200, 204))
        wait_until(lambda: members() == {"n1", "n2", "n3"}, 30, "n4 to be gone")


if __name__ == "__main__":
    unittest.main()
