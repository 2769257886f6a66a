# needs: uccp
# timeout: 180
"""The Python package against a real node: clients, errors, and what happens when the server is killed in the middle."""
import asyncio
import json
import os
import pathlib
import tempfile
import threading
import time
import unittest
import zipfile

try:
    import uccp
    from uccp import context as contexts
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.ports import free_ports, port_flags
from lib.uccp import ROOT, Node, NodeTest
from lib.wait import wait_until


def start(target, *arguments):
    """A thread whose result or exception is in its list."""
    outcome = []

    def run():
        try:
            outcome.append(target(*arguments))
        except Exception as error:  # noqa: BLE001: the test looks at it
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.outcome = outcome
    thread.start()
    return thread


@unittest.skipIf(MISSING, MISSING or "")
class Package(unittest.TestCase):
    def test_the_wheel_has_the_contract_the_worker_and_its_types(self):
        wheels = list((ROOT / "build" / "dist").glob("uccp-*.whl"))
        self.assertEqual(len(wheels), 1, wheels)
        names = set(zipfile.ZipFile(wheels[0]).namelist())
        sources = {str(file.relative_to(ROOT / "python")) for file in (ROOT / "python").rglob("*.py")}
        self.assertLessEqual(sources | {"uccp/contract.binpb", "uccp/py.typed"}, names)

    def test_all_that_is_public_is_explained(self):
        for name in uccp.__all__:
            found = getattr(uccp, name)
            self.assertTrue(found.__doc__ and found.__doc__.strip(), f"uccp.{name} has no words")


@unittest.skipIf(MISSING, MISSING or "")
class Context(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="uccp-context-")
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        before, here = dict(os.environ), os.getcwd()
        self.addCleanup(os.chdir, here)
        self.addCleanup(lambda: (os.environ.clear(), os.environ.update(before)))
        for name in ("UCCP_CONTEXT_FILE", "UCCP_CONTEXT", "UCCP_TOKEN"):
            os.environ.pop(name, None)
        os.environ["UCCP_CONFIG_DIR"] = str(self.dir)

    def write(self, path, **content):
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(json.dumps(content))
        return path

    def test_the_context_of_the_command_line_is_used(self):
        self.write(self.dir / "contexts" / "one.json", grpc="a:1", nodes=[{"grpc": "a:1"}, {"grpc": "https://b:2"}], token="t")
        self.write(self.dir / "contexts" / "two.json", grpc="c:3", namespace="team")
        (self.dir / "current").write_text("one\n")
        self.assertEqual(contexts.load().targets, ["a:1", "b:2"])
        self.assertEqual(contexts.load(name="two").namespace, "team")
        os.environ["UCCP_CONTEXT"] = "two"
        self.assertEqual(contexts.load().targets, ["c:3"])
        os.environ["UCCP_TOKEN"] = "other"
        self.assertEqual(contexts.load(name="one").token, "other")

    def test_a_context_may_name_another_file(self):
        self.write(self.dir / "dev.json", grpc="a:1", ca="ca.crt")
        (self.dir / "ca.crt").write_text("pem")
        linked = self.write(self.dir / "contexts" / "l.json", contextFile=str(self.dir / "dev.json"), namespace="team")
        context = contexts.load(linked)
        self.assertEqual((context.targets, context.ca, context.namespace), (["a:1"], b"pem", "team"))

    def test_what_is_wrong_is_said(self):
        cases = {"no cluster is given": lambda: contexts.load(),
                 "cannot be read": lambda: contexts.load(self.dir / "none.json"),
                 "no context 'x'": lambda: contexts.load(name="x"),
                 'names no "grpc"': lambda: contexts.load(self.write(self.dir / "e.json", token="t")),
                 "is not JSON": lambda: contexts.load(self.write(self.dir / "n.json") and self.broken()),
                 "ca.crt, named by the context": lambda: contexts.load(self.write(self.dir / "c.json", grpc="a:1", ca="ca.crt"))}
        os.chdir(self.dir)
        for part, load in cases.items():
            with self.subTest(part), self.assertRaisesRegex(uccp.ContextInvalid, part):
                load()

    def broken(self):
        path = self.dir / "broken.json"
        path.write_text("{")
        return path


