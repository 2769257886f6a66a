"""The store of secrets through REST, gRPC and the command line: who may, what is kept, and that no value is anywhere else."""
import pathlib
import unittest
import urllib.parse

from lib import credentials
from lib.uccp import NodeTest
from lib.wait import wait_until

try:
    import grpc
    from google.protobuf import descriptor_pool, message_factory
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"


def path(name, verb=""):
    return "secrets/" + urllib.parse.quote(name, safe="") + verb


class SecretsTest(NodeTest):
    agent = False
    feature_level = 2

    def put(self, name, value, client=None, **more):
        response = (client or self.rest).put(path(name), {"value": value, **more})
        self.assertEqual(response.status, 200, response)
        return response.json

    def access(self, name, client=None, **body):
        return (client or self.rest).post(path(name, ":access"), body)

    def as_principal(self, **claims):
        client = self.node.client(token=credentials.token(self.node.dir / "pki" / "token.key", **claims))
        self.addCleanup(client.close)
        return client


class Rest(SecretsTest):
    def test_a_value_is_stored_and_comes_back_by_access_alone(self):
        made = self.put("db/password", "xyzzy-1")
        self.assertEqual((made["name"], made["version"], made["namespace"]), ("db/password", 1, "default"))
        self.put("db/password", "xyzzy-2", labels={"team": "shop"})
        answer = self.access("db/password")
        self.assertEqual((answer.status, answer.json["value"], answer.json["version"]), (200, "xyzzy-2", 2))
        self.assertEqual(self.access("db/password", version=1).json["value"], "xyzzy-1")
        shown, listed = self.rest.get(path("db/password")), self.rest.get("secrets", filter='labels.team = "shop"')
        self.assertEqual([v["version"] for v in shown.json["versions"]], [1, 2])
        self.assertEqual([s["name"] for s in listed.json["secrets"]], ["db/password"])
        for response in (shown, listed):
            self.assertNotIn(b"xyzzy", response.body)

    def test_bytes_come_back_as_they_were(self):
        self.put("binary", {"base64": "/wD+"})
        self.assertEqual(self.access("binary").json["value"], {"base64": "/wD+"})
        self.put("largest", "x" * 65536)
        self.assertEqual(len(self.access("largest").json["value"]), 65536)
        refused = self.rest.put(path("larger"), {"value": "kept-quiet" + "x" * 65536})
        self.assert_problem(refused, 400, "FIELD_INVALID", "value")
        self.assertNotIn(b"kept-quiet", refused.body)

    def test_an_etag_guards_a_change(self):
        fresh = self.rest.put(path("guarded"), {"value": "a"}, headers={"If-Match": '"0"'})
        self.assertEqual(fresh.status, 200, fresh)
        again = self.rest.put(path("guarded"), {"value": "b"}, headers={"If-Match": '"0"'})
        self.assert_problem(again, 412, "ETAG_MISMATCH")
        etag = self.rest.get(path("guarded")).headers["ETag"]
        self.assertEqual(self.rest.put(path("guarded"), {"value": "b"}, headers={"If-Match": etag}).status, 200)
        self.assert_problem(self.rest.call("DELETE", path("guarded"), headers={"If-Match": etag}), 412, "ETAG_MISMATCH")

    def test_a_repeat_is_recognised_and_another_value_under_its_id_is_a_conflict(self):
        headers = {"Idempotency-Key": "put-once"}
        first = self.rest.put(path("once"), {"value": "a"}, headers=headers)
        self.assertEqual(self.rest.put(path("once"), {"value": "a"}, headers=headers).json, first.json)
        self.assert_problem(self.rest.put(path("once"), {"value": "b"}, headers=headers), 409, "REQUEST_ID_REUSED")
        self.assertEqual(self.rest.get(path("once")).json["version"], 1)

    def test_versions_and_secrets_are_deleted(self):
        for value in ("a", "b"):
            self.put("gone", value)
        self.assert_problem(self.rest.delete(path("gone"), {"version": 2}), 412, "SECRET_VERSION_NEWEST")
        self.assertEqual(self.rest.delete(path("gone"), {"version": 1}).status, 204)
        self.assert_problem(self.access("gone", version=1), 404, "SECRET_VERSION_NOT_FOUND")
        self.assertEqual(self.rest.delete(path("gone")).status, 204)
        self.assert_problem(self.access("gone"), 404, "SECRET_NOT_FOUND")
        self.assert_problem(self.rest.get(path("gone")), 404, "SECRET_NOT_FOUND")

    def test_a_rotation_of_the_keys_leaves_the_values(self):
        self.put("kept", "one")
        before = self.rest.get(path("kept")).json["versions"][0]["keyId"]
        rotated = self.rest.post("secrets:rotateKeys", {})
        self.assertEqual(rotated.status, 200, rotated)
        self.assertGreaterEqual(rotated.json["rewrapped"], 1)
        after = self.rest.get(path("kept")).json["versions"][0]["keyId"]
        self.assertEqual(after, rotated.json["keyId"])
        self.assertNotEqual(after, before)
        self.assertEqual(self.access("kept").json["value"], "one")


