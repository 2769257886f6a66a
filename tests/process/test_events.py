# timeout: 300
# labels: cluster
"""Events through REST and the CLI: topics, order, replay, cursors, and kill -9 of the server under publishers."""
import http.client
import json
import random
import threading
import unittest
import uuid

from lib.cluster import Cluster
from lib.uccp import CLI, Node, NodeTest, SERVER, require
from lib.wait import wait_until

require(SERVER, CLI)


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


class Topics(EventsTest):
    def test_life_of_a_topic(self):
        name = self.topic(partitions=4)
        got = self.rest.get(f"events/topics/{name}")
        self.assertEqual((got.json["partitions"], got.json["persistence"], got.json["retention"]),
                         (4, "PERSISTENT", "604800s"))
        self.assertEqual(len(got.json["partitionStates"]), 4)
        self.assert_problem(self.rest.post("events/topics", {"name": name}), 409, "TOPIC_EXISTS")
        changed = self.rest.call("PATCH", f"events/topics/{name}", {"partitions": 6, "labels": {"team": "a"}},
                                 headers={"If-Match": got.headers["ETag"]})
        self.assertEqual((changed.status, changed.json["partitions"]), (200, 6), changed)
        self.assert_problem(self.rest.call("PATCH", f"events/topics/{name}", {"partitions": 2}), 412, "PARTITIONS_SHRINK")
        self.assert_problem(self.rest.call("PATCH", f"events/topics/{name}", {"retention": "60s"},
                                           headers={"If-Match": got.headers["ETag"]}), 412, "ETAG_MISMATCH")
        listed = self.rest.get("events/topics", filter='labels.team = "a"').json["topics"]
        self.assertEqual([topic["name"] for topic in listed], [name])
        self.assertEqual(self.rest.delete(f"events/topics/{name}").status, 204)
        self.assert_problem(self.rest.get(f"events/topics/{name}"), 404, "TOPIC_NOT_FOUND")

    def test_what_is_wrong_is_said(self):
        self.assert_problem(self.rest.post("events/topics", {"name": "a..b"}), 400, "FIELD_INVALID", "topic.name")
        self.assert_problem(self.rest.post("events/topics", {"name": "many", "partitions": 1000}), 400,
                            "FIELD_INVALID", "topic.partitions")
        self.assert_problem(self.rest.post("events/publish", {"topic": "nothing", "events": [{"text": "x"}]}), 404,
                            "TOPIC_NOT_FOUND")
        name = self.topic(messageBytesMax="1Ki")
        large = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}, {"text": "y" * 2000}]})
        self.assert_problem(large, 400, "EVENT_TOO_LARGE", "events[1]")
        self.assertEqual(payloads(self.read(name)), [], "nothing of it was stored")

    def test_a_new_topic_of_the_same_name_has_nothing_of_the_old_one(self):
        name = self.topic()
        self.publish(name, "old")
        self.assertEqual(self.rest.delete(f"events/topics/{name}").status, 204)
        self.assertEqual(self.rest.post("events/topics", {"name": name}).status, 201)
        self.assertEqual(self.publish(name, "new")[0].get("offset", 0), 0)
        self.assertEqual(payloads(self.read(name)), ["new"])


