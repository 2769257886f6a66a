# serial
# labels: kill9
"""kill -9 of a server under writes: nothing acknowledged is lost, nothing is done twice, nothing is half done.

UCCP_KILL_ROUNDS sets the number of kills (20; 200 in the full run), UCCP_KILL_SEED repeats a run's moments.
"""
import collections
import http.client
import os
import random
import threading
import time
import unittest

from lib.rest import Rest
from lib.uccp import SERVER, Node, require

require(SERVER)

ROUNDS = int(os.environ.get("UCCP_KILL_ROUNDS", "20"))
SEED = int(os.environ.get("UCCP_KILL_SEED", str(random.SystemRandom().randrange(1 << 32))))
WRITERS = 8
LOST = (OSError, http.client.HTTPException)


class Write:
    """One change with its deduplication key, its content and what became of it."""

    __slots__ = ("key", "kind", "name", "content", "answered", "tries")

    def __init__(self, key, kind, name, content):
        self.key, self.kind, self.name, self.content = key, kind, name, content
        self.answered = None  # the answer's id, or "" for a deregistration, once it was acknowledged
        self.tries = 0


class Cluster:
    """Where the node is just now; writers wait here while it is down."""

    def __init__(self):
        self.changed = threading.Condition()
        self.context = None
        self.over = False

    def set(self, context):
        with self.changed:
            self.context = context
            self.changed.notify_all()

    def finish(self):
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def wait_other(self, seen):
        """A context other than `seen`, None at the end of the test."""
        with self.changed:
            self.changed.wait_for(lambda: self.over or (self.context is not None and self.context is not seen))
            return None if self.over else self.context


class Writer(threading.Thread):
    """Writes on one connection. An unknown outcome is repeated with its key until it is known."""

    def __init__(self, number, cluster):
        super().__init__(daemon=True)
        self.number, self.cluster = number, cluster
        self.random = random.Random(SEED * 1000 + number)
        self.writes = []
        self.failure = None
        self.repeats = 0
        self.live = []

    def next_write(self, count):
        key = f"w{self.number}-{count}"
        kind = self.random.choice(("service", "service", "task", "task", "drop"))
        if kind == "drop" and self.live:
            return Write(key, "drop", self.live.pop(self.random.randrange(len(self.live))), None)
        if kind == "task":
            return Write(key, "task", key, {"command": ["true", "x" * self.random.randrange(2000)], "name": key,
                                            "labels": {"writer": str(self.number)}})
        return Write(key, "service", key, {"serviceName": key, "address": f"10.{self.number}.{count >> 8}.{count & 255}",
                                           "port": 1 + count % 60000, "ttl": "86400s",
                                           "metadata": {"pad": "y" * self.random.randrange(2000)}})

    def send(self, rest, write):
        headers = {"Idempotency-Key": write.key}
        if write.kind == "drop":
            return rest.delete(f"services/{write.name}", headers=headers)
        return rest.post("services" if write.kind == "service" else "tasks", write.content, headers=headers)

    def run(self):
        try:
            self.work()
        except BaseException as error:  # told by the main thread
            self.failure = error

    def work(self):
        context, count, rest = None, 0, None
        while True:
            write = self.next_write(count)
            count += 1
            self.writes.append(write)
            while write.answered is None:
                if rest is None:
                    context = self.cluster.wait_other(context)
                    if context is None:
                        return
                    rest = Rest(context["https"], context["ca"], token=context["token"], timeout=30)
                write.tries += 1
                try:
                    response = self.send(rest, write)
                except LOST:
                    self.repeats += 1
                    rest = None
                    continue
                if response.status in (503, 504, 500) and response.reason in ("SHUTTING_DOWN", "OUTCOME_UNKNOWN"):
                    continue
                assert response.status in (201, 204), (write.key, write.tries, response)
                write.answered = response.json["id"] if write.kind != "drop" else ""
                if write.kind == "service":
                    self.live.append(write.answered)
            if self.cluster.over:
                return


