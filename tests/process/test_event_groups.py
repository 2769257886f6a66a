# timeout: 120
"""Consumer groups: where they are moved to, who gets which partition when members come and go, and what their commands print."""
import json
import unittest

from lib.events import SubscriptionsTest, payloads
from lib.uccp import CLI, SERVER, require
from lib.wait import wait_until

require(SERVER, CLI)


class Moved(SubscriptionsTest):
    def setUp(self):
        self.name = self.topic(partitions=3)
        keys = [f"k{number}" for number in range(12)]
        self.publish(self.name, *[f"a{number}" for number in range(12)], keys=keys)
        stored = [item for item in self.read(self.name) if "event" in item]
        self.cursor = stored[-1]["cursor"]
        self.publish(self.name, "b0", "b1", keys=keys[:2])
        self.later = [item["event"] for item in self.read(self.name, since=self.cursor) if "event" in item]
        self.group = self.made(self.name)
        self.ack(self.group, self.take(self.group, 14))
        self.assertEqual(self.state(self.group).get("backlog", 0), 0)

    def seek(self, **target):
        return self.rest.post(f"events/subscriptions/{self.group}:seek", target)

    def test_to_a_cursor_of_a_stream(self):
        moved = self.seek(cursor=self.cursor)
        self.assertEqual((moved.status, moved.json["backlog"]), (200, 2), moved)
        self.assertEqual(sorted(payloads(self.take(self.group, 2))), ["b0", "b1"])
        self.assert_problem(self.seek(cursor="nonsense"), 400, "CURSOR_INVALID", "cursor")

    def test_to_a_time(self):
        moved = self.seek(time=min(event["publishTime"] for event in self.later))
        self.assertEqual(moved.status, 200, moved)
        self.assertEqual(sorted(payloads(self.take(self.group, moved.json["backlog"])))[-2:], ["b0", "b1"])
        self.assertEqual(self.seek(time="2100-01-01T00:00:00Z").json.get("backlog", 0), 0)

    def test_what_was_delivered_before_means_nothing_any_more(self):
        self.seek(start="EARLIEST")
        old = self.pull(self.group, maxEvents=1, wait="5s")
        self.seek(start="EARLIEST")
        self.assertEqual(self.ack(self.group, old), [old[0]["ackId"]])
        self.assertEqual(self.state(self.group)["backlog"], 14)

    def test_by_the_command_line(self):
        for flags, backlog in ((("--start", "earliest"), 14), (("--cursor", self.cursor), 2), (("--start", "latest"), 0),
                               (("--time", "2000-01-01T00:00:00Z"), 14)):
            reset = self.node.cli("group", "reset", self.group, *flags, "-o", "json")
            self.assertEqual(reset.returncode, 0, reset.stderr)
            self.assertEqual(json.loads(reset.stdout).get("backlog", 0), backlog, flags)
        described = self.node.cli("group", "describe", self.group)
        self.assertEqual(described.returncode, 0, described.stderr)
        self.assertIn(b"positions", described.stdout)
        positions = json.loads(self.node.cli("group", "get", self.group, "-o", "json").stdout)["positions"]
        self.assertEqual(sorted(place.get("partition", 0) for place in positions), [0, 1, 2])
        wrong = self.node.cli("group", "reset", self.group, "--cursor", "nonsense")
        self.assertNotEqual(wrong.returncode, 0)
        self.assertIn(b"cursor", wrong.stderr)
        missing = self.node.cli("group", "describe", "nobody")
        self.assertNotEqual(missing.returncode, 0)
        self.assertIn(b"does not exist", missing.stderr)


