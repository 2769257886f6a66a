"""Clients that put, get and compare-and-set registers of a cluster until they are stopped, and record a history.

A register is a key of the key-value store. A change is repeated, through one node after the other, with the same request
id until its outcome is known: so a change that a node made twice, or lost, shows in the history.
"""
import collections
import http.client
import itertools
import random
import threading
import time

from lib.history import History, now_us
from lib.wait import wait_until

RETRY = (429, 500, 502, 503, 504)
PATIENCE_S = 45
PAUSE_S = 0.02
NUMBERS = itertools.count(1)


class Client(threading.Thread):
    def __init__(self, cluster, history, keys, seed, timeout):
        super().__init__(daemon=True)
        self.cluster = cluster
        self.history = history
        self.keys = keys
        self.timeout = timeout
        self.number = next(NUMBERS)
        self.random = random.Random(seed)
        self.ended = threading.Event()
        self.nodes = list(cluster.context["nodes"])
        self.turn = self.number
        self.connections = {}
        self.values = itertools.count(self.number * 1_000_000 + 1)
        self.acknowledged = 0
        self.refused = collections.Counter()
        self.failures = []
        self.slowest = 0.0

    def run(self):
        try:
            while not self.ended.is_set():
                began = time.monotonic()
                self.one(self.random.choice(self.keys))
                self.slowest = max(self.slowest, time.monotonic() - began)
        except BaseException as error:
            self.failures.append(repr(error))
            raise

    def one(self, key):
        kind = self.random.choices(("put", "get", "cas"), (4, 4, 2))[0]
        if kind == "put":
            self.put(key, None, None)
        elif (read := self.get(key)) is not None and kind == "cas" and read[1]:
            self.put(key, *read)

    def get(self, key):
        """(value, revision), or None if nobody could say."""
        called = now_us()
        # Asked once: a read that is repeated began when it was asked last.
        answer = self.ask("GET", key, {}, None)
        if answer is None or answer.status not in (200, 404):
            self.next_node()
            return None
        value, revision = (int(answer.json["value"]), answer.json["modRevision"]) if answer.status == 200 else (0, 0)
        self.history.add(self.number, key, "get", value, called, returned=now_us())
        self.acknowledged += 1
        return value, revision

    def put(self, key, expected, revision):
        """Puts a new value; with `revision` only if the register still has it."""
        kind, value, called = ("put" if expected is None else "cas"), next(self.values), now_us()
        headers = {"Idempotency-Key": f"v{value}"} | ({"If-Match": f'"{revision}"'} if revision else {})
        answer = self.repeat("PUT", key, headers, {"value": str(value)})
        known = {200: "ok", 201: "ok"} | ({409: "no", 412: "no"} if revision else {})
        if answer is None:
            self.history.add(self.number, key, kind, value, called, expected)
            self.failures.append(f"{kind} {key}: no outcome within {PATIENCE_S} s")
        elif answer.status in known:
            self.history.add(self.number, key, kind, value, called, expected, known[answer.status], now_us())
            self.acknowledged += 1
        else:
            self.history.add(self.number, key, kind, value, called, expected)
            self.failures.append(f"{kind} {key}: {answer!r}")

    def repeat(self, *request):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            answer = self.ask(*request)
            if answer is not None and answer.status not in RETRY:
                return answer
            self.next_node()
            self.ended.wait(PAUSE_S)
        return None

    def next_node(self):
        self.turn += 1

    def ask(self, method, key, headers, body):
        node = self.nodes[self.turn % len(self.nodes)]["id"]
        rest = self.connections.get(node)
        if rest is None:
            rest = self.connections[node] = self.cluster.rest(node, timeout=self.timeout)
        try:
            answer = rest.call(method, f"kv/{key}", body, headers=headers)
        except (OSError, http.client.HTTPException):
            return None
        if answer.status in RETRY:
            self.refused[answer.reason] += 1
        return answer


class Registers:
    """Some clients on some registers."""

    def __init__(self, cluster, clients=6, registers=4, seed=0, timeout=8):
        self.history = History()
        keys = [f"r{seed}-{n}" for n in range(registers)]
        self.clients = [Client(cluster, self.history, keys, seed * 1000 + n, timeout) for n in range(clients)]
        for client in self.clients:
            client.start()

    @property
    def acknowledged(self):
        return sum(client.acknowledged for client in self.clients)

    def wait_progress(self, operations=100, timeout=40):
        """Waits until so many more were acknowledged."""
        goal = self.acknowledged + operations
        wait_until(lambda: self.acknowledged >= goal or self.failures, timeout, f"{operations} more operations")
        assert not self.failures, self.failures[:3]

    @property
    def failures(self):
        return [failure for client in self.clients for failure in client.failures]

    @property
    def slowest(self):
        return max(client.slowest for client in self.clients)

    def stop(self):
        for client in self.clients:
            client.ended.set()
        for client in self.clients:
            client.join(60)
            assert not client.is_alive(), "a client does not end"
