# timeout: 240
"""Quotas of calls and of topics: what is refused, what explain and a dry run say, and one limit for all nodes."""
import unittest

from lib import cluster, credentials
from lib.uccp import NodeTest
from lib.wait import wait_until

REFUSED = "QUOTA_REQUESTS_EXHAUSTED"


class Calls(NodeTest):
    agent = False
    feature_level = 2

    def set(self, **quota):
        answer = self.rest.post("quotas", quota)
        self.assertEqual(answer.status, 201, answer)

    def ask(self, name_space, rest=None):
        return (rest or self.rest).get("locks", namespace=name_space)

    def until_refused(self, name_space, rest=None):
        """What a node counts by begins to hold there within moments."""
        def refused():
            answer = self.ask(name_space, rest)
            return answer if answer.status != 200 else None
        answer = wait_until(refused, 30, f"calls in {name_space} to be refused")
        self.assert_problem(answer, 429, REFUSED)
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        return answer.json["detail"]

    def used(self, name_space, limit):
        return self.rest.get(f"quotas/{name_space}").json.get("used", {}).get(limit, 0)

    def test_calls_of_a_day_are_counted_told_and_survive_a_kill(self):
        self.set(namespace="day", hard={"requestsPerDay": 5})
        self.assertIn("the quota namespace:day has used 5 of 5 calls of this day", self.until_refused("day"))
        self.assertEqual(self.ask("other").status, 200)
        wait_until(lambda: self.used("day", "requestsPerDay") == 5, 30, "the use to be shown")
        why = self.rest.get("quotas/day:explain", cpu=1).json
        self.assertFalse(why.get("admitted", False))
        self.assertEqual(why["summary"], "it would be refused: the quota namespace:day has 5 of 5 calls of this day, 1 more are "
                                         "asked for")
        self.assertEqual((why["steps"][0]["hard"]["requestsPerDay"], why["steps"][0]["used"]["requestsPerDay"]), (5, 5))
        shown = self.node.cli("quota", "explain", "day", "-o", "yaml").stdout.decode()
        self.assertIn("5 of 5 calls of this day", shown)
        type(self).node.kill()
        type(self).node.start()
        self.until_refused("day")
        self.set(namespace="day", hard={"requestsPerDay": 100_000})
        wait_until(lambda: self.ask("day").status == 200, 30, "the higher limit to hold")

    def test_calls_a_second_are_limited(self):
        # So slow that none comes back during the test.
        self.set(namespace="second", hard={"requestsPerSecond": 0.001})
        self.assertIn("the quota namespace:second allows 0.001 calls a second; slow down", self.until_refused("second"))
        self.set(namespace="second", hard={"requestsPerSecond": 100_000})
        wait_until(lambda: self.ask("second").status == 200, 30, "the higher limit to hold")

    def test_users_and_all_of_a_tenant_have_limits(self):
        key = self.node.dir / "pki" / "token.key"
        ann, bea = (self.node.client(token=credentials.token(key, sub=name, tenant="default")) for name in ("ann", "bea"))
        for rest in (ann, bea):
            self.addCleanup(rest.close)
        self.set(namespace="users", scope="USER", subject="ann", hard={"requestsPerDay": 2})
        self.assertIn("the quota user:users/ann has used 2 of 2", self.until_refused("users", ann))
        self.assertEqual(self.ask("users", bea).status, 200)
        self.assertEqual(self.ask("elsewhere", ann).status, 200)
        self.set(scope="PROJECT", subject="web", hard={"requestsPerDay": 3})
        self.set(namespace="shop", parent="project:web")
        self.set(namespace="site", parent="project:web")
        self.assertIn("the quota project:web has used 3 of 3", self.until_refused("shop"))
        self.assertIn("the quota project:web has used 3 of 3", self.until_refused("site"))

    def test_what_cannot_be_limited_is_told(self):
        post = lambda **quota: self.rest.post("quotas", quota)
        self.assert_problem(post(namespace="bad", soft={"requestsPerDay": 5}), 400, "FIELD_INVALID")
        self.assert_problem(post(namespace="bad", hard={"requestsPerDay": -1}), 400, "FIELD_INVALID")
        self.assert_problem(post(namespace="bad", scope="USER", subject="ann", hard={"topics": 5}), 400, "FIELD_INVALID")
        self.assert_problem(post(namespace="bad", hard={"eventBytesPerSecond": 5}), 400, "QUOTA_LIMIT_UNIMPLEMENTED")
        dry = self.rest.post("quotas", {"namespace": "bad", "hard": {"requestsPerDay": 5}}, {"validateOnly": "true"})
        self.assertEqual((dry.status, dry.json["hard"]["requestsPerDay"]), (201, 5))
        self.assertEqual(self.rest.get("quotas/bad").status, 404, "it was only checked")

    def create(self, name_space, name, **query):
        return self.rest.post("events/topics", {"name": name}, {"namespace": name_space, **query})

    def test_topics_are_limited(self):
        self.set(namespace="topics", hard={"topics": 1})
        self.assertEqual(self.create("topics", "a").status, 201)
        refused = self.create("topics", "b")
        self.assert_problem(refused, 429, "QUOTA_TOPICS_EXHAUSTED")
        self.assertIn("the quota namespace:topics has 1 of 1 topics", refused.json["detail"])
        self.assert_problem(self.create("topics", "b", validateOnly="true"), 429, "QUOTA_TOPICS_EXHAUSTED")
        why = self.rest.get("quotas/topics:explain", topics=1).json
        self.assertEqual(why["summary"], "it would be refused: the quota namespace:topics has 1 of 1 topics, 1 more are asked for")
        self.assertTrue(self.rest.get("quotas/topics:explain", cpu=1).json["admitted"], "a task needs none")
        wait_until(lambda: self.used("topics", "topics") == 1, 30, "the use to be shown")
        self.assertEqual(self.create("beside", "b").status, 201, "another namespace has no quota")
        self.assertEqual(self.rest.delete("events/topics/a", {"namespace": "topics"}).status, 204)
        self.assertEqual(self.create("topics", "b").status, 201)
        self.set(scope="TEAM", subject="bus", hard={"topics": 2})
        for name_space in ("left", "right"):
            self.set(namespace=name_space, parent="team:bus")
            self.assertEqual(self.create(name_space, "a").status, 201)
        self.assertIn("the quota team:bus has 2 of 2 topics", self.create("right", "b").json["detail"])


