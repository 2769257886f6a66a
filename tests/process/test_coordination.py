"""Locks, semaphores, elections, barriers and latches through REST and the CLI, over a kill -9 of the server."""
import json
import re
import threading
import time
import urllib.request

from lib.uccp import NodeTest
from lib.wait import wait_until


class Ask(threading.Thread):
    """A call that waits, on a connection and a thread of its own."""

    def __init__(self, node, path, body, method="POST", query=None, headers=None):
        super().__init__(daemon=True)
        self.rest, self.arguments, self.response, self.error = node.client(), (method, path, body, query, headers), None, None
        self.start()

    def run(self):
        try:
            self.response = self.rest.call(*self.arguments)
        except Exception as error:  # told by the main thread
            self.error = error
        finally:
            self.rest.close()

    def wait(self, timeout=20.0):
        self.join(timeout)
        assert self.response is not None, self.error or "no answer"
        return self.response


class CoordinationTest(NodeTest):
    agent = False

    def acquire(self, name, owner, rest=None, headers=None, **more):
        response = (rest or self.rest).post("locks", {"name": name, "owner": owner, **more}, headers=headers)
        self.assertEqual(response.status, 201, response)
        return response.json

    def release(self, lock):
        return self.rest.delete(f"locks/{lock['name'].replace('/', '%2F')}", query={"leaseId": lock["leaseId"]})

    def lock(self, name):
        return self.rest.get(f"locks/{name.replace('/', '%2F')}")

    def wait_for_queue(self, name, length):
        def queue():
            response = self.lock(name)
            return response.status == 200 and len(response.json.get("waitQueue", [])) == length
        wait_until(queue, what=f"{length} in the queue of {name}")


class Locks(CoordinationTest):
    def test_two_clients_exclude_each_other(self):
        inside, most, tokens, failures = [0], [0], [], []

        def work(number):
            rest = self.node.client()
            try:
                for _ in range(15):
                    held = self.acquire("critical/section", f"client-{number}", rest)
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    tokens.append(held["fencingToken"])
                    time.sleep(0.001)
                    inside[0] -= 1
                    gone = rest.delete("locks/critical%2Fsection", query={"leaseId": held["leaseId"]})
                    self.assertEqual(gone.status, 204, gone)
            except BaseException as error:
                failures.append(error)
            finally:
                rest.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(failures, [])
        self.assertEqual(most[0], 1, "two were inside at once")
        self.assertEqual(len(tokens), 60)
        self.assertEqual(tokens, sorted(set(tokens)), "tokens only grow")

    def test_a_lock_is_free_again_when_its_ttl_ends(self):
        held = self.acquire("ttl", "a", ttl="3s")
        self.assertEqual(self.rest.post("locks/ttl:try", {}).status, 409)
        second = Ask(self.node, "locks", {"name": "ttl", "owner": "b", "waitTimeout": "20s"}).wait()
        self.assertEqual((second.status, second.json["owner"]), (201, "b"), second)
        self.assertGreater(second.json["fencingToken"], held["fencingToken"])
        late = self.rest.call("PUT", "locks/ttl/renew", {"leaseId": held["leaseId"]})
        self.assertEqual((late.status, late.reason), (404, "LEASE_EXPIRED"), late)

    def test_renewals_keep_it(self):
        held = self.acquire("renewed", "a", ttl="3s")
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            renewed = self.rest.call("PUT", "locks/renewed/renew", {"leaseId": held["leaseId"]})
            self.assertEqual(renewed.status, 200, renewed)
            time.sleep(0.2)
        self.assertEqual(self.lock("renewed").json["fencingToken"], held["fencingToken"])

    def test_waiters_are_served_in_their_order(self):
        held = self.acquire("queue", "first")
        waiting = []
        for number in range(4):
            waiting.append(Ask(self.node, "locks", {"name": "queue", "owner": f"w{number}", "queueOrder": "FIFO",
                                                    "priority": number}))
            self.wait_for_queue("queue", number + 1)
        self.assertEqual([w["owner"] for w in self.lock("queue").json["waitQueue"]], ["w0", "w1", "w2", "w3"])
        for number, ask in enumerate(waiting):
            self.assertEqual(self.release(held).status, 204)
            held = ask.wait().json
            self.assertEqual(held["owner"], f"w{number}")
        self.release(held)
        self.assertEqual(self.lock("queue").status, 404)
        statistics = self.rest.get("locks/queue/statistics").json
        self.assertEqual((statistics["acquisitions"], statistics["contended"]), (5, 4), statistics)

    def test_a_wait_ends_by_its_timeout(self):
        self.acquire("busy", "a")
        begun = time.monotonic()
        response = self.rest.post("locks", {"name": "busy", "owner": "b", "waitTimeout": "1s"})
        self.assertEqual((response.status, response.reason), (504, "LOCK_WAIT_TIMEOUT"), response)
        self.assertTrue(0.9 < time.monotonic() - begun < 15)
        self.assertEqual(self.lock("busy").json.get("waitQueue", []), [])

    def test_a_client_that_goes_away_leaves_the_queue(self):
        self.acquire("left", "a")
        rest = self.node.client()
        connection = rest.connect()
        connection.request("POST", "/api/v1/locks", json.dumps({"name": "left", "owner": "b"}).encode(), rest._head({}, True))
        self.wait_for_queue("left", 1)
        connection.sock.close()
        connection.close()
        self.wait_for_queue("left", 0)

    def test_readers_share_writers_wait_deadlocks_are_refused(self):
        one = self.rest.post("locks/doc:read", {"owner": "r1"})
        two = self.rest.post("locks/doc:read", {"owner": "r2"})
        self.assertEqual((one.status, two.status), (200, 200), (one, two))
        self.assertEqual(self.rest.post("locks/doc:try", {}).reason, "LOCK_HELD")
        other = self.acquire("other", "w")
        blocked = Ask(self.node, "locks", {"name": "other", "owner": "r1"})
        self.wait_for_queue("other", 1)
        refused = self.rest.post("locks", {"name": "doc", "owner": "w"})
        self.assertEqual((refused.status, refused.reason), (409, "DEADLOCK"), refused)
        self.release(other)
        self.assertEqual(blocked.wait().status, 201)

    def test_transfer_break_and_watch(self):
        with self.rest.stream("locks:watch", query={"prefix": "seen/"}) as stream:
            stream.until(lambda item: item["kind"] == "SYNCED")
            held = self.acquire("seen/1", "a")
            handed = self.rest.post("locks/seen%2F1:transfer", {"leaseId": held["leaseId"], "newOwner": "b"})
            self.assertEqual((handed.status, handed.json["owner"]), (200, "b"), handed)
            broken = self.rest.post("locks/seen%2F1:break", {"reason": "test"})
            self.assertEqual(broken.json["broken"][0]["owner"], "b", broken)
            items = stream.until(lambda item: item["kind"] == "BROKEN")
            self.assertEqual([item["kind"] for item in items], ["ACQUIRED", "TRANSFERRED", "ACQUIRED", "BROKEN"])
            self.assertTrue(all("leaseId" not in item["lock"] for item in items))

    def test_a_repeat_answers_the_same_hold(self):
        first = self.acquire("repeat", "a", headers={"Idempotency-Key": "k1"})
        again = self.acquire("repeat", "a", headers={"Idempotency-Key": "k1"})
        self.assertEqual(again["leaseId"], first["leaseId"])

    def test_metrics_count_holds_and_waits(self):
        self.acquire("metric", "a")

        def scraped():
            with urllib.request.urlopen(f"http://{self.node.context['metrics']}/metrics", timeout=10) as response:
                return response.read().decode()
        wait_until(lambda: re.search(r"^uccp_locks_held [1-9]", scraped(), re.M), what="uccp_locks_held")
        self.assertIn("uccp_lock_wait_seconds_bucket", scraped())


