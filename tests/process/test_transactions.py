# timeout: 400
# labels: cluster
"""Transactions over topics through public doors: all or nothing, once, over lost nodes, and what is wrong is said."""
import http.client
import json
import threading
import unittest
import uuid

from lib.cluster import Cluster
from lib.events import SubscriptionsTest, payloads
from lib.uccp import CLI, SERVER, require
from lib.wait import wait_until

require(SERVER, CLI)


class TransactionsTest(SubscriptionsTest):
    feature_level = 2

    def begin(self, producer=None, **fields):
        answer = self.rest.post("events/transactions", {"producerId": producer or uuid.uuid4().hex, **fields})
        self.assertEqual(answer.status, 201, answer)
        return answer.json

    def end(self, transaction, how):
        return self.rest.post(f"events/transactions/{transaction['id']}:{how}", {})

    def commit(self, transaction):
        answer = self.end(transaction, "commit")
        self.assertEqual((answer.status, answer.json["status"]), (200, "COMMITTED"), answer)
        return answer.json

    def put(self, transaction, topic, *texts, **fields):
        return self.publish(topic, *texts, transactionId=transaction["id"], **fields)

    def confirm(self, transaction, name, deliveries):
        return self.rest.post(f"events/subscriptions/{name}:ack", {
            "ackIds": [delivery["ackId"] for delivery in deliveries], "transactionId": transaction["id"]})


