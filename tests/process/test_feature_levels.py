# timeout: 300
# labels: cluster
"""A cluster in the middle of an upgrade: it stays at the level of its oldest member and rises when that one is replaced."""
import subprocess
import unittest
import urllib.request

from lib.cluster import Cluster
from lib.uccp import CLI, SERVER, clean_environment, require
from lib.wait import wait_until

HELD = "feature_level_max: 1\n"
LARGE = {f"pad{number}": "y" * 4000 for number in range(12)}


def setUpModule():
    require(SERVER, CLI)


class Upgrade(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster()
        self.addCleanup(self.cluster.close)
        subprocess.run([SERVER, "cluster", "init", "--data-dir", self.cluster.dir, "--nodes", "3", "--ports", "auto"],
                       check=True, capture_output=True, timeout=30, env=clean_environment())

    def configuration(self, name):
        return self.cluster.dir / name / "uccp.yaml"

    def level(self, name):
        version = self.cluster.rest(name).get("version").json
        return version["featureLevel"], version["featureLevelMax"]

    def saved_bytes(self, what):
        """Of all nodes."""
        saved = 0.0
        for name in self.cluster.names():
            with urllib.request.urlopen(f"http://{self.cluster.node(name)['metrics']}/metrics", timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(f'uccp_compression_saved_bytes_total{{what="{what}"}}'):
                        saved += float(line.split()[-1])
        return saved

    def write(self, name, count=5):
        rest = self.cluster.patient("n1")
        for number in range(count):
            made = rest.post("services", {"serviceName": f"{name}{number}", "address": "10.0.0.1", "port": 1,
                                          "ttl": "3600s", "metadata": LARGE})
            self.assertEqual(made.status, 201, made)

    def test_the_level_rises_when_the_last_member_supports_it(self):
        with self.configuration("n3").open("a") as file:
            file.write(HELD)
        self.cluster.start()
        self.write("before")
        self.cluster.wait_equal(self.cluster.names())
        self.assertEqual({self.level(name) for name in self.cluster.names()}, {(1, 2)})
        self.assertEqual(self.saved_bytes("peers"), 0, "the oldest member would not understand packed entries")

        self.cluster.kill("n3", 15)
        self.configuration("n3").write_text(self.configuration("n3").read_text().replace(HELD, ""))
        self.write("without", 1)
        self.assertEqual(self.level("n1"), (1, 2), "who cannot be asked holds the level back")
        self.cluster.start()
        wait_until(lambda: {self.level(name) for name in self.cluster.names()} == {(2, 2)}, 60, "level 2 on all nodes")
        self.write("after")
        self.cluster.wait_equal(self.cluster.names())
        # Four of five kilobytes of each large entry, for each of two followers.
        self.assertGreater(self.saved_bytes("peers"), 5 * 2 * 0.8 * 48_000)
        found = self.cluster.rest("n3").get("services/discover", name="after4").json["services"]
        self.assertEqual(found[0]["metadata"], LARGE)

    def test_a_level_that_is_not_known_ends_the_program(self):
        code, errors = self.cluster.run_node(self.configuration("n1").parent, feature_level_max=9)
        self.assertEqual(code, 2, errors)
        self.assertIn("feature_level_max", errors)
        self.assertIn("1 to 2", errors)


if __name__ == "__main__":
    unittest.main()
