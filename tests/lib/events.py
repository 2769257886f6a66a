"""Topics, publishing and reading through REST, for the tests of the event bus."""
import uuid

from lib.uccp import NodeTest
from lib.wait import wait_until


def payloads(items):
    return [item["event"]["text"] for item in items if "event" in item]


class EventsTest(NodeTest):
    agent = False

    def topic(self, **fields):
        name = "t." + uuid.uuid4().hex[:8]
        response = self.rest.post("events/topics", {"name": name, **fields})
        self.assertEqual(response.status, 201, response)
        return name

    def publish(self, topic, *texts, **fields):
        keys = fields.pop("keys", [None] * len(texts))
        events = [{"text": text, **({"key": key} if key else {})} for text, key in zip(texts, keys)]
        response = self.rest.post("events/publish", {"topic": topic, "events": events, **fields})
        self.assertEqual(response.status, 200, response)
        return response.json["results"]

    def read(self, *topics, **fields):
        """All items up to and with the end."""
        with self.rest.stream("events/subscribe",
                              body={"topics": list(topics), "start": "EARLIEST", "noFollow": True, **fields}) as stream:
            return stream.until(lambda item: "end" in item)


class SubscriptionsTest(EventsTest):
    def subscribe(self, topic, name=None, **fields):
        name = name or "s" + uuid.uuid4().hex[:8]
        body = {"topics": [topic], "subscription": name, "start": "EARLIEST", **fields}
        return name, self.rest.stream("events/subscribe", body=body)

    def made(self, topic, **fields):
        """A subscription with no member, made by a stream that goes away again."""
        name, stream = self.subscribe(topic, **fields)
        wait_until(lambda: self.state(name).get("subscribers", 0) == 1, what="the stream to be there")
        stream.close()
        wait_until(lambda: self.state(name).get("subscribers", 0) == 0, what="the stream to be gone")
        return name

    def state(self, name):
        response = self.rest.get(f"events/subscriptions/{name}")
        return response.json if response.status == 200 else {}

    def pull(self, name, **fields):
        response = self.rest.post(f"events/subscriptions/{name}:pull", fields)
        self.assertEqual(response.status, 200, response)
        return response.json.get("deliveries", [])

    def take(self, name, count):
        """Exactly so many deliveries, however many pulls they take: each answers what is there when something is."""
        got = []

        def enough():
            got.extend(self.pull(name, maxEvents=count - len(got), wait="5s"))
            return len(got) == count
        wait_until(enough, 60, what=f"{count} deliveries")
        return got

    def ack(self, name, deliveries):
        response = self.rest.post(f"events/subscriptions/{name}:ack", {"ackIds": [d["ackId"] for d in deliveries]})
        self.assertEqual(response.status, 200, response)
        return response.json.get("expiredAckIds", [])