class Permissions(SecretsTest):
    def test_reading_about_a_secret_is_not_reading_it(self):
        self.put("guarded", "xyzzy")
        viewer = self.as_principal(roles=["viewer"], sub="vera")
        self.assertEqual(viewer.get(path("guarded")).status, 200)
        self.assertEqual(viewer.get("secrets").status, 200)
        for response in (self.access("guarded", viewer), viewer.put(path("guarded"), {"value": "b"}), viewer.delete(path("guarded")),
                         viewer.post("secrets:rotateKeys", {})):
            self.assert_problem(response, 403, "PERMISSION_DENIED")
            self.assertNotIn(b"xyzzy", response.body)
        for role in ("developer", "operator"):
            self.assert_problem(self.access("guarded", self.as_principal(roles=[role], sub="dora")), 403, "PERMISSION_DENIED")

    def test_a_role_for_one_secret(self):
        self.put("app/one", "1")
        self.put("app/two", "2")
        made = self.rest.post("roles", {"name": "reader-of-secrets", "permissions": ["secrets.access"]})
        self.assertEqual(made.status, 201, made)
        bound = self.rest.post("bindings", {"role": "reader-of-secrets", "members": ["sam"], "resources": ["app/one"]})
        self.assertEqual(bound.status, 201, bound)
        sam = self.as_principal(roles=[], sub="sam")
        self.assertEqual(self.access("app/one", sam).json["value"], "1")
        self.assert_problem(self.access("app/two", sam), 403, "PERMISSION_DENIED")
        self.assert_problem(sam.put(path("app/one"), {"value": "x"}), 403, "PERMISSION_DENIED")

    def test_namespaces_and_tenants_do_not_see_each_other(self):
        self.put("shared-name", "of-blue", namespace="blue")
        self.assert_problem(self.access("shared-name"), 404, "SECRET_NOT_FOUND")
        self.assertEqual(self.access("shared-name", namespace="blue").json["value"], "of-blue")
        red = self.as_principal(namespaces=["red"], sub="rob")
        self.assert_problem(self.access("shared-name", red, namespace="blue"), 403)
        rival = self.as_principal(tenant="rival", sub="admin")
        for namespace in ("blue", "default"):
            self.assert_problem(self.access("shared-name", rival, namespace=namespace), 404, "SECRET_NOT_FOUND")
        self.assertEqual(rival.get("secrets", namespace="blue").json.get("secrets", []), [])
        self.put("shared-name", "of-rival", rival, namespace="blue")
        self.assertEqual(self.access("shared-name", namespace="blue").json["value"], "of-blue")
        self.assert_problem(rival.post("secrets:rotateKeys", {}), 403)


class Records(SecretsTest):
    def test_each_access_and_change_is_on_record_without_its_value(self):
        self.put("seen", "xyzzy-of-the-record")
        self.access("seen")
        self.access("missing")
        self.rest.delete(path("seen"))
        records = self.rest.get("audit", filter='resource = "seen" OR resource = "missing"').json["records"]
        told = [(r["method"].split("/")[1], r["resource"], r["outcome"]) for r in reversed(records)]
        self.assertEqual(told, [("PutSecret", "seen", "ok"), ("AccessSecret", "seen", "ok"),
                                ("AccessSecret", "missing", "SECRET_NOT_FOUND"), ("DeleteSecret", "seen", "ok")])
        self.assertTrue(all(r["principal"] == "admin" for r in records))
        self.assertNotIn("xyzzy", str(records))

    def test_no_value_is_in_the_data_directory(self):
        value = "a-value-that-nobody-writes-down"
        self.put("hidden", value)
        self.put("hidden", value + "-2")
        self.access("hidden")
        self.rest.post("secrets:rotateKeys", {})
        # A restart flushes the state and reads the log again.
        self.node.stop()
        self.node.start()
        self.assertEqual(self.access("hidden", version=1).json["value"], value)
        found = 0
        for file in self.node.dir.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                found += b"hidden" in content
                self.assertNotIn(value.encode(), content, file)
        self.assertGreater(found, 0, "not even the name is stored: the test looks at nothing")


