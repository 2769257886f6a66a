# timeout: 300
"""A lock of the etcd API that clients take in turns through all three nodes, while the leader is killed."""
import subprocess
import unittest

from lib.cluster import shared
from lib.etcd import go_client
from lib.uccp import clean_environment
from lib.wait import wait_until


@shared()
class Turns(unittest.TestCase):
    def test_nobody_meets_another_and_all_get_their_turns_though_the_leader_dies(self):
        program = go_client()
        nodes = [self.cluster.node(name) for name in self.cluster.names()]
        context = self.cluster.context
        urls = ",".join(f"https://{node['etcd']}" for node in nodes)
        with subprocess.Popen([program, "turns", urls, context["ca"], context["cert"], context["key"]],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=clean_environment()) as client:
            try:
                leader = self.cluster.leader("core")
                other = next(name for name in self.cluster.names() if name != leader)
                # It is under way when somebody has been inside.
                wait_until(lambda: self.cluster.cli("kv", "get", "turns/count", server=other).returncode == 0, 30, "a turn")
                self.cluster.kill(leader)
                output, _ = client.communicate(timeout=120)
            finally:
                client.kill()
        self.assertEqual(client.returncode, 0, output)


if __name__ == "__main__":
    unittest.main()
