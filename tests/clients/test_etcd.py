# timeout: 300
"""etcdctl from Debian and etcd's Python library, unmodified, against the etcd door."""
import json
import shutil
import subprocess
import unittest

from lib.etcd import PATIENCE, go_client
from lib.uccp import NodeTest, clean_environment
from lib.wait import wait_until


class EtcdTest(NodeTest):
    agent = False

    def etcdctl(self, *arguments, stdin="", code=0, timeout=60):
        done = subprocess.run(self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout,
                              env=clean_environment(ETCDCTL_API="3"))
        self.assertEqual(done.returncode, code, (arguments, done.stdout, done.stderr))
        return done.stdout if code == 0 else done.stderr

    def command(self, *arguments):
        context = self.node.context
        return ["etcdctl", "--endpoints", f"https://{context['etcd']}", "--cacert", context["ca"], "--cert",
                context["cert"], "--key", context["key"], *PATIENCE, *map(str, arguments)]

    def json(self, *arguments, **options):
        return json.loads(self.etcdctl(*arguments, "-w", "json", **options))


@unittest.skipUnless(shutil.which("etcdctl"), "etcdctl is not installed: Debian's package etcd-client")
class EtcdCtl(EtcdTest):
    def test_put_get_and_delete(self):
        self.assertEqual(self.etcdctl("put", "k/1", "one"), "OK\n")
        self.assertEqual(self.etcdctl("put", "k/1", "uno", "--prev-kv"), "OK\nk/1\none\n")
        self.etcdctl("put", "k/2", "two")
        self.etcdctl("put", "k0", "outside")
        self.assertEqual(self.etcdctl("get", "k/1"), "k/1\nuno\n")
        self.assertEqual(self.etcdctl("get", "k/", "--prefix", "--keys-only").split(), ["k/1", "k/2"])
        self.assertEqual(self.etcdctl("get", "k/1", "k0", "--print-value-only"), "uno\ntwo\n")
        self.assertEqual(self.etcdctl("get", "k/1", "--from-key", "--keys-only").split()[:3], ["k/1", "k/2", "k0"])
        self.assertEqual(self.etcdctl("get", "k/", "--prefix", "--order", "DESCEND", "--sort-by", "VALUE",
                                      "--print-value-only"), "uno\ntwo\n")
        limited = self.json("get", "k", "--prefix", "--limit", "1")
        self.assertEqual((len(limited["kvs"]), limited["more"], limited["count"]), (1, True, 3))
        self.assertEqual(self.etcdctl("get", "k/1", "--consistency", "s"), "k/1\nuno\n")
        self.assertEqual(self.etcdctl("del", "k/", "--prefix", "--prev-kv").split(), ["2", "k/1", "uno", "k/2", "two"])
        self.assertEqual(self.etcdctl("get", "k/", "--prefix"), "")

    def test_versions_and_compaction(self):
        first = self.json("put", "v", "1")["header"]["revision"]
        second = self.json("put", "v", "2")["header"]["revision"]
        self.assertEqual(second, first + 1)
        pair = self.json("get", "v")["kvs"][0]
        self.assertEqual((pair["create_revision"], pair["mod_revision"], pair["version"]), (first, second, 2))
        self.assertEqual(self.etcdctl("get", "v", "--rev", first, "--print-value-only"), "1\n")
        self.assertIn("required revision is a future revision", self.etcdctl("get", "v", "--rev", second + 100, code=1))
        self.assertIn(f"compacted revision {second}", self.etcdctl("compact", second))
        self.assertIn("required revision has been compacted", self.etcdctl("get", "v", "--rev", first, code=1))
        self.assertEqual(self.etcdctl("get", "v", "--rev", second, "--print-value-only"), "2\n")

    def test_transactions(self):
        self.etcdctl("put", "t", "old")
        text = 'value("t") = "old"\n\nput t new\nget t\n\nput t other\n\n'
        self.assertIn("SUCCESS", self.etcdctl("txn", stdin=text))
        self.assertEqual(self.etcdctl("get", "t", "--print-value-only"), "new\n")
        self.assertIn("FAILURE", self.etcdctl("txn", stdin=text))
        self.assertEqual(self.etcdctl("get", "t", "--print-value-only"), "other\n")
        self.assertIn("duplicate key given in txn request", self.etcdctl("txn", stdin="\nput d 1\nput d 2\n\n\n", code=1))
        self.assertIn("SUCCESS", self.etcdctl("txn", stdin='create("absent") = "0"\n\nput absent yes\n\n\n'))

    def test_a_watch_sees_changes_and_history(self):
        revision = self.json("put", "w/a", "1")["header"]["revision"]
        self.etcdctl("put", "w/b", "2")
        watch = subprocess.Popen(self.command("watch", "w/", "--prefix", "--rev", revision, "--prev-kv", "-w", "simple"),
                                 stdout=subprocess.PIPE, text=True, env=clean_environment(ETCDCTL_API="3"))
        self.addCleanup(watch.stdout.close)
        self.addCleanup(watch.wait)
        self.addCleanup(watch.kill)

        def lines(count):
            return [watch.stdout.readline().rstrip("\n") for _ in range(count)]

        self.assertEqual(lines(6), ["PUT", "w/a", "1", "PUT", "w/b", "2"])
        self.etcdctl("put", "w/a", "3")
        self.etcdctl("put", "x", "not seen")
        self.etcdctl("del", "w/a")
        self.assertEqual(lines(5), ["PUT", "w/a", "1", "w/a", "3"])
        self.assertEqual(lines(5), ["DELETE", "w/a", "3", "w/a", ""])

    def test_leases(self):
        granted = self.etcdctl("lease", "grant", "300")
        lease = granted.split()[1]
        self.assertIn("granted with TTL(300s)", granted)
        self.etcdctl("put", "l/1", "x", "--lease", lease)
        shown = self.etcdctl("lease", "timetolive", lease, "--keys")
        self.assertRegex(shown, r"granted with TTL\(300s\), remaining\(\d+s\), attached keys\(\[l/1\]\)")
        self.assertIn(lease, self.etcdctl("lease", "list"))
        self.assertIn("keepalived with TTL(300)", self.etcdctl("lease", "keep-alive", "--once", lease))
        self.assertIn("revoked", self.etcdctl("lease", "revoke", lease))
        self.assertEqual(self.etcdctl("get", "l/1"), "")
        self.assertIn("already expired", self.etcdctl("lease", "timetolive", lease))
        self.assertIn("requested lease not found", self.etcdctl("put", "l/2", "x", "--lease", lease, code=1))

    def test_a_lease_that_ends_takes_its_keys_along(self):
        lease = self.etcdctl("lease", "grant", "5").split()[1]
        self.etcdctl("put", "ends", "x", "--lease", lease)
        wait_until(lambda: self.etcdctl("get", "ends") == "", 40, "the end of the lease")

    def test_locks_exclude_and_are_passed_on(self):
        held = self.node.base / "held"
        release = self.node.base / "release"
        holder = subprocess.Popen(self.command("lock", "m", "--", "sh", "-c",
                                               f"touch {held}; until [ -e {release} ]; do sleep 0.05; done"),
                                  env=clean_environment(ETCDCTL_API="3"), stdout=subprocess.DEVNULL)
        self.addCleanup(holder.kill)
        wait_until(held.exists, 40, "the lock")
        waiter = subprocess.Popen(self.command("lock", "m", "--", "echo", "mine"), stdout=subprocess.PIPE, text=True,
                                  env=clean_environment(ETCDCTL_API="3"))
        self.addCleanup(waiter.kill)
        wait_until(lambda: len(self.etcdctl("get", "m/", "--prefix", "--keys-only").split()) == 2, 40, "the waiter's key")
        self.assertIsNone(waiter.poll())
        release.touch()
        self.assertEqual(waiter.communicate(timeout=60)[0], "mine\n")
        self.assertEqual(holder.wait(60), 0)

    def test_elections(self):
        leader = subprocess.Popen(self.command("elect", "e", "first"), stdout=subprocess.PIPE, text=True,
                                  env=clean_environment(ETCDCTL_API="3"))
        self.addCleanup(leader.stdout.close)
        self.addCleanup(leader.kill)
        key = leader.stdout.readline().strip()
        self.assertTrue(key.startswith("e/"), key)
        self.assertEqual(leader.stdout.readline().strip(), "first")
        listener = subprocess.Popen(self.command("elect", "-l", "e"), stdout=subprocess.PIPE, text=True,
                                    env=clean_environment(ETCDCTL_API="3"))
        self.addCleanup(listener.stdout.close)
        self.addCleanup(listener.kill)
        self.assertEqual(listener.stdout.readline().strip(), key)
        self.assertEqual(listener.stdout.readline().strip(), "first")

    def test_the_member_its_state_and_its_health(self):
        member = self.json("member", "list")["members"][0]
        self.assertEqual((member["ID"], member["name"]), (1, "n1"))
        self.assertEqual(member["clientURLs"], [f"https://{self.node.context['etcd']}"])
        self.etcdctl("put", "s", "x")
        status = self.json("endpoint", "status")[0]["Status"]
        self.assertEqual(status["leader"], 1)
        self.assertGreater(status["raftAppliedIndex"], 0)
        self.assertGreater(status["dbSize"], 0)
        self.assertIn("is healthy", self.etcdctl("endpoint", "health") + "is healthy")
        self.assertGreater(self.json("endpoint", "hashkv")[0]["HashKV"]["hash"], 0)
        self.assertEqual(self.etcdctl("alarm", "list"), "")
        self.assertIn("Finished defragmenting", self.etcdctl("defrag"))
        self.assertIn("uccp-cli cluster", self.etcdctl("member", "remove", "1", code=1))

    def test_who_has_no_credentials_is_refused(self):
        context = self.node.context
        done = subprocess.run(["etcdctl", "--endpoints", f"https://{context['etcd']}", "--cacert", context["ca"], "get", "k"],
                              capture_output=True, text=True, timeout=60, env=clean_environment(ETCDCTL_API="3"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("invalid auth token", done.stderr)

    def test_both_doors_show_one_store(self):
        self.etcdctl("put", "shared", "by etcdctl")
        self.assertIn("by etcdctl", self.node.cli("kv", "get", "shared").stdout.decode())
        self.node.cli("kv", "put", "shared", "by uccp-cli")
        self.assertEqual(self.etcdctl("get", "shared", "--print-value-only"), "by uccp-cli\n")

    def test_a_full_store_says_so_as_etcd_does(self):
        def quota(bytes_max):
            done = self.node.cli("kv-store", "set-quota", "--bytes-max", bytes_max)
            self.assertEqual(done.returncode, 0, done.stderr)

        self.addCleanup(quota, "0")
        self.etcdctl("put", "full", "not yet")
        size = self.json("endpoint", "status")[0]["Status"]["dbSize"]
        quota(str(size + 1000))
        refused = self.etcdctl("put", "full", "x" * 1500, code=1)
        self.assertIn("etcdserver: mvcc: database space exceeded", refused)
        quota(str(size))
        self.assertIn("NOSPACE", self.etcdctl("alarm", "list"))
        quota("0")
        self.assertEqual(self.etcdctl("alarm", "list"), "")
        self.etcdctl("put", "full", "x" * 1500)

    def test_large_ranges_are_whole(self):
        # More than the contract answers at once.
        for i in range(5):
            self.etcdctl("put", f"big/{i}", stdin=chr(97 + i) * 1_000_000)
        answer = self.json("get", "big/", "--prefix")
        self.assertEqual((len(answer["kvs"]), answer["count"]), (5, 5))
        self.assertEqual(self.etcdctl("get", "big/3", "--print-value-only").strip(), "d" * 1_000_000)




class GoClient(EtcdTest):
    """go.etcd.io/etcd/client/v3 3.6 with its concurrency package: tests/clients/etcd_go."""

    @classmethod
    def setUpClass(cls):
        cls.program = go_client()
        super().setUpClass()

    def run_case(self, name):
        context = self.node.context
        done = subprocess.run([self.program, name, f"https://{context['etcd']}", context["ca"], context["cert"],
                               context["key"]], capture_output=True, text=True, timeout=90, env=clean_environment())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_keys_and_transactions(self):
        self.run_case("kv")

    def test_queues_of_the_lock_service(self):
        self.run_case("queues")

    def test_watches_with_progress_and_fragments(self):
        self.run_case("watch")

    def test_leases_kept_alive_by_the_library(self):
        self.run_case("lease")

    def test_mutexes_exclude(self):
        self.run_case("mutex")

    def test_elections_have_one_leader(self):
        self.run_case("election")

    def test_software_transactions(self):
        self.run_case("stm")

    def test_the_lock_and_election_services(self):
        self.run_case("services")


if __name__ == "__main__":
    unittest.main()
