"""Keys and values through REST and the CLI, watched, and over kill -9 of the server under writes."""
import http.client
import json
import random
import threading
import urllib.parse

from lib.uccp import Node, NodeTest, SERVER, require
from lib.wait import wait_until

require(SERVER)


def path(key):
    return "kv/" + urllib.parse.quote(key, safe="")


class KvTest(NodeTest):
    agent = False

    def put(self, key, value, **more):
        response = self.rest.put(path(key), {"value": value, **more})
        self.assertEqual(response.status, 200, response)
        return response.json["revision"]

    def keys(self, **query):
        response = self.rest.get("kv", **query)
        self.assertEqual(response.status, 200, response)
        return [pair["key"] for pair in response.json.get("pairs", [])]


class Rest(KvTest):
    def test_write_read_list_delete(self):
        first = self.put("rest/a", "1")
        self.put("rest/b", "2")
        self.put("rest/a", "3")
        answer = self.rest.get(path("rest/a"))
        self.assertEqual((answer.status, answer.json["value"], answer.json["version"]), (200, "3", 2))
        self.assertEqual(answer.headers["ETag"], f'"{answer.json["modRevision"]}"')
        self.assertEqual(self.rest.get(path("rest/a"), revision=first).json["value"], "1")
        self.assertEqual(self.keys(prefix="rest/"), ["rest/a", "rest/b"])
        gone = self.rest.delete(path("rest/a"))
        self.assertEqual((gone.status, gone.json["deleted"]), (200, 1))
        missing = self.rest.get(path("rest/a"))
        self.assertEqual((missing.status, missing.reason), (404, "KEY_NOT_FOUND"))
        self.assertEqual(self.keys(prefix="rest/", revision=first), ["rest/a"])

    def test_bytes_that_are_no_text_come_back_as_they_were(self):
        blob = {"base64": "/wD+"}
        self.assertEqual(self.rest.put("kv/bin%FF%00x", {"value": blob}).status, 200)
        answer = self.rest.get("kv/bin%FF%00x").json
        self.assertEqual((answer["key"], answer["value"]), ({"base64": "Ymlu/wB4"}, blob))
        wrong = self.rest.put("kv/x", {"value": {"base64": "*"}})
        self.assertEqual((wrong.status, wrong.reason, wrong.fields), (400, "FIELD_INVALID", ["value"]))
        self.assertEqual(self.rest.put("kv/x", {"value": 3}).status, 400)

    def test_a_write_can_demand_the_version_it_read(self):
        fresh = self.rest.put(path("cas"), {"value": "1"}, headers={"If-Match": '"0"'})
        self.assertEqual(fresh.status, 200, fresh)
        again = self.rest.put(path("cas"), {"value": "2"}, headers={"If-Match": '"0"'})
        self.assertEqual((again.status, again.reason), (412, "ETAG_MISMATCH"))
        etag = self.rest.get(path("cas")).headers["ETag"]
        self.assertEqual(self.rest.put(path("cas"), {"value": "2"}, headers={"If-Match": etag}).status, 200)
        unchanged = self.rest.call("GET", path("cas"), headers={"If-None-Match": self.rest.get(path("cas")).headers["ETag"]})
        self.assertEqual(unchanged.status, 304)

    def test_a_transaction_is_one_revision(self):
        body = {"compare": [{"key": "txn/a", "result": "EQUAL", "version": 0}],
                "success": [{"put": {"key": "txn/a", "value": "1"}}, {"put": {"key": "txn/b", "value": "1"}}],
                "failure": [{"range": {"prefix": "txn/"}}]}
        first = self.rest.post("kv:txn", body).json
        self.assertTrue(first["succeeded"])
        second = self.rest.post("kv:txn", body).json
        self.assertNotIn("succeeded", second)
        pairs = second["responses"][0]["range"]["pairs"]
        self.assertEqual({pair["modRevision"] for pair in pairs}, {first["revision"]})
        twice = self.rest.post("kv:txn", {"success": [{"put": {"key": "x"}}, {"put": {"key": "x"}}]})
        self.assertEqual((twice.status, twice.reason), (400, "DUPLICATE_KEY"))

    def test_a_watch_goes_on_from_its_cursor(self):
        start = self.put("watch/a", "1")
        with self.rest.stream("kv:watch", query={"prefix": "watch/", "startRevision": start, "prevKv": "true"}) as stream:
            items = stream.until(lambda item: "events" in item)
            self.assertTrue(items[0]["created"])
            self.put("watch/a", "2")
            self.rest.delete(path("watch/a"))
            events = []
            while len(events) < 2:
                item = stream.next()
                events += item["events"]
            self.assertEqual([(e["kind"], e["prevKv"]["value"]) for e in events], [("PUT", "1"), ("DELETE", "2")])
        self.put("watch/b", "3")
        with self.rest.stream("kv:watch", sse=True, query={"prefix": "watch/"},
                              headers={"Last-Event-ID": item["cursor"]}) as stream:
            item = stream.until(lambda item: "events" in item)[-1]
            self.assertEqual(item["events"][0]["pair"]["value"], "3")

    def test_a_lease_ends_with_its_keys(self):
        lease = self.rest.post("kv-leases", {"ttl": "4s"})
        self.assertEqual(lease.status, 201, lease)
        self.put("leased", "1", lease=lease.json["id"])
        kept = self.rest.post(f"kv-leases/{lease.json['id']}:keepalive")
        self.assertEqual(kept.status, 200, kept)
        self.assertEqual(self.rest.get(f"kv-leases/{lease.json['id']}", keys="true").json["keys"], ["leased"])
        wait_until(lambda: self.rest.get(path("leased")).status == 404, what="the key of a lease to vanish")
        self.assertEqual(self.rest.get(f"kv-leases/{lease.json['id']}").reason, "LEASE_NOT_FOUND")

    def test_what_is_compacted_is_refused(self):
        old = self.put("compact", "1")
        new = self.put("compact", "2")
        answer = self.rest.post("kv:compact", {"revision": new, "physical": True})
        self.assertEqual(answer.status, 200, answer)
        refused = self.rest.get(path("compact"), revision=old)
        self.assertEqual((refused.status, refused.reason), (412, "REVISION_COMPACTED"))
        with self.rest.stream("kv:watch", query={"startRevision": old}) as stream:
            last = stream.until(lambda item: "end" in item)[-1]
            self.assertEqual((last["end"]["reason"], last["compactRevision"]), ("COMPACTED", new))

    def test_a_value_that_is_too_large_is_refused(self):
        answer = self.rest.put(path("large"), {"value": "x" * (3 << 19)})
        self.assertEqual((answer.status, answer.reason), (400, "KV_REQUEST_TOO_LARGE"))
        self.assertEqual(self.rest.put(path("large"), {"value": "x" * ((3 << 19) - 200)}).status, 200)