class KillNine(unittest.TestCase):
    rounds = ROUNDS
    flags = ()

    def listing(self, rest, noun, **query):
        items, token = [], ""
        while True:
            response = rest.get(noun, pageSize=1000, pageToken=token, consistency="linearizable", **query)
            self.assertEqual(response.status, 200, response)
            items += response.json[noun]
            token = response.json.get("nextPageToken", "")
            if not token:
                return items

    def check(self, rest, writers, final):
        """What is stored against what was acknowledged. Without `final`, each writer may have one write under way."""
        services = self.listing(rest, "services")
        tasks = self.listing(rest, "tasks")
        for noun, items in (("serviceName", services), ("name", tasks)):
            twice = [name for name, count in collections.Counter(i[noun] for i in items).items() if count > 1]
            self.assertEqual(twice, [], "one request id made two")
        by_name = {**{s["serviceName"]: s for s in services}, **{t["name"]: t for t in tasks}}
        for writer in writers:
            writes = list(writer.writes)
            dropped = {w.name for w in writes if w.kind == "drop"}
            under_way = {w.key for w in writes[-2:] if not final}
            for write in writes:
                self.check_write(write, by_name, dropped, under_way)
        known = {w.key for writer in writers for w in writer.writes}
        self.assertLessEqual(set(by_name), known, "something that nobody wrote")
        return len(services), len(tasks)

    def check_write(self, write, by_name, dropped, under_way):
        if write.kind == "drop":
            return
        item = by_name.get(write.key)
        if item is None:
            gone = write.answered in dropped
            self.assertTrue(gone or write.answered is None or write.key in under_way,
                            f"{write.key} was acknowledged as {write.answered} and is lost")
            return
        if write.answered is not None:
            self.assertEqual(item["id"], write.answered, f"a repeat of {write.key} made another one")
        for name, value in write.content.items():
            self.assertEqual(item.get(name), value, f"{write.key} is half there")

    def dropped_stay_away(self, rest, writers):
        ids = {s["id"] for s in self.listing(rest, "services")}
        for writer in writers:
            done = {w.name for w in writer.writes if w.kind == "drop" and w.answered is not None}
            self.assertEqual(done & ids, set(), "an acknowledged deregistration was undone")

    def test_every_acknowledged_write_survives_and_has_one_effect(self):
        print(f"seed {SEED}: repeat with UCCP_KILL_SEED={SEED} UCCP_KILL_ROUNDS={self.rounds}", flush=True)
        moments = random.Random(SEED)
        node = Node(agent=False, flags=self.flags)
        self.addCleanup(node.close)
        cluster = Cluster()
        writers = [Writer(number, cluster) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        self.addCleanup(cluster.finish)
        for number in range(self.rounds):
            # Some kills hit the start itself, before and while it replays its log.
            if moments.random() < 0.2:
                node.launch()
                time.sleep(moments.random() * 0.15)
                node.kill()
            node.start()
            cluster.set(node.context)
            # The kill comes at a random moment: the one place where waiting is the test.
            time.sleep(0.02 + moments.random() * 0.5)
            node.kill_group()
            for writer in writers:
                self.assertIsNone(writer.failure, f"round {number}: {writer.failure}")
        node.start()
        cluster.finish()
        for writer in writers:
            writer.join(30)
            self.assertIsNone(writer.failure, writer.failure)
        rest = node.rest
        counts = self.check(rest, writers, final=False)
        # What was never answered is asked once more: known keys answer what they made the first time.
        unknown = 0
        for writer in writers:
            for write in writer.writes:
                if write.answered is None:
                    unknown += 1
                    response = writer.send(rest, write)
                    self.assertIn(response.status, (201, 204), (write.key, response))
                    write.answered = response.json["id"] if write.kind != "drop" else ""
        self.check(rest, writers, final=True)
        self.dropped_stay_away(rest, writers)
        self.repeats_answer_the_first_result(rest, writers)
        writes = sum(len(writer.writes) for writer in writers)
        repeats = sum(writer.repeats for writer in writers)
        print(f"{self.rounds} kills, {writes} writes, {repeats} repeated, {unknown} open at the end; {counts[0]} services, "
              f"{counts[1]} tasks", flush=True)
        self.assertGreater(writes, self.rounds * 5, "hardly anything was written: the test shows nothing")
        self.assertGreater(repeats, self.rounds / 4, "no kill hit a write: the test shows nothing")

    def repeats_answer_the_first_result(self, rest, writers):
        """A late repeat of any change, even the first of all, answers the same and changes nothing."""
        before = (len(self.listing(rest, "services")), len(self.listing(rest, "tasks")))
        for writer in writers:
            for write in writer.random.sample(writer.writes, min(20, len(writer.writes))):
                response = writer.send(rest, write)
                if write.kind == "drop":
                    self.assertEqual(response.status, 204, response)
                else:
                    self.assertEqual((response.status, response.json["id"]), (201, write.answered), response)
        self.assertEqual((len(self.listing(rest, "services")), len(self.listing(rest, "tasks"))), before)
