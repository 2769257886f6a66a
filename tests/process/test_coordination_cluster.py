# timeout: 300
# labels: cluster
"""Elections, semaphores and barriers on three nodes whose leader is killed under way: what was acknowledged holds, a term
has one leader, permits are not exceeded, nobody passes a barrier alone. Each client asks whatever node answers."""
import collections
import http.client
import threading
import unittest

from lib.cluster import shared
from lib.wait import wait_until


class Client(threading.Thread):
    """One that works until it is told to stop. What goes wrong in it is told by stop()."""

    def __init__(self, cluster, number, work):
        super().__init__(daemon=True)
        names = cluster.names()
        self.nodes = [cluster.rest(name, timeout=8) for name in names[number:] + names[:number]]
        self.number, self.work = number, work
        self.ended, self.error = threading.Event(), None

    def run(self):
        try:
            while not self.ended.is_set():
                self.work(self)
        except Exception as error:  # told by stop()
            self.error = error
            self.ended.set()

    def ask(self, path, body, key=None, to_the_end=False):
        """The answer of a node that has one, None once this client is to stop, and how often it was asked for in vain."""
        asked = 0
        while to_the_end or not self.ended.is_set():
            try:
                answer = self.nodes[0].post(path, body, headers={"Idempotency-Key": key} if key else None)
                if answer.status not in (429, 503, 504):
                    return answer, asked
            except (OSError, http.client.HTTPException):
                pass
            asked += 1
            self.nodes.append(self.nodes.pop(0))
            self.ended.wait(0.02)
        return None, asked

    def stop(self):
        self.ended.set()
        self.join(60)
        for node in self.nodes:
            node.close()
        if self.error is not None:
            raise self.error


class Killed(unittest.TestCase):
    def setUp(self):
        self.cluster.start()  # those that the case before killed

    def work(self, count, work):
        clients = [Client(self.cluster, number % 3, work) for number in range(count)]
        for number, client in enumerate(clients):
            client.number = number
            client.start()
        self.addCleanup(lambda: [client.stop() for client in clients])
        return clients

    def wait(self, clients, condition, what):
        """As wait_until, but for a client that failed."""
        wait_until(lambda: any(client.error for client in clients) or condition(), 60, what)
        for client in clients:
            if client.error is not None:
                raise client.error

    def kill_leader(self):
        """The others, when the leader of the core group is gone."""
        leader = self.cluster.leader("core")
        self.cluster.kill(leader)
        return [name for name in self.cluster.names() if name != leader]


@shared()
class Elections(Killed):
    def test_a_term_has_one_leader_and_what_was_led_is_in_the_history(self):
        led = collections.defaultdict(set)  # term: (candidate, token)s that were told that they lead it

        def candidate(client):
            name = f"c{client.number}"
            own, _ = client.ask("elections", {"group": "led", "candidate": {"id": name}, "ttl": "30s"})
            if own is None:
                return
            self.assertEqual(own.status, 201, own)
            now = own
            while now is not None and not now.json.get("isLeader"):
                now, _ = client.ask("elections/led:renew", {"leaseId": own.json["leaseId"]})
                if now is not None:
                    self.assertEqual(now.status, 200, "a candidacy that was acknowledged is there")
            if now is None:
                return
            led[now.json["term"]].add((name, now.json["fencingToken"]))
            gone, before = client.ask("elections/led:resign", {"leaseId": own.json["leaseId"]})
            if gone is not None and before == 0:
                self.assertEqual(gone.status, 200, gone)

        clients = self.work(3, candidate)
        self.wait(clients, lambda: len(led) >= 6, "terms before the leader dies")
        others = self.kill_leader()
        killed_at = max(led)
        self.wait(clients, lambda: {name for term, seen in list(led.items()) if term > killed_at + 3
                                    for name, _ in seen} == {"c0", "c1", "c2"}, "each leads again")
        for client in clients:
            client.stop()
        for term, seen in led.items():
            self.assertEqual(len(seen), 1, f"term {term} was led by {seen}")
        tokens = [next(iter(led[term]))[1] for term in sorted(led)]
        self.assertEqual(tokens, sorted(set(tokens)), "a later term has a greater token")
        for name in others:
            rest = self.cluster.patient(name)
            self.addCleanup(rest.close)
            election = rest.get("elections/led", consistency="linearizable").json
            self.assertGreaterEqual(election["term"], max(led))
            for past in election["history"]:
                told = led.get(past["term"], {(past["candidateId"], past["fencingToken"])})
                self.assertEqual(told, {(past["candidateId"], past["fencingToken"])}, past)


@shared()
class Synchronizers(Killed):
    def test_permits_are_never_exceeded_and_all_come_back(self):
        guard, inside, most, rounds = threading.Lock(), [0], [0], collections.Counter()

        def holder(client):
            key = f"permit-{client.number}-{rounds[client.number]}"
            taken, _ = client.ask("semaphores/pool:acquire", {"capacity": 2, "ttl": "60s", "waitTimeout": "6s",
                                                              "owner": f"h{client.number}"}, key, to_the_end=True)
            self.assertEqual(taken.status, 200, taken)
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            client.ended.wait(0.005)
            with guard:
                inside[0] -= 1
            gone, before = client.ask("semaphores/pool:release", {"leaseId": taken.json["leaseId"]}, to_the_end=True)
            if before == 0 or gone.status != 404:
                self.assertEqual(gone.status, 200, "a permit that was acknowledged is there")
            rounds[client.number] += 1

        clients = self.work(5, holder)
        self.wait(clients, lambda: sum(rounds.values()) >= 20, "rounds before the leader dies")
        others = self.kill_leader()
        then = rounds.copy()
        self.wait(clients, lambda: all(rounds[n] >= then[n] + 3 for n in range(5)), "everybody has had permits again")
        for client in clients:
            client.stop()
        self.assertEqual(most[0], 2, "as many as there are, and no more")
        for name in others:
            rest = self.cluster.patient(name)
            self.addCleanup(rest.close)
            pool = rest.get("semaphores/pool", consistency="linearizable")
            self.assertIn(pool.status, (200, 404), pool)
            self.assertEqual(pool.json.get("holders", []), [], "all came back")

    def test_nobody_passes_a_barrier_before_all_have_come(self):
        come = collections.defaultdict(set)  # round: who has asked
        passed = [0, 0, 0]

        def party(client):
            at = passed[client.number]
            come[at].add(client.number)
            passage, _ = client.ask("barriers/epoch:wait", {"parties": 3, "participant": f"p{client.number}",
                                                            "waitTimeout": "20s"}, f"epoch-{client.number}-{at}")
            if passage is None:
                return
            self.assertEqual(passage.status, 200, passage)
            self.assertEqual(come[at], {0, 1, 2}, f"round {at} opened early")
            self.assertEqual(passage.json.get("generation", 0), at, "no passage is lost, and none is counted twice")
            passed[client.number] += 1

        clients = self.work(3, party)
        self.wait(clients, lambda: min(passed) >= 5, "rounds before the leader dies")
        self.kill_leader()
        then = max(passed)
        self.wait(clients, lambda: min(passed) >= then + 5, "rounds after the leader died")


if __name__ == "__main__":
    unittest.main()
