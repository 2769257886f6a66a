# timeout: 240
"""Streams of subscriptions that end by themselves, and where new subscriptions begin."""
import unittest
import uuid

from lib.uccp import NodeTest, SERVER, require
from lib.wait import wait_until

require(SERVER)


class SubscriptionStreams(NodeTest):
    agent = False

    def topic(self, *keys, **fields):
        """A topic that has an event for each key, which is its text, too."""
        name = "s." + uuid.uuid4().hex[:8]
        response = self.rest.post("events/topics", {"name": name, **fields})
        self.assertEqual(response.status, 201, response)
        self.publish(name, *keys)
        return name

    def publish(self, topic, *keys):
        response = self.rest.post("events/publish", {"topic": topic, "events": [{"text": k, "key": k} for k in keys]})
        self.assertEqual(response.status, 200, response)

    def read(self, topic, name, **fields):
        body = {"topics": [topic], "subscription": name, "start": "EARLIEST", **fields}
        with self.rest.stream("events/subscribe", body=body) as stream:
            items = stream.until(lambda item: "end" in item)
        return sorted(item["event"]["text"] for item in items[:-1]), items[-1]["end"]["reason"], items[:-1]

    def ack(self, name, items):
        response = self.rest.post(f"events/subscriptions/{name}:ack", {"ackIds": [item["ackId"] for item in items]})
        self.assertEqual(response.status, 200, response)
        return response.json.get("expiredAckIds", [])

    def test_one_that_does_not_follow_ends_and_is_confirmed_afterwards(self):
        topic = self.topic("a", "b", "c", partitions=2)
        texts, reason, items = self.read(topic, "ends", noFollow=True)
        self.assertEqual((texts, reason), (["a", "b", "c"], "CAUGHT_UP"))
        self.assertEqual(self.ack("ends", items), [])
        self.publish(topic, "d")
        self.assertEqual(self.read(topic, "ends", noFollow=True)[:2], (["d"], "CAUGHT_UP"))

    def test_one_that_has_its_number_of_events_is_confirmed_afterwards(self):
        topic = self.topic("a", "b", "c")
        texts, reason, items = self.read(topic, "some", limit=2)
        self.assertEqual((texts, reason), (["a", "b"], "LIMIT"))
        self.assertEqual(self.ack("some", items), [])
        self.assertEqual(self.read(topic, "some", noFollow=True)[0], ["c"])

    def test_a_subscription_may_begin_at_an_offset(self):
        topic = self.topic("a", "b", "c")
        self.assertEqual(self.read(topic, "middle", start="OFFSET", startOffset=1, noFollow=True)[0], ["b", "c"])

    def test_a_subscription_may_read_some_partitions_only(self):
        topic = self.topic("a", "b", "c", "d", "e", "f", partitions=3)
        got = {}
        for partition in range(3):
            name = f"part-{partition}"
            for item in self.read(topic, name, partitions=[partition], noFollow=True)[2]:
                self.assertEqual(item["event"].get("partition", 0), partition)
                got.setdefault(partition, []).append(item["event"]["text"])
            places = wait_until(lambda: self.rest.get(f"events/subscriptions/{name}").json.get("positions"),
                                what="the places to be stored")
            self.assertEqual([place.get("partition", 0) for place in places], [partition])
        self.assertEqual(sorted(sum(got.values(), [])), ["a", "b", "c", "d", "e", "f"])
        other = self.rest.post("events/subscribe", {"topics": [topic], "subscription": "part-0", "partitions": [1]})
        self.assert_problem(other, 409, "SUBSCRIPTION_DIFFERS")

    def test_one_that_nobody_uses_is_removed(self):
        topic = self.topic("a")
        self.read(topic, "idle", idleTtl="60s", noFollow=True)
        self.read(topic, "stays", noFollow=True)
        self.assertEqual(self.rest.get("events/subscriptions/idle").json["idleTtl"], "60s")
        listed = lambda: {s["name"] for s in self.rest.get("events/subscriptions").json["subscriptions"]}
        wait_until(lambda: "idle" not in listed(), 90, what="the subscription to be removed")
        self.assertIn("stays", listed())


if __name__ == "__main__":
    unittest.main()
