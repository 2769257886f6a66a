# timeout: 200
# labels: cluster
"""Discovery on three nodes: what followers know of heartbeats, and what holds while the leader is killed."""
import datetime
import http.client
import os
import signal
import threading
import unittest

from lib.cluster import shared
from lib.uccp import freeze
from lib.wait import wait_until


def register(rest, name, port, ttl="3600s"):
    answer = rest.post("services", {"serviceName": name, "address": "10.6.0.1", "port": port, "ttl": ttl})
    assert answer.status == 201, answer
    return answer.json["id"]


def moment(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class Beats(threading.Thread):
    """Heartbeats of one instance through whatever node answers, until it is stopped."""

    def __init__(self, cluster, names, instance):
        super().__init__(daemon=True)
        self.clients = [cluster.rest(name, timeout=3) for name in names]
        self.instance = instance
        self.ended = threading.Event()
        self.start()

    def run(self):
        at = 0
        while not self.ended.wait(0.3):
            try:
                if self.clients[at % len(self.clients)].post(f"services/{self.instance}/heartbeat", {}).status == 200:
                    continue
            except (OSError, http.client.HTTPException):
                pass
            at += 1

    def stop(self):
        self.ended.set()
        self.join()
        for client in self.clients:
            client.close()


@shared()
class Discovery(unittest.TestCase):
    def test_1_followers_are_told_of_heartbeats_and_say_how_old_that_is(self):
        leader = self.cluster.leader("core")
        follower = next(name for name in self.cluster.names() if name != leader)
        at_leader, at_follower = self.cluster.rest(leader), self.cluster.rest(follower)
        instance = register(at_leader, "seen", 1)
        registered = moment(at_leader.get(f"services/{instance}").json["lastSeen"])

        def beaten():
            answer = at_leader.post(f"services/{instance}/heartbeat", {})
            self.assertEqual(answer.status, 200, answer)
            now = at_leader.get(f"services/{instance}")
            return now if moment(now.json["lastSeen"]) > registered else None
        exact = wait_until(beaten, 30, "a heartbeat that is later than the registration")
        wait_until(lambda: at_leader.get(f"services/{instance}").headers.get("Uccp-Last-Seen-Age") == "0", 30,
                   "the leader knows that it leads")

        def told():
            # It is told again and again; what came late over a busy machine seems later than it was.
            answer = at_follower.get(f"services/{instance}")
            apart = abs((moment(answer.json["lastSeen"]) - moment(exact.json["lastSeen"])).total_seconds())
            new = moment(answer.json["lastSeen"]) > registered and apart < 1
            return new and 0 < int(answer.headers.get("Uccp-Last-Seen-Age", 0)) < 6000
        wait_until(told, 30, "the follower is told of the heartbeat")
        found = at_follower.get("services/discover", name="seen")
        self.assertIn("Uccp-Last-Seen-Age", found.headers)
        self.assertGreater(moment(found.json["services"][0]["lastSeen"]), registered)

    def test_2_the_leader_dies_and_everybody_is_found_but_who_has_gone(self):
        leader = self.cluster.leader("core")
        others = [name for name in self.cluster.names() if name != leader]
        kept = register(self.cluster.patient(leader), "kept", 2, ttl="10s")
        gone = register(self.cluster.patient(leader), "gone", 3, ttl="10s")
        beats = Beats(self.cluster, others, kept)
        self.addCleanup(beats.stop)
        clients = {name: self.cluster.rest(name) for name in others}
        for client in clients.values():
            wait_until(lambda client=client: len(client.get("services/discover", name="gone").json["services"]) == 1, 30,
                       "the follower has it")

        self.cluster.kill(leader)
        # Reads of discovery may be up to 5 s old, so nobody has to wait for the next leader. As long as one of the two that are
        # left stands still there is none.
        for name, client in clients.items():
            other = self.cluster.pid(next(one for one in others if one != name))
            freeze(other)
            try:
                answer = client.get("services/discover", name="kept")
            finally:
                os.kill(other, signal.SIGCONT)
            self.assertEqual((answer.status, len(answer.json["services"])), (200, 1), answer)
        # Whoever is silent gets its whole TTL from the new leader, and no more.
        for name, client in clients.items():
            wait_until(lambda client=client: client.get("services/discover", name="gone").json["services"] == [], 60,
                       f"{name} lists nobody who has expired")
            self.assertEqual(self.cluster.patient(name).get(f"services/{gone}", consistency="linearizable").status, 404)
            self.assertEqual(len(client.get("services/discover", name="kept").json["services"]), 1)


if __name__ == "__main__":
    unittest.main()
