# timeout: 120
"""Aggregates as streams of events with expected versions: one of many writers is first, nothing is lost by kill -9."""
import datetime
import threading
import unittest
import uuid

from lib.uccp import NodeTest, SERVER, require
from lib.wait import wait_until

require(SERVER)


class EventSourcing(NodeTest):
    agent = False
    feature_level = 2  # at which scheduled events know their key

    def setUp(self):
        self.topic = "orders." + uuid.uuid4().hex[:8]
        self.assertEqual(self.rest.post("events/topics", {"name": self.topic, "partitions": 4}).status, 201)

    def append(self, key, version, *types, rest=None):
        events = [{"key": key, "type": kind} for kind in types]
        return (rest or self.rest).post("events/publish", {"topic": self.topic, "events": events, "expectedVersion": version})

    def load(self, key):
        """The types of the aggregate's events, as a replay shows them."""
        with self.rest.stream("events/subscribe", body={"topics": [self.topic], "start": "EARLIEST", "noFollow": True,
                                                        "filter": f'key = "{key}"'}) as stream:
            return [item["event"]["type"] for item in stream.until(lambda item: "end" in item) if "event" in item]

    def test_a_change_is_stored_if_it_is_based_on_the_version_that_is_there(self):
        placed = self.append("a", 0, "placed", "paid")
        self.assertEqual(placed.status, 200, placed)
        self.assertEqual([result["version"] for result in placed.json["results"]], [1, 2])
        late = self.append("a", 1, "cancelled")
        self.assert_problem(late, 409, "VERSION_MISMATCH", "expectedVersion")
        self.assertIn("version 2", late.json["detail"])
        self.assertEqual(self.append("b", 0, "placed").status, 200, "aggregates have versions of their own")
        self.assertEqual(self.append("a", 2, "shipped").json["results"][0]["version"], 3)
        self.assertEqual((self.load("a"), self.load("b")), (["placed", "paid", "shipped"], ["placed"]))
        # Whoever publishes without a version does not go unnoticed.
        self.assertEqual(self.rest.post("events/publish", {"topic": self.topic, "events": [
            {"key": "a", "type": "noted"}]}).status, 200)
        self.assert_problem(self.append("a", 3, "closed"), 409, "VERSION_MISMATCH")
        self.assertEqual(self.append("a", 4, "closed").status, 200)

    def test_an_event_that_is_delivered_later_counts_when_it_gets_its_offset(self):
        self.assertEqual(self.append("a", 0, "placed").status, 200)
        types = ["placed"]
        # What is not stored before its time is delivered at once.
        for seconds in (1, 5, 20):
            time = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
            reminder = {"key": "a", "type": "reminded", "deliverTime": time.isoformat()}
            stored = self.rest.post("events/publish", {"topic": self.topic, "events": [reminder]})
            self.assertEqual(stored.status, 200, stored)
            types.append("reminded")
            if stored.json["results"][0].get("scheduled"):
                break
        wait_until(lambda: self.load("a") == types, 60, what="the event to be delivered")
        self.assert_problem(self.append("a", 1, "shipped"), 409, "VERSION_MISMATCH", "expectedVersion")
        self.assertEqual(self.append("a", len(types), "shipped").json["results"][0]["version"], len(types) + 1)

    def test_what_has_no_single_key_has_no_version(self):
        for events in ([{"type": "x"}], [{"key": "a"}, {"key": "b"}]):
            refused = self.rest.post("events/publish", {"topic": self.topic, "events": events, "expectedVersion": 0})
            self.assert_problem(refused, 400, "FIELD_INVALID", "events")

    def test_of_those_who_decide_at_the_same_time_one_is_first_and_kill_nine_loses_nothing(self):
        won, rounds = [], 12

        def decide(writer):
            rest = self.node.client()
            version = 0
            while version < rounds:
                answer = self.append("a", version, f"w{writer}-{version}", rest=rest)
                if answer.status == 200:
                    won.append(f"w{writer}-{version}")
                    version += 1
                else:
                    self.assert_problem(answer, 409, "VERSION_MISMATCH")
                    version = int(answer.json["fields"][0]["example"])
            rest.close()

        writers = [threading.Thread(target=decide, args=(writer,)) for writer in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        self.node.restart()
        history = self.load("a")
        self.assertEqual([int(kind.split("-")[1]) for kind in history], list(range(rounds)))
        self.assertEqual(sorted(history), sorted(won))
        self.assert_problem(self.append("a", rounds - 1, "late"), 409, "VERSION_MISMATCH")


if __name__ == "__main__":
    unittest.main()
