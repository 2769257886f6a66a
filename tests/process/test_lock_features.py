"""Locks beyond holding one: trees, priorities, preemption, reentrance, fencing checks, statistics; cyclic barriers."""
import re
import urllib.request

from test_coordination import Ask, CoordinationTest
from lib.wait import wait_until


class Trees(CoordinationTest):
    feature_level = 2

    def test_a_lock_with_its_tree_covers_the_names_below(self):
        tree = self.acquire("shop", "t", tree=True)
        refused = self.rest.post("locks/shop%2Forders%2F1:try", {"owner": "x"})
        self.assertEqual((refused.status, refused.reason), (409, "LOCK_HELD"), refused)
        self.assertIn("t, under a name above", refused.json["detail"])
        self.acquire("shopping", "y")  # not below
        below = Ask(self.node, "locks", {"name": "shop/orders/1", "owner": "x"})
        self.wait_for_queue("shop/orders/1", 1)
        again = Ask(self.node, "locks", {"name": "shop", "owner": "t2", "tree": True})
        self.wait_for_queue("shop", 1)
        self.release(tree)
        first = below.wait()
        self.assertEqual((first.status, first.json["owner"]), (201, "x"), first)
        self.assertIsNone(again.response, "a tree waits for those below that came before it")
        self.release(first.json)
        self.assertTrue(again.wait().json["tree"])

    def test_without_it_names_are_independent(self):
        self.acquire("plain", "a")
        self.acquire("plain/child", "b")
        busy = self.rest.post("locks/plain%2Fchild:try", {"tree": True, "owner": "c"})
        self.assertEqual(busy.reason, "LOCK_HELD", busy)

    def test_a_cycle_through_a_tree_is_refused(self):
        self.acquire("cyc/1", "a")
        other = self.acquire("elsewhere", "b")
        blocked = Ask(self.node, "locks", {"name": "elsewhere", "owner": "a"})
        self.wait_for_queue("elsewhere", 1)
        refused = self.rest.post("locks", {"name": "cyc", "owner": "b", "tree": True})
        self.assertEqual((refused.status, refused.reason), (409, "DEADLOCK"), refused)
        self.release(other)
        self.assertEqual(blocked.wait().status, 201)


class Queues(CoordinationTest):
    def test_higher_priority_is_served_first(self):
        held = self.acquire("prio", "first")
        waiting = {}
        for number, priority in enumerate((1, 50, 10)):
            waiting[priority] = Ask(self.node, "locks", {"name": "prio", "owner": f"p{priority}", "priority": priority})
            self.wait_for_queue("prio", number + 1)
        self.assertEqual([w["owner"] for w in self.lock("prio").json["waitQueue"]], ["p50", "p10", "p1"])
        for priority in (50, 10, 1):
            self.assertEqual(self.release(held).status, 204)
            held = waiting[priority].wait().json
            self.assertEqual(held["owner"], f"p{priority}")

    def test_preemption_takes_it_from_a_lower_priority(self):
        low = self.acquire("taken", "low", priority=10)
        same = self.rest.post("locks", {"name": "taken", "owner": "same", "priority": 10, "preempt": True, "waitTimeout": "0s"})
        self.assertEqual((same.status, same.reason), (504, "LOCK_WAIT_TIMEOUT"), same)
        high = self.acquire("taken", "high", priority=20, preempt=True)
        self.assertGreater(high["fencingToken"], low["fencingToken"])
        lost = self.rest.call("PUT", "locks/taken/renew", {"leaseId": low["leaseId"]})
        self.assertEqual((lost.status, lost.reason), (404, "LEASE_EXPIRED"), lost)
        self.assertEqual(self.lock("taken").json["owner"], "high")


