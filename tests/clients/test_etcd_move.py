# timeout: 300
"""Out of etcd and back: snapshots that etcdctl checks and an etcd restores, and imports from a live etcd and from a file."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import unittest

from lib.cluster import Cluster
from lib.etcd import PATIENCE
from lib.ports import free_ports
from lib.uccp import clean_environment
from lib.wait import wait_until
from test_etcd import EtcdTest

ETCDCTL, ETCD = shutil.which("etcdctl"), shutil.which("etcd")
NEEDS_ETCD = unittest.skipUnless(ETCD, "there is no etcd: tools/setup installs etcd-server")


class Etcd:
    """An etcd of its own in a folder."""

    def __init__(self, folder, data="etcd"):
        self.client, peer = free_ports(2)
        self.url = f"http://127.0.0.1:{self.client}"
        self.log = open(f"{folder}/etcd.log", "ab")
        self.process = subprocess.Popen(
            [ETCD, "--data-dir", f"{folder}/{data}", "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"default=http://127.0.0.1:{peer}", "--logger", "zap"],
            stdout=self.log, stderr=self.log, env=clean_environment())
        wait_until(self.listens, 60, "etcd to listen")
        wait_until(lambda: self.run("get", "x", check=False).returncode == 0, 60, "etcd to serve")

    def listens(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.client), timeout=20):
            return True
        return False

    def run(self, *arguments, check=True, text=None):
        done = subprocess.run([ETCDCTL, "--endpoints", self.url, *PATIENCE, *arguments], capture_output=True, text=True, input=text,
                              env=clean_environment(ETCDCTL_API="3"), timeout=60)
        assert not check or done.returncode == 0, done.stderr
        return done

    def close(self):
        self.process.kill()
        self.process.wait()
        self.log.close()


@unittest.skipUnless(ETCDCTL, "etcdctl is not installed: Debian's package etcd-client")
class Snapshots(EtcdTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def fill(self, keys):
        for number in range(0, keys, 100):
            puts = "".join(f"put key/{n:05} value-{n}\n" for n in range(number, min(number + 100, keys)))
            self.etcdctl("txn", stdin=f"\n{puts}\n\n")

    def save(self):
        path = f"{self.folder}/snapshot.db"
        self.etcdctl("snapshot", "save", path)
        status = json.loads(self.etcdctl("snapshot", "status", path, "-w", "json"))
        return path, status

    def test_etcdctl_saves_and_checks_it(self):
        self.fill(2500)
        self.etcdctl("put", "key/00007", "again")
        self.etcdctl("del", "key/00008")
        path, status = self.save()
        self.assertEqual(status["revision"], self.json("get", "x")["header"]["revision"] - 1,
                         "the newest pair that is there")
        self.assertGreaterEqual(status["totalKey"], 2499)
        self.assertEqual(status["totalSize"], pathlib.Path(path).stat().st_size - 32)

    @NEEDS_ETCD
    def test_an_etcd_restores_it(self):
        self.fill(1200)
        lease = self.json("lease", "grant", "5000")["ID"]
        self.etcdctl("put", "leased", "yes", f"--lease={lease:x}")
        path, status = self.save()
        done = subprocess.run([ETCDCTL, "snapshot", "restore", path, "--data-dir", f"{self.folder}/restored"],
                              capture_output=True, text=True, env=clean_environment(ETCDCTL_API="3"), timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        etcd = Etcd(self.folder, "restored")
        self.addCleanup(etcd.close)
        ours = self.json("get", "", "--prefix")
        theirs = json.loads(etcd.run("get", "", "--prefix", "-w", "json").stdout)
        self.assertEqual(theirs["kvs"], ours["kvs"], "keys, values, revisions, versions and leases")
        left = json.loads(etcd.run("lease", "timetolive", f"{lease:x}", "-w", "json").stdout)
        self.assertTrue(0 < left["ttl"] <= 5000, left)
        etcd.run("put", "key/00001", "changed there")

    def imported(self, *arguments, code=0, **more):
        done = self.node.cli("etcd", "import", *arguments, "--state", f"{self.folder}/state", **more)
        self.assertEqual(done.returncode, code, (done.stdout, done.stderr))
        return (done.stdout if code == 0 else done.stderr).decode()

    def test_a_file_comes_back_under_another_prefix(self):
        self.fill(700)
        self.etcdctl("put", "other", "not imported")
        path, _ = self.save()
        output = self.imported("--file", path, "--prefix", "key/", "--to", "copy/")
        self.assertIn("imported 700 keys", output)
        self.assertIn("verified: both sides are the same (700 keys compared)", output)
        self.assertEqual(self.etcdctl("get", "copy/00699", "--print-value-only"), "value-699\n")
        self.assertEqual(len(self.etcdctl("get", "copy/", "--prefix", "--keys-only").split()), 700)
        self.assertFalse(os.path.exists(f"{self.folder}/state"))

    def test_a_damaged_file_is_refused(self):
        self.fill(10)
        path, _ = self.save()
        data = bytearray(pathlib.Path(path).read_bytes())
        data[9000] ^= 1
        pathlib.Path(path).write_bytes(data)
        self.assertIn("its hash does not fit", self.imported("--file", path, code=1))
        pathlib.Path(path).write_text("no snapshot")
        self.assertIn("bbolt", self.imported("--file", path, code=1))

    @NEEDS_ETCD
    def test_a_live_etcd_moves_here_and_an_interrupted_import_goes_on(self):
        etcd = Etcd(self.folder)
        self.addCleanup(etcd.close)
        for number in range(0, 3000, 100):
            puts = "".join(f"put live/{n:05} v{n}\n" for n in range(number, number + 100))
            etcd.run("txn", text=f"\n{puts}\n\n")
        lease = json.loads(etcd.run("lease", "grant", "4000", "-w", "json").stdout)["ID"]
        etcd.run("put", "live/leased", "yes", f"--lease={lease:x}")
        arguments = ["--endpoint", etcd.url, "--prefix", "live/"]
        output = self.imported(*arguments)
        self.assertIn("imported 3001 keys", output)
        self.assertIn("verified: both sides are the same (3001 keys compared)", output)
        self.assertEqual(self.json("get", "live/leased")["kvs"][0]["lease"], lease)
        # As if it had been killed half-way: the state file, and nothing behind it. etcd has moved on meanwhile.
        etcd.run("put", "live/later", "no")
        etcd.run("put", "live/02000", "changed")
        self.etcdctl("del", "live/01500", "live/z")
        identity = re.search(r"from (etcd \d+ at revision \d+);", output).group(1)
        state = pathlib.Path(self.folder, "state")
        state.write_text(f"uccp-cli etcd import 1\n{identity}\n1500\n{b'live/01499'.hex()}\n")
        done = self.node.cli("etcd", "import", *arguments, "--state", state)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"going on behind 1500 keys", done.stderr)
        self.assertIn(b"imported 3001 keys", done.stdout)
        self.assertIn(b"verified", done.stdout)
        self.assertEqual(self.etcdctl("get", "live/02000", "--print-value-only"), "v2000\n", "as of the first revision")
        self.assertEqual(self.etcdctl("get", "live/later"), "")
        # A state file of something else is not gone on from.
        state.write_text("uccp-cli etcd import 1\nsnapshot 00\n5\n00\n")
        self.assertIn("remove it to begin anew", self.imported(*arguments, code=5))

    def test_keys_that_cannot_be_here_are_refused(self):
        self.fill(300)
        path, _ = self.save()
        wrong = self.node.cli("etcd", "import", "--file", path, "--prefix", "key/00", "--to", "x" * 5000, "--state",
                              f"{self.folder}/state")
        self.assertNotEqual(wrong.returncode, 0, "keys that are too long are refused")
        self.assertIn(b"key", wrong.stderr)


@unittest.skipUnless(ETCDCTL, "etcdctl is not installed: Debian's package etcd-client")
class Members(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(nodes=3)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.urls = [f"https://{cls.cluster.node(name)['etcd']}" for name in cls.cluster.names()]

    def etcdctl(self, urls, *arguments):
        context = self.cluster.context
        return subprocess.run([ETCDCTL, "--endpoints", ",".join(urls), "--cacert", context["ca"], "--cert", context["cert"],
                               "--key", context["key"], *PATIENCE, *arguments],
                              capture_output=True, text=True, env=clean_environment(ETCDCTL_API="3"), timeout=60)

    def leader(self):
        """The id of the member that leads, once all agree."""
        done = self.etcdctl(self.urls, "endpoint", "status", "-w", "json")
        leaders = {one["Status"].get("leader") for one in json.loads(done.stdout)} if done.returncode == 0 else set()
        return leaders.pop() if len(leaders) == 1 else None

    def test_every_member_is_known_with_its_client_url(self):
        def listed():
            done = self.etcdctl(self.urls[:1], "member", "list", "-w", "json")
            if done.returncode != 0:
                return None
            members = json.loads(done.stdout)["members"]
            return sorted(url for member in members for url in member.get("clientURLs", [])) == sorted(self.urls)
        wait_until(listed, timeout=30, what="three client URLs")

    def test_the_lead_goes_to_another_member(self):
        def moved():
            first = wait_until(self.leader, timeout=60, what="a leader that all know")
            target = next(number for number in (1, 2, 3) if number != first)
            # In ids of members, which are hexadecimal. On a machine with much to do it may not take over in time.
            done = self.etcdctl(self.urls, "move-leader", f"{target:x}")
            return target if f"Leadership transferred from {first:x} to {target:x}" in done.stdout else None
        target = wait_until(moved, timeout=90, what="the lead to be transferred")
        wait_until(lambda: self.leader() == target, timeout=60, what="the new leader")
