"""Limits by principal, tenant, address, method and connection, and what the answers say about them."""
import http.client
import pathlib
import socket
import ssl
import struct
import unittest

try:
    import grpc
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib import credentials
from lib.etcd import EtcdClient, messages
from lib.rest import Response
from lib.uccp import SERVER, Node, NodeTest, require
from lib.wait import wait_until


class Rates(NodeTest):
    agent = False
    # So slow that no token comes back during the test.
    environment = {"RATE_LIMITS": "principal:read:0.001/20, tenant:write:0.001/14, GetLock:0.001/3, address:0.001/1000"}

    def ask(self, who, path="services", method="GET", body=None, tenant="default"):
        rest = self.node.client(token=credentials.token(self.node.dir / "pki" / "token.key", sub=who, tenant=tenant))
        try:
            return rest.call(method, path, body)
        finally:
            rest.close()

    def until_limited(self, *arguments, **options):
        for count in range(100):
            response = self.ask(*arguments, **options)
            if response.status == 429:
                self.assert_problem(response, 429, "RATE_LIMITED")
                self.assertGreaterEqual(int(response.headers["Retry-After"]), 1)
                self.assertEqual(response.headers["RateLimit-Remaining"], "0")
                self.assertEqual(response.headers["RateLimit-Reset"], response.headers["Retry-After"])
                return count, response
        self.fail("nothing was limited")

    def test_each_principal_has_its_own(self):
        first = self.ask("ann")
        self.assertEqual(first.status, 200)
        # A list costs 2.
        self.assertEqual(first.headers["RateLimit-Remaining"], "18")
        count, response = self.until_limited("ann")
        self.assertEqual(count, 9)
        self.assertIn("by the principal default/ann", response.json["detail"])
        self.assertEqual(self.ask("bea").status, 200)

    def test_a_tenant_shares_one(self):
        body = {"serviceName": "x", "address": "1.1.1.1", "port": 1}
        who = iter(f"user{i}" for i in range(100))
        for _ in range(100):
            response = self.ask(next(who), method="POST", body=body, tenant="shared")
            if response.status == 429:
                break
        self.assert_problem(response, 429, "RATE_LIMITED")
        self.assertIn("by the tenant shared", response.json["detail"])
        self.assertEqual(self.ask("somebody", method="POST", body=body, tenant="another").status, 201)

    def test_a_method_has_its_own(self):
        count, response = self.until_limited("cat", "locks/none")
        self.assertEqual(count, 3)
        self.assertIn("GetLock calls a second", response.json["detail"])
        self.assertEqual(self.ask("cat").status, 200)

    @unittest.skipIf(MISSING, MISSING or "")
    def test_by_grpc_it_is_the_same_limit(self):
        token = credentials.token(self.node.dir / "pki" / "token.key", sub="dan")
        ca = pathlib.Path(self.node.context["ca"]).read_bytes()
        with grpc.secure_channel(self.node.context["grpc"], grpc.ssl_channel_credentials(ca)) as channel:
            get = channel.unary_unary("/uccp.v1.Coordination/GetLock")

            def code(name):
                # GetLockRequest.name
                try:
                    get(b"\x0a" + bytes([len(name)]) + name.encode(), timeout=30, metadata=[("authorization", "Bearer " + token)])
                except grpc.RpcError as error:
                    return error
                return None

            for _ in range(3):
                self.assertEqual(code("none").code(), grpc.StatusCode.NOT_FOUND)
            limited = code("none")
            self.assertEqual(limited.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("GetLock calls a second", limited.details())
            details = dict(limited.trailing_metadata())["grpc-status-details-bin"]
            self.assertIn(b"google.rpc.RetryInfo", details)
            self.assertIn(b"RATE_LIMITED", details)
        # REST has nothing left of it either.
        self.assert_problem(self.ask("dan", "locks/none"), 429, "RATE_LIMITED")

    @unittest.skipIf(MISSING, MISSING or "")
    def test_by_the_etcd_api_it_is_the_same_limit(self):
        token = credentials.token(self.node.dir / "pki" / "token.key", sub="eve")
        ca = pathlib.Path(self.node.context["ca"]).read_bytes()
        with grpc.secure_channel(self.node.context["etcd"], grpc.ssl_channel_credentials(ca)) as channel:
            client, asked = EtcdClient(channel, token), messages()["RangeRequest"](key=b"none")
            # A range costs 2 of the 20 that a principal has to read with.
            for _ in range(10):
                self.assertEqual(client.call("KV/Range", asked, "RangeResponse").count, 0)
            with self.assertRaises(grpc.RpcError) as refused:
                client.call("KV/Range", asked, "RangeResponse")
            self.assertEqual(refused.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            self.assertIn("etcdserver: too many requests", refused.exception.details())
            # What is of another class goes on, and so do others.
            client.call("KV/Put", messages()["PutRequest"](key=b"rated", value=b"1"), "PutResponse")
            other = EtcdClient(channel, credentials.token(self.node.dir / "pki" / "token.key", sub="fay"))
            other.call("KV/Range", asked, "RangeResponse")
        # REST has nothing left of it either.
        self.assert_problem(self.ask("eve"), 429, "RATE_LIMITED")


class Addresses(NodeTest):
    agent = False
    environment = {"RATE_LIMITS": "address:0.001/12"}

    def test_an_address_also_before_anybody_is_known(self):
        rest = self.node.client(token=None)
        self.addCleanup(rest.close)
        answers = [rest.post("tokens:signIn", {"name": "ann", "password": "wrong"}) for _ in range(4)]
        self.assertEqual([a.reason for a in answers][-1], "RATE_LIMITED")
        self.assertIn("by the address 127.0.0.1", answers[-1].json["detail"])

    @unittest.skipIf(MISSING, MISSING or "")
    def test_the_address_is_one_at_all_doors(self):
        # Whatever was asked before: at the end nothing is left here either, though the credentials are good.
        ca = pathlib.Path(self.node.context["ca"]).read_bytes()
        with grpc.secure_channel(self.node.context["etcd"], grpc.ssl_channel_credentials(ca)) as channel:
            client = EtcdClient(channel, self.node.context["token"])
            codes = []
            while len(codes) < 13 and grpc.StatusCode.RESOURCE_EXHAUSTED not in codes:
                try:
                    client.call("KV/Range", messages()["RangeRequest"](key=b"none"), "RangeResponse")
                    codes.append(None)
                except grpc.RpcError as error:
                    codes.append(error.code())
            self.assertEqual(codes[-1], grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assert_problem(self.rest.get("services"), 429, "RATE_LIMITED")


class SignIns(NodeTest):
    agent = False

    def sign_in(self, number, source):
        connection = self.rest.connect(30)
        connection.source_address = (source, 0)
        try:
            connection.request("POST", "/api/v1/tokens:signIn", f'{{"name": "guess{number}", "password": "wrong wrong wrong"}}',
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def test_who_guesses_many_names_is_slowed_down_by_address_and_others_are_not(self):
        names = iter(range(1000))
        self.assertEqual({self.sign_in(next(names), "127.0.0.1").reason for _ in range(20)}, {"SIGN_IN_REFUSED"})

        def slowed_down():
            answer = self.sign_in(next(names), "127.0.0.1")
            return answer if answer.status == 429 else None

        # The first pause is a second, which may pass between two calls; each guess behind it doubles the next one.
        answer = wait_until(slowed_down, 20, "a pause")
        self.assert_problem(answer, 429, "SIGN_IN_THROTTLED")
        self.assertGreaterEqual(int(answer.headers["Retry-After"]), 1)
        self.assert_problem(self.sign_in(next(names), "127.0.0.2"), 401, "SIGN_IN_REFUSED")


class Connections(NodeTest):
    agent = False
    environment = {"HTTP_CONNECTIONS_MAX": "4", "GRPC_CONNECTIONS_MAX": "3", "ETCD_CONNECTIONS_MAX": "2", "GRPC_STREAMS_MAX": "7",
                   "ETCD_STREAMS_MAX": "5", "KV_REQUEST_BYTES_MAX": "10000"}

    def metric(self, name):
        connection = http.client.HTTPConnection(*self.node.context["metrics"].rsplit(":", 1), timeout=30)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    def test_of_rest_are_limited_and_told_so(self):
        self.assertEqual(self.rest.get("version").status, 200)
        others = [self.node.client() for _ in range(3)]
        for rest in others:
            self.addCleanup(rest.close)
            self.assertEqual(rest.get("version").status, 200)
        extra = self.node.client()
        self.addCleanup(extra.close)
        refused = extra.get("version")
        self.assertEqual((refused.status, refused.reason), (503, "CONNECTIONS_EXHAUSTED"), refused)
        self.assertGreaterEqual(int(refused.headers["Retry-After"]), 1)
        self.assertEqual(self.metric("uccp_http_connections_refused_total"), 1)
        self.assertEqual(self.rest.get("version").status, 200, "who is connected stays")
        others[0].close()
        wait_until(lambda: extra.get("version").status == 200, 30, "the place of the one that left")

    def connect(self, door):
        """A TLS connection that speaks HTTP/2 to the door of that name."""
        host, port = self.node.context[door].rsplit(":", 1)
        tls = ssl.create_default_context(cafile=self.node.context["ca"])
        tls.set_alpn_protocols(["h2"])
        connection = tls.wrap_socket(socket.create_connection((host, int(port)), timeout=30), server_hostname=host)
        self.addCleanup(connection.close)
        return connection

    def is_taken(self, door):
        try:
            return self.connect(door)
        except OSError:
            return None

    def test_of_grpc_and_of_etcds_clients_are_limited_and_counted(self):
        for door, most, metric in (("grpc", 3, "uccp_grpc_connections_refused_total "),
                                   ("etcd", 2, 'uccp_grpc_connections_refused_total{door="etcd"}')):
            with self.subTest(door):
                # Those of other cases may not be gone yet.
                held = [wait_until(lambda: self.is_taken(door), 30, "a place") for _ in range(most)]
                before = self.metric(metric)
                with self.assertRaises(OSError):
                    self.connect(door)
                self.assertEqual(self.metric(metric), before + 1)
                held[0].close()
                wait_until(lambda: self.is_taken(door), 30, "the place of the one that left").close()
                for connection in held:
                    connection.close()

    def test_a_connection_is_told_how_many_calls_it_may_make_at_a_time(self):
        for door, most in (("grpc", 7), ("etcd", 5)):
            with self.subTest(door):
                connection = wait_until(lambda: self.is_taken(door), 30, "a place")
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + b"\x04\0" + struct.pack(">I", 0))
                reader = connection.makefile("rb")
                head = reader.read(9)
                self.assertEqual(head[3], 4, "the first frame of a server is SETTINGS")
                body = reader.read(int.from_bytes(head[:3], "big"))
                settings = dict(struct.unpack(">HI", body[at:at + 6]) for at in range(0, len(body), 6))
                self.assertEqual(settings[3], most, "SETTINGS_MAX_CONCURRENT_STREAMS")
                reader.close()
                connection.close()

    @unittest.skipIf(MISSING, MISSING or "")
    def test_a_request_of_etcds_clients_may_be_so_large(self):
        ca = pathlib.Path(self.node.context["ca"]).read_bytes()
        with grpc.secure_channel(self.node.context["etcd"], grpc.ssl_channel_credentials(ca)) as channel:
            client = EtcdClient(channel, self.node.context["token"])
            put = messages()["PutRequest"]
            client.call("KV/Put", put(key=b"large", value=b"x" * 9_000), "PutResponse", timeout=30)
            with self.assertRaises(grpc.RpcError) as refused:
                client.call("KV/Put", put(key=b"large", value=b"x" * 10_001), "PutResponse", timeout=30)
            self.assertEqual((refused.exception.code(), refused.exception.details()),
                             (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large"))


class Configuration(unittest.TestCase):
    def test_no_connections_at_all_is_refused(self):
        require(SERVER)
        for name in ("HTTP_CONNECTIONS_MAX", "GRPC_CONNECTIONS_MAX", "GRPC_STREAMS_MAX", "ETCD_CONNECTIONS_MAX", "ETCD_STREAMS_MAX"):
            with self.subTest(name):
                node = Node(agent=False, environment={name: "0"})
                self.addCleanup(node.close)
                node.launch()
                self.assertNotEqual(node.process.wait(30), 0)
                self.assertIn(f"{name}: '0' of '{name.lower()}' is out of range; it must be 1 to 1000000", node.errors())

    def test_what_is_no_rate_is_refused(self):
        require(SERVER)
        for text in ("principal:write", "tenant:0", "NoSuchMethod:5", "principal:nothing:5", "address:5/x"):
            with self.subTest(text):
                node = Node(agent=False, environment={"RATE_LIMITS": text})
                self.addCleanup(node.close)
                node.launch()
                self.assertNotEqual(node.process.wait(30), 0)
                self.assertIn(text, node.errors())
