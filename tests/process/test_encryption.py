# labels: encryption
"""Encryption at rest: nothing of what was written is on the disk, keys change, and without the key nothing opens."""
import subprocess
import unittest

from lib.uccp import SERVER, Node, clean_environment, require

require(SERVER)

SECRET = "a-word-that-is-nowhere-else"


def files_with(directory, word):
    return [str(path) for path in directory.rglob("*") if path.is_file() and word in path.read_bytes()]


class EncryptedNode(unittest.TestCase):
    def setUp(self):
        self.node = Node(agent=False)
        self.addCleanup(self.node.close)
        self.key = self.key_file("master.key", "5a")

    def key_file(self, name, digits):
        path = self.node.base / name
        path.write_text(digits * 32 + "\n")
        return path

    def use(self, key, *flags):
        self.node.flags = (["--encryption-key-file", str(key)] if key else []) + list(flags)
        return self

    def refused(self, *flags):
        done = subprocess.run([SERVER, "dev", "--no-agent", "--ports", "auto", "--data-dir", self.node.dir, *flags],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              env=clean_environment(), check=False)
        self.assertNotEqual(done.returncode, 0)
        return done.stderr

    def rotate(self, key, *flags):
        done = subprocess.run([SERVER, "keys", "rotate", "--data-dir", self.node.dir, "--encryption-key-file", key, *flags],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              env=clean_environment(), check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def register(self, name):
        response = self.node.rest.post("services", {"serviceName": name, "address": "10.0.0.1", "port": 1, "ttl": "86400s",
                                                    "metadata": {"word": SECRET}})
        self.assertEqual(response.status, 201, response)

    def names(self):
        return {item["serviceName"] for item in self.node.rest.get("services").json["services"]}

    def test_nothing_is_readable_over_kills_restarts_and_new_keys(self):
        for store in ("wal", "rocksdb"):
            with self.subTest(store):
                self.node = Node(agent=False)
                self.addCleanup(self.node.close)
                key = self.key_file("master.key", "5a")
                self.use(key, "--log-store", store).node.start()
                self.register("one")
                self.node.kill()
                self.node.start()
                self.assertEqual(self.names(), {"one"})
                self.node.stop()
                self.assertIn("2 data keys", self.rotate(key))
                new = self.key_file("new.key", "11")
                self.rotate(key, "--new-key-file", new)
                self.assertIn("wrapped by the master key", self.refused("--encryption-key-file", key, "--log-store", store))
                self.use(new, "--log-store", store).node.start()
                self.register("two")
                self.node.restart()
                self.assertEqual(self.names(), {"one", "two"})
                self.node.stop()
                self.assertEqual(files_with(self.node.dir, SECRET.encode()), [])
                self.node.close()

    def test_what_is_there_is_encrypted_when_it_is_turned_on(self):
        self.node.start()
        self.register("one")
        self.node.stop()
        self.assertNotEqual(files_with(self.node.dir / "state", SECRET.encode()), [])
        self.use(self.key).node.start()
        self.assertEqual(self.names(), {"one"})
        self.register("two")
        self.node.stop()
        self.assertEqual(files_with(self.node.dir / "state", SECRET.encode()), [])
        self.assertIn("is encrypted; set encryption_key_file", self.refused())
        self.node.start()
        self.assertEqual(self.names(), {"one", "two"})

    def test_wrong_keys_are_refused(self):
        self.use(self.key).node.start()
        self.register("one")
        self.node.kill()
        other = self.key_file("other.key", "22")
        self.assertIn("set encryption_key_file to the file that holds the former",
                      self.refused("--encryption-key-file", other))
        other.write_text("too short")
        self.assertIn("64 lower-case hexadecimal digits", self.refused("--encryption-key-file", other))
        self.assertIn("lmdb cannot be encrypted", self.refused("--encryption-key-file", self.key, "--log-store", "lmdb"))
        keys = self.node.dir / "keys" / "data.keys"
        good = keys.read_bytes()
        keys.write_bytes(good[:-1])
        self.assertIn("data keys is damaged", self.refused("--encryption-key-file", self.key))
        keys.write_bytes(good)
        self.node.start()
        self.assertEqual(self.names(), {"one"})

    def test_an_old_data_key_is_followed_by_a_new_one_at_a_start(self):
        self.use(self.key, "--encryption-key-age", "0s").node.start()
        self.node.restart()
        self.node.stop()
        self.assertIn("3 data keys", self.rotate(self.key))