class Killed(CoordinationTest):
    def test_holds_queues_and_tokens_survive_kill_nine(self):
        held = self.acquire("durable", "a", ttl="600s")
        waiting = Ask(self.node, "locks", {"name": "durable", "owner": "b"}, headers={"Idempotency-Key": "wait-1"})
        self.wait_for_queue("durable", 1)
        election = self.rest.post("elections", {"group": "g", "candidate": {"id": "x"}, "ttl": "600s"}).json
        latch = self.rest.post("latches", {"name": "l", "count": 2})
        self.assertEqual(latch.status, 201, latch)
        self.node.restart()
        waiting.join(20)
        self.assertEqual(self.lock("durable").json["fencingToken"], held["fencingToken"])
        # The same request takes its old place in the queue.
        again = Ask(self.node, "locks", {"name": "durable", "owner": "b"}, headers={"Idempotency-Key": "wait-1"})
        self.wait_for_queue("durable", 1)
        self.assertEqual(self.release(held).status, 204)
        second = again.wait().json
        self.assertGreater(second["fencingToken"], held["fencingToken"])
        self.assertEqual(self.lock("durable").json.get("waitQueue", []), [], "it had one place")
        tokens = [second["fencingToken"]]
        for _ in range(3):
            self.release(second)
            self.node.restart()
            second = self.acquire("durable", "c", ttl="600s")
            tokens.append(second["fencingToken"])
        self.assertEqual(tokens, sorted(set(tokens)))
        now = self.rest.get("elections/g").json
        self.assertEqual((now["leader"]["id"], now["term"], now["fencingToken"]), ("x", 1, election["fencingToken"]))
        self.assertEqual(self.rest.get("latches/l").json["remaining"], 2)