class Members(SubscriptionsTest):
    PARTITIONS = 6

    def join(self, topic, name, members):
        _, stream = self.subscribe(topic, name)
        members.append(stream)
        self.addCleanup(stream.close)
        wait_until(lambda: self.state(name).get("subscribers", 0) == len(members), what=f"member {len(members)}")

    def owners(self, topic, members, round_):
        """Which member gets each partition, by an event in each; all are confirmed."""
        for partition in range(self.PARTITIONS):
            answer = self.rest.post("events/publish", {"topic": topic, "partition": partition,
                                                       "events": [{"text": f"{round_}"}]})
            self.assertEqual(answer.status, 200, answer)
        owners = {}
        share = self.PARTITIONS // len(members)
        for number, stream in enumerate(members):
            items = []
            while len(items) < share:
                item = stream.next()
                if "event" in item:
                    items.append(item)
            self.assertEqual({item["event"]["text"] for item in items}, {f"{round_}"})
            for item in items:
                partition = item["event"].get("partition", 0)
                self.assertNotIn(partition, owners, "a partition belongs to one member")
                owners[partition] = number
            self.assertEqual(self.ack(self.group, items), [])
        return owners

    def test_partitions_stay_where_they_are_as_far_as_an_even_load_allows(self):
        topic = self.topic(partitions=self.PARTITIONS)
        self.group, members = "g" + topic[2:], []
        self.join(topic, self.group, members)
        self.assertEqual(set(self.owners(topic, members, 1).values()), {0})
        self.join(topic, self.group, members)
        two = self.owners(topic, members, 2)
        self.join(topic, self.group, members)
        three = self.owners(topic, members, 3)
        self.assertEqual(self.owners(topic, members, 4), three, "nobody came or went, so nothing moves")
        moved = [partition for partition in two if three[partition] != two[partition]]
        self.assertEqual(len(moved), 2, "only what the third has to get")
        self.assertEqual({three[partition] for partition in moved}, {2})

    def test_a_partition_changes_hands_when_nothing_of_it_is_in_flight(self):
        topic = self.topic(partitions=self.PARTITIONS)
        self.group, members = "g" + topic[2:], []
        for partition in range(self.PARTITIONS):
            self.rest.post("events/publish", {"topic": topic, "partition": partition,
                                              "events": [{"text": f"first{partition}"}, {"text": f"second{partition}"}]})
        self.join(topic, self.group, members)
        old = []
        while len(old) < 2 * self.PARTITIONS:
            item = members[0].next()
            if "event" in item:
                old.append(item)
        self.join(topic, self.group, members)
        for partition in range(self.PARTITIONS):
            self.rest.post("events/publish", {"topic": topic, "partition": partition, "events": [{"text": f"third{partition}"}]})
        # The old member goes on with what stays its own at once; the rest waits until it has confirmed what it has.
        kept = [members[0].next() for _ in range(self.PARTITIONS // 2)]
        self.assertTrue(all(item["event"]["text"].startswith("third") for item in kept), kept)
        self.assertEqual(self.state(self.group)["inFlight"], len(old) + len(kept), "the new member has nothing yet")
        self.assertEqual(self.ack(self.group, old), [])
        new = [members[1].next() for _ in range(self.PARTITIONS // 2)]
        self.assertEqual({item["deliveryAttempt"] for item in new}, {1})
        self.assertEqual(sorted(payloads(kept + new)), [f"third{number}" for number in range(self.PARTITIONS)])

    def test_what_is_given_back_with_a_delay_comes_after_others(self):
        topic = self.topic()
        name = self.made(topic)
        self.publish(topic, "back", "next")
        back, following = self.take(name, 2)
        answer = self.rest.post(f"events/subscriptions/{name}:nack", {"ackIds": [back["ackId"]], "delay": "4s"})
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(self.pull(name), [], "it waits")
        self.ack(name, [following])
        again = self.pull(name, wait="20s")
        self.assertEqual((payloads(again), again[0]["deliveryAttempt"]), (["back"], 2))


class Lag(SubscriptionsTest):
    def lag(self, name):
        """uccp_subscription_backlog of the subscription; None if there is no such row."""
        wanted = f'subscription="{name}"'
        for line in self.metrics_text().splitlines():
            if line.startswith("uccp_subscription_backlog{") and wanted in line:
                return float(line.rsplit(" ", 1)[1])
        return None

    def test_what_is_not_confirmed_is_measured(self):
        topic = self.topic(partitions=2)
        name = self.made(topic)
        self.publish(topic, *"abcdef", keys=list("abcdef"))
        wait_until(lambda: self.lag(name) == 6, what="the lag of six events")
        self.assertEqual(self.state(name)["backlog"], 6)
        pulled = self.pull(name, maxEvents=4, wait="5s")
        self.assertEqual(self.lag(name), 6, "delivered is not confirmed")
        self.assertEqual(self.ack(name, pulled), [])
        wait_until(lambda: self.lag(name) == 6 - len(pulled), what="the lag to be less by what was confirmed")
        self.publish(topic, "g", keys=["g"])
        wait_until(lambda: self.lag(name) == 7 - len(pulled), what="the lag to grow")
        rest = self.pull(name, maxEvents=10, wait="5s")
        self.ack(name, rest)
        wait_until(lambda: self.lag(name) == 7 - len(pulled) - len(rest), what="the lag to shrink")


class CommandLine(SubscriptionsTest):
    def test_topics_are_persistent_with_one_partition_unless_said_otherwise(self):
        base = self.topic()
        for flags, partitions, persistence in (((), 1, "PERSISTENT"), (("--partitions", "3"), 3, "PERSISTENT"),
                                               (("--ephemeral",), 1, "EPHEMERAL")):
            name = f"{base}.{persistence.lower()}{partitions}"
            made = self.node.cli("topic", "create", name, *flags)
            self.assertEqual(made.returncode, 0, made.stderr)
            shown = json.loads(self.node.cli("topic", "get", name, "-o", "json").stdout)
            self.assertEqual((shown["partitions"], shown["persistence"]), (partitions, persistence))

    def test_subscribe_ends_at_the_end_or_after_so_many(self):
        name = self.topic()
        empty = self.node.cli("subscribe", name)
        self.assertEqual((empty.returncode, empty.stdout), (0, b""), empty.stderr)
        for text in ("one", "two words", "three"):
            self.assertEqual(self.node.cli("publish", name, "--data", text).returncode, 0)
        everything = b"one\ntwo words\nthree\n"
        for flags, expected in (((), everything), (("--since", "start"), everything), (("--max", "2"), b"one\ntwo words\n"),
                                (("--since", "start", "--max", "1", "--follow"), b"one\n")):
            read = self.node.cli("subscribe", name, *flags)
            self.assertEqual((read.returncode, read.stdout), (0, expected), (flags, read.stderr))
        listed = self.node.cli("subscribe", name, "-o", "jsonl").stdout.splitlines()
        cursor = json.loads(listed[0])["cursor"]
        rest = self.node.cli("subscribe", name, "--since", cursor)
        self.assertEqual((rest.returncode, rest.stdout), (0, b"two words\nthree\n"), rest.stderr)


if __name__ == "__main__":
    unittest.main()
