# timeout: 240
"""Topics that keep the newest event of each key: what is left, who reads across the gaps, and kill -9 while it goes on."""
import threading
import unittest

from lib.events import SubscriptionsTest, payloads
from lib.uccp import CLI, SERVER, Node, require
from lib.wait import wait_until

require(SERVER, CLI)

# Everything at once and all the time: what takes an hour elsewhere happens here between two requests.
EAGER = {"BUS_UPKEEP_INTERVAL": "20ms", "BUS_COMPACTION_BYTES_MIN": "1", "BUS_COMPACTION_LAG": "100ms",
         "BUS_LOG_BYTES_MIN": "1", "BUS_LOG_LIVE_PERCENT_MIN": "80"}


def offsets(items):
    return [item["event"].get("offset", 0) for item in items if "event" in item]


def total(metrics, name):
    return sum(float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.split("{")[0].split(" ")[0] == name)


class Compacted(SubscriptionsTest):
    environment = EAGER
    feature_level = 2

    def wait_compacted(self, topic, behind):
        """Of what is below the offset only the newest of each key is left."""
        def reached():
            state = self.rest.get(f"events/topics/{topic}").json["partitionStates"][0]
            return state.get("compactedOffset", 0) >= behind
        wait_until(reached, what=f"{topic} to be compacted up to {behind}")

    def filled(self, **fields):
        """a, b and c twice each, and another one behind them."""
        topic = self.topic(compacted=True, **fields)
        for text in ("a1", "b1", "c1", "a2", "b2", "end"):
            self.publish(topic, text, keys=[text[0]])
        return topic

    def test_the_newest_event_of_each_key_is_left_at_its_offset(self):
        topic = self.filled()
        self.wait_compacted(topic, 5)
        items = self.read(topic)
        self.assertEqual((payloads(items), offsets(items)), (["c1", "a2", "b2", "end"], [2, 3, 4, 5]))
        described = self.node.cli("topic", "describe", topic, "-o", "json")
        self.assertIn('"compactedOffset":5', described.stdout.decode().replace(" ", ""))
        self.assertGreaterEqual(total(self.metrics_text(), "uccp_bus_compacted_events_total"), 2)
        self.assertNotIn("retention", self.rest.get(f"events/topics/{topic}").json, "kept for ever")

    def test_a_cursor_and_an_offset_in_a_gap_go_on_with_what_comes_next(self):
        topic = self.topic(compacted=True)
        # The first one is read while nothing replaces it.
        for text in ("a1", "b1"):
            self.publish(topic, text, keys=[text[0]])
        cursor = self.read(topic, limit=1)[0]["cursor"]
        for text in ("a2", "b2", "end"):
            self.publish(topic, text, keys=[text[0]])
        self.wait_compacted(topic, 4)
        self.assertEqual(payloads(self.read(topic, since=cursor)), ["a2", "b2", "end"])
        self.assertEqual(payloads(self.read(topic, start="OFFSET", startOffset=1)), ["a2", "b2", "end"])

    def test_a_key_that_is_gone_is_forgotten_after_its_time(self):
        topic = self.topic(compacted=True, tombstoneRetention="0s")
        self.publish(topic, "a1", keys=["a"])
        response = self.rest.post("events/publish", {"topic": topic, "events": [{"key": "a"}]})
        self.assertEqual(response.status, 200, response)
        self.publish(topic, "b1", keys=["b"])
        # Machine time goes on with what is written.
        wait_until(lambda: self.publish(topic, "end", keys=["e"]) and "a" not in
                   [item["event"].get("key") for item in self.read(topic)[:-1]], what="the key to be forgotten")

    def test_a_subscription_goes_on_across_gaps(self):
        topic = self.filled()
        self.wait_compacted(topic, 5)
        name = self.made(topic)
        pulled = self.pull(name, wait="5s")
        self.assertEqual(payloads(pulled), ["c1", "a2", "b2", "end"])
        self.assertEqual(self.ack(name, pulled), [])
        state = self.state(name)
        self.assertEqual((state.get("backlog", 0), state["positions"][0]["offset"]), (0, 6))

    def test_settings_that_do_not_go_together_are_said(self):
        self.assert_problem(self.rest.post("events/topics", {"name": "x", "compacted": True, "retentionEvents": 5}), 400,
                            "FIELD_INVALID", "topic.retentionEvents")
        self.assert_problem(self.rest.post("events/topics", {"name": "x", "compacted": True, "persistence": "EPHEMERAL"}),
                            400, "FIELD_INVALID", "topic.compacted")
        self.assert_problem(self.rest.post("events/topics", {"name": "x", "tombstoneRetention": "60s"}), 400,
                            "FIELD_INVALID", "topic.tombstoneRetention")
        topic = self.topic(compacted=True)
        refused = self.rest.post("events/publish", {"topic": topic, "events": [{"text": "x", "key": "a"}, {"text": "y"}]})
        self.assert_problem(refused, 400, "KEY_REQUIRED", "events[1].key")
        self.assertEqual(payloads(self.read(topic)), [], "nothing of it was stored")


class Updater(threading.Thread):
    """Gives keys new values until the server is gone, and notes which were acknowledged and which may be there."""

    def __init__(self, rest, keys):
        super().__init__()
        self.rest, self.keys, self.number = rest, keys, 0
        self.acknowledged, self.sent = {}, {}

    def run(self):
        try:
            while True:
                key = self.keys[self.number % len(self.keys)]
                self.number += 1
                self.sent[key] = self.number
                answer = self.rest.post("events/publish", {"topic": "state", "events": [
                    {"key": key, "text": f"{self.number}", "headers": {"pad": "x" * 500}}]})
                if answer.status != 200:
                    return
                self.acknowledged[key] = self.number
        except OSError:
            return


class KilledCompaction(unittest.TestCase):
    def test_the_newest_value_of_each_key_survives_kill_nine_while_the_log_is_compacted_and_cleaned(self):
        node = Node(agent=False, environment=EAGER)
        self.addCleanup(node.close)
        node.start()
        made = node.rest.post("events/topics", {"name": "state", "compacted": True})
        self.assertEqual(made.status, 201, made)
        acknowledged, sent = {}, {}
        for round_ in range(3):
            updaters = [Updater(node.client(), [f"r{round_ % 2}u{number}k{k}" for k in range(5)]) for number in range(3)]
            for updater in updaters:
                updater.start()
            wait_until(lambda: sum(u.number for u in updaters) > 200, what="updaters to be at work")
            node.kill()
            for updater in updaters:
                updater.join(30)
                acknowledged.update(updater.acknowledged)
                sent.update(updater.sent)
            node.restart()
            events = self.read(node)
            self.assertEqual([e.get("offset", 0) for e in events], sorted(e.get("offset", 0) for e in events))
            newest = {event["key"]: int(event["text"]) for event in events}
            for key, number in acknowledged.items():
                self.assertIn(newest.get(key), (number, sent[key]), f"the newest value of {key}")
        state = node.rest.get("events/topics/state").json["partitionStates"][0]
        self.assertGreater(state["nextOffset"], 500)
        wait_until(lambda: len(self.read(node)) < state["nextOffset"] // 2, what="most of what was replaced to be gone")

    @staticmethod
    def read(node):
        with node.rest.stream("events/subscribe", body={"topics": ["state"], "start": "EARLIEST", "noFollow": True}) as stream:
            return [item["event"] for item in stream.until(lambda item: "end" in item)[:-1]]


if __name__ == "__main__":
    unittest.main()
