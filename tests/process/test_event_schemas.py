# timeout: 120
"""Schemas of topics: what is published follows them, and they change only as their compatibility allows."""
import base64
import json
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import uuid

from lib.uccp import NodeTest, SERVER, require

require(SERVER)

ORDER = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}


class Schemas(NodeTest):
    agent = False

    def topic(self, **fields):
        name = "s." + uuid.uuid4().hex[:8]
        response = self.rest.post("events/topics", {"name": name, **fields})
        self.assertEqual(response.status, 201, response)
        return name

    def read(self, topic):
        with self.rest.stream("events/subscribe",
                              body={"topics": [topic], "start": "EARLIEST", "noFollow": True}) as stream:
            return stream.until(lambda item: "end" in item)

    @staticmethod
    def schema(definition, **fields):
        return {"format": "JSON", "definition": json.dumps(definition), **fields}

    def post(self, topic, value, **fields):
        return self.rest.post("events/publish", {"topic": topic, "events": [{"json": value, **fields}]})

    def test_events_follow_the_schema_of_their_topic(self):
        name = self.topic(schema=self.schema(ORDER))
        self.assertEqual(self.post(name, {"order": 17}).status, 200)
        bad = self.rest.post("events/publish", {"topic": name, "events": [{"json": {"order": 18}}, {"json": {"order": "x"}}]})
        self.assert_problem(bad, 400, "SCHEMA_MISMATCH", "events[1]")
        self.assertIn("'/order' is not of type integer", bad.json["detail"])
        self.assert_problem(self.rest.post("events/publish", {"topic": name, "events": [{"text": "no json"}]}), 400,
                            "SCHEMA_MISMATCH", "events[0]")
        self.assertEqual(self.rest.post("events/publish", {"topic": name, "events": [{"text": '{"order": 19}'}]}).status, 200)
        items = [item["event"] for item in self.read(name) if "event" in item]
        self.assertEqual([event["schemaVersion"] for event in items], [1, 1], "nothing of a refused request was stored")

    def test_a_schema_changes_as_its_compatibility_allows_and_older_versions_are_known(self):
        name = self.topic(schema=self.schema(ORDER))
        optional = {**ORDER, "properties": {**ORDER["properties"], "note": {"type": "string"}}}
        changed = self.rest.call("PATCH", f"events/topics/{name}", {"schema": self.schema(optional)})
        self.assertEqual((changed.status, changed.json["schema"]["version"]), (200, 2), changed)
        needed = {**optional, "required": ["order", "note"]}
        refused = self.rest.call("PATCH", f"events/topics/{name}", {"schema": self.schema(needed)})
        self.assert_problem(refused, 412, "SCHEMA_INCOMPATIBLE", "topic.schema.definition")
        self.assertEqual(self.rest.get(f"events/topics/{name}").json["schema"]["version"], 2)
        forward = self.rest.call("PATCH", f"events/topics/{name}", {"schema": self.schema(needed, compatibility="FORWARD")})
        self.assertEqual((forward.status, forward.json["schema"]["version"]), (200, 3), forward)
        self.assert_problem(self.post(name, {"order": 1}), 400, "SCHEMA_MISMATCH", "events[0]")
        self.assertEqual(self.post(name, {"order": 1}, schemaVersion=1).status, 200)
        self.assert_problem(self.post(name, {"order": 1}, schemaVersion=9), 400, "SCHEMA_VERSION_UNKNOWN",
                            "events[0].schemaVersion")
        self.assertEqual([item["event"]["schemaVersion"] for item in self.read(name) if "event" in item], [1])

    def test_a_transitive_level_looks_at_all_versions_that_are_known(self):
        first = {"properties": {"a": {"type": "string"}}}
        third = {"properties": {"a": {"type": "integer"}}}
        for level in ("BACKWARD", "FORWARD", "FULL"):
            name = self.topic(schema=self.schema(first))
            put = lambda definition, compatibility: self.rest.call(
                "PATCH", f"events/topics/{name}", {"schema": self.schema(definition, compatibility=compatibility)})
            self.assertEqual(put({}, "NONE").status, 200)
            refused = put(third, level + "_TRANSITIVE")
            self.assert_problem(refused, 412, "SCHEMA_INCOMPATIBLE", "topic.schema.definition")
            self.assertIn("version 1", refused.json["detail"])
            allowed = put(third, level)
            self.assertEqual((allowed.status, allowed.json["schema"]["version"]), (200, 3), allowed)

    @staticmethod
    def descriptors(body):
        """A schema of the message t.Order with these fields, as protoc makes it."""
        with tempfile.TemporaryDirectory() as folder:
            proto = pathlib.Path(folder) / "order.proto"
            proto.write_text(f'syntax = "proto2"; package t; message Order {{ {body} }}')
            subprocess.run(["protoc", "-I", folder, "--include_imports", f"--descriptor_set_out={folder}/set", str(proto)],
                           check=True, timeout=60)
            definition = base64.b64encode((pathlib.Path(folder) / "set").read_bytes()).decode()
        return {"format": "PROTOBUF", "definition": definition, "messageType": "t.Order"}

    def post_bytes(self, topic, data):
        return self.rest.post("events/publish", {"topic": topic, "events": [{"data": base64.b64encode(data).decode()}]})

    @unittest.skipUnless(shutil.which("protoc"), "SKIPPED: protoc is not installed")
    def test_messages_of_protobuf_follow_their_descriptors(self):
        name = self.topic(schema=self.descriptors("required int32 order = 1;"))
        self.assertEqual(self.post_bytes(name, b"\x08\x11").status, 200)
        self.assert_problem(self.post_bytes(name, b""), 400, "SCHEMA_MISMATCH", "events[0]")
        self.assert_problem(self.post_bytes(name, b"\xff\xff"), 400, "SCHEMA_MISMATCH", "events[0]")
        more = self.descriptors("required int32 order = 1; optional string note = 2;")
        changed = self.rest.call("PATCH", f"events/topics/{name}", {"schema": more})
        self.assertEqual((changed.status, changed.json["schema"]["version"]), (200, 2), changed)
        self.assertEqual(self.post_bytes(name, b"\x08\x12\x12\x01x").status, 200)
        other = self.descriptors("required string order = 1;")
        self.assert_problem(self.rest.call("PATCH", f"events/topics/{name}", {"schema": other}), 412,
                            "SCHEMA_INCOMPATIBLE", "topic.schema.definition")
        self.assertEqual([item["event"]["schemaVersion"] for item in self.read(name) if "event" in item], [1, 2])

    def test_what_is_no_schema_is_refused_with_its_place(self):
        name = "s." + uuid.uuid4().hex[:8]
        for definition, place in (({"type": "text"}, "'/type'"), ({"properties": {"a": {"pattern": "("}}}, "/properties/a"),
                                  ({"unevaluatedItems": False}, "/unevaluatedItems")):
            refused = self.rest.post("events/topics", {"name": name, "schema": self.schema(definition)})
            self.assert_problem(refused, 400, "SCHEMA_INVALID", "topic.schema.definition")
            self.assertIn(place, refused.json["detail"])
        self.assert_problem(self.rest.post("events/topics", {"name": name, "schema": {"format": "AVRO", "definition": "{}"}}),
                            400, "SCHEMA_INVALID", "topic.schema.definition")
        self.assert_problem(self.rest.post("events/topics", {"name": name, "schema": {
            "format": "PROTOBUF", "definition": "AAAA", "messageType": "a.B"}}), 400, "SCHEMA_INVALID")
        self.assert_problem(self.rest.get(f"events/topics/{name}"), 404, "TOPIC_NOT_FOUND")


if __name__ == "__main__":
    unittest.main()
