# timeout: 300
# labels: cluster
"""Events through REST and the CLI: topics, order, replay, cursors, and kill -9 of the server under publishers."""
import datetime
import http.client
import json
import random
import socket
import threading
import unittest
import uuid

from lib.cluster import Cluster
from lib.events import EventsTest, SubscriptionsTest, payloads
from lib.uccp import CLI, Node, SERVER, require
from lib.wait import wait_until

require(SERVER, CLI)


class Topics(EventsTest):
    def test_life_of_a_topic(self):
        name = self.topic(partitions=4)
        got = self.rest.get(f"events/topics/{name}")
        self.assertEqual((got.json["partitions"], got.json["persistence"]), (4, "PERSISTENT"))
        self.assertEqual(len(got.json["partitionStates"]), 4)
        self.assert_problem(self.rest.post("events/topics", {"name": name}), 409, "TOPIC_EXISTS")
        changed = self.rest.call("PATCH", f"events/topics/{name}", {"partitions": 6, "labels": {"team": "a"}},
                                 headers={"If-Match": got.headers["ETag"]})
        self.assertEqual((changed.status, changed.json["partitions"]), (200, 6), changed)
        self.assert_problem(self.rest.call("PATCH", f"events/topics/{name}", {"partitions": 2}), 412, "PARTITIONS_SHRINK")
        self.assert_problem(self.rest.call("PATCH", f"events/topics/{name}", {"labels": {"team": "b"}},
                                           headers={"If-Match": got.headers["ETag"]}), 412, "ETAG_MISMATCH")
        self.assertEqual(changed.json["retention"], "604800s")
        self.assert_problem(self.rest.call("PATCH", f"events/topics/{name}?updateMask=compacted", {"compacted": True}), 400,
                            "FIELD_INVALID", "updateMask")
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


class Retention(EventsTest):
    def test_no_more_is_kept_than_a_topic_says_and_a_change_of_it_holds_at_once(self):
        name = self.topic(retentionEvents=5)
        for number in range(20):
            self.publish(name, str(number))
        self.assertEqual(payloads(self.read(name)), ["15", "16", "17", "18", "19"])
        state = self.rest.get(f"events/topics/{name}").json["partitionStates"][0]
        self.assertEqual((state["firstOffset"], state["nextOffset"]), (15, 20))
        changed = self.rest.call("PATCH", f"events/topics/{name}", {"retentionEvents": 2})
        self.assertEqual((changed.status, changed.json["retentionEvents"]), (200, 2), changed)
        self.publish(name, "20")
        self.assertEqual(payloads(self.read(name)), ["19", "20"])

    def test_a_cursor_before_what_is_kept_is_told_so(self):
        name = self.topic(retentionEvents=3)
        self.publish(name, "a", "b", "c")
        cursor = self.read(name)[0]["cursor"]
        self.publish(name, "d")
        self.assertEqual(payloads(self.read(name, since=cursor)), ["b", "c", "d"])
        self.publish(name, "e", "f")
        late = self.read(name, since=cursor)
        self.assertEqual([item["end"]["reason"] for item in late], ["COMPACTED"])

    def test_an_ephemeral_topic_has_no_retention(self):
        refused = self.rest.post("events/topics", {"name": "e." + uuid.uuid4().hex[:8], "persistence": "EPHEMERAL",
                                                   "retentionEvents": 5})
        self.assert_problem(refused, 400, "FIELD_INVALID", "topic.retention")


class Publishing(EventsTest):
    feature_level = 2  # at which producers are forgotten

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
        unknown = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}], "sequence": 4, "producerId": "q"})
        self.assert_problem(unknown, 412, "PRODUCER_UNKNOWN", "sequence")
        self.assertEqual(payloads(self.read(name)), ["a", "b", "c", "d"])

    def test_an_expected_offset_guards_a_stream(self):
        name = self.topic()
        self.publish(name, "created", expectedOffset=0)
        late = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}], "expectedOffset": 0})
        self.assert_problem(late, 409, "OFFSET_MISMATCH", "expectedOffset")
        self.publish(name, "changed", expectedOffset=1)
        self.assertEqual(payloads(self.read(name)), ["created", "changed"])