@unittest.skipIf(MISSING, MISSING or "")
class Clients(NodeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.client = uccp.connect(cls.node.context_file)
        cls.addClassCleanup(cls.client.close)

    def other(self):
        client = uccp.connect(self.node.context_file)
        self.addCleanup(client.close)
        return client

    def test_a_lock_excludes_and_its_tokens_grow(self):
        with self.client.lock("a") as first:
            self.assertTrue(first.held)
            with self.assertRaises(uccp.DeadlineExceeded) as caught:
                self.other().lock("a", timeout=0.1).acquire()
            self.assertEqual(caught.exception.reason, "LOCK_WAIT_TIMEOUT")
            self.assertFalse(self.other().lock("a").try_acquire())
        with self.other().lock("a", timeout=30) as second:
            self.assertGreater(second.fencing_token, first.fencing_token)
        self.assertFalse(first.held)

    def test_a_lock_is_renewed_beyond_its_time_to_live(self):
        with self.client.lock("b", ttl=3) as held:
            waiter = start(lambda: self.other().lock("b", timeout=5).acquire())
            waiter.join(60)
            self.assertIsInstance(waiter.outcome[0], uccp.DeadlineExceeded)
            self.assertTrue(held.held)

    def test_a_lost_lock_is_told(self):
        with self.assertRaises(uccp.LeaseLost):
            with self.client.lock("c", ttl=3) as held:
                self.client.call("Coordination/BreakLock", name="c", reason="test")
                self.assertTrue(held.wait_lost(30))
                self.assertFalse(held.held)

    def test_an_exception_inside_wins_over_the_release(self):
        with self.assertRaisesRegex(ValueError, "mine"):
            with self.client.lock("d"):
                self.client.call("Coordination/BreakLock", name="d", reason="test")
                raise ValueError("mine")

    def test_readers_share(self):
        with self.client.lock("e", shared=True), self.other().lock("e", shared=True, timeout=30):
            self.assertFalse(self.client.lock("e").try_acquire())

    def test_one_leads_and_the_next_follows(self):
        first = self.client.election("g", candidate="one").campaign()
        self.assertEqual(first.leader(), "one")
        second = self.other().election("g", candidate="two")
        with self.assertRaises(uccp.DeadlineExceeded):
            second.campaign(timeout=0.2)
        seen = []
        watch = self.client.election("g").watch()
        seen.append(next(watch))
        waiter = start(second.campaign, 20)
        first.resign()
        waiter.join(60)
        self.assertIs(waiter.outcome[0], second)
        self.assertGreater(second.fencing_token, first.fencing_token)
        while "two" not in seen:
            seen.append(next(watch))
        self.assertEqual(seen[0], "one")
        watch.close()
        second.resign()

    def test_keys(self):
        kv = self.client.kv
        first = kv.put("app/a", "1")
        self.assertIsNone(kv.get("app/none"))
        with self.assertRaises(uccp.UccpError):
            kv.put("app/a", "2", if_revision=first - 1)
        second = kv.put("app/a", b"\xff\x00", if_revision=first)
        entry = kv.get("app/a")
        self.assertEqual((entry.value, entry.revision, entry.version), (b"\xff\x00", second, 2))
        self.assertEqual(kv.get("app/a", revision=first).text, "1")
        for number in range(5):
            kv.put(f"many/{number}", str(number))
        self.assertEqual([one.text for one in kv.range("many/")], list("01234"))
        changes = kv.watch("app/", start_revision=first)
        self.assertEqual([next(changes).entry.value for _ in range(2)], [b"1", b"\xff\x00"])
        self.assertTrue(kv.delete("app/a"))
        last = next(changes)
        self.assertEqual((last.kind, last.entry.key), ("DELETE", "app/a"))
        changes.close()
        self.assertFalse(kv.delete("app/a"))
        self.assertEqual(kv.delete_prefix("many/"), 5)

    def test_a_range_of_many_pages_is_whole(self):
        puts = [{"put": {"key": f"p/{number:04}", "value": "x"}} for number in range(1200)]
        for at in range(0, len(puts), 100):
            self.client.call("KeyValue/Txn", success=puts[at:at + 100])
        self.assertEqual([one.key for one in self.client.kv.range("p/")], [f"p/{number:04}" for number in range(1200)])

    def test_events(self):
        events = self.client.events
        events.create_topic("t.a", partitions=2)
        events.create_topic("t.a")
        stored = events.publish("t.a", {"n": 1}, "two", b"\x03", key="k")
        self.assertEqual([one.offset for one in stored], [stored[0].offset + n for n in range(3)])
        got = list(events.subscribe("t.a", start="EARLIEST", follow=False))
        self.assertEqual([one.payload for one in got], [{"n": 1.0}, "two", b"\x03"])
        rest = list(events.subscribe("t.a", since=got[0].cursor, follow=False))
        self.assertEqual([one.id for one in rest], [one.id for one in got[1:]])
        with self.assertRaises(uccp.FailedPrecondition):
            got[0].ack()

    def test_a_subscription_keeps_its_place(self):
        events = self.client.events
        events.create_topic("t.b")
        events.publish("t.b", "1", "2", "3")
        options = {"subscription": "s", "start": "EARLIEST", "ack": "MANUAL"}
        reading = events.subscribe("t.b", **options)
        first, second = next(reading), next(reading)
        self.assertEqual((first.payload, second.payload), ("1", "2"))
        first.ack()
        second.nack()
        reading.close()
        self.assertEqual({next(again).payload for again in [self.other().events.subscribe("t.b", **options)] for _ in "23"},
                         {"2", "3"})

    def test_a_transaction_counts_all_or_none_and_a_later_producer_fences_the_earlier_one(self):
        events = self.client.events
        for topic in ("tx.in", "tx.out"):
            events.create_topic(topic)
        reading = events.subscribe("tx.in", subscription="tx", start="EARLIEST", ack="MANUAL")
        events.publish("tx.in", "1", "2")
        first, second = next(reading), next(reading)

        def written():
            return [one.payload for one in events.subscribe("tx.out", start="EARLIEST", follow=False)]

        old = events.producer("tx")
        with self.assertRaises(ZeroDivisionError), old.transaction() as transaction:
            transaction.publish("tx.out", "never")
            transaction.ack(first, second)
            raise ZeroDivisionError
        again = [next(reading), next(reading)]
        self.assertEqual([(one.payload, one.delivery_attempt) for one in again], [("1", 2), ("2", 2)])
        with old.transaction() as transaction:
            with self.assertRaises(uccp.FailedPrecondition) as expired:
                transaction.ack(first)
            self.assertEqual(expired.exception.reason, "ACK_EXPIRED")
            transaction.publish("tx.out", *[one.payload for one in again])
            transaction.ack(*again)
            self.assertEqual(written(), [])
        self.assertEqual(written(), ["1", "2"])
        reading.close()
        self.assertEqual(events.pull("tx"), [])
        left_open = old.transaction()
        left_open.publish("tx.out", "fenced")
        with self.other().events.producer("tx").transaction() as transaction:
            transaction.publish("tx.out", "3")
        with self.assertRaises(uccp.FailedPrecondition) as fenced:
            left_open.commit()
        self.assertEqual(fenced.exception.reason, "PRODUCER_FENCED")
        self.assertEqual(written(), ["1", "2", "3"])

    def test_services(self):
        with self.client.discovery.register("billing", port=8080, address="10.0.0.1", labels={"tier": "gold"}) as own:
            found = self.client.discovery.discover("billing")
            self.assertEqual([(one.id, one.address, one.port, one.labels) for one in found],
                             [(own.id, "10.0.0.1", 8080, {"tier": "gold"})])
            watch = self.client.discovery.watch("billing")
            self.assertEqual(next(watch)[1].id, own.id)
        while True:
            kind, instance = next(watch)
            if kind == "REMOVED":
                break
        self.assertEqual(instance.id, own.id)
        watch.close()

    def test_tasks(self):
        tasks = self.client.tasks
        task = tasks.submit(["sh", "-c", "echo out; echo err >&2; echo kept > f"], cpu=0.1, memory="64Mi", outputs=["f"])
        ended = tasks.wait(task.id, timeout=60)
        self.assertEqual((ended.status, ended.exit_code), ("SUCCEEDED", 0))
        self.assertEqual(list(tasks.logs(task.id, stream="stdout")), ["out"])
        self.assertEqual(tasks.artifact(task.id, "f"), b"kept\n")
        failed = tasks.submit(["sh", "-c", "exit 7"], cpu=0.1, labels={"sdk": "yes"})
        with self.assertRaises(uccp.TaskError) as caught:
            tasks.wait(failed.id, timeout=60)
        self.assertEqual((caught.exception.task_id, caught.exception.status), (failed.id, "FAILED"))
        self.assertEqual([one.id for one in tasks.list(labels="sdk=yes")], [failed.id])
        endless = tasks.submit(["sleep", "1000"], cpu=0.1)
        tasks.cancel(endless.id, reason="enough")
        with self.assertRaisesRegex(uccp.TaskCancelled, "enough"):
            tasks.wait(endless.id, timeout=60)

    def test_errors_say_what_and_how(self):
        with self.assertRaises(uccp.InvalidRequest) as caught:
            self.client.call("ServiceDiscovery/Register", service={"service_name": "x", "address": "1.1.1.1", "port": 70000})
        self.assertEqual(caught.exception.reason, "FIELD_INVALID")
        self.assertIn("service.port", caught.exception.fields)
        self.assertTrue(caught.exception.call_id)
        with self.assertRaises(uccp.NotFound) as caught:
            self.client.tasks.get("none")
        self.assertEqual((caught.exception.reason, caught.exception.resource), ("TASK_NOT_FOUND", ("task", "none")))
        with self.assertRaisesRegex(TypeError, "no field 'nmae'"):
            self.client.call("Coordination/GetLock", nmae="x")
        with self.assertRaisesRegex(TypeError, "LockType|type cannot be 'NONE'"):
            self.client.call("Coordination/AcquireLock", name="x", type="NONE")
        bare = uccp.Client(contexts.Context(targets=self.client.context.targets, ca=self.client.context.ca))
        self.addCleanup(bare.close)
        with self.assertRaises(uccp.Unauthenticated):
            bare.kv.get("x")

    def test_a_repeat_with_the_same_request_id_is_the_same_task(self):
        first = self.client.tasks.submit(["true"], cpu=0.1, request_id="once")
        self.assertEqual(self.client.tasks.submit(["true"], cpu=0.1, request_id="once").id, first.id)

    def test_nobody_there_is_unavailable(self):
        nobody = uccp.Client(contexts.Context(targets=[f"127.0.0.1:{port}" for port in free_ports(2)], ca=self.client.context.ca))
        self.addCleanup(nobody.close)
        began = time.monotonic()
        with self.assertRaises((uccp.Unavailable, uccp.DeadlineExceeded)) as caught:
            nobody.call("KeyValue/Get", key="x", within=1)
        self.assertIn("cannot be reached", str(caught.exception))
        self.assertLess(time.monotonic() - began, 20)

    def test_a_node_that_is_gone_is_passed_over(self):
        targets = [f"127.0.0.1:{free_ports(1)[0]}", *self.client.context.targets]
        context = contexts.load(self.node.context_file)
        context.targets = targets
        client = uccp.Client(context)
        self.addCleanup(client.close)
        client.kv.put("passed", "over")
        self.assertEqual(client.connection.target, targets[1])

    def test_asyncio_waits_without_holding_the_loop_up(self):
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.01)

        async def main():
            heart = asyncio.create_task(beat())
            async with self.client.lock("aio") as held:
                self.assertTrue(held.held)
                with self.assertRaises(uccp.DeadlineExceeded):
                    async with self.other().lock("aio", timeout=0.3):
                        pass
            async with self.client.election("aio") as leadership:
                self.assertTrue(leadership.held)
            self.client.events.create_topic("aio")
            await uccp.aio.call(self.client.events.publish, "aio", "1", "2")
            seen = []
            async for event in uccp.aio.iterate(self.client.events.subscribe("aio", start="EARLIEST")):
                seen.append(event.payload)
                if len(seen) == 2:
                    break
            heart.cancel()
            return seen

        self.assertEqual(asyncio.run(main()), ["1", "2"])
        self.assertGreater(beats, 10, "the loop went on while the lock was waited for")

    def test_the_modules_own_client(self):
        uccp.init(context_file=self.node.context_file)
        self.addCleanup(uccp.shutdown)
        with uccp.lock("module", timeout=30) as held:
            self.assertTrue(held.held)
        with uccp.election("module") as leadership:
            self.assertEqual(leadership.leader(), leadership.candidate)
        uccp.shutdown()
        with self.assertRaisesRegex(uccp.FailedPrecondition, "closed"):
            held._connection.call("Coordination/GetLock", name="module")


