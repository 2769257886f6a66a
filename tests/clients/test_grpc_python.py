"""Python's grpcio, with nothing of ours: services and messages are learned from the server's reflection."""
import pathlib
import re
import unittest

try:
    import grpc
    from google.protobuf import descriptor_pool, json_format, message_factory
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib import credentials
from lib.ports import port_flags
from lib.uccp import ROOT, Node, NodeTest
from lib.wait import wait_until


@unittest.skipIf(MISSING, MISSING or "")
class GrpcPython(NodeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        context = cls.node.context
        cls.ca = pathlib.Path(context["ca"]).read_bytes()
        tls = grpc.ssl_channel_credentials(cls.ca, pathlib.Path(context["key"]).read_bytes(),
                                           pathlib.Path(context["cert"]).read_bytes())
        cls.channel = grpc.secure_channel(context["grpc"], tls)
        cls.addClassCleanup(cls.channel.close)
        cls.database = ProtoReflectionDescriptorDatabase(cls.channel)
        cls.pool = descriptor_pool.DescriptorPool(cls.database)

    def method(self, service, name):
        return self.pool.FindServiceByName(f"uccp.v1.{service}").FindMethodByName(name)

    def call(self, service, name, request, channel=None, **options):
        """Calls a method with a request given as JSON, and answers JSON, for a stream an iterator of it."""
        method = self.method(service, name)
        message = json_format.ParseDict(request, message_factory.GetMessageClass(method.input_type)())
        answer = message_factory.GetMessageClass(method.output_type)
        channel = channel or self.channel
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        stub = make(f"/uccp.v1.{service}/{name}", request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=answer.FromString)
        result = stub(message, timeout=options.pop("timeout", 30), **options)
        if method.server_streaming:
            return (json_format.MessageToDict(item) for item in result)
        return json_format.MessageToDict(result)

    def error(self, *arguments, **options):
        with self.assertRaises(grpc.RpcError) as caught:
            answer = self.call(*arguments, **options)
            self.fail(f"it was done: {answer if isinstance(answer, dict) else list(answer)}")
        return caught.exception

    def test_reflection_lists_the_services_of_the_contract(self):
        services = set(self.database.get_services())
        contract = {f"uccp.v1.{name}" for file in (ROOT / "api" / "uccp" / "v1").glob("*.proto")
                    for name in re.findall(r"^service (\w+)", file.read_text(), re.M)}
        self.assertGreaterEqual(len(contract), 8)
        self.assertLessEqual(contract, services)
        self.assertFalse([name for name in services if ".internal." in name], "the agents' wire is shown to everybody")
        methods = [m.name for m in self.pool.FindServiceByName("uccp.v1.TaskScheduling").methods]
        self.assertIn("ScheduleTask", methods)

    def test_register_and_discover(self):
        made = self.call("ServiceDiscovery", "Register",
                         {"service": {"serviceName": "py", "address": "10.0.0.9", "port": 9, "ttl": "60s"}})
        self.assertTrue(made["id"].startswith("svc_"))
        self.assertEqual((made["ttl"], made["healthStatus"]), ("60s", "HEALTH_STATUS_HEALTHY"))
        found = self.call("ServiceDiscovery", "Discover", {"name": "py"})["services"]
        self.assertEqual([(s["id"], s["address"], s["port"]) for s in found], [(made["id"], "10.0.0.9", 9)])
        # The same through another door.
        self.assertEqual(self.rest.get(f"services/{made['id']}").json["address"], "10.0.0.9")
        self.call("ServiceDiscovery", "Deregister", {"id": made["id"]})
        self.assertEqual(self.error("ServiceDiscovery", "GetServiceMetadata", {"id": made["id"]}).code(),
                         grpc.StatusCode.NOT_FOUND)

    def test_schedule_a_task_and_follow_its_log(self):
        task = self.call("TaskScheduling", "ScheduleTask",
                         {"task": {"command": ["sh", "-c", "echo one; printf '\\377\\n'; exit 3"]}, "requestId": "py-1"})
        again = self.call("TaskScheduling", "ScheduleTask",
                          {"task": {"command": ["sh", "-c", "echo one; printf '\\377\\n'; exit 3"]}, "requestId": "py-1"})
        self.assertEqual(task["id"], again["id"])
        items = list(self.call("TaskScheduling", "GetTaskLogs", {"id": task["id"], "follow": True}))
        self.assertEqual([(i.get("text"), i.get("base64")) for i in items[:-1]], [("one", None), (None, "/w==")])
        self.assertEqual(items[-1]["end"]["reason"], "STREAM_END_REASON_COMPLETED")
        ended = self.call("TaskScheduling", "GetTaskStatus", {"id": task["id"]})
        self.assertEqual((ended["status"], ended["exitCode"]), ("TASK_STATUS_FAILED", 3))

    def test_a_watch_sees_a_registration(self):
        watch = self.call("ServiceDiscovery", "WatchServices", {"name": "watched-by-py"})
        self.assertEqual(next(watch)["kind"], "SERVICE_EVENT_KIND_SYNCED")
        self.call("ServiceDiscovery", "Register", {"service": {"serviceName": "watched-by-py", "address": "1.1.1.1", "port": 1}})
        event = next(watch)
        self.assertEqual((event["kind"], event["service"]["serviceName"]), ("SERVICE_EVENT_KIND_ADDED", "watched-by-py"))

    def test_an_error_carries_reason_and_field(self):
        error = self.error("ServiceDiscovery", "Register", {"service": {"serviceName": "x", "address": "1.1.1.1", "port": 70000}})
        self.assertEqual(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        details = dict(error.trailing_metadata())["grpc-status-details-bin"]
        for part in (b"google.rpc.ErrorInfo", b"FIELD_INVALID", b"uccp", b"google.rpc.BadRequest", b"service.port"):
            self.assertIn(part, details)
        missing = self.error("TaskScheduling", "GetTaskStatus", {"id": "none"})
        self.assertEqual(missing.code(), grpc.StatusCode.NOT_FOUND)
        self.assertIn(b"TASK_NOT_FOUND", dict(missing.trailing_metadata())["grpc-status-details-bin"])

    def test_a_token_is_enough_and_nothing_is_not(self):
        with grpc.secure_channel(self.node.context["grpc"], grpc.ssl_channel_credentials(self.ca)) as bare:
            refused = self.error("ServiceDiscovery", "ListServices", {}, channel=bare)
            self.assertEqual(refused.code(), grpc.StatusCode.UNAUTHENTICATED)
            token = (("authorization", f"Bearer {self.node.context['token']}"),)
            self.call("ServiceDiscovery", "ListServices", {}, channel=bare, metadata=token)
            viewer = credentials.token(self.node.dir / "pki" / "token.key", roles=["viewer"])
            denied = self.error("ServiceDiscovery", "Register",
                                {"service": {"serviceName": "x", "address": "1.1.1.1", "port": 1}}, channel=bare,
                                metadata=(("authorization", f"Bearer {viewer}"),))
            self.assertEqual(denied.code(), grpc.StatusCode.PERMISSION_DENIED)
            self.assertIn("services.write", denied.details())

    def test_a_deadline_is_kept(self):
        task = self.call("TaskScheduling", "ScheduleTask", {"task": {"command": ["sleep", "1000"]}})
        error = self.error("TaskScheduling", "GetTaskStatus", {"id": task["id"], "wait": "60s"}, timeout=0.5)
        self.assertEqual(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        self.call("TaskScheduling", "CancelTask", {"id": task["id"]})

    def test_an_unknown_method_is_unimplemented(self):
        stub = self.channel.unary_unary("/uccp.v1.TaskScheduling/Nonsense", request_serializer=bytes,
                                        response_deserializer=bytes)
        with self.assertRaises(grpc.RpcError) as caught:
            stub(b"", timeout=30)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_malformed_bytes_are_the_callers_fault(self):
        stub = self.channel.unary_unary("/uccp.v1.ServiceDiscovery/Register", request_serializer=bytes,
                                        response_deserializer=bytes)
        for data in (b"\xff\xff\xff", b"\x0a\x7f", b"\x07"):
            with self.assertRaises(grpc.RpcError) as caught:
                stub(data, timeout=30)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT, data)

    def test_the_standard_health_service_answers(self):
        stub = self.channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes,
                                        response_deserializer=bytes)
        self.assertEqual(stub(b"", timeout=30), b"\x08\x01")  # status: SERVING


@unittest.skipIf(MISSING, MISSING or "")
class GrpcRestart(unittest.TestCase):
    def test_a_channel_finds_the_node_again_on_the_same_port(self):
        node = Node(agent=False, flags=port_flags(), ports="")
        self.addCleanup(node.close)
        node.start()
        tls = grpc.ssl_channel_credentials(pathlib.Path(node.context["ca"]).read_bytes())
        with grpc.secure_channel(node.context["grpc"], tls) as channel:
            stub = channel.unary_unary("/grpc.health.v1.Health/Check", request_serializer=bytes,
                                       response_deserializer=bytes)
            self.assertEqual(stub(b"", timeout=30), b"\x08\x01")
            node.restart()

            def served():
                # The first call may still be given to the broken connection.
                try:
                    return stub(b"", timeout=30, wait_for_ready=True) == b"\x08\x01"
                except grpc.RpcError as error:
                    self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE)
                    return False

            wait_until(served, 30, "an answer over the old channel")
