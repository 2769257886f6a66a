# needs: uccp
# timeout: 240
"""Actors on a real agent: order, state, restarts, names, streams of values, coroutines, and kills in the middle."""
import asyncio
import os
import signal
import threading
import time
import unittest

try:
    import uccp
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import NodeTest
from lib.wait import wait_until

SMALL = {"cpu": 0.2, "memory": "128Mi"}
WAIT_S = 60

if not MISSING:
    @uccp.remote(**SMALL)
    class Counter:
        def __init__(self, start=0):
            self.value = start
            self.seen = []

        def add(self, n=1):
            self.value += n
            return self.value

        def note(self, value):
            self.seen.append(value)

        def history(self):
            return self.seen

        def fails(self):
            raise LookupError("not there")

        def pid(self):
            return os.getpid()

        def crash(self):
            os.kill(os.getpid(), signal.SIGKILL)

        def hold(self, path):
            while not os.path.exists(path):
                time.sleep(0.01)
            return self.value

        def leave(self):
            uccp.exit_actor()

        def count(self, n, fail_at=None):
            for number in range(n):
                if number == fail_at:
                    raise ArithmeticError(f"at {number}")
                self.value += 1
                yield number


@unittest.skipIf(MISSING, MISSING or "")
class ActorTest(NodeTest):
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def status(self, task_id):
        return self.node.task(task_id)["status"]


