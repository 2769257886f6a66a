# needs: uccp
# timeout: 240
"""Stream processing on topics: windows, late events, sessions, and results that are exact whatever is killed."""
import collections
import pickle
import random
import subprocess
import sys
import unittest

try:
    import uccp
    from uccp import streams, workflow
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest
from lib.wait import wait_until

WAIT_S = 100
START = 1_700_000_000
PROCESSOR = """
import sys
import uccp
from uccp import streams

uccp.init(context_file=sys.argv[1])
streams.Processor("sums", "numbers", key=lambda event: event.payload["key"], time=lambda event: event.payload["at"],
                  window=streams.tumbling(10), lateness=30, idle=3600, initial=0,
                  add=lambda total, event: total + int(event.payload["n"]), output="sums.out",
                  checkpoint_events=int(sys.argv[2]), checkpoint_seconds=3600).run()
"""


def event(offset, at, key="a", partition=0, n=1):
    return streams.event({"key": key, "at": at, "n": n}, offset=offset, partition=partition)


def processor(window, **options):
    options = {"add": lambda total, one: total + one.payload["n"], "initial": 0, **options}
    return streams.Processor("p", "t", key=lambda one: one.payload["key"], time=lambda one: one.payload["at"], window=window, **options)


def shown(results):
    return [(one.key, one.window.start, one.window.end, one.value) for one in results]