class Holds(CoordinationTest):
    def test_a_reentrant_owner_releases_as_often_as_it_acquired(self):
        one = self.acquire("again", "me", reentrant=True)
        two = self.acquire("again", "me", reentrant=True)
        self.assertEqual((two["holdCount"], two["leaseId"]), (2, one["leaseId"]))
        self.assertEqual(self.release(two).status, 204)
        self.assertEqual(self.rest.post("locks/again:try", {"owner": "other"}).reason, "LOCK_HELD")
        self.assertEqual(self.release(one).status, 204)
        self.assertEqual(self.rest.post("locks/again:try", {"owner": "other"}).status, 200)

    def test_a_token_is_good_only_while_it_is_held(self):
        def check(token):
            return self.rest.get("locks/guarded:check", fencingToken=token)
        first = self.acquire("guarded", "a", ttl="3s")
        good = check(first["fencingToken"])
        self.assertEqual((good.status, good.json["owner"]), (200, "a"), good)
        second = Ask(self.node, "locks", {"name": "guarded", "owner": "b"}).wait().json
        stale = check(first["fencingToken"])
        self.assertEqual((stale.status, stale.reason), (412, "FENCING_TOKEN_STALE"), stale)
        self.assertIn(str(second["fencingToken"]), stale.json["detail"])
        self.assertEqual(check(second["fencingToken"]).json["owner"], "b")

    def test_a_repeat_is_not_answered_with_a_hold_that_has_ended(self):
        self.acquire("over", "a", ttl="1s", headers={"Idempotency-Key": "once"})
        later = self.acquire("over", "b")  # waits until the first has expired
        again = self.rest.post("locks", {"name": "over", "owner": "a", "ttl": "1s"}, headers={"Idempotency-Key": "once"})
        self.assertEqual((again.status, again.reason), (412, "HOLD_ENDED"), again)
        self.assertEqual(self.lock("over").json["fencingToken"], later["fencingToken"])


class Statistics(CoordinationTest):
    def metric(self, name):
        with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=10) as response:
            found = re.search(rf"^{name} ([0-9.e+]+)$", response.read().decode(), re.M)
        return float(found.group(1)) if found else 0

    def test_waits_holds_and_contention_are_counted(self):
        contended, waited = self.metric("uccp_lock_contended_total"), self.metric("uccp_lock_wait_seconds_count")
        held = self.acquire("counted", "a")
        waiting = Ask(self.node, "locks", {"name": "counted", "owner": "b"})
        self.wait_for_queue("counted", 1)
        self.release(held)
        self.release(waiting.wait().json)
        self.assertEqual(self.rest.post("locks", {"name": "counted", "owner": "c", "ttl": "4s"}).status, 201)
        timed_out = self.rest.post("locks", {"name": "counted", "owner": "d", "waitTimeout": "0.1s"})
        self.assertEqual(timed_out.reason, "LOCK_WAIT_TIMEOUT", timed_out)
        self.acquire("counted", "e")  # after c has expired
        seen = self.rest.get("locks/counted/statistics").json
        counts = tuple(seen[key] for key in ("acquisitions", "contended", "waitTimeouts", "expirations"))
        self.assertEqual(counts, (4, 2, 1, 1), seen)
        waits, holds = seen["waitSeconds"], seen["holdSeconds"]
        self.assertEqual(len(waits["counts"]), len(waits["bounds"]) + 1)
        self.assertEqual((sum(waits["counts"]), sum(holds["counts"])), (4, 3), seen)
        # The wait for c's expiry lasted most of four seconds, the others no time: it is alone in a bucket above a second.
        slow = sum(count for bound, count in zip(waits["bounds"] + [1e9], waits["counts"]) if bound > 1)
        self.assertEqual(slow, 1, waits)
        self.assertEqual(self.metric("uccp_lock_contended_total") - contended, 2)
        self.assertGreaterEqual(self.metric("uccp_lock_wait_seconds_count") - waited, 4)


class Barriers(CoordinationTest):
    def test_a_barrier_is_cyclic_and_breaks_for_all(self):
        for generation in range(3):
            parties = [Ask(self.node, "barriers/cycle:wait", {"parties": 2, "participant": f"p{i}"}) for i in range(2)]
            passages = [party.wait().json for party in parties]
            self.assertEqual({p.get("generation", 0) for p in passages}, {generation})
        waits = Ask(self.node, "barriers/cycle:wait", {"parties": 2, "participant": "p0"})
        wait_until(lambda: self.rest.get("barriers/cycle").json.get("arrived", 0) == 1, what="p0 at the barrier")
        self.assertEqual(self.rest.post("barriers/cycle:reset", {}).status, 200)
        broken = waits.wait()
        self.assertEqual((broken.status, broken.reason), (409, "BARRIER_BROKEN"), broken)