class Calls(ActorTest):
    def test_an_object_keeps_its_state_and_the_order_of_calls(self):
        counter = Counter.remote(10)
        self.assertEqual(self.get([counter.add.remote() for _ in range(500)]), list(range(11, 511)))
        for number in range(300):
            counter.note.remote(number)
        self.assertEqual(self.get(counter.history.remote()), list(range(300)))
        self.assertEqual(Counter(3).add(), 4, "called directly it is an object here")
        self.assertEqual(self.status(counter.task_id), "RUNNING")

    def test_two_actors_are_two_objects(self):
        first, second = Counter.remote(), Counter.remote(100)
        self.assertEqual(self.get([first.add.remote(), second.add.remote(), first.add.remote()]), [1, 101, 2])
        self.assertNotEqual(*self.get([first.pid.remote(), second.pid.remote()]))

    def test_references_as_arguments_arrive_as_their_values_and_in_turn(self):
        @uccp.remote(**SMALL)
        def slow(value):
            time.sleep(0.2)
            return value

        counter, other = Counter.remote(), Counter.remote(5)
        counter.note.remote(slow.remote("first"))
        counter.note.remote(other.add.remote())
        counter.note.remote("last")
        self.assertEqual(self.get(counter.history.remote()), ["first", 6, "last"])
        self.assertEqual(self.get(slow.remote(other.add.remote())), 7, "a value of an actor as argument of a function")
        with self.assertRaisesRegex(LookupError, "not there"):
            self.get(slow.remote(other.fails.remote()))

    def test_an_exception_is_the_calls_alone(self):
        counter = Counter.remote()
        with self.assertRaises(LookupError) as caught:
            self.get(counter.fails.remote())
        self.assertIn("in fails", caught.exception.remote_traceback)
        self.assertEqual(self.get(counter.add.remote()), 1)
        with self.assertRaisesRegex(uccp.RemoteError, "no method 'missing'; it has add"):
            self.get(counter.missing.remote())
        with self.assertRaisesRegex(uccp.SerializationError, "cannot be pickled"):
            counter.note.remote(threading.Lock())
        with self.assertRaisesRegex(uccp.SerializationError, "does not travel"):
            counter.note.remote(counter)

    def test_a_constructor_that_raises_is_why_calls_fail(self):
        @uccp.remote(**SMALL)
        class Refuses:
            def __init__(self, why):
                raise ValueError(why)

            def method(self):
                return 1

        with self.assertRaisesRegex(uccp.ActorDied, "ValueError: because") as caught:
            self.get(Refuses.remote("because").method.remote())
        self.assertIsInstance(caught.exception.__cause__, ValueError)

    def test_calls_are_awaited_in_asyncio(self):
        async def main():
            counter = Counter.remote()
            return await asyncio.gather(*(counter.add.remote() for _ in range(10)))

        self.assertEqual(asyncio.run(main()), list(range(1, 11)))

    def test_what_a_method_prints_is_in_the_log_of_the_actor(self):
        @uccp.remote(**SMALL)
        class Talker:
            def say(self, word):
                print(word)

        talker = Talker.remote()
        self.get([talker.say.remote("one"), talker.say.remote("two")])
        self.assertEqual(self.node.log(talker.task_id), [b"one", b"two"])

    def test_by_rest_and_the_command_line_without_the_package(self):
        source = "class Tally:\n  def __init__(self, n): self.n = n\n  def add(self, by=1):\n    self.n += by\n    return {'n': self.n}\n"
        self.assertEqual(self.rest.post("functions", {"name": "tally", "entryPoint": "m:Tally", "source": source}).status, 201)
        made = self.rest.post("compute/tasks", {"function": {"name": "tally", "args": [{"json": 5}], "actor": {"name": "t1"}},
                                                "resources": {"cpu": 0.2, "memory": "128Mi"}})
        self.assertEqual(made.status, 201, made)
        again = self.rest.post("compute/tasks", {"function": {"name": "tally", "actor": {"name": "t1"}}})
        self.assert_problem(again, 409, "ACTOR_EXISTS")
        call = {"method": "add", "kwargs": {"by": {"json": 2}}, "requestId": "once"}
        self.assertEqual(self.rest.post("actors/t1:call", call).json["value"]["json"], {"n": 7})
        self.assertEqual(self.rest.post("actors/t1:call", call).json["value"]["json"], {"n": 7}, "the same request is one call")
        self.assertEqual(self.rest.post(f"actors/{made.json['id']}:call", {"method": "add"}).json["value"]["json"], {"n": 8})
        failed = self.rest.post("actors/t1:call", {"method": "add", "args": [{"text": "x"}]}).json
        self.assertTrue(failed["failed"])
        self.assertIn("TypeError", failed["message"])
        shown = self.node.cli("actor", "call", "t1", "add", '{"json": 1}', "-o", "json").stdout.decode()
        self.assertIn('"n":9', shown.replace(" ", ""))
        self.assert_problem(self.rest.post("actors/nobody:call", {"method": "add"}), 404, "ACTOR_NOT_FOUND")
        self.assert_problem(self.rest.post("actors/t1:call", {"method": "_n"}), 400, field="method")
        self.rest.delete(f"tasks/{made.json['id']}")
        wait_until(lambda: self.status(made.json["id"]) == "CANCELLED", WAIT_S, "the actor's end")
        self.assert_problem(self.rest.post("actors/t1:call", {"method": "add"}), 412, "ACTOR_ENDED")