class Publishing(EventsTest):
    def test_events_of_a_key_stay_in_order_in_one_partition(self):
        name = self.topic(partitions=8)
        keys = [f"k{number % 5}" for number in range(100)]
        results = self.publish(name, *[f"{key}-{number}" for number, key in enumerate(keys)], keys=keys)
        places = {}
        for key, result in zip(keys, results):
            places.setdefault(key, []).append((result.get("partition", 0), result.get("offset", 0)))
        self.assertGreater(len({partition for place in places.values() for partition, _ in place}), 1)
        for place in places.values():
            self.assertEqual(len({partition for partition, _ in place}), 1)
            self.assertEqual(place, sorted(place))
        by_key = {}
        for text in payloads(self.read(name)):
            key, number = text.split("-")
            by_key.setdefault(key, []).append(int(number))
        self.assertEqual({key: sorted(numbers) for key, numbers in by_key.items()}, by_key)
        self.assertEqual(sum(map(len, by_key.values())), 100)

    def test_a_repeat_with_the_same_request_id_publishes_once(self):
        name = self.topic()
        first = self.publish(name, "a", "b", requestId="once-" + name)
        again = self.publish(name, "a", "b", requestId="once-" + name)
        self.assertEqual(first, again)
        self.assertEqual(payloads(self.read(name)), ["a", "b"])

    def test_an_id_counts_once(self):
        name = self.topic()
        body = {"topic": name, "events": [{"id": "x", "text": "1"}, {"text": "2"}]}
        first = self.rest.post("events/publish", body).json["results"]
        second = self.rest.post("events/publish", body).json["results"]
        self.assertTrue(second[0]["duplicate"])
        self.assertEqual((second[0].get("offset", 0), second[1]["offset"]), (first[0].get("offset", 0), 2))
        self.assertEqual(payloads(self.read(name)), ["1", "2", "2"])

    def test_a_producer_publishes_exactly_once_and_is_fenced(self):
        name = self.topic()
        one = {"producerId": "p", "producerEpoch": 1}
        self.publish(name, "a", "b", sequence=1, **one)
        again = self.publish(name, "a", "b", "c", sequence=1, **one)
        self.assertEqual([result.get("duplicate", False) for result in again], [True, True, False])
        gap = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}], "sequence": 9, **one})
        self.assert_problem(gap, 412, "SEQUENCE_GAP", "sequence")
        self.publish(name, "d", sequence=1, producerId="p", producerEpoch=2)
        stale = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}], "sequence": 4, **one})
        self.assert_problem(stale, 412, "PRODUCER_FENCED")
        self.assertEqual(payloads(self.read(name)), ["a", "b", "c", "d"])

    def test_an_expected_offset_guards_a_stream(self):
        name = self.topic()
        self.publish(name, "created", expectedOffset=0)
        late = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}], "expectedOffset": 0})
        self.assert_problem(late, 409, "OFFSET_MISMATCH", "expectedOffset")
        self.publish(name, "changed", expectedOffset=1)
        self.assertEqual(payloads(self.read(name)), ["created", "changed"])


