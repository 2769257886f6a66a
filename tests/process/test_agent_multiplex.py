# timeout: 120
"""Streams of several agents on one connection: for those who may, and a clear refusal for all others."""
import pathlib
import queue
import unittest

try:
    import grpc
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib import credentials
from lib.uccp import NodeTest
from lib.wait import wait_until

CONNECT = "/uccp.internal.v1.AgentLink/Connect"
END = object()


def field(number, content):
    """A field of bytes, short enough for a length of one or two bytes."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + content


def hello(worker):
    """AgentMessage{hello: Hello{worker_id, incarnation, name, protocol_version: 1}}"""
    name = worker.encode()
    return field(1, field(1, name) + field(2, b"one") + field(3, name) + b"\x28\x01")


class Stream:
    """An agent that says Hello and goes on listening."""

    def __init__(self, channel, token, worker):
        self.outgoing = queue.Queue()
        self.outgoing.put(hello(worker))
        connect = channel.stream_stream(CONNECT)
        self.answers = connect(iter(self.outgoing.get, END), metadata=[("authorization", "Bearer " + token)], timeout=60)

    def is_welcome(self, worker):
        """Whether the first answer is ServerMessage{welcome: Welcome{worker_id}} of that worker."""
        answer = next(self.answers)
        return answer[0] == 0x0a and field(1, worker.encode()) in answer[:len(worker) + 5]

    def close(self):
        self.outgoing.put(END)
        self.answers.cancel()


@unittest.skipIf(MISSING, MISSING or "")
class Multiplex(NodeTest):
    agent = False

    def setUp(self):
        answer = self.rest.post("roles", {"name": "fleet", "permissions": ["agent.connect", "agent.multiplex"]})
        self.assertIn(answer.status, (201, 409), answer)
        ca = pathlib.Path(self.node.context["ca"]).read_bytes()
        self.channel = grpc.secure_channel(self.node.context["grpc"], grpc.ssl_channel_credentials(ca),
                                           options=[("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(self.channel.close)

    def token(self, role):
        return credentials.token(self.node.dir / "pki" / "token.key", sub=f"plays-{role}", roles=[role])

    def open(self, role, worker):
        stream = Stream(self.channel, self.token(role), worker)
        self.addCleanup(stream.close)
        return stream

    def workers(self):
        return {w["id"] for w in self.rest.get("workers", pageSize=1000).json["workers"] if w["status"] == "READY"}

    def test_many_agents_share_a_connection_with_the_permission(self):
        names = [f"many-{number}" for number in range(50)]
        streams = [self.open("fleet", name) for name in names]
        for stream, name in zip(streams, names):
            self.assertTrue(stream.is_welcome(name), name)
        wait_until(lambda: set(names) <= self.workers(), 30, "all of them to be workers that take tasks")

    def test_without_the_permission_a_connection_is_of_one_worker(self):
        first = self.open("agent", "single-1")
        self.assertTrue(first.is_welcome("single-1"))
        second = self.open("agent", "single-2")
        with self.assertRaises(grpc.RpcError) as refused:
            second.is_welcome("single-2")
        self.assertEqual(refused.exception.code(), grpc.StatusCode.PERMISSION_DENIED)
        self.assertIn("this connection carries the stream of the worker single-1", refused.exception.details())
        self.assertIn("needs the permission agent.multiplex", refused.exception.details())
        details = dict(refused.exception.trailing_metadata())["grpc-status-details-bin"]
        self.assertIn(b"AGENT_MULTIPLEX_DENIED", details)
        # The first one goes on, and its newer stream takes over.
        again = self.open("agent", "single-1")
        self.assertTrue(again.is_welcome("single-1"))
        self.assertNotIn("single-2", self.workers())

    def test_the_role_of_agents_does_not_have_it(self):
        permits = lambda role: self.rest.get(f"roles/{role}").json["permissions"]
        self.assertEqual(sorted(permits("agent")), ["agent.connect", "workers.read"])
        self.assertIn("agent.multiplex", permits("fleet"))
