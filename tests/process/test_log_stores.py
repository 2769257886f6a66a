# serial
# labels: kill9
"""A node with each kind of log: kill -9 loses nothing, another kind's directory is refused, large entries are packed."""
import json
import re
import subprocess
import unittest
import urllib.request

import test_kill9
from lib.uccp import SERVER, Node, clean_environment, require

require(SERVER)

ROUNDS = 5


class RocksDbLog(test_kill9.KillNine):
    rounds = ROUNDS
    flags = ("--log-store", "rocksdb")


class LmdbLog(test_kill9.KillNine):
    rounds = ROUNDS
    flags = ("--log-store", "lmdb", "--log-compression", "zstd", "--log-compression-above", "500")


class ChoosingALog(unittest.TestCase):
    def run_server(self, node, *flags):
        return subprocess.run([SERVER, "dev", "--no-agent", "--ports", "auto", "--data-dir", node.dir, *flags],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              env=clean_environment(), check=False)

    def test_a_directory_of_another_store_is_refused(self):
        for made, other in (("wal", "rocksdb"), ("rocksdb", "lmdb"), ("lmdb", "wal")):
            node = Node(agent=False, flags=("--log-store", made))
            self.addCleanup(node.close)
            node.start()
            node.kill()
            done = self.run_server(node, "--log-store", other)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(f"was made with log_store: {made}, and the configuration says {other}", done.stderr)
            # Nothing was changed: with its own store it starts again.
            node.start()
            node.close()

    def test_unknown_words_are_refused(self):
        node = Node(agent=False)
        self.addCleanup(node.close)
        for flag, value, words in (("--log-store", "papyrus", "wal, rocksdb, lmdb"),
                                   ("--log-compression", "zip", "none, lz4, zstd"),
                                   ("--own-log-groups", "core,play", "there are core, work")):
            done = self.run_server(node, flag, value)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(value.split(",")[-1], done.stderr)
            self.assertIn(words, done.stderr)

    def test_large_entries_are_packed_and_read_back(self):
        for kind in ("wal", "rocksdb", "lmdb"):
            with self.subTest(kind):
                node = Node(agent=False, flags=("--log-store", kind))
                self.addCleanup(node.close)
                node.start()
                metadata = {f"pad{number}": "y" * 4000 for number in range(12)}
                response = node.rest.post("services", {"serviceName": "big", "address": "10.0.0.1", "port": 1,
                                                       "ttl": "3600s", "metadata": metadata})
                self.assertEqual(response.status, 201, response)
                self.assertGreater(self.saved_bytes(node), 40_000)
                node.kill()
                node.start()
                found = node.rest.get(f"services/{response.json['id']}")
                self.assertEqual(found.json["metadata"], metadata)
                node.close()

    def test_a_group_owns_its_log_and_gives_it_back(self):
        for kind in ("wal", "lmdb"):
            with self.subTest(kind):
                node = Node(agent=False)
                self.addCleanup(node.close)
                own = node.dir / "log" / "group-2"
                for round_, flags in enumerate(((), ("--own-log-groups", "work"), ())):
                    node.flags = ["--log-store", kind, *flags]
                    node.start()
                    self.assertEqual(own.exists(), bool(flags))
                    node.submit(["true"], name=f"task{round_}")
                    node.rest.post("services", {"serviceName": f"s{round_}", "address": "10.0.0.1", "port": 1 + round_,
                                                "ttl": "3600s"})
                    tasks = {task["name"] for task in node.rest.get("tasks").json["tasks"]}
                    services = {item["serviceName"] for item in node.rest.get("services").json["services"]}
                    self.assertEqual(tasks, {f"task{number}" for number in range(round_ + 1)})
                    self.assertEqual(services, {f"s{number}" for number in range(round_ + 1)})
                    node.kill()
                node.close()

    def test_the_log_keeps_as_many_entries_as_it_is_told(self):
        kept = {}
        for threshold in (50, 10_000):
            node = Node(agent=False, flags=("--log-store", "lmdb", "--snapshot-threshold", threshold))
            self.addCleanup(node.close)
            node.start()
            for number in range(400):
                node.rest.post("services", {"serviceName": f"s{number}", "address": "10.0.0.1", "port": 1 + number,
                                            "ttl": "86400s"})
            node.stop()
            node.start()
            # The log that groups share; those of the groups bus-* are opened after it.
            lines = [json.loads(line) for line in node.errors().splitlines() if '"log opened"' in line]
            opened = [line for line in lines if line["fields"]["directory"].endswith("/log")][-1]
            kept[threshold] = int(re.search(r"(\d+) entries", opened["fields"]["report"]).group(1))
            self.assertEqual(len(node.rest.get("services", pageSize=1000).json["services"]), 400)
            node.close()
        self.assertLess(kept[50], 300)  # the state below may lag by what is gathered for it
        self.assertGreater(kept[10_000], 400)

    def saved_bytes(self, node):
        with urllib.request.urlopen(f"http://{node.context['metrics']}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith('uccp_compression_saved_bytes_total{what="log"}'):
                    return float(line.split()[-1])
        return 0.0