class Subscribing(EventsTest):
    def test_a_stream_begins_where_it_is_told_and_resumes(self):
        name = self.topic()
        self.publish(name, *[str(number) for number in range(10)])
        self.assertEqual(payloads(self.read(name, start="OFFSET", startOffset=7)), ["7", "8", "9"])
        items = self.read(name, limit=4)
        self.assertEqual((payloads(items), items[-1]["end"]["reason"]), (["0", "1", "2", "3"], "LIMIT"))
        rest = self.read(name, since=items[-1]["cursor"])
        self.assertEqual((payloads(rest), rest[-1]["end"]["reason"]), ([str(n) for n in range(4, 10)], "CAUGHT_UP"))
        middle = rest[2]["event"]["publishTime"]
        self.publish(name, "later")
        self.assertEqual(payloads(self.read(name, start="TIME", startTime=middle))[-1], "later")
        self.assert_problem(self.rest.post("events/subscribe", {"topics": [name], "since": "nonsense"}), 400,
                            "CURSOR_INVALID", "since")

    def test_new_events_arrive_by_sse_and_a_lost_connection_goes_on(self):
        name = self.topic(partitions=3)
        with self.rest.stream("events/subscribe", sse=True,
                              body={"topics": [name], "start": "EARLIEST"}) as stream:
            self.publish(name, "a", "b", keys=["1", "2"])
            items = [stream.next(), stream.next()]
            self.assertEqual({item["event"]["text"] for item in items}, {"a", "b"})
            last = items[-1]["_id"]
        self.publish(name, "c", keys=["3"])
        with self.rest.stream("events/subscribe", sse=True, headers={"Last-Event-ID": last},
                              body={"topics": [name]}) as stream:
            self.assertEqual(stream.next()["event"]["text"], "c")

    def test_wildcards_and_topics_that_are_made_later(self):
        base = "w" + uuid.uuid4().hex[:8]
        for name in ("eu.created", "us.created", "eu.created.late"):
            self.assertEqual(self.rest.post("events/topics", {"name": f"{base}.{name}"}).status, 201)
            self.publish(f"{base}.{name}", name)
        self.assertEqual(sorted(payloads(self.read(f"{base}.*.created"))), ["eu.created", "us.created"])
        self.assertEqual(len(payloads(self.read(f"{base}.>"))), 3)
        with self.rest.stream("events/subscribe", body={"topics": [f"{base}.>"], "start": "EARLIEST"}) as stream:
            for _ in range(3):
                stream.next()
            self.assertEqual(self.rest.post("events/topics", {"name": f"{base}.new"}).status, 201)
            self.publish(f"{base}.new", "from a new topic")
            self.assertEqual(stream.next()["event"]["text"], "from a new topic")

    def test_a_filter_looks_at_keys_types_and_headers(self):
        name = self.topic()
        events = [{"text": "1", "type": "a", "headers": {"region": "eu"}}, {"text": "2", "type": "b"},
                  {"text": "3", "type": "a", "headers": {"region": "us"}}]
        self.assertEqual(self.rest.post("events/publish", {"topic": name, "events": events}).status, 200)
        self.assertEqual(payloads(self.read(name, filter='type = a AND headers.region = "eu"')), ["1"])
        self.assert_problem(self.rest.post("events/subscribe", {"topics": [name], "filter": "colour = red"}), 400,
                            "FILTER_INVALID")

    def test_an_expired_event_is_not_delivered(self):
        name = self.topic()
        events = [{"text": "short", "ttl": "1s"}, {"text": "long"}]
        self.assertEqual(self.rest.post("events/publish", {"topic": name, "events": events}).status, 200)
        wait_until(lambda: payloads(self.read(name)) == ["long"], what="the ttl to be over")

    def test_an_ephemeral_topic_reaches_present_subscribers_and_keeps_nothing(self):
        name = self.topic(persistence="EPHEMERAL")
        marker = self.topic()
        self.publish(name, "before")
        with self.rest.stream("events/subscribe", body={"topics": [name, marker], "start": "EARLIEST"}) as stream:
            self.publish(marker, "begun")
            self.assertEqual(stream.next()["event"]["text"], "begun")
            self.publish(name, "now")
            self.assertEqual(stream.next()["event"]["text"], "now")
        self.assertEqual(payloads(self.read(name)), [])

    def test_a_deleted_topic_ends_its_streams(self):
        name = self.topic()
        with self.rest.stream("events/subscribe", body={"topics": [name], "start": "EARLIEST"}) as stream:
            self.publish(name, "x")
            stream.next()
            self.assertEqual(self.rest.delete(f"events/topics/{name}").status, 204)
            self.assertEqual(stream.until(lambda item: "end" in item)[-1]["end"]["reason"], "DELETED")


class Shell(EventsTest):
    def test_topics_publish_and_subscribe(self):
        name = "cli" + uuid.uuid4().hex[:6]
        made = self.node.cli("topic", "create", name, "--partitions", "2")
        self.assertEqual(made.returncode, 0, made.stderr)
        self.assertIn(name.encode(), self.node.cli("topic", "list").stdout)
        self.assertIn(b"partitions", self.node.cli("topic", "describe", name, "-o", "yaml").stdout)
        for text in ("one", '{"two": 2}', "three"):
            done = self.node.cli("publish", name, "--data", text, "--key", "k")
            self.assertEqual(done.returncode, 0, done.stderr)
        read = self.node.cli("subscribe", name, "--since", "start")
        self.assertEqual((read.returncode, read.stdout), (0, b'one\n{"two": 2}\nthree\n'), read.stderr)
        first = self.node.cli("subscribe", name, "--max", "1", "-o", "jsonl")
        cursor = json.loads(first.stdout.splitlines()[0])["cursor"]
        rest = self.node.cli("subscribe", name, "--since", cursor, "--max", "1", "--follow")
        self.assertEqual((rest.returncode, rest.stdout), (0, b'{"two": 2}\n'), rest.stderr)
        self.assertEqual(self.node.cli("topic", "delete", name).returncode, 0)
        gone = self.node.cli("subscribe", name)
        self.assertNotEqual(gone.returncode, 0)
        self.assertIn(b"does not exist", gone.stderr)