class Transactions(TransactionsTest):
    def test_events_of_all_topics_are_read_when_it_is_committed_and_not_before(self):
        one, two = self.topic(partitions=4), self.topic(partitions=4)
        transaction = self.begin()
        keys = [f"k{number}" for number in range(8)]
        stored = self.put(transaction, one, *keys, keys=keys) + self.put(transaction, two, *keys, keys=keys)
        self.assertEqual({result["pending"] for result in stored}, {True})
        self.publish(one, "plain")
        self.assertEqual(payloads(self.read(one, two)), ["plain"], "nobody waits for it")
        shown = self.rest.get(f"events/transactions/{transaction['id']}").json
        self.assertEqual((shown["status"], shown["events"]), ("OPEN", 16))
        with self.rest.stream("events/subscribe", body={"topics": [two], "start": "EARLIEST"}) as stream:
            self.commit(transaction)
            self.assertEqual({stream.next()["event"]["text"] for _ in keys}, set(keys))
        self.assertEqual(sorted(payloads(self.read(one, two))), sorted(["plain"] + keys * 2))
        self.commit(transaction)
        self.assertEqual(len(payloads(self.read(one, two))), 17, "a repeat commits nothing more")

    def test_nothing_of_an_aborted_one_is_ever_read(self):
        topic = self.topic()
        transaction = self.begin()
        self.put(transaction, topic, "a")
        aborted = self.end(transaction, "abort")
        self.assertEqual((aborted.status, aborted.json["status"], aborted.json["statusReason"]), (200, "ABORTED", "ASKED"))
        self.publish(topic, "b")
        self.assertEqual(payloads(self.read(topic)), ["b"])
        late = self.rest.post("events/publish", {"topic": topic, "events": [{"text": "x"}],
                                                 "transactionId": transaction["id"]})
        self.assert_problem(late, 412, "TRANSACTION_ABORTED")
        self.assert_problem(self.end(transaction, "commit"), 412, "TRANSACTION_ABORTED")

    def test_what_is_read_is_confirmed_with_what_is_published(self):
        source, out = self.topic(partitions=2), self.topic(partitions=2)
        self.publish(source, "1", "2", keys=["a", "b"])
        name = self.made(source)
        got = self.take(name, 2)
        first = self.begin()
        self.put(first, out, *[item["event"]["text"] for item in got])
        self.assertEqual(self.confirm(first, name, got).status, 200)
        self.assertEqual(self.confirm(first, name, got).status, 200, "a repeat")
        self.assertEqual(self.pull(name), [], "they are nobody else's meanwhile")
        self.assertEqual(self.state(name)["backlog"], 2)
        self.end(first, "abort")
        again = self.take(name, 2)
        attempts = [{item["event"]["text"]: item["deliveryAttempt"] for item in items} for items in (got, again)]
        self.assertEqual(attempts[1], {text: before + 1 for text, before in attempts[0].items()})
        second = self.begin()
        self.put(second, out, *[item["event"]["text"] for item in again])
        self.assert_problem(self.confirm(second, name, got), 412, "ACK_EXPIRED")
        self.assertEqual(self.confirm(second, name, again).status, 200)
        self.assertEqual(self.rest.get(f"events/transactions/{second['id']}").json["acks"], 2)
        self.commit(second)
        wait_until(lambda: self.state(name).get("backlog", 0) == 0, what="the confirmations to count")
        self.assertEqual(self.pull(name), [])
        self.assertEqual(sorted(payloads(self.read(out))), ["1", "2"])

    def test_a_seek_wants_again_what_a_transaction_confirmed(self):
        source = self.topic()
        self.publish(source, "1", "2")
        name = self.made(source)
        transaction = self.begin()
        self.assertEqual(self.confirm(transaction, name, self.take(name, 2)).status, 200)
        self.assertEqual(self.rest.post(f"events/subscriptions/{name}:seek", {"start": "EARLIEST"}).status, 200)
        self.commit(transaction)
        self.assertEqual(payloads(self.take(name, 2)), ["1", "2"])

    def test_a_newer_epoch_aborts_the_open_one_and_fences_it(self):
        topic = self.topic()
        old = self.begin("billing")
        self.put(old, topic, "old")
        self.assert_problem(self.rest.post("events/transactions", {"producerId": "billing", "producerEpoch": 1}), 409,
                            "TRANSACTION_OPEN")
        new = self.begin("billing")
        self.assertEqual((old["producerEpoch"], new["producerEpoch"]), (1, 2))
        self.put(new, topic, "new")
        self.assert_problem(self.end(old, "commit"), 412, "PRODUCER_FENCED")
        self.assert_problem(self.rest.post("events/transactions", {"producerId": "billing", "producerEpoch": 1}), 412,
                            "PRODUCER_FENCED", "producerEpoch")
        self.commit(new)
        self.assertEqual(payloads(self.read(topic)), ["new"])
        listed = self.rest.get("events/transactions", filter='producerId = "billing"').json["transactions"]
        self.assertEqual([(t["status"], t.get("statusReason")) for t in listed],
                         [("ABORTED", "FENCED"), ("COMMITTED", None)])

    def test_its_time_aborts_it(self):
        source, out = self.topic(), self.topic()
        self.publish(source, "1")
        name = self.made(source)
        # A loaded machine may need longer for what goes into it.
        for seconds in (1, 4, 16, 64):
            taken = self.take(name, 1)
            transaction = self.begin(timeout=f"{seconds}s")
            put = self.rest.post("events/publish", {"topic": out, "events": [{"text": "x"}],
                                                    "transactionId": transaction["id"]})
            if put.status == 200 and self.confirm(transaction, name, taken).status == 200:
                break
            self.rest.post(f"events/subscriptions/{name}:nack", {"ackIds": [item["ackId"] for item in taken]})
        wait_until(lambda: self.rest.get(f"events/transactions/{transaction['id']}").json["status"] == "ABORTED",
                   90, what="the time to be over")
        self.assert_problem(self.end(transaction, "commit"), 412, "TRANSACTION_EXPIRED")
        self.assertEqual(payloads(self.take(name, 1)), ["1"])
        self.assertEqual(payloads(self.read(out)), [])

    def test_a_repeat_with_the_same_request_id_counts_once(self):
        topic = self.topic()
        body = {"producerId": "repeats", "requestId": "begin-" + topic}
        transaction = self.rest.post("events/transactions", body).json
        self.assertEqual(self.rest.post("events/transactions", body).json["id"], transaction["id"])
        for _ in range(2):
            self.put(transaction, topic, "a", "b", requestId="put-" + topic)
        self.assertEqual(self.commit(transaction)["events"], 2)
        self.assertEqual(payloads(self.read(topic)), ["a", "b"])

    def test_what_is_wrong_is_said(self):
        topic, ephemeral = self.topic(), self.topic(persistence="EPHEMERAL")
        transaction = self.begin()
        unknown = "txn_0000000ZZZZZZ"

        def publish(to=topic, id=transaction["id"], event=None, **fields):
            return self.rest.post("events/publish", {"topic": to, "events": [event or {"text": "x"}], "transactionId": id,
                                                     **fields})
        cases = [
            (publish(id="nonsense"), 400, "FIELD_INVALID", "transactionId"),
            (publish(id=unknown), 404, "TRANSACTION_NOT_FOUND", None),
            (publish(to=ephemeral), 400, "FIELD_INVALID", "topic"),
            (publish(producerId="p", sequence=1), 400, "FIELD_INVALID", "sequence"),
            (publish(expectedOffset=0), 400, "FIELD_INVALID", "expectedOffset"),
            (publish(expectedVersion=0, event={"key": "k", "text": "x"}), 400, "FIELD_INVALID", "expectedVersion"),
            (publish(event={"text": "x", "deliverTime": "2100-01-01T00:00:00Z"}), 400, "FIELD_INVALID",
             "events[0].deliverTime"),
            (self.rest.post("events/transactions", {}), 400, "FIELD_INVALID", "producerId"),
            (self.rest.post("events/transactions", {"producerId": "p", "timeout": "3600s"}), 400, "FIELD_INVALID", "timeout"),
            (self.end({"id": unknown}, "commit"), 404, "TRANSACTION_NOT_FOUND", None),
            (self.end({"id": "txn_Z000000000000"}, "abort"), 404, "TRANSACTION_NOT_FOUND", None),
            (self.rest.get(f"events/transactions/{unknown}"), 404, "TRANSACTION_NOT_FOUND", None),
        ]
        for answer, status, reason, field in cases:
            self.assert_problem(answer, status, reason, *([field] if field else []))
        name = self.made(topic)
        answer = self.rest.post(f"events/subscriptions/{name}:ack", {"ackIds": ["1.0.0.1.1"], "transactionId": transaction["id"]})
        self.assert_problem(answer, 412, "ACK_EXPIRED", "ackIds")
        self.assertEqual(self.commit(transaction).get("events", 0), 0, "nothing of it was taken")
        self.assert_problem(self.end(transaction, "abort"), 412, "TRANSACTION_COMMITTED")
        self.assertEqual(payloads(self.read(topic)), [])

    def test_by_the_command_line(self):
        topic = self.topic()
        begun = self.node.cli("transaction", "begin", "shell", "-o", "json")
        self.assertEqual(begun.returncode, 0, begun.stderr)
        id = json.loads(begun.stdout)["id"]
        done = self.node.cli("publish", topic, "--data", "hello", "--transaction", id)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(id.encode(), self.node.cli("transaction", "list").stdout)
        self.assertEqual(self.node.cli("subscribe", topic).stdout, b"")
        self.assertEqual(self.node.cli("transaction", "commit", id).returncode, 0)
        self.assertEqual(self.node.cli("subscribe", topic, "--since", "start").stdout, b"hello\n")
        refused = self.node.cli("transaction", "abort", id)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(b"is committed", refused.stderr)
        self.assertIn(b"COMMITTED", self.node.cli("transaction", "get", id, "-o", "yaml").stdout)


