# labels: cluster
"""Identity in a cluster: what one node is told counts on all of them, within a second."""
import contextlib
import http.client
import json
import pathlib
import tempfile
import threading
import time
import unittest

try:
    import grpc
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib import credentials, etcd
from lib.cluster import Cluster
from lib.rest import Rest
from lib.uccp import CLI, SERVER, require
from lib.wait import wait_until

PASSWORD = "four small words here"


class EveryNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        require(SERVER, CLI)
        cls.cluster = Cluster(nodes=3)
        cls.addClassCleanup(cls.cluster.close)
        cls.cluster.start()
        cls.leader = cls.cluster.leader("core")
        cls.follower = next(name for name in cls.cluster.names() if name != cls.leader)

    def ask(self, name, token, path="services"):
        rest = Rest(self.cluster.node(name)["https"], self.cluster.context["ca"], token=token)
        try:
            return rest.get(path)
        finally:
            rest.close()

    def must(self, response):
        self.assertLess(response.status, 300, response)
        return response.json if response.body else None

    def everywhere(self, token, reason, seconds):
        """All nodes answer `reason` (None: they accept) within the time; answers how long it took."""
        begun = time.monotonic()
        for name in self.cluster.names():
            left = max(0.05, seconds - (time.monotonic() - begun))
            wait_until(lambda: self.ask(name, token).status == 200 if reason is None else self.ask(name, token).reason == reason,
                       left, f"{name} says {reason}")
        return time.monotonic() - begun

    def test_a_session_of_any_node_counts_and_ends_on_all_of_them(self):
        rest = self.cluster.rest(self.follower)
        self.addCleanup(rest.close)
        self.must(rest.post("tenants", {"name": "acme"}))
        self.must(rest.post("users?tenant=acme", {"name": "ana", "password": PASSWORD}))
        self.must(rest.post("bindings?tenant=acme", {"role": "viewer", "members": ["ana"]}))
        # Signing in goes to the leader, from whatever node.
        tokens = self.must(rest.post("tokens:signIn", {"name": "ana", "tenant": "acme", "password": PASSWORD}))
        self.everywhere(tokens["accessToken"], None, 20)
        session = json.loads(credentials.unb64url(tokens["accessToken"].split(".")[1]))["sid"]
        self.must(rest.post("tokens:revoke", {"tokenId": session}))
        took = self.everywhere(tokens["accessToken"], "TOKEN_REVOKED", 1)
        print(f"revoked on all nodes after {took * 1000:.0f} ms")
        # Keys and policies as well.
        key = self.must(rest.post("apikeys?tenant=acme", {"principal": "ana"}))["key"]
        self.everywhere(key, None, 20)
        self.must(rest.call("PUT", "policies/closed?tenant=acme", {"text": "forbid (principal, action, resource);"}))
        self.everywhere(key, "POLICY_FORBIDS", 1)
        self.must(rest.call("DELETE", "policies/closed?tenant=acme"))
        # What was issued without a session, and a key that is deleted.
        issued = self.must(rest.post("tokens:issue", {"principal": "ana", "tenant": "acme"}))
        self.everywhere(issued["accessToken"], None, 20)
        self.must(rest.post("tokens:revoke", {"tokenId": issued["tokenId"]}))
        self.everywhere(issued["accessToken"], "TOKEN_REVOKED", 1)
        brief = self.must(rest.post("apikeys?tenant=acme", {"principal": "ana"}))
        self.everywhere(brief["key"], None, 20)
        self.must(rest.delete(f"apikeys/{brief['apiKey']['id']}?tenant=acme"))
        self.everywhere(brief["key"], "API_KEY_INVALID", 1)
        self.must(rest.call("PATCH", "users/ana?tenant=acme", {"disabled": True}))
        self.everywhere(key, "USER_DISABLED", 1)

    @unittest.skipIf(MISSING, MISSING or "")
    def test_a_certificate_that_one_node_is_told_of_counts_at_none_within_a_second(self):
        pki = self.cluster.dir / "pki"
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        self.addCleanup(folder.cleanup)
        cert, key = credentials.client_certificate(folder.name, "vic", pki / "ca.crt", pki / "ca.key", "viewer")
        serial = credentials.openssl("x509", "-in", cert, "-noout", "-serial").stdout.decode().strip().split("=")[1]

        def client(name):
            rest = Rest(self.cluster.node(name)["https"], self.cluster.context["ca"], cert=cert, key=key, timeout=20)
            self.addCleanup(rest.close)
            return rest

        # Connections that are open on every node, at each of its doors, those of gRPC with a call that has no end.
        opened = {name: client(name) for name in self.cluster.names()}
        for rest in opened.values():
            self.must(rest.get("services"))
        streams = {(name, port): self.stream(name, port, cert, key) for name in self.cluster.names() for port in ("grpc", "etcd")}
        admin = self.cluster.rest(self.follower)
        self.addCleanup(admin.close)
        self.must(admin.post(f"certificates/{serial}:revoke", {"reason": "laptop lost"}))

        def is_over(rest):
            """Told so on a connection that is about to be closed, or there is none any more: the handshake fails."""
            try:
                return rest.get("services").reason == "CERTIFICATE_REVOKED"
            except (OSError, http.client.HTTPException):
                return True

        begun = time.monotonic()
        for name, rest in opened.items():
            wait_until(lambda: is_over(rest), max(0.05, 1 - (time.monotonic() - begun)), f"{name} refuses what was open")
            wait_until(lambda: is_over(client(name)), max(0.05, 1 - (time.monotonic() - begun)), f"{name} refuses a new one")
        for place, stream in streams.items():
            wait_until(lambda: not stream.is_active(), max(0.05, 1 - (time.monotonic() - begun)), f"the end of the stream at {place}")
        print(f"revoked on all nodes after {(time.monotonic() - begun) * 1000:.0f} ms")
        def has_no_connection(name):
            try:
                client(name).get("services")
            except (OSError, http.client.HTTPException):
                return True
            return False  # told so by the answer

        for name in self.cluster.names():
            wait_until(lambda: has_no_connection(name), what=f"the handshake at {name} to fail")
        for (name, port), stream in streams.items():
            self.assertIn(stream.code(), (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE), (name, port))
            # A new connection is refused by the handshake.
            with self.assertRaises(grpc.RpcError) as caught:
                self.first(name, port, self.channel(name, port, cert, key), timeout=3)
            self.assertIn(caught.exception.code(), (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), (name, port))
        other = credentials.client_certificate(folder.name, "val", pki / "ca.crt", pki / "ca.key", "viewer")
        for name, port in streams:
            self.assertTrue(self.stream(name, port, *other).is_active(), "another certificate goes on")

    def channel(self, name, port, cert, key):
        tls = grpc.ssl_channel_credentials(pathlib.Path(self.cluster.context["ca"]).read_bytes(), key.read_bytes(), cert.read_bytes())
        channel = grpc.secure_channel(self.cluster.node(name)[port], tls)
        self.addCleanup(channel.close)
        return channel

    def first(self, name, port, channel, timeout=30):
        """A watch at one door of a node, of which the first answer has come."""
        if port == "etcd":
            create = etcd.messages()["WatchRequest"]()
            create.create_request.key = b"watched"
            over = threading.Event()
            self.addCleanup(over.set)

            def requests():
                yield create
                over.wait()  # the client's side stays open

            stream = etcd.EtcdClient(channel).both("Watch/Watch", requests(), "WatchResponse", timeout)
        else:
            stream = channel.unary_stream("/uccp.v1.ServiceDiscovery/WatchServices")(b"", timeout=timeout)
        next(stream)
        return stream

    def stream(self, name, port, cert, key):
        stream = self.first(name, port, self.channel(name, port, cert, key))

        def read():
            with contextlib.suppress(grpc.RpcError):
                for _ in stream:
                    pass

        # The library tells the end of a call only to who has read all that was sent.
        threading.Thread(target=read, daemon=True).start()
        return stream

    def test_guessing_a_password_is_not_faster_at_several_nodes(self):
        clients = [self.cluster.rest(name) for name in self.cluster.names()]
        for rest in clients:
            self.addCleanup(rest.close)
        self.must(clients[0].post("users", {"name": "gus", "password": PASSWORD}))
        guess = {"name": "gus", "tenant": "default", "password": "not the password"}
        reasons = [clients[number % 3].post("tokens:signIn", guess).reason for number in range(5)]
        self.assertEqual(reasons, ["SIGN_IN_REFUSED"] * 5)
        # The first pause is a second, which may pass between two calls; each guess behind it doubles the next one.
        wait_until(lambda: {rest.post("tokens:signIn", guess).reason for rest in clients} == {"SIGN_IN_THROTTLED"}, 20,
                   "a pause at all nodes")

    def test_a_secret_of_any_node_is_opened_by_all_of_them(self):
        clients = {name: self.cluster.rest(name) for name in self.cluster.names()}
        for rest in clients.values():
            self.addCleanup(rest.close)
        wait_until(lambda: clients[self.follower].get("version").json.get("featureLevel", 0) >= 2, what="feature level 2")
        self.must(clients[self.follower].put("secrets/shared", {"value": "of all nodes"}))
        for rest in clients.values():
            self.assertEqual(self.must(rest.post("secrets/shared:access", {}))["value"], "of all nodes")
        # A repeat at another node is the same request, though what is kept of it depends on a key.
        headers = {"Idempotency-Key": "shared-once"}
        answers = [self.must(rest.put("secrets/shared", {"value": "the second"}, headers=headers)) for rest in clients.values()]
        self.assertEqual([answer["version"] for answer in answers], [2, 2, 2])
        self.assertEqual(self.must(clients[self.follower].post("secrets:rotateKeys", {}))["rewrapped"], 2)
        for rest in clients.values():
            self.assertEqual(self.must(rest.post("secrets/shared:access", {"version": 1}))["value"], "of all nodes")