@cluster.shared()
class OneLimitForAllNodes(unittest.TestCase):
    LIMIT = 2_000

    def ask(self, rest):
        return rest.get("locks", namespace="day")

    def count_until_refused(self, rest):
        taken = 0
        while True:
            answer = self.ask(rest)
            if answer.status == 429:
                self.assertEqual(answer.reason, REFUSED, answer)
                return taken
            self.assertEqual(answer.status, 200, answer)
            taken += 1
            self.assertLessEqual(taken, 3 * self.LIMIT, "the limit never held")

    def wait_until_known(self, rest, name):
        def known():
            answer = rest.get("quotas/day")
            return answer.status == 200 and answer.json.get("used", {}).get("requestsPerDay", 0) >= self.LIMIT
        wait_until(known, 60, f"{name} to know what was used")

    def test_any_node_sets_and_explains_quotas_whoever_leads(self):
        first, second, third = (self.cluster.patient(name) for name in self.cluster.names())
        for rest in (first, second, third):
            self.addCleanup(rest.close)
        wait_until(lambda: first.get("version").json.get("featureLevel", 0) >= 2, 60, "feature level 2")
        # The groups core and work have different leaders.
        core = self.cluster.leader("core")
        self.cluster.lead("work", next(name for name in self.cluster.names() if name != core))
        for number, rest in enumerate((first, second, third), 1):
            answer = rest.post("quotas", {"namespace": "any", "hard": {"cpu": number}})
            self.assertEqual(answer.status, 201, answer)
            for other in (first, second, third):
                self.assertEqual(other.get("quotas/any").json["hard"]["cpu"], number)
                self.assertIn(f"has 0 of {number} CPU in use, 9 more", other.get("quotas/any:explain", cpu=9).json["summary"])
                self.assertEqual(other.get("resources/cluster").status, 200)
                self.assertEqual(other.get("resources/usage").status, 200)
        self.assertEqual(third.delete("quotas/any").status, 204)
        self.assertEqual(first.get("quotas/any").status, 404)

    def test_the_day_is_counted_over_all_nodes_and_outlives_the_leader(self):
        patient = {name: self.cluster.patient(name) for name in self.cluster.names()}
        first, *others = sorted(patient)
        wait_until(lambda: patient[first].get("version").json.get("featureLevel", 0) >= 2, 60, "feature level 2")
        answer = patient[first].post("quotas", {"namespace": "day", "hard": {"requestsPerDay": self.LIMIT}})
        self.assertEqual(answer.status, 201, answer)
        self.assertGreaterEqual(self.count_until_refused(patient[first]), self.LIMIT)
        # What one node counted reaches the others within moments: then none of them gives all of it once more.
        for name in others:
            self.wait_until_known(patient[name], name)
            self.assertLess(self.count_until_refused(patient[name]), self.LIMIT, name)
        self.cluster.kill(self.cluster.leader("work"))
        for name in self.cluster.names():
            if self.cluster.health(name) is not None:
                self.wait_until_known(patient[name], name)
                self.assertLess(self.count_until_refused(patient[name]), self.LIMIT, name)