class CommandLine(KvTest):
    def cli(self, *arguments):
        done = self.node.cli(*arguments)
        self.assertEqual(done.returncode, 0, done)
        return done.stdout.decode()

    def test_put_get_list_delete(self):
        self.cli("kv", "put", "cli/a", "one")
        self.cli("kv", "put", "cli/b", "two")
        self.assertIn("value: one", self.cli("kv", "get", "cli/a"))
        rows = json.loads(self.cli("kv", "list", "cli/", "-o", "json"))
        self.assertEqual([(row["key"], row["value"]) for row in rows], [("cli/a", "one"), ("cli/b", "two")])
        self.assertIn("cli/b", self.cli("kv", "list", "cli/"))
        self.assertIn("deleted: 2", self.cli("kv", "delete", "cli/", "--prefix", "cli/"))
        self.assertEqual(json.loads(self.cli("kv", "list", "cli/", "-o", "json")), [])
        missing = self.node.cli("kv", "get", "cli/a")
        self.assertEqual(missing.returncode, 3)
        self.assertIn(b"does not exist", missing.stderr)


class Versioning(KvTest):
    """Metadata and configuration: every version is kept, can be compared and comes back."""

    def test_history_diff_and_rollback(self):
        self.put("meta/owner", "ann")
        good = self.put("meta/tier", "gold")
        self.put("meta/owner", "bob")
        self.rest.delete(path("meta/tier"))
        self.put("meta/new", "1")
        versions = self.rest.get(path("meta/tier") + ":history").json["versions"]
        self.assertEqual([("deleted" in v, v.get("pair", {}).get("value")) for v in versions],
                         [(True, None), (False, "gold")])
        diff = self.rest.get("kv:diff", prefix="meta/", fromRevision=good).json["differences"]
        self.assertEqual([(d["key"], d["kind"]) for d in diff],
                         [("meta/new", "ADDED"), ("meta/owner", "CHANGED"), ("meta/tier", "REMOVED")])
        done = self.node.cli("kv", "rollback", "meta/", good)
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(self.keys(prefix="meta/"), ["meta/owner", "meta/tier"])
        self.assertEqual(self.rest.get(path("meta/owner")).json["value"], "ann")
        self.assertEqual(self.rest.get("kv:diff", prefix="meta/", fromRevision=good).json["differences"], [])


class Kill(NodeTest):
    agent = False
    rounds = 5

    def test_acknowledged_writes_and_revisions_survive(self):
        """Writers put and compare-and-set; after each kill every acknowledged version is there, at its revision."""
        acknowledged, lock, stop = {}, threading.Lock(), threading.Event()
        node = self.node

        def write(number):
            rest, count = node.client(), 0
            while not stop.is_set():
                key, value = f"kill/{number}/{count % 7}", f"{number}-{count}"
                count += 1
                try:
                    answer = rest.put(path(key), {"value": value})
                except (OSError, http.client.HTTPException):
                    return
                if answer.status == 200:
                    with lock:
                        acknowledged[answer.json["revision"]] = (key, value)

        for round_number in range(self.rounds):
            stop.clear()
            writers = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(4)]
            before = len(acknowledged)
            for writer in writers:
                writer.start()
            wanted = before + random.randrange(50, 200)
            wait_until(lambda: len(acknowledged) >= wanted, what="writes")
            node.kill()
            stop.set()
            for writer in writers:
                writer.join(20)
            node.start()
            rest = node.client()
            store = rest.get("kv-store").json
            self.assertGreaterEqual(store["revision"], max(acknowledged), f"round {round_number}")
            for revision, (key, value) in list(acknowledged.items())[before:]:
                answer = rest.get(path(key), revision=revision)
                self.assertEqual((answer.status, answer.json["value"], answer.json["modRevision"]), (200, value, revision))
            rest.close()
        # The history has each acknowledged change once, in order.
        seen = {}
        with self.rest.stream("kv:watch", query={"prefix": "kill/", "startRevision": 1}) as stream:
            while max(seen, default=0) < max(acknowledged):
                for event in stream.next().get("events", []):
                    pair = event["pair"]
                    self.assertNotIn(pair["modRevision"], seen)
                    seen[pair["modRevision"]] = (pair["key"], pair["value"])
        self.assertEqual({r: seen.get(r) for r in acknowledged}, acknowledged)


if __name__ == "__main__":
    import unittest
    unittest.main()