@unittest.skipIf(MISSING, MISSING or "")
class Windows(unittest.TestCase):
    def test_tumbling_windows_end_when_the_watermark_has_passed_them(self):
        one = processor(streams.tumbling(10))
        results = streams.replay(one, [event(0, 1), event(1, 9), event(2, 5, "b"), event(3, 10), event(4, 25)])
        self.assertEqual(shown(results), [("a", 0, 10, 2), ("b", 0, 10, 1), ("a", 10, 20, 1)])
        self.assertEqual(one.open_windows(), {"a": {streams.Window(20, 30): 1}})

    def test_sliding_windows_overlap(self):
        results = streams.replay(processor(streams.sliding(10, 5)), [event(0, 7), event(1, 12), event(2, 40)])
        self.assertEqual(shown(results), [("a", 0, 10, 1), ("a", 5, 15, 2), ("a", 10, 20, 1)])

    def test_sessions_that_meet_become_one(self):
        one = processor(streams.session(5), merge=lambda a, b: a + b, lateness=20)
        results = streams.replay(one, [event(0, 0), event(1, 8), event(2, 4), event(3, 30), event(4, 60)])
        self.assertEqual(shown(results), [("a", 0, 13, 3), ("a", 30, 35, 1)])

    def test_late_events_are_counted_and_left_out(self):
        one = processor(streams.tumbling(10), lateness=5)
        results = streams.replay(one, [event(0, 8), event(1, 14), event(2, 9), event(3, 16), event(4, 3), event(5, 30)])
        self.assertEqual(shown(results), [("a", 0, 10, 2), ("a", 10, 20, 2)])
        self.assertEqual((one.late, one.events), (1, 6))

    def test_the_slowest_partition_decides(self):
        one = processor(streams.tumbling(10))
        self.assertEqual(shown(streams.replay(one, [event(0, 5), event(0, 6, partition=1), event(1, 50), event(1, 9, partition=1)])), [])
        self.assertEqual(one.watermark, 9)
        self.assertEqual(shown(one.take(event(2, 12, partition=1))), [("a", 0, 10, 3)])

    def test_an_event_counts_once(self):
        one = processor(streams.tumbling(10))
        self.assertEqual(shown(streams.replay(one, [event(0, 1), event(0, 1), event(1, 1), event(0, 1), event(2, 10)])), [("a", 0, 10, 2)])

    def test_results_are_those_of_a_plain_count_however_they_come(self):
        numbers = random.Random(4)
        for _ in range(50):
            size, step = numbers.choice([(10, 10), (12, 4), (9, 2)])
            moments = [numbers.uniform(0, 100) for _ in range(200)]
            one = processor(streams.sliding(size, step), lateness=100)
            results = streams.replay(one, [event(offset, at, key=int(at) % 3) for offset, at in enumerate([*moments, 1000])])
            expected = collections.Counter()
            for at in moments:
                start = (at // step) * step
                while start > at - size:
                    expected[int(at) % 3, start, start + size] += 1
                    start -= step
            self.assertEqual({one[:3]: one[3] for one in shown(results)}, dict(expected))

    def test_an_initial_value_is_not_shared(self):
        one = processor(streams.tumbling(10), initial=[], add=lambda found, event: [*found, event.payload["n"]] if found else found + [0])
        self.assertEqual(shown(streams.replay(one, [event(0, 1), event(1, 11), event(2, 30)])), [("a", 0, 10, [0]), ("a", 10, 20, [0])])

    def test_what_cannot_be_right_is_refused(self):
        for make, expected in ((lambda: streams.tumbling(0), "more than 0 seconds"), (lambda: streams.sliding(5, 6), "would be in none"),
                               (lambda: streams.session(-1), "more than 0"), (lambda: processor(streams.session(5)), "`merge` says how"),
                               (lambda: processor(streams.tumbling(1), lateness=-1), "lateness is 0")):
            with self.assertRaisesRegex(uccp.InvalidRequest, expected):
                make()

    def test_checkpoints_are_read_only_if_they_are_whole(self):
        one = processor(streams.tumbling(10))
        one.take(event(0, 1))
        content = streams._encoded(one._state)
        self.assertEqual(streams._decoded(content, "p"), one._state)
        self.assertTrue(content.startswith(b"uccp-stream\x01"))
        self.assertEqual(set(pickle.loads(content[16:])), {"cursor", "offsets", "newest", "windows", "watermark", "events", "late"})
        for wrong in (b"", b"uccp-stream", content[:-1], content[:20] + b"x" + content[21:], b"x" + content):
            with self.assertRaises(uccp.Corruption):
                streams._decoded(wrong, "p")
        with self.assertRaisesRegex(uccp.FailedPrecondition, "has format 9"):
            streams._decoded(content[:11] + b"\x09" + content[12:], "p")


@unittest.skipIf(MISSING, MISSING or "")
class Topics(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def publish(self, topic, numbers):
        for at in range(0, len(numbers), 100):
            self.client.events.publish(topic, *numbers[at:at + 100], key="k")

    def results(self, topic):
        return [one.payload for one in self.client.events.subscribe(topic, start="EARLIEST", follow=False)]

    def test_a_processor_that_is_killed_at_any_point_loses_and_repeats_nothing(self):
        self.client.events.create_topic("numbers", partitions=3)
        self.client.events.create_topic("sums.out")
        numbers = random.Random(9)
        given = [{"key": f"k{numbers.randrange(20)}", "at": START + n // 4, "n": numbers.randrange(100)} for n in range(800)]
        script = self.node.base / "processor.py"
        script.write_text(PROCESSOR)

        def start():
            child = subprocess.Popen([sys.executable, script, self.node.context_file, "37"], stderr=subprocess.PIPE)
            self.addCleanup(child.communicate)
            self.addCleanup(child.kill)
            return child

        def reached(child, least):
            def seen():
                self.assertIsNone(child.poll(), "the processor ended")
                return len(self.results("sums.out")) >= least
            return seen

        def count(upto):  # windows that are over, as somebody counts who saw all events
            sums = collections.Counter()
            for one in given[:upto]:
                sums[one["key"], one["at"] // 10 * 10] += one["n"]
            return sums

        child = start()
        for upto, least in ((300, 20), (550, 100), (800, 200)):
            for one in given[upto - 250 if upto > 300 else 0:upto]:
                self.client.events.publish("numbers", one, key=one["key"])
            wait_until(reached(child, least), WAIT_S, f"{least} results")
            child.kill()
            child.wait()
            child = start()
        last = [{"key": key, "at": START + 10_000, "n": 0} for key in (f"k{n}" for n in range(20))]
        for one in last:  # of every partition, so that all windows before end
            self.client.events.publish("numbers", one, key=one["key"])
        expected = {(key, float(at)): total for (key, at), total in count(800).items()}
        wait_until(lambda: len(self.results("sums.out")) >= len(expected), WAIT_S, "all results")
        found = self.results("sums.out")
        self.assertEqual(len(found), len(expected), "none is there twice")
        self.assertEqual({(one["key"], one["start"]): int(one["value"]) for one in found}, expected)

    def test_it_goes_on_behind_its_checkpoint_and_ends_with_what_there_is(self):
        self.client.events.create_topic("plain")
        self.publish("plain", [{"n": n} for n in range(50)])
        seen = []

        def one():
            return streams.Processor("plain", "plain", key=lambda event: "all", time=lambda event: event.payload["n"],
                                     window=streams.tumbling(20), initial=0, add=lambda total, event: total + 1, output=seen.append)

        first = one()
        first.run(follow=False)
        self.assertEqual([result.value for result in seen], [20, 20])
        self.publish("plain", [{"n": n} for n in range(50, 70)])
        second = one()
        second.run(follow=False, flush=True)
        self.assertEqual([result.value for result in seen], [20, 20, 20, 10])
        self.assertEqual(second.events, 70)
        with self.assertRaisesRegex(uccp.Conflict, "run by another process as well"):
            first._save(self.client)
        second.forget()
        seen.clear()
        one().run(follow=False)
        self.assertEqual([result.value for result in seen], [20, 20, 20])

    def test_map_and_reduce_count_words(self):
        texts = [f"the cat {n % 3} the hat" for n in range(40)]

        def words(text):
            for word in text.split():
                yield word, 1

        expected = dict(collections.Counter(word for text in texts for word in text.split()))
        small = {"cpu": 0.1, "memory": "128Mi"}
        for combiner in (None, lambda key, values: sum(values)):
            flow = workflow.define(lambda: workflow.map_reduce(words, lambda key, values: sum(values), texts, combiner=combiner, parts=5,
                                                               partitions=3, **small), name="words")
            self.assertEqual(workflow.start(flow).result(WAIT_S), expected)
        made = workflow.step(lambda: texts, **small).options(name="texts")
        flow = workflow.define(lambda: workflow.map_reduce(words, lambda key, values: len(values), made(), **small), name="made")
        self.assertEqual(workflow.start(flow, id="made").result(WAIT_S), expected)
        steps = collections.Counter(one.id.rpartition("/")[2].partition("-")[0] for one in workflow.list_steps("made"))
        self.assertEqual((steps["map"], steps["reduce"], steps["merge"]), (14, 4, 1))


if __name__ == "__main__":
    unittest.main()