class Limits(TransactionsTest):
    environment = {"BUS_TRANSACTION_EVENTS_MAX": "5", "BUS_TRANSACTION_BYTES_MAX": "1024",
                   "BUS_TRANSACTIONS_OPEN_MAX": "2", "BUS_TRANSACTION_TIME_MAX": "50s"}

    def test_limits_are_those_of_the_settings(self):
        topic = self.topic()
        first = self.begin("one")
        self.put(first, topic, *"1234")
        answer = self.rest.post("events/publish", {"topic": topic, "events": [{"text": "5"}, {"text": "6"}],
                                                   "transactionId": first["id"]})
        self.assert_problem(answer, 412, "TRANSACTION_TOO_LARGE")
        second = self.begin("two")
        answer = self.rest.post("events/publish", {"topic": topic, "events": [{"text": "x" * 2000}],
                                                   "transactionId": second["id"]})
        self.assert_problem(answer, 412, "TRANSACTION_TOO_LARGE")
        self.assert_problem(self.rest.post("events/transactions", {"producerId": "three"}), 429, "TRANSACTIONS_EXHAUSTED")
        self.assert_problem(self.rest.post("events/transactions", {"producerId": "x", "timeout": "51s"}), 400,
                            "FIELD_INVALID", "timeout")
        self.commit(first)
        self.begin("three")
        self.assertEqual(payloads(self.read(topic)), ["1", "2", "3", "4"])


