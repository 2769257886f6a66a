# timeout: 180
"""Topics of the cluster's own changes: what they show, from where, to whom, and how a stream of them goes on."""
import json
import unittest
import uuid

from lib.events import EventsTest
from lib.uccp import CLI, SERVER, require

require(SERVER, CLI)


def seen(items):
    """(topic, type, key) of each event."""
    events = [item["event"] for item in items if "event" in item]
    return [(event["topic"], event.get("type", ""), event.get("key", "")) for event in events]


class SystemTopics(EventsTest):
    agent = True

    def lock(self, name):
        taken = self.rest.post("locks", {"name": name, "ttl": "30s"})
        self.assertEqual(taken.status, 201, taken)
        return taken.json

    def open(self, *topics, **fields):
        return self.rest.stream("events/subscribe", body={"topics": list(topics), **fields})

    def test_locks_and_services_as_they_change(self):
        name = "l" + uuid.uuid4().hex[:8]
        held = self.lock(name)
        with self.open("$sys.locks", "$sys.services", start="EARLIEST", filter=f'key = "{name}"') as stream:
            first = stream.next()
            self.assertEqual(seen([first]), [("$sys.locks", "lock.acquired", name)])
            self.assertEqual(first["event"]["json"]["name"], name)
            self.assertEqual(self.rest.post("services", {"id": name, "serviceName": "pay", "address": "10.0.0.1",
                                                         "port": 80}).status, 201)
            self.assertEqual(self.rest.delete(f"locks/{name}?leaseId={held['leaseId']}").status, 204)
            self.assertEqual(self.rest.delete(f"services/{name}").status, 204)
            rest = [stream.next() for _ in range(3)]
        self.assertEqual(seen(rest), [("$sys.services", "service.added", name), ("$sys.locks", "lock.released", name),
                                      ("$sys.services", "service.removed", name)], "in the order of the log")
        self.assertEqual(rest[0]["event"]["json"]["serviceName"], "pay")
        again = self.read("$sys.>", since=first["cursor"], filter=f'key = "{name}" AND type = service.*')
        self.assertEqual(seen(again), [seen(rest)[0], seen(rest)[2]], "a cursor goes on right behind its item")
        self.assertEqual(again[-1]["end"]["reason"], "CAUGHT_UP")

    def test_tasks_and_workers(self):
        made = self.rest.post("tasks", {"name": "hello", "command": ["true"]})
        self.assertEqual(made.status, 201, made)
        key = made.json["id"]
        condition = f'key = "{key}" AND json.status = SUCCEEDED'
        with self.open("$sys.tasks", start="EARLIEST", filter=condition) as stream:
            done = stream.next()
        self.assertEqual(seen([done]), [("$sys.tasks", "task.updated", key)])
        self.assertEqual(done["event"]["json"]["exitCode"], 0)
        workers = seen(self.read("$sys.workers"))
        self.assertIn("worker.added", {kind for _, kind, _ in workers})
        listed = {worker["id"] for worker in self.rest.get("workers").json["workers"]}
        self.assertLessEqual(listed, {worker for _, _, worker in workers})

    def test_the_audit_trail_of_both_groups(self):
        name = self.topic()
        made = self.rest.post("tasks", {"name": "audited", "command": ["true"]}).json["id"]
        records = [item["event"] for item in self.read("$sys.audit") if "event" in item]
        created = [r["json"] for r in records if r.get("key") == name]
        self.assertEqual([(r["method"].rsplit("/")[-1], r["outcome"]) for r in created], [("CreateTopic", "ok")])
        self.assertEqual({r["json"]["group"] for r in records} >= {"core", "work"}, True, made)
        # New records arrive by themselves, behind the last one seen.
        cursor = [item["cursor"] for item in self.read("$sys.audit")][-1]
        with self.open("$sys.audit", since=cursor, filter='json.method = *DeleteTopic') as stream:
            self.assertEqual(self.rest.delete(f"events/topics/{name}").status, 204)
            self.assertEqual(stream.next()["event"]["key"], name)

    def test_together_with_other_topics(self):
        name = self.topic()
        lock = "l" + uuid.uuid4().hex[:8]
        with self.open(name, "$sys.locks", start="EARLIEST", filter=f'key = "{lock}" OR key = mine') as stream:
            self.publish(name, "x", keys=["mine"])
            self.assertEqual(stream.next()["event"]["text"], "x")
            self.lock(lock)
            found = stream.next()
            self.assertEqual((found["event"]["topic"], found["event"]["key"]), ("$sys.locks", lock))
            self.publish(name, "y", keys=["mine"])
            self.assertEqual(stream.next()["event"]["text"], "y")
        with self.open(name, "$sys.locks", since=found["cursor"], filter=f'key = "{lock}" OR key = mine') as stream:
            self.assertEqual(stream.next()["event"]["text"], "y", "one cursor for both")

    def test_a_wildcard_for_all_topics_does_not_mean_them(self):
        self.lock("l" + uuid.uuid4().hex[:8])
        self.assertEqual([event for event in seen(self.read(">")) if event[0].startswith("$")], [])

    def test_a_cursor_of_another_cluster_is_told_so(self):
        cursor = self.read("$sys.locks")[-1]["cursor"]
        groups = [place.split(".") for place in cursor.split("_")]
        ahead = "_".join(f"{group}.{int(index) + 10_000_000}.0.0" for group, index, _, _ in groups)
        name = self.topic()
        self.publish(name, "a")
        bus = self.read(name)[0]["cursor"].split(".")
        for topic, since in (("$sys.locks", ahead), (name, f"{bus[0]}.{int(bus[1]) + 10_000_000}.0.0")):
            for level in ("linearizable", "bounded:500"):
                with self.rest.stream("events/subscribe", headers={"Uccp-Consistency": level},
                                      body={"topics": [topic], "since": since}) as stream:
                    last = stream.until(lambda item: "end" in item)[-1]
                self.assertEqual(last["end"]["reason"], "COMPACTED", (topic, level, last))
                self.assertIn("another cluster", last["end"]["message"])

    def test_what_cannot_be_done_with_them_is_said(self):
        missing = self.rest.post("events/subscribe", {"topics": ["$sys.nothing"]})
        self.assert_problem(missing, 404, "TOPIC_NOT_FOUND")
        self.assertIn("$sys.tasks", missing.json["detail"])
        self.assert_problem(self.rest.post("events/subscribe", {"topics": ["$sys.tasks"], "start": "OFFSET"}), 400,
                            "FIELD_INVALID", "start")
        self.assert_problem(self.rest.post("events/subscribe", {"topics": ["$sys.tasks"], "subscription": "s"}), 400,
                            "FIELD_INVALID", "subscription")
        self.assert_problem(self.rest.post("events/topics", {"name": "$sys.mine"}), 400, "FIELD_INVALID", "topic.name")
        self.assert_problem(self.rest.post("events/publish", {"topic": "$sys.tasks", "events": [{"text": "x"}]}), 400,
                            "FIELD_INVALID", "topic")

    def test_the_command_line_prints_the_resource(self):
        lock = "l" + uuid.uuid4().hex[:8]
        self.lock(lock)
        read = self.node.cli("subscribe", "$sys.locks", "--filter", f'key = "{lock}"')
        self.assertEqual(read.returncode, 0, read.stderr)
        self.assertEqual([json.loads(line)["name"] for line in read.stdout.splitlines()], [lock])


