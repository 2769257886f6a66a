# timeout: 120
"""Publishers and readers that are faster than others: a slow reader holds nobody up and misses nothing, and a publisher that is
too fast for the node is told so before anything of it is stored."""
import http.client
import json
import signal
import unittest
import uuid

from lib.rest import Response
from lib.uccp import NodeTest, SERVER, freeze, require
from lib.wait import wait_until

require(SERVER)

LARGE = 512 << 10


def texts(items):
    return [item["event"]["text"][:8] for item in items if "event" in item]


class PressureTest(NodeTest):
    agent = False

    def topic(self, **fields):
        name = "p." + uuid.uuid4().hex[:8]
        self.assertEqual(self.rest.post("events/topics", {"name": name, **fields}).status, 201)
        return name

    def lag_metric(self, subscription):
        """What monitoring sees of it."""
        connection = http.client.HTTPConnection(self.node.context["metrics"], timeout=20)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        found = [line for line in lines if line.startswith("uccp_subscription_backlog{") and f'"{subscription}"' in line]
        return float(found[0].split()[-1]) if len(found) == 1 else None

    def memory(self):
        with open(f"/proc/{self.node.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS"))


class Readers(PressureTest):
    COUNT = 300

    def test_a_slow_reader_holds_nobody_up_and_misses_nothing(self):
        name = self.topic()
        want = [f"{number:08}" for number in range(self.COUNT)]
        with self.rest.stream("events/subscribe", body={"topics": [name], "start": "EARLIEST"}) as slow, \
                self.rest.stream("events/subscribe", body={"topics": [name], "start": "EARLIEST"}) as fast:
            before = self.memory()
            seen = []
            for text in want:
                self.assertEqual(self.rest.post("events/publish", {
                    "topic": name, "events": [{"text": text + "x" * LARGE}]}).status, 200)
                # The fast one is never behind the publisher, though the slow one has not read anything.
                seen += texts(fast.until(lambda item: "event" in item))
            self.assertEqual(seen, want)
            grown = self.memory() - before
            # Caches take their share whoever reads.
            self.assertLess(grown, self.COUNT * LARGE * 2 / 3, "what a slow reader has not read is not kept for it in memory")
            self.assertEqual([text for item in want for text in texts(slow.until(lambda item: "event" in item))], want)

    def test_a_slow_member_of_a_subscription_does_not_hold_up_another_subscription(self):
        name = self.topic()
        wanted = {"topics": [name], "start": "EARLIEST", "inFlightMax": 1}
        with self.rest.stream("events/subscribe", body={**wanted, "subscription": "slow-" + name}) as slow, \
                self.rest.stream("events/subscribe", body={**wanted, "subscription": "fast-" + name,
                                                           "inFlightMax": 100}) as fast:
            for number in range(20):
                self.assertEqual(self.rest.post("events/publish", {
                    "topic": name, "events": [{"text": f"{number:08}"}]}).status, 200)
            deliveries = fast.until(lambda item: item.get("event", {}).get("text") == f"{19:08}")
            self.assertEqual(texts(deliveries), [f"{number:08}" for number in range(20)])
            # Credits: with one delivery unconfirmed the slow one gets no second one.
            first = slow.until(lambda item: "event" in item)[-1]
            lag = self.rest.get(f"events/subscriptions/slow-{name}").json
            self.assertEqual((lag["backlog"], lag["inFlight"]), (20, 1))
            wait_until(lambda: self.lag_metric("slow-" + name) == 20, what="the metric of its backlog")
            self.assertEqual(self.rest.post(f"events/subscriptions/slow-{name}:ack", {"ackIds": [first["ackId"]]}).status, 200)
            self.assertEqual(texts(slow.until(lambda item: "event" in item)), [f"{1:08}"])


class Publishers(PressureTest):
    PUBLISHERS = 64
    flags = ("--bus-queue-bytes-max", str(1 << 20), "--bus-request-bytes-max", str(1 << 20))

    def test_who_publishes_faster_than_the_node_stores_is_told_and_nothing_is_half_stored(self):
        name = self.topic()
        bodies = {text: json.dumps({"topic": name, "events": [{"text": text + "x" * LARGE}]}).encode()
                  for text in (f"{number:08}" for number in range(self.PUBLISHERS))}
        connections = {text: self.rest.connect() for text in bodies}
        for text, connection in connections.items():
            self.addCleanup(connection.close)
            connection.putrequest("POST", "/api/v1/events/publish")
            for header, value in (("Content-Type", "application/json"), ("Authorization", f"Bearer {self.rest.token}"),
                                  ("Content-Length", str(len(bodies[text])))):
                connection.putheader(header, value)
            connection.endheaders(bodies[text][:-1])
        # Each lacks its last byte. It comes while the server stands still, which so finds all of them together.
        freeze(self.node.process.pid)
        for text, connection in connections.items():
            connection.send(bodies[text][-1:])
        self.node.process.send_signal(signal.SIGCONT)
        answers = {}
        for text, connection in connections.items():
            response = connection.getresponse()
            answers[text] = Response(response.status, response.headers, response.read())
        refused = [(text, answer) for text, answer in answers.items() if answer.status != 200]
        stored = [(text, answer) for text, answer in answers.items() if answer.status == 200]
        self.assertGreater(len(refused), 0, "the queue never filled")
        self.assertGreater(len(stored), 0)
        for _, answer in refused:
            self.assert_problem(answer, 429, "EVENTS_QUEUE_FULL")
            self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        with self.rest.stream("events/subscribe",
                              body={"topics": [name], "start": "EARLIEST", "noFollow": True}) as stream:
            kept = texts(stream.until(lambda item: "end" in item))
        self.assertEqual(sorted(kept), sorted(text for text, _ in stored))
        # Whoever comes again later is served.
        again = self.rest.post("events/publish", {"topic": name, "events": [{"text": json.dumps([text for text, _ in refused])}]})
        self.assertEqual(again.status, 200, again)


if __name__ == "__main__":
    unittest.main()