class Scheduled(EventsTest):
    def test_an_event_is_delivered_at_its_time_and_nobody_waits_for_it(self):
        name = self.topic()
        with self.rest.stream("events/subscribe", body={"topics": [name], "start": "EARLIEST"}) as stream:
            when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=4)
            answer = self.rest.post("events/publish", {"topic": name, "events": [
                {"text": "later", "deliverTime": when.isoformat().replace("+00:00", "Z")}, {"text": "now"}]})
            self.assertEqual([result.get("scheduled", False) for result in answer.json["results"]], [True, False])
            self.publish(name, "next")
            self.assertEqual([stream.next()["event"]["text"] for _ in range(3)], ["now", "next", "later"])
        self.assertGreaterEqual(datetime.datetime.now(datetime.timezone.utc), when)
        self.assertEqual(payloads(self.read(name)), ["now", "next", "later"])
        refused = self.rest.post("events/publish", {"topic": self.topic(persistence="EPHEMERAL"), "events": [
            {"text": "x", "deliverTime": when.isoformat().replace("+00:00", "Z")}]})
        self.assert_problem(refused, 400, "FIELD_INVALID", "events[0].deliverTime")


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


class Subscriptions(SubscriptionsTest):
    def test_what_is_confirmed_does_not_come_again_and_the_rest_does(self):
        topic = self.topic()
        self.publish(topic, "a", "b", "c")
        name, stream = self.subscribe(topic)
        with stream:
            items = [stream.next() for _ in range(3)]
            self.assertEqual(payloads(items), ["a", "b", "c"])
            self.assertEqual(self.ack(name, [items[0], items[2]]), [])
            self.assertEqual(self.ack(name, [items[0]]), [items[0]["ackId"]], "confirmed already")
        _, stream = self.subscribe(topic, name)
        with stream:
            item = stream.next()
            self.assertEqual((item["event"]["text"], item["deliveryAttempt"]), ("b", 2))
            self.ack(name, [item])
            self.publish(topic, "d")
            self.assertEqual(stream.next()["event"]["text"], "d")

    def test_time_without_a_confirmation_and_what_is_given_back(self):
        topic = self.topic()
        self.publish(topic, "late", "back")
        name, stream = self.subscribe(topic, ackTimeout="1s")
        with stream:
            late, back = stream.next(), stream.next()
            answer = self.rest.post(f"events/subscriptions/{name}:nack", {"ackIds": [back["ackId"]]})
            self.assertEqual(answer.status, 200, answer)
            again = [stream.next(), stream.next()]
            self.assertEqual({(i["event"]["text"], i["deliveryAttempt"]) for i in again}, {("back", 2), ("late", 2)})
            self.assertEqual(self.ack(name, [late]), [late["ackId"]], "its time was over")

    def test_the_last_delivery_goes_to_the_dead_letters_with_the_reason(self):
        topic, dead = self.topic(), self.topic()
        self.publish(topic, "poison", keys=["k"])
        name, stream = self.subscribe(topic, deliveriesMax=2, deadLetterTopic=dead)
        with stream:
            for attempt in (1, 2):
                item = stream.next()
                self.assertEqual(item["deliveryAttempt"], attempt)
                self.rest.post(f"events/subscriptions/{name}:nack", {"ackIds": [item["ackId"]]})
            found = wait_until(lambda: [i["event"] for i in self.read(dead) if "event" in i], what="the dead letter")
            self.assertEqual([(e["text"], e["key"], e["deadLetterReason"], e["deadLetterAttempts"], e["deadLetterSource"])
                              for e in found], [("poison", "k", "it was given back", 2, topic)])
            wait_until(lambda: self.state(name).get("backlog", 0) == 0, what="the poison to be confirmed")

    def test_members_share_partitions_and_none_is_served_twice(self):
        topic = self.topic(partitions=6)
        name, first = self.subscribe(topic)
        wait_until(lambda: self.state(name).get("subscribers", 0) == 1, what="the first member")
        _, second = self.subscribe(topic, name)
        wait_until(lambda: self.state(name).get("subscribers", 0) == 2, what="the second member")
        keys = [f"k{number}" for number in range(40)]
        self.publish(topic, *keys, keys=keys)
        got = {"1": [], "2": []}

        def take(stream, label):
            try:
                for item in stream:
                    if "event" in item:
                        got[label].append(item)
            except (OSError, ValueError, http.client.HTTPException):
                pass  # the test has cut the connection

        threads = [threading.Thread(target=take, args=(stream, label), daemon=True)
                   for stream, label in ((first, "1"), (second, "2"))]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(map(len, got.values())) == 40, what="all events to be delivered")
        parts = {label: {item["event"]["partition"] for item in items} for label, items in got.items()}
        self.assertEqual(parts["1"] & parts["2"], set(), "a partition belongs to one member")
        self.assertEqual(sorted(payloads(got["1"] + got["2"])), sorted(keys))
        self.assertLessEqual(abs(len(parts["1"]) - len(parts["2"])), 2)
        again = set(payloads(got["2"]))
        before = len(got["1"])
        second.connection.sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: set(payloads(got["1"][before:])) == again, what="what the other one had not confirmed")
        self.assertEqual({item["deliveryAttempt"] for item in got["1"][before:]}, {2})
        first.connection.sock.shutdown(socket.SHUT_RDWR)

    def test_pull_and_push_are_one_engine(self):
        topic = self.topic()
        name = self.made(topic)
        self.assertEqual(self.pull(name), [])
        self.publish(topic, *[str(number) for number in range(5)])
        first = self.pull(name, maxEvents=3, wait="5s")
        self.assertEqual(payloads(first), ["0", "1", "2"])
        self.ack(name, first)
        second = self.pull(name, wait="5s")
        self.assertEqual(payloads(second), ["3", "4"])
        self.ack(name, second)
        self.assertEqual(self.state(name).get("backlog", 0), 0)

    def test_a_seek_replays_and_skips(self):
        topic = self.topic()
        self.publish(topic, "0", "1", "2", "3")
        name = self.made(topic)
        self.ack(name, self.pull(name, wait="5s"))
        back = self.rest.post(f"events/subscriptions/{name}:seek", {"position": {"topic": topic, "offset": 2}})
        self.assertEqual((back.status, back.json["backlog"]), (200, 2), back)
        self.assertEqual(payloads(self.pull(name, wait="5s")), ["2", "3"])
        far = self.rest.post(f"events/subscriptions/{name}:seek", {"position": {"topic": topic, "offset": 9}})
        self.assert_problem(far, 400, "OFFSET_OUT_OF_RANGE", "position.offset")
        self.assertEqual(self.rest.post(f"events/subscriptions/{name}:seek", {"start": "LATEST"}).json.get("backlog", 0), 0)
        self.assertEqual(self.pull(name), [])
        listed = self.node.cli("group", "list")
        self.assertIn(name.encode(), listed.stdout, listed)
        reset = self.node.cli("group", "reset", name, "--start", "earliest")
        self.assertEqual(reset.returncode, 0, reset.stderr)
        self.assertIn(b"backlog", self.node.cli("group", "describe", name, "-o", "yaml").stdout)
        self.assertEqual(len(self.pull(name, wait="5s")), 4)

    def test_other_topics_under_a_taken_name_and_an_exclusive_one_are_refused(self):
        topic, other = self.topic(), self.topic()
        name, stream = self.subscribe(topic, sharing="EXCLUSIVE")
        with stream:
            wait_until(lambda: self.state(name).get("subscribers", 0) == 1, what="the subscriber")
            taken = self.rest.post("events/subscribe", {"topics": [other], "subscription": name})
            self.assert_problem(taken, 409, "SUBSCRIPTION_DIFFERS")
            second = self.rest.post("events/subscribe", {"topics": [topic], "subscription": name})
            self.assert_problem(second, 412, "SUBSCRIPTION_EXCLUSIVE")
            self.assert_problem(self.rest.delete(f"events/topics/{topic}"), 412, "TOPIC_IN_USE")
            self.assertEqual(self.rest.delete(f"events/subscriptions/{name}").status, 204)
            self.assertEqual(stream.until(lambda item: "end" in item)[-1]["end"]["reason"], "DELETED")
        self.assert_problem(self.rest.get(f"events/subscriptions/{name}"), 404, "SUBSCRIPTION_NOT_FOUND")
        self.assertEqual(self.rest.delete(f"events/topics/{topic}").status, 204)


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