class Processor(threading.Thread):
    """Reads numbers, publishes each to two topics and confirms it, in transactions; goes on over lost nodes."""

    def __init__(self, cluster, label, stop):
        super().__init__(daemon=True)
        self.cluster, self.label, self.stop = cluster, label, stop
        self.calls = 0
        self.failure = None

    def ask(self, path, body, expected=(200, 201)):
        """Of whichever node answers; a request id makes a repeat count once. None: refused."""
        while True:
            for name in self.cluster.names():
                rest = self.cluster.rest(name, timeout=10)
                try:
                    answer = rest.post(path, body)
                except (OSError, http.client.HTTPException):
                    continue
                finally:
                    rest.close()
                if answer.status in expected:
                    return answer.json
                if answer.status in (404, 409, 412):
                    return None
            if self.stop.wait(0.05):
                return None

    def run(self):
        try:
            while not self.stop.is_set():
                self.process()
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.failure = error

    def process(self):
        got = (self.ask("events/subscriptions/pipe:pull", {"maxEvents": 7, "wait": "1s"}) or {}).get("deliveries", [])
        if not got:
            return
        self.calls += 1
        mark = f"{self.label}-{self.calls}"
        begun = self.ask("events/transactions", {"producerId": self.label, "timeout": "20s", "requestId": f"b-{mark}"})
        if begun is None:
            return
        events = [{"text": item["event"]["text"], "key": item["event"]["text"]} for item in got]
        done = all(self.ask("events/publish", {"topic": topic, "events": events, "transactionId": begun["id"],
                                               "requestId": f"{topic}-{mark}"}) for topic in ("left", "right"))
        done = done and self.ask("events/subscriptions/pipe:ack", {"ackIds": [item["ackId"] for item in got],
                                                                   "transactionId": begun["id"]}) is not None
        self.ask(f"events/transactions/{begun['id']}:{'commit' if done else 'abort'}", {})


class Clustered(unittest.TestCase):
    def setUp(self):
        self.cluster = Cluster(nodes=3)
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def read(self, topic):
        with self.cluster.rest("n1").stream("events/subscribe", body={"topics": [topic], "start": "EARLIEST",
                                                                      "noFollow": True}) as stream:
            return payloads(stream.until(lambda item: "end" in item))

    def test_each_event_is_processed_once_though_nodes_die_during_transactions(self):
        rest = self.cluster.patient("n1")
        for topic in ("in", "left", "right"):
            self.assertEqual(rest.post("events/topics", {"name": topic, "partitions": 4}).status, 201)
        with rest.stream("events/subscribe", body={"topics": ["in"], "subscription": "pipe", "start": "EARLIEST",
                                                   "ackTimeout": "6s", "inFlightMax": 1}):
            wait_until(lambda: rest.get("events/subscriptions/pipe").status == 200, what="the subscription")
        numbers = [str(number) for number in range(400)]
        for at in range(0, 400, 100):
            events = [{"text": text, "key": text} for text in numbers[at:at + 100]]
            self.assertEqual(rest.post("events/publish", {"topic": "in", "events": events}).status, 200)
        stop = threading.Event()
        self.addCleanup(stop.set)
        processors = [Processor(self.cluster, f"p{number}", stop) for number in range(3)]
        for processor in processors:
            processor.start()
        for group, enough in (("bus-0", 60), ("core", 150), ("bus-1", 240)):
            wait_until(lambda: len(self.read_or_none("left")) >= enough, 120, what=f"{enough} events to be processed")
            victim = self.cluster.leader(group)
            self.cluster.kill(victim)
            self.cluster.start()
        wait_until(lambda: len(self.read_or_none("left")) >= 400, 120, what="all events to be processed")
        stop.set()
        for processor in processors:
            processor.join(60)
            self.assertIsNone(processor.failure)
        for topic in ("left", "right"):
            self.assertEqual(sorted(self.read(topic), key=int), numbers, f"{topic}: each once")

    def read_or_none(self, topic):
        try:
            return self.read(topic)
        except (OSError, http.client.HTTPException):
            return []


if __name__ == "__main__":
    unittest.main()