class Publisher(threading.Thread):
    """Publishes numbers under one key until the server dies; remembers those that were acknowledged."""

    def __init__(self, rest, topic, label):
        super().__init__(daemon=True)
        self.rest, self.topic, self.label = rest, topic, label
        self.acknowledged = []
        self.failure = None

    def run(self):
        for number in range(100_000):
            body = {"topic": self.topic, "events": [{"text": f"{self.label}:{number}", "key": self.label}]}
            try:
                answer = self.rest.post("events/publish", body)
            except (OSError, http.client.HTTPException):
                return
            if answer.status != 200:
                self.failure = answer
                return
            self.acknowledged.append(number)


class Killed(unittest.TestCase):
    def test_nothing_acknowledged_is_lost_by_kill_nine(self):
        node = Node(agent=False)
        self.addCleanup(node.close)
        node.start()
        self.assertEqual(node.rest.post("events/topics", {"name": "killed", "partitions": 3}).status, 201)
        kept = {}
        for round_ in range(3):
            publishers = [Publisher(node.client(), "killed", f"r{round_}p{number}") for number in range(6)]
            for publisher in publishers:
                publisher.start()
            enough = random.randrange(50, 400)
            wait_until(lambda: sum(len(p.acknowledged) for p in publishers) > enough, what="publishers to be at work")
            node.kill()
            for publisher in publishers:
                publisher.join(30)
                self.assertIsNone(publisher.failure)
                kept[publisher.label] = publisher.acknowledged
            node.restart()
            with node.rest.stream("events/subscribe",
                                  body={"topics": ["killed"], "start": "EARLIEST", "noFollow": True}) as stream:
                found = {}
                for item in stream.until(lambda item: "end" in item)[:-1]:
                    label, number = item["event"]["text"].split(":")
                    found.setdefault(label, []).append(int(number))
            for label, numbers in kept.items():
                self.assertEqual(found.get(label, []), sorted(set(found.get(label, []))), "in order, each once")
                self.assertEqual(sorted(set(numbers) - set(found.get(label, []))), [], f"lost of {label}")


class Clustered(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(nodes=3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def publish_until_stored(self, number):
        """Goes from node to node with one request id until the event is stored; answers its place."""
        body = {"topic": "c", "events": [{"text": str(number), "key": "k"}], "requestId": f"n{number}"}

        def stored():
            for name in self.cluster.names():
                rest = self.cluster.rest(name, timeout=10)
                try:
                    answer = rest.post("events/publish", body)
                    if answer.status == 200:
                        return answer.json["results"][0]
                    self.assertIn(answer.status, (429, 500, 503, 504), answer)
                except (OSError, http.client.HTTPException):
                    pass
                finally:
                    rest.close()
            return None

        return wait_until(stored, 30, what=f"event {number} to be stored")

    def read(self, name, **fields):
        with self.cluster.rest(name).stream(
                "events/subscribe", body={"topics": ["c"], "start": "EARLIEST", "noFollow": True, **fields}) as stream:
            return stream.until(lambda item: "end" in item)

    def test_any_node_takes_and_delivers_and_leaders_may_die(self):
        made = self.cluster.rest("n2").post("events/topics", {"name": "c", "partitions": 4})
        self.assertEqual(made.status, 201, made)
        for number in range(20):
            self.publish_until_stored(number)
        for name in self.cluster.names():
            self.assertEqual(payloads(self.read(name)), [str(number) for number in range(20)], name)
        items = self.read("n1", limit=5)
        group = f"bus-{sorted(self.holders())[0]}"
        leader = self.cluster.leader(group)
        self.cluster.kill(leader)
        others = [name for name in self.cluster.names() if name != leader]
        for number in range(20, 30):
            self.publish_until_stored(number)
        for name in others:
            self.assertEqual(payloads(self.read(name)), [str(number) for number in range(30)], name)
        rest = self.read(others[0], since=items[-1]["cursor"])
        self.assertEqual(payloads(rest), [str(number) for number in range(5, 30)], "a cursor is good on every node")
        self.cluster.start()
        wait_until(lambda: payloads(self.read(leader)) == [str(number) for number in range(30)], 30,
                   what="the node that was killed to catch up")

    def holders(self):
        """Numbers of the bus groups that hold a partition with events."""
        topic = self.cluster.rest("n1").get("events/topics/c").json
        used = [state.get("partition", 0) for state in topic["partitionStates"] if state.get("nextOffset")]
        return {(topic["generation"] + partition) % 2 for partition in used}


if __name__ == "__main__":
    unittest.main()
