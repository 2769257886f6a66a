"""Who leads next: strategies, observers, many groups, history, metrics; one leader a term."""
import re
import threading
import urllib.request

from test_coordination import CoordinationTest
from lib.wait import wait_until


class ElectionTest(CoordinationTest):
    def enter(self, group, identity, candidate=None, **more):
        response = self.rest.post("elections", {"group": group, "candidate": {"id": identity, **(candidate or {})}, **more})
        self.assertEqual(response.status, 201, response)
        return response.json

    def leader(self, group):
        return self.rest.get(f"elections/{group}").json

    def resign(self, group, own):
        response = self.rest.post(f"elections/{group}:resign", {"leaseId": own["leaseId"]})
        self.assertEqual(response.status, 200, response)
        return response.json

    def successors(self, group, members):
        """Ids in the order in which they lead, each resigning."""
        order = []
        while "leader" in self.leader(group):
            order.append(self.leader(group)["leader"]["id"])
            self.resign(group, members[order[-1]])
        return order


class Strategies(ElectionTest):
    feature_level = 2

    def test_first_come(self):
        members = {i: self.enter("first", i) for i in ("c", "a", "b")}
        self.assertEqual(self.successors("first", members), ["c", "a", "b"])

    def test_priority_and_no_usurpation(self):
        members = {"low": self.enter("prio", "low", {"priority": 1}, strategy="PRIORITY")}
        members["high"] = self.enter("prio", "high", {"priority": 900})
        members["middle"] = self.enter("prio", "middle", {"priority": 500})
        self.assertEqual(self.leader("prio")["leader"]["id"], "low", "a running leadership is not taken away")
        other = self.rest.post("elections", {"group": "prio", "candidate": {"id": "x"}, "strategy": "FIRST_COME"})
        self.assertEqual((other.status, other.reason), (412, "STRATEGY_MISMATCH"), other)
        self.assertEqual(self.successors("prio", members), ["low", "high", "middle"])

    def test_resources_as_renewals_report_them(self):
        members = {"a": self.enter("load", "a", {"load": 0.1}, strategy="RESOURCE")}
        members["b"] = self.enter("load", "b", {"load": 0.9})
        members["c"] = self.enter("load", "c", {"load": 0.5})
        renewed = self.rest.post("elections/load:renew", {"leaseId": members["b"]["leaseId"], "load": 0.2})
        self.assertEqual(renewed.status, 200, renewed)
        self.assertEqual(self.successors("load", members), ["a", "b", "c"])

    def test_geography(self):
        there = {"region": "us", "zone": "us-1"}
        members = {"far": self.enter("geo", "far", there, strategy="GEOGRAPHIC", preferredRegion="eu", preferredZone="eu-1")}
        members["region"] = self.enter("geo", "region", {"region": "eu", "zone": "eu-2"})
        members["zone"] = self.enter("geo", "zone", {"region": "eu", "zone": "eu-1"})
        self.assertEqual(self.successors("geo", members), ["far", "zone", "region"])

    def test_a_measure_of_ones_own(self):
        members = {"a": self.enter("own", "a", {"score": 1}, strategy="CUSTOM")}
        members["b"] = self.enter("own", "b", {"score": -2.5})
        members["c"] = self.enter("own", "c", {"score": 7})
        self.rest.post("elections/own:renew", {"leaseId": members["b"]["leaseId"], "score": 8})
        self.assertEqual(self.successors("own", members), ["a", "b", "c"])

    def test_weights_are_shares_of_the_terms(self):
        led = {"heavy": 0, "light": 0}
        for number in range(60):
            group = f"weights-{number}"
            first = self.enter(group, "first", strategy="WEIGHTED")
            self.enter(group, "heavy", {"weight": 3})
            self.enter(group, "light")
            told = [candidate["id"] for candidate in self.leader(group)["candidates"] if candidate["id"] != "first"]
            self.assertEqual(self.resign(group, first)["leader"]["id"], told[0], "as it was told before")
            led[told[0]] += 1
        # What is drawn follows from the names, so this is no matter of luck.
        self.assertTrue(8 <= led["light"] <= 22, led)
        for weight in (-1, 101):
            refused = self.rest.post("elections", {"group": "w", "candidate": {"id": "c", "weight": weight}})
            self.assert_problem(refused, 400, "FIELD_INVALID", "candidate.weight")


