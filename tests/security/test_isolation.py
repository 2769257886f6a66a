"""One tenant tries every method of the contract on another tenant's resources, through every door.

The requests are made from the contract, learned from the server: each text field is set to each name and id of the
other tenant, and each field `tenant` to its name. Nothing that the other tenant keeps may come back, and nothing of it
may change.
"""
import pathlib
import socket
import struct
import unittest

try:
    import grpc
    from google.protobuf import descriptor_pool, json_format, message_factory
    from google.protobuf.descriptor import FieldDescriptor
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib.tenants import SECRET, TwoTenants
from lib.wait import wait_until

DEPTH = 3


@unittest.skipIf(MISSING, MISSING or "")
class Isolation(TwoTenants):
    agent = False
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        context = cls.node.context
        cls.fill()
        tls = grpc.ssl_channel_credentials(pathlib.Path(context["ca"]).read_bytes())
        cls.channel = grpc.secure_channel(context["grpc"], tls)
        cls.addClassCleanup(cls.channel.close)
        certified = grpc.ssl_channel_credentials(*(pathlib.Path(context[k]).read_bytes() for k in ("ca", "key", "cert")))
        with grpc.secure_channel(context["grpc"], certified) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = descriptor_pool.DescriptorPool(database)
            names = [name for name in database.get_services() if name.startswith("uccp.v1.")]
            cls.methods = [method for name in sorted(names) for method in pool.FindServiceByName(name).methods]

    @classmethod
    def fill(cls):
        """One of everything for the victim; `names` are the words by which others could ask for it."""
        v, must = cls.victim, cls.must
        service = must(v.post("services", {"serviceName": "victim-web", "address": "10.9.9.9", "port": 9, "ttl": "3600s",
                                           "metadata": {"note": SECRET}}))
        task = must(v.post("tasks", {"name": "victim-task", "command": ["sleep", "1"], "env": {"NOTE": SECRET}}))
        lock = must(v.post("locks", {"name": "victim-lock", "ttl": "3600s", "owner": SECRET}))
        must(v.post("elections", {"group": "victim-election", "candidate": {"id": "victim-c", "address": SECRET}, "ttl": "3600s"}))
        must(v.post("latches", {"name": "victim-latch", "count": 2, "ttl": "3600s"}))
        must(v.post("users", {"name": "victim-user", "displayName": SECRET}))
        must(v.post("roles", {"name": "victim-role", "permissions": ["tasks.read"], "description": SECRET}))
        binding = must(v.post("bindings", {"role": "victim-role", "members": ["victim-user"]}))
        must(v.call("PUT", "policies/victim-policy", {"text": "forbid (principal == \"nobody\", action, resource);",
                                                      "description": SECRET}))
        must(v.put("secrets/victim-secret", {"value": SECRET, "labels": {"team": "victims"}}))
        must(v.put("kv/victim-key", {"value": SECRET}))
        must(v.post("events/topics", {"name": "victim-topic", "annotations": {"note": SECRET}}))
        must(v.post("quotas", {"scope": "USER", "subject": "victim-user", "hard": {"cpu": 4}}))
        must(v.post("functions", {"name": "victim-function", "runtime": "python3.11", "entryPoint": "m:f", "source": "ZGVmIGYoKTogcGFzcwo=",
                                  "description": SECRET}))
        key = must(v.post("apikeys", {"principal": "victim-user", "displayName": SECRET}))
        cls.names = ["victim", "victim-web", service["id"], "victim-task", task["id"], "victim-lock", lock["leaseId"],
                     "victim-election", "victim-latch", "victim-user", "victim-role", binding["id"], "victim-policy",
                     "victim-secret", "victim-key", "victim-topic", "victim-function", key["apiKey"]["id"]]
        cls.before = cls.state()

    @classmethod
    def state(cls):
        """All that the victim has, as it sees it."""
        paths = ["services", "tasks", "locks", "elections", "users", "roles", "bindings", "policies", "apikeys", "secrets", "kv/victim-key",
                 "events/topics", "quotas", "functions"]
        out = {}
        for path in paths:
            document = cls.must(cls.victim.get(path))
            out[path] = cls.still(document)
        return out

    @classmethod
    def still(cls, value):
        """Without what moves by itself."""
        if isinstance(value, dict):
            moving = ("lastSeen", "lastHeartbeatTime", "expireTime", "revision", "renewTime", "waitTime", "queuePosition",
                      "statusReason", "nextPageToken", "lastSignInTime", "serverTime", "holdTime", "age")
            return {k: cls.still(v) for k, v in value.items() if k not in moving}
        return [cls.still(v) for v in value] if isinstance(value, list) else value

    def fill_message(self, message, name, depth=0):
        for field in message.DESCRIPTOR.fields:
            repeated = getattr(field, "is_repeated", None)
            repeated = field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else repeated
            if field.message_type is not None and field.message_type.GetOptions().map_entry:
                continue
            if field.type == FieldDescriptor.TYPE_STRING:
                # The namespace stays one's own: it is no way to another tenant either.
                if field.name in ("namespace", "request_id", "page_token", "order_by", "filter", "if_match", "since", "labels"):
                    continue
                if field.containing_oneof is not None and message.WhichOneof(field.containing_oneof.name):
                    continue
                if repeated:
                    getattr(message, field.name).append(name)
                else:
                    setattr(message, field.name, "victim" if field.name == "tenant" else name)
            elif field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) and not repeated:
                if field.name in ("port", "count", "parties", "permits", "capacity"):
                    setattr(message, field.name, 1)
            elif field.type == FieldDescriptor.TYPE_MESSAGE and depth < DEPTH and not repeated:
                full = field.message_type.full_name
                if full.startswith("uccp.v1."):
                    self.fill_message(getattr(message, field.name), name, depth + 1)
                elif field.name == "wait_timeout":
                    # Nobody is waited for.
                    getattr(message, field.name).SetInParent()
                elif full == "google.protobuf.Duration" and field.name in ("ttl", "timeout"):
                    getattr(message, field.name).seconds = 60

    def requests(self):
        for method in self.methods:
            # SignOut is about the caller alone, and would end this test.
            if method.client_streaming or method.name == "SignOut":
                continue
            # What goes on by itself is waited for; a few names tell as much.
            for name in self.names[:3] if self.goes_on(method) else self.names:
                message = message_factory.GetMessageClass(method.input_type)()
                self.fill_message(message, name)
                yield method, message
                # The same without a word about the tenant.
                if "tenant" in method.input_type.fields_by_name and method.input_type.fields_by_name["tenant"].message_type is None:
                    other = message_factory.GetMessageClass(method.input_type)()
                    other.CopyFrom(message)
                    other.ClearField("tenant")
                    yield method, other

    @staticmethod
    def goes_on(method):
        return method.server_streaming or method.name.startswith("Wait")

    def assert_unharmed(self, door, tried, succeeded):
        self.assertGreater(tried, 1000, "the contract was not walked")
        # Without any success the calls could all have been malformed.
        self.assertGreater(len(succeeded), 15, f"{door}: only {sorted(succeeded)} were well-formed")
        self.assertEqual(self.state(), self.before)
        self.must(self.victim.get("whoami"))

    def test_by_grpc(self):
        tried, succeeded = 0, set()
        metadata = (("authorization", f"Bearer {self.rival.token}"),)
        for method, message in self.requests():
            make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
            stub = make(f"/{method.containing_service.full_name}/{method.name}", request_serializer=lambda m: m.SerializeToString(),
                        response_deserializer=lambda data: data)
            tried += 1
            try:
                answer = stub(message, timeout=0.2 if self.goes_on(method) else 5, metadata=metadata)
                data = b"".join(answer) if method.server_streaming else answer
                succeeded.add(method.name)
            except grpc.RpcError as error:
                data = (error.details() or "").encode() + b"".join(
                    v if isinstance(v, bytes) else v.encode() for _, v in error.trailing_metadata() or ())
            self.assertNotIn(SECRET.encode(), data, f"{method.name} {json_format.MessageToJson(message)}")
        self.assert_unharmed("gRPC", tried, succeeded)

    def test_by_rest(self):
        tried, succeeded = 0, set()
        for method, message in self.requests():
            if self.goes_on(method):
                continue
            tried += 1
            response = self.rival.call("POST", f"/{method.containing_service.full_name}/{method.name}",
                                       json_format.MessageToDict(message))
            if response.status >= 500:
                # 501: not built. 504: a lock that the rival itself holds, and that nobody waits for.
                self.assertIn(response.status, (501, 504), response)
            if response.status < 300:
                succeeded.add(method.name)
            self.assertNotIn(SECRET.encode(), response.body, f"{method.name} {json_format.MessageToJson(message)}")
        self.assert_unharmed("REST", tried, succeeded)

    def test_by_dns(self):
        # The door asks as the operators' tenant: it knows nothing of others.
        host, port = self.node.context["dns"].rsplit(":", 1)

        def answers(name, kind=255):
            question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0" + struct.pack(">HH", kind, 1)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.settimeout(30)
                client.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + question, (host, int(port)))
                return struct.unpack(">HHHHHH", client.recv(4096)[:12])[3]

        made = self.must(self.admin.post("services", {"serviceName": "own-web", "address": "10.1.1.1", "port": 1, "ttl": "3600s"}))
        wait_until(lambda: answers("own-web.service.uccp", 1) == 1, 30, "its own service")
        for name in ("victim-web.service.uccp", "victim-web.victim.service.uccp", "victim-web.default.service.uccp"):
            for kind in (1, 33, 16):
                self.assertEqual(answers(name, kind), 0, (name, kind))
        self.must(self.admin.delete(f"services/{made['id']}"))

    def test_by_the_paths_of_rest(self):
        for path in ("services/{}", "tasks/{}", "tasks/{}/logs", "locks/{}", "elections/{}", "users/{}", "roles/{}", "bindings/{}",
                     "policies/{}", "apikeys/{}", "tenants/{}", "services/discover?name={}&health=any"):
            for name in self.names:
                for method in ("GET", "DELETE"):
                    response = self.rival.call(method, path.format(name))
                    self.assertNotIn(SECRET.encode(), response.body, f"{method} {path} {name}")
        # Neither by a tenant in a query, a header, a batch, nor by ways around the path.
        for path in ("users?tenant=victim", "users/victim-user?tenant=victim", "bindings?tenant=victim", "apikeys?tenant=victim"):
            self.assert_problem(self.rival.get(path), 403, "TENANT_DENIED")
        for path in ("users/..%2f..%2fvictim-user", "users/%2e%2e/victim-user", "users/victim-user%00", "//api/v1/users/victim-user"):
            self.assertNotIn(SECRET.encode(), self.rival.call("GET", path).body, path)
        headers = {"X-Tenant": "victim", "Uccp-Tenant": "victim", "X-Forwarded-User": "victim-admin"}
        self.assertNotIn(SECRET.encode(), self.rival.call("GET", "users", headers=headers).body)
        batch = self.rival.post("batch", {"requests": [{"method": "GET", "path": "/api/v1/users?tenant=victim"},
                                                       {"method": "GET", "path": "/api/v1/users/victim-user"}]})
        self.assertNotIn(SECRET.encode(), batch.body)
        self.assertEqual(self.state(), self.before)