class KilledConsumer(unittest.TestCase):
    def test_confirmed_places_survive_kill_nine(self):
        node = Node(agent=False)
        self.addCleanup(node.close)
        node.start()
        self.assertEqual(node.rest.post("events/topics", {"name": "work", "partitions": 2}).status, 201)
        texts = [str(number) for number in range(60)]
        body = {"topic": "work", "events": [{"text": text, "key": text} for text in texts]}
        self.assertEqual(node.rest.post("events/publish", body).status, 200)
        confirmed = []
        subscribe = {"topics": ["work"], "subscription": "worker", "start": "EARLIEST"}
        for _ in range(3):
            with node.rest.stream("events/subscribe", body=subscribe) as stream:
                items = [stream.next() for _ in range(20)]
                self.assertEqual(set(payloads(items)) & set(confirmed), set(), "confirmed events come no more")
                done = node.rest.post("events/subscriptions/worker:ack", {"ackIds": [i["ackId"] for i in items[:15]]})
                self.assertEqual(done.status, 200, done)
                confirmed += payloads(items[:15])
                node.kill()
            node.restart()
        with node.rest.stream("events/subscribe", body=subscribe) as stream:
            left = payloads([stream.next() for _ in range(len(texts) - len(confirmed))])
        self.assertEqual(sorted(left + confirmed, key=int), texts, "every event exactly once among those confirmed")


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

        return wait_until(stored, 60, what=f"event {number} to be stored")

    def read(self, name, **fields):
        with self.cluster.rest(name).stream(
                "events/subscribe", body={"topics": ["c"], "start": "EARLIEST", "noFollow": True, **fields}) as stream:
            return stream.until(lambda item: "end" in item)

    def test_any_node_takes_and_delivers_and_leaders_may_die(self):
        made = self.cluster.patient("n2").post("events/topics", {"name": "c", "partitions": 4})
        self.assertEqual(made.status, 201, made)
        for number in range(20):
            self.publish_until_stored(number)
        for name in self.cluster.names():
            wait_until(lambda: payloads(self.read(name)) == [str(number) for number in range(20)], 30, f"all events on {name}")
        items = self.read("n1", limit=5)
        group = f"bus-{sorted(wait_until(self.holders, what='a group that holds events'))[0]}"
        leader = self.cluster.leader(group)
        self.cluster.kill(leader)
        others = [name for name in self.cluster.names() if name != leader]
        for number in range(20, 30):
            self.publish_until_stored(number)
        for name in others:
            wait_until(lambda: payloads(self.read(name)) == [str(number) for number in range(30)], 30, f"all events on {name}")
        rest = self.read(others[0], since=items[-1]["cursor"])
        self.assertEqual(payloads(rest), [str(number) for number in range(5, 30)], "a cursor is good on every node")
        self.cluster.start()
        wait_until(lambda: payloads(self.read(leader)) == [str(number) for number in range(30)], 60,
                   what="the node that was killed to catch up")

    def holders(self):
        """Numbers of the bus groups that hold a partition with events."""
        topic = self.cluster.rest("n1").get("events/topics/c").json
        used = [state.get("partition", 0) for state in topic["partitionStates"] if state.get("nextOffset")]
        return {(topic["generation"] + partition) % 2 for partition in used}


if __name__ == "__main__":
    unittest.main()