class Terms(ElectionTest):
    def test_terms_have_a_history(self):
        a = self.enter("past", "a", ttl="60s")
        self.enter("past", "b", ttl="3s")
        self.resign("past", a)
        wait_until(lambda: "leader" not in self.leader("past"), what="the end of b")
        self.enter("past", "c")
        now = self.leader("past")
        self.assertEqual((now["term"], now["leader"]["id"]), (3, "c"))
        told = [(term["term"], term["candidateId"], term.get("endReason", "")) for term in now["history"]]
        self.assertEqual([t[:2] for t in told], [(3, "c"), (2, "b"), (1, "a")], now)
        self.assertEqual([t[2] for t in told[1:]], ["EXPIRED", "RESIGNED"], now)
        tokens = [term["fencingToken"] for term in now["history"]]
        self.assertEqual(tokens, sorted(set(tokens), reverse=True))
        self.assertTrue(all(term["startTime"] <= term["endTime"] for term in now["history"][1:]))

    def test_observers_are_told_and_never_lead(self):
        observer = self.enter("seen", "watcher", {"observer": True})
        self.assertFalse(observer.get("isLeader", False))
        self.assertNotIn("leader", self.leader("seen"))
        refused = self.rest.post("elections/seen:transfer", {"targetId": "watcher"})
        self.assertEqual((refused.status, refused.reason), (412, "CANDIDATE_OBSERVES"), refused)
        with self.rest.stream("elections/seen:watch") as stream:
            stream.until(lambda item: item["kind"] == "PRESENT")
            own = self.enter("seen", "real")
            self.assertEqual(stream.until(lambda item: item["kind"] == "ELECTED")[-1]["election"]["leader"]["id"], "real")
            self.resign("seen", own)
            stream.until(lambda item: item["kind"] == "LEADERLESS")
        self.assertEqual([c["id"] for c in self.leader("seen")["candidates"]], ["watcher"])

    def test_groups_are_independent_and_counted(self):
        def metric(name):
            with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=10) as response:
                return float(re.search(rf"^{name} ([0-9.e+]+)$", response.read().decode(), re.M).group(1))
        terms = metric("uccp_election_terms_total")
        for number in range(20):
            self.enter(f"many-{number}", f"leader-{number % 3}")
            self.enter(f"many-{number}", "other")
        self.assertEqual({self.leader(f"many-{n}")["leader"]["id"] for n in range(20)}, {"leader-0", "leader-1", "leader-2"})
        wait_until(lambda: metric("uccp_elections_led") >= 20 and metric("uccp_election_candidates") >= 40)
        self.assertEqual(metric("uccp_election_terms_total") - terms, 20)

    def test_no_two_lead_one_term(self):
        """Eight candidates campaign, lead and resign at once: each term has one leader, each token one term."""
        seen, failures = [], []

        def work(number):
            rest = self.node.client()
            try:
                for _ in range(5):
                    led = rest.post("elections", {"group": "brain", "candidate": {"id": f"n{number}"}, "waitTimeout": "25s"})
                    self.assertEqual(led.status, 201, led)
                    self.assertTrue(led.json["isLeader"], led)
                    seen.append((led.json["term"], f"n{number}", led.json["fencingToken"]))
                    gone = rest.post("elections/brain:resign", {"leaseId": led.json["leaseId"]})
                    self.assertEqual(gone.status, 200, gone)
            except BaseException as error:
                failures.append(error)
            finally:
                rest.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(failures, [])
        self.assertEqual(len(seen), 40)
        self.assertEqual(len({term for term, _, _ in seen}), 40, "each leadership is a term of its own")
        self.assertEqual([token for _, _, token in sorted(seen)], sorted(token for _, _, token in seen))