class Permissions(EventsTest):
    PASSWORD = "four small words here"

    def setUp(self):
        self.tenant = "t" + uuid.uuid4().hex[:12]
        self.create("tenants", {"name": self.tenant})
        where = f"?tenant={self.tenant}"
        self.create("users" + where, {"name": "ana", "password": self.PASSWORD})
        self.create("roles" + where, {"name": "reader", "permissions": ["events.subscribe", "locks.read", "locks.write",
                                                                        "tasks.read"]})
        self.create("bindings" + where, {"role": "reader", "members": ["ana"]})
        signed_in = self.node.client(token="").post("tokens:signIn", {"name": "ana", "tenant": self.tenant,
                                                                      "password": self.PASSWORD})
        self.assertEqual(signed_in.status, 200, signed_in)
        self.ana = self.node.client(token=signed_in.json["accessToken"])
        self.addCleanup(self.ana.close)

    def create(self, path, body):
        made = self.rest.post(path, body)
        self.assertEqual(made.status, 201, made)

    def subscribe(self, topic, **fields):
        return self.ana.stream("events/subscribe", body={"topics": [topic], **fields})

    def test_a_topic_is_for_those_who_may_read_what_it_shows(self):
        for topic in ("$sys.audit", "$sys.workers"):
            refused = self.ana.post("events/subscribe", {"topics": [topic]})
            self.assert_problem(refused, 403, "PERMISSION_DENIED")
            self.assertIn(topic, refused.json["detail"])
        lock = "l" + uuid.uuid4().hex[:8]
        self.assertEqual(self.rest.post("locks", {"name": "of-others-" + lock, "ttl": "30s"}).status, 201)
        self.assertEqual(self.ana.post("locks", {"name": lock, "ttl": "30s"}).status, 201)
        with self.subscribe("$sys.>", start="EARLIEST", noFollow=True) as stream:
            shown = seen(stream.until(lambda item: "end" in item))
        self.assertEqual(shown, [("$sys.locks", "lock.acquired", lock)], "of her tenant, and what she may read")

    def test_an_open_stream_ends_when_the_permission_is_gone(self):
        self.assertEqual(self.ana.post("locks", {"name": "seen", "ttl": "30s"}).status, 201)
        with self.subscribe("$sys.locks", start="EARLIEST") as stream:
            self.assertEqual(seen([stream.next()])[0][1], "lock.acquired")
            changed = self.rest.call("PATCH", f"roles/reader?tenant={self.tenant}&updateMask=permissions",
                                     {"permissions": ["events.subscribe", "locks.write"]})
            self.assertEqual(changed.status, 200, changed)
            rest = list(stream)
        self.assertIn("PERMISSION_DENIED", json.dumps(rest[-1]))
        self.assertEqual(seen(rest), [])


if __name__ == "__main__":
    unittest.main()
