# timeout: 120
"""Conditions over what is in an event's JSON, by the server: for streams, subscriptions and the command line."""
import json
import unittest

from lib.events import SubscriptionsTest
from lib.uccp import CLI, SERVER, require

require(SERVER, CLI)


def numbers(items):
    return [int(item["event"]["headers"]["n"]) for item in items if "event" in item]


class Filters(SubscriptionsTest):
    CONTENTS = [
        {"json": {"order": {"total": 20, "state": "OPEN"}, "tags": ["new"]}},
        {"json": {"order": {"total": 200, "state": "OPEN"}}},
        {"text": '{"order": {"total": 300, "state": "PAID"}, "tags": ["new", "big"]}'},
        {"text": "no JSON"},
        {"json": {"order": None}},
    ]

    def filled(self):
        name = self.topic()
        events = [{**content, "headers": {"n": str(number), "region": "eu" if number % 2 else "us"}}
                  for number, content in enumerate(self.CONTENTS)]
        answer = self.rest.post("events/publish", {"topic": name, "events": events})
        self.assertEqual(answer.status, 200, answer)
        return name

    def test_a_stream_sends_what_the_condition_on_its_content_holds_for(self):
        name = self.filled()
        for condition, expected in (
            ("json.order.total > 100", [1, 2]),
            ("json.order.total > 100 AND headers.region = us", [2]),
            ("json.order.state = OPEN", [0, 1]),
            ("json.order.state = P*", [2]),
            ("json.tags:big OR json.order.total = 20", [0, 2]),
            ("json.order = null", [4]),
            ("NOT json.order:*", [3]),
        ):
            self.assertEqual(numbers(self.read(name, filter=condition)), expected, condition)

    def test_what_is_wrong_or_too_much_is_said(self):
        name = self.topic()
        for condition, what in (("json..a = 1", "expected a key"), ("payload.a = 1", "json.KEY"),
                                (" OR ".join(["json.a = 1"] * 17), "more than 16 comparisons")):
            refused = self.rest.post("events/subscribe", {"topics": [name], "filter": condition})
            self.assert_problem(refused, 400, "FILTER_INVALID", "filter")
            self.assertIn(what, refused.json["detail"])

    def test_a_subscription_gets_only_what_it_asked_for_and_owes_nothing_of_the_rest(self):
        name = self.filled()
        subscription = self.made(name, filter="json.order.total >= 200")
        got = self.pull(subscription, wait="5s")
        self.assertEqual(numbers(got), [1, 2])
        self.ack(subscription, got)
        self.assertEqual(self.state(subscription).get("backlog", 0), 0)

    def test_the_largest_content_is_looked_into(self):
        name = self.topic()
        large = {"filler": "x" * 900_000, "deep": {"mark": 7}}
        self.publish(name, json.dumps(large))
        self.publish(name, json.dumps({**large, "deep": {"mark": 8}}))
        items = self.read(name, filter="json.deep.mark = 8")
        self.assertEqual([item["event"].get("offset", 0) for item in items if "event" in item], [1])

    def test_the_command_line_takes_the_same_condition(self):
        name = self.topic()
        self.publish(name, '{"a":1}', '{"a":2}')
        read = self.node.cli("subscribe", name, "--filter", "json.a = 2")
        self.assertEqual((read.returncode, read.stdout), (0, b'{"a":2}\n'), read.stderr)


if __name__ == "__main__":
    unittest.main()