class Limits(SecretsTest):
    flags = ("--secrets-max", "2", "--secret-versions-max", "2")

    def test_a_namespace_has_so_many_and_a_secret_so_many_versions(self):
        for value in ("1", "2", "3"):
            self.put("a", value)
        self.assertEqual([v["version"] for v in self.rest.get(path("a")).json["versions"]], [2, 3])
        self.assert_problem(self.access("a", version=1), 404, "SECRET_VERSION_NOT_FOUND")
        self.put("b", "1")
        self.assert_problem(self.rest.put(path("c"), {"value": "1"}), 429, "SECRETS_EXHAUSTED")
        self.put("c", "1", namespace="other")


class CommandLine(SecretsTest):
    def run_cli(self, *arguments, stdin=b"", code=0):
        done = self.node.cli(*arguments, stdin=stdin)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout

    def test_put_get_list_access_rotate_delete(self):
        # Asked for, so that it is in no list of processes.
        self.run_cli("secret", "put", "cli/one", stdin=b"typed in\n")
        self.assertEqual(self.run_cli("secret", "access", "cli/one"), b"typed in")
        file = pathlib.Path(self.node.base / "value")
        file.write_bytes(b"\0\xff of a file\n")
        self.run_cli("secret", "put", "cli/one", f"@{file}")
        self.assertEqual(self.run_cli("secret", "access", "cli/one"), b"\0\xff of a file\n")
        self.assertEqual(self.run_cli("secret", "access", "cli/one", "--version", "1"), b"typed in")
        self.run_cli("secret", "put", "cli/two", "@-", stdin=b"piped")
        self.assertIn(b'"value":"piped"', self.run_cli("secret", "access", "cli/two", "-o", "json").replace(b" ", b""))
        listed = self.run_cli("secret", "list")
        self.assertRegex(listed.decode(), r"cli/one +2 ")
        self.assertNotIn(b"piped", listed + self.run_cli("secret", "get", "cli/two"))
        self.assertIn(b"rewrapped", self.run_cli("secret", "rotate-keys"))
        self.assertEqual(self.run_cli("secret", "access", "cli/two"), b"piped")
        self.run_cli("secret", "delete", "cli/two")
        self.run_cli("secret", "access", "cli/two", code=3)


@unittest.skipIf(MISSING, MISSING or "")
class Grpc(SecretsTest):
    def test_put_access_and_refusal(self):
        context = self.node.context
        parts = (pathlib.Path(context[k]).read_bytes() for k in ("ca", "key", "cert"))
        with grpc.secure_channel(context["grpc"], grpc.ssl_channel_credentials(*parts)) as channel:
            pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            service = pool.FindServiceByName("uccp.v1.Secrets")

            def ask(rpc, **fields):
                method = service.FindMethodByName(rpc)
                request = message_factory.GetMessageClass(method.input_type)(**fields)
                answer = message_factory.GetMessageClass(method.output_type)
                return channel.unary_unary(f"/uccp.v1.Secrets/{rpc}", request_serializer=lambda m: m.SerializeToString(),
                                           response_deserializer=answer.FromString)(request, timeout=20)

            self.assertEqual(ask("PutSecret", name="by/grpc", value=b"\0\1\2").version, 1)
            self.assertEqual(ask("AccessSecret", name="by/grpc").value, b"\0\1\2")
            self.assertEqual([s.name for s in ask("ListSecrets").secrets], ["by/grpc"])
            self.assertEqual(self.access("by/grpc").json["value"], "\0\1\2")
            with self.assertRaises(grpc.RpcError) as raised:
                ask("AccessSecret", name="by/nobody")
            self.assertEqual(raised.exception.code(), grpc.StatusCode.NOT_FOUND)