class Elections(CoordinationTest):
    def enter(self, candidate, **more):
        response = self.rest.post("elections", {"group": "svc/main", "candidate": {"id": candidate}, **more})
        self.assertEqual(response.status, 201, response)
        return response.json

    def test_failover_transfer_and_resignation(self):
        first = self.enter("a", ttl="1s")
        self.assertTrue(first["isLeader"])
        waiting = Ask(self.node, "elections", {"group": "svc/main", "candidate": {"id": "b"}, "waitTimeout": "20s"})
        second = waiting.wait().json
        self.assertEqual((second["leader"]["id"], second["term"]), ("b", 2))
        self.assertGreater(second["fencingToken"], first["fencingToken"])
        self.assertEqual(second["history"][1]["endReason"], "EXPIRED")
        late = self.rest.post("elections/svc%2Fmain:renew", {"leaseId": first["leaseId"]})
        self.assertEqual((late.status, late.reason), (404, "CANDIDACY_ENDED"), late)
        third = self.enter("c")
        self.assertFalse(third.get("isLeader", False))
        moved = self.rest.post("elections/svc%2Fmain:transfer", {"targetId": "c"})
        self.assertEqual(moved.json["leader"]["id"], "c", moved)
        left = self.rest.post("elections/svc%2Fmain:resign", {"leaseId": third["leaseId"]})
        self.assertEqual(left.json["leader"]["id"], "b", left)
        self.assertEqual(self.rest.get("elections").json["elections"][0]["group"], "svc/main")

    def test_watch_tells_the_leader(self):
        with self.rest.stream("elections/watched:watch") as stream:
            self.assertEqual(stream.next()["kind"], "PRESENT")
            self.rest.post("elections", {"group": "watched", "candidate": {"id": "z"}})
            item = stream.until(lambda i: i["kind"] == "ELECTED")[-1]
            self.assertEqual(item["election"]["leader"]["id"], "z")


class Semaphores(CoordinationTest):
    def test_no_more_than_its_permits(self):
        first = self.rest.post("semaphores/pool:acquire", {"capacity": 2, "owner": "a"}).json
        self.rest.post("semaphores/pool:acquire", {"owner": "b"})
        third = Ask(self.node, "semaphores/pool:acquire", {"owner": "c"})
        wait_until(lambda: self.rest.get("semaphores/pool").json.get("waiters") == 1)
        self.assertEqual(self.rest.get("semaphores/pool").json.get("available", 0), 0)
        self.assertEqual(self.rest.post("semaphores/pool:release", {"leaseId": first["leaseId"]}).status, 200)
        self.assertEqual(third.wait().json["owner"], "c")


class Synchronization(CoordinationTest):
    def test_a_barrier_of_three(self):
        for generation in range(2):
            parties = [Ask(self.node, "barriers/epoch:wait", {"parties": 3, "participant": f"p{i}"}) for i in range(3)]
            passages = [party.wait() for party in parties]
            self.assertEqual([p.status for p in passages], [200] * 3, passages)
            self.assertEqual({p.json.get("generation", 0) for p in passages}, {generation})
            self.assertEqual(sorted(p.json.get("arrivalIndex", 0) for p in passages), [0, 1, 2])

    def test_a_latch(self):
        self.assertEqual(self.rest.post("latches", {"name": "ready", "count": 3}).status, 201)
        waiting = Ask(self.node, "latches/ready", None, "GET", {"waitTimeout": "20s"})
        for _ in range(3):
            self.assertEqual(self.rest.post("latches/ready:countDown", {}).status, 200)
        self.assertTrue(waiting.wait().json["open"])
        self.assertEqual(self.rest.delete("latches/ready").status, 204)


class CommandLine(CoordinationTest):
    def run_cli(self, *arguments):
        done = self.node.cli("-o", "json", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else None

    def test_lock_semaphore_election_and_latch_commands(self):
        held = self.run_cli("lock", "acquire", "cli/one", "--owner", "me", "--ttl", "60s")
        self.assertEqual(held["owner"], "me")
        tried = self.node.cli("lock", "try", "cli/one")
        self.assertNotEqual(tried.returncode, 0)
        self.assertIn(b"is held by me", tried.stderr)
        self.assertIn(b"cli/one", self.node.cli("lock", "list").stdout)
        self.run_cli("lock", "renew", "cli/one", held["leaseId"])
        self.run_cli("lock", "release", "cli/one", held["leaseId"])
        self.assertEqual(self.run_cli("lock", "stats", "cli/one")["acquisitions"], 1)
        permit = self.run_cli("semaphore", "acquire", "cli/pool", "--capacity", "2")
        self.run_cli("semaphore", "release", "cli/pool", permit["leaseId"])
        led = self.run_cli("election", "campaign", "cli/group", "node-a")
        self.assertTrue(led["isLeader"])
        self.assertIn(b"node-a", self.node.cli("election", "list").stdout)
        self.run_cli("latch", "create", "cli-latch", "1")
        self.assertTrue(self.run_cli("latch", "count-down", "cli-latch")["open"])