@unittest.skipIf(MISSING, MISSING or "")
class Restart(unittest.TestCase):
    """The server is killed and started again, on its ports and data, under a client that knows nothing of it."""

    def setUp(self):
        self.node = Node(agent=False, flags=port_flags(), ports="")
        self.addCleanup(self.node.close)
        self.node.start()
        self.client = uccp.connect(self.node.context_file)
        self.addCleanup(self.client.close)

    def test_calls_streams_and_locks_go_on(self):
        events, kv = self.client.events, self.client.kv
        events.create_topic("t")
        events.publish("t", "0")
        seen = []
        reader = start(lambda: [seen.append(one.payload) or one for one in events.subscribe("t", start="EARLIEST", limit=40)])
        with self.client.lock("l", ttl=30) as held:
            token = held.fencing_token
            wait_until(lambda: seen == ["0"], what="the first event")
            writer = start(lambda: [(kv.put("n", str(n)), events.publish("t", str(n))) for n in range(1, 40)])
            wait_until(lambda: len(seen) >= 5, what="some events")
            self.node.restart()
            writer.join(60)
            self.assertNotIsInstance(writer.outcome[0], Exception, writer.outcome)
            self.assertFalse(held.lost)
            found = self.client.call("Coordination/GetLock", name="l")
            self.assertEqual(found.fencing_token, token)
        reader.join(60)
        self.assertNotIsInstance((reader.outcome or [TimeoutError(seen)])[0], Exception, reader.outcome)
        # Each change counted once, however often it was sent, and each event came once and in order.
        self.assertEqual(kv.get("n").version, 39)
        self.assertEqual(seen, [str(n) for n in range(40)])

    def test_a_waiter_keeps_its_place(self):
        first = self.client.lock("q", ttl=60).acquire()
        other = uccp.connect(self.node.context_file)
        self.addCleanup(other.close)
        waiter = start(other.lock("q", timeout=60).acquire)
        wait_until(lambda: self.client.call("Coordination/GetLock", name="q").waiters == 1, what="a waiter")
        self.node.restart()
        first.release()
        waiter.join(60)
        self.assertIsInstance(waiter.outcome[0], uccp.Lock)
        self.assertGreater(waiter.outcome[0].fencing_token, first.fencing_token)