class Life(ActorTest):
    def test_kill_ends_it_and_what_was_called(self):
        counter = Counter.remote()
        self.get(counter.add.remote())
        held = counter.hold.remote("/nowhere/never")
        uccp.kill(counter)
        with self.assertRaisesRegex(uccp.ActorDied, "killed"):
            self.get(held)
        with self.assertRaises(uccp.ActorDied):
            self.get(counter.add.remote())
        wait_until(lambda: self.status(counter.task_id) == "CANCELLED", WAIT_S, "the actor's end")

    def test_it_ends_itself_with_success(self):
        counter = Counter.remote()
        left = counter.leave.remote()
        self.assertIsNone(self.get(left))
        wait_until(lambda: self.status(counter.task_id) == "SUCCEEDED", WAIT_S, "the actor's end")
        with self.assertRaisesRegex(uccp.ActorDied, "ended it"):
            self.get(counter.add.remote())

    def test_it_ends_with_its_last_handle(self):
        counter = Counter.remote()
        ref = counter.add.remote()
        task_id = counter.task_id
        del counter
        self.assertEqual(self.get(ref), 1, "what was called before still runs")
        wait_until(lambda: self.status(task_id) == "CANCELLED", WAIT_S, "the actor's end")

    def test_names_are_unique_among_the_living_and_outlive_their_client(self):
        with uccp.connect(self.node.context_file) as _:
            made = Counter.options(name="shared", detached=True).remote(7)
            self.get(made.add.remote())
            task_id = made.task_id
        del made
        found = uccp.get_actor("shared")
        self.assertEqual((self.get(found.add.remote()), found.task_id), (9, task_id))
        taken = Counter.options(name="shared", detached=True).remote()
        with self.assertRaisesRegex(uccp.AlreadyExists, "ACTOR_EXISTS|an actor shared already"):
            self.get(taken.add.remote())
        uccp.kill(found)
        wait_until(lambda: self.status(task_id) == "CANCELLED", WAIT_S, "the actor's end")
        with self.assertRaises(uccp.NotFound):
            uccp.get_actor("shared")
        again = Counter.options(name="shared").remote()
        self.assertEqual(self.get(again.add.remote()), 1)

    def test_a_crash_ends_it_without_restarts(self):
        counter = Counter.remote()
        with self.assertRaisesRegex(uccp.ActorDied, "signal 9"):
            self.get(counter.crash.remote())
        wait_until(lambda: self.status(counter.task_id) == "FAILED", WAIT_S, "the actor's end")

    def test_a_crash_makes_a_new_object_and_calls_under_way_die(self):
        counter = Counter.options(restarts=2).remote(100)
        self.assertEqual(self.get(counter.add.remote()), 101)
        crashed = counter.crash.remote()
        with self.assertRaisesRegex(uccp.ActorDied, "started again"):
            self.get(crashed)
        self.assertEqual(self.get(counter.add.remote()), 101, "the new object begins anew")
        self.assertEqual(self.node.task(counter.task_id)["attempts"], 2)

    def test_calls_that_may_be_retried_run_on_the_next_object(self):
        marker = self.node.shared / "crashed-once"

        @uccp.remote(**SMALL, restarts=3, call_retries=2)
        class Flaky:
            def work(self, path, value):
                if value == 3 and not os.path.exists(path):
                    open(path, "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
                return value

        flaky = Flaky.remote()
        self.assertEqual(self.get([flaky.work.remote(str(marker), n) for n in range(10)]), list(range(10)))


class Streams(ActorTest):
    def test_values_of_a_generator_come_while_it_runs(self):
        counter = Counter.remote()
        values = counter.count.remote(1000)
        self.assertEqual([self.get(ref) for ref in values], list(range(1000)))

    def test_a_generator_waits_for_who_takes_its_values(self):
        counter = Counter.remote()
        values = counter.count.remote(10_000)
        first = [self.get(next(values)) for _ in range(3)]
        self.assertEqual(first, [0, 1, 2])
        values.close()
        self.assertLess(self.get(counter.add.remote()), 1000, "it did not run to its end")

    def test_an_exception_in_the_middle_comes_behind_the_values(self):
        counter = Counter.remote()
        values = counter.count.remote(10, fail_at=4)
        self.assertEqual([self.get(next(values)) for _ in range(4)], [0, 1, 2, 3])
        with self.assertRaisesRegex(ArithmeticError, "at 4"):
            next(values)


class Coroutines(ActorTest):
    def test_calls_wait_for_each_other(self):
        @uccp.remote(**SMALL)
        class Gate:
            def __init__(self):
                self.open = asyncio.Event()

            async def wait(self, n):
                await self.open.wait()
                return n

            async def let_go(self):
                self.open.set()
                return "open"

            async def ticks(self, n):
                for number in range(n):
                    await asyncio.sleep(0)
                    yield number

        gate = Gate.remote()
        waiting = [gate.wait.remote(n) for n in range(100)]
        self.assertEqual(uccp.wait(waiting, timeout=0.2)[0], [])
        self.assertEqual(self.get(gate.let_go.remote()), "open")
        self.assertEqual(self.get(waiting), list(range(100)))
        self.assertEqual([self.get(ref) for ref in gate.ticks.remote(200)], list(range(200)))


if __name__ == "__main__":
    unittest.main()
