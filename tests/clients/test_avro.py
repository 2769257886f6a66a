"""Avro of Apache for Python, beside ours: what it writes is taken, what it cannot read is refused, and of pairs of schemas both
say the same."""
import base64
import io
import json
import random
import unittest
import uuid
import warnings

try:
    import avro.io
    import avro.schema
    from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib.uccp import NodeTest, SERVER, require

require(SERVER)

ORDER = {
    "type": "record", "name": "Order", "namespace": "shop", "fields": [
        {"name": "number", "type": "long"},
        {"name": "lines", "type": {"type": "array", "items": {
            "type": "record", "name": "Line", "fields": [
                {"name": "item", "type": "string"}, {"name": "price", "type": ["null", "double"], "default": None}]}}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "DONE"]}},
        {"name": "more", "type": {"type": "map", "values": "int"}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "next", "type": ["null", "Order"], "default": None}]}
LEAVES = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"]


def encoded(schema, datum):
    out = io.BytesIO()
    avro.io.DatumWriter(schema).write(datum, avro.io.BinaryEncoder(out))
    return out.getvalue()


def order(draw, depth=0):
    lines = [{"item": "".join(draw.choices("aäß€", k=3)), "price": draw.choice([None, 1.5])} for _ in range(draw.randrange(4))]
    return {"number": draw.randrange(-2**63, 2**63), "lines": lines, "state": draw.choice(["OPEN", "DONE"]),
            "more": {f"k{n}": draw.randrange(-2**31, 2**31) for n in range(draw.randrange(3))}, "hash": draw.randbytes(4),
            "next": order(draw, depth + 1) if depth < 3 and draw.random() < 0.5 else None}


def random_type(draw, names, depth=0):
    """A schema as JSON; names are few, so that those of two schemas meet."""
    kind = draw.choice(LEAVES + ["record", "enum", "fixed", "array", "map", "union"] * (depth < 3))
    if kind in LEAVES:
        return kind
    if kind in ("array", "map"):
        return {"type": kind, "items" if kind == "array" else "values": random_type(draw, names, depth + 1)}
    if kind == "union":
        return draw.sample(LEAVES, draw.randrange(1, 4))
    free = [name for name in (f"{kind}A", f"{kind}B") if name not in names]
    if not free:
        return "string"
    name = draw.choice(free)
    names.add(name)
    if kind == "enum":
        symbols = draw.sample(["A", "B", "C"], draw.randrange(1, 4))
        return {"type": "enum", "name": name, "symbols": symbols, **({"default": symbols[0]} if draw.random() < 0.3 else {})}
    if kind == "fixed":
        return {"type": "fixed", "name": name, "size": draw.choice([2, 4])}
    fields = []
    for field in draw.sample(["a", "b", "c"], draw.randrange(3)):
        fields.append({"name": field, "type": random_type(draw, names, depth + 1)})
        if fields[-1]["type"] == "string" and draw.random() < 0.5:
            fields[-1]["default"] = ""
    return {"type": "record", "name": name, "fields": fields}


@unittest.skipIf(MISSING, MISSING or "")
class Avro(NodeTest):
    agent = False

    def topic(self, definition):
        name = "avro." + uuid.uuid4().hex[:8]
        made = self.rest.post("events/topics", {"name": name, "schema": {"format": "AVRO", "definition": json.dumps(definition)}})
        return name, made

    def publish(self, topic, *data):
        events = [{"data": base64.b64encode(one).decode()} for one in data]
        return self.rest.post("events/publish", {"topic": topic, "events": events})

    def test_what_it_writes_is_taken_and_comes_back(self):
        draw = random.Random(17)
        schema = avro.schema.parse(json.dumps(ORDER))
        name, made = self.topic(ORDER)
        self.assertEqual(made.status, 201, made)
        orders = [order(draw) for _ in range(200)]
        self.assertEqual(self.publish(name, *[encoded(schema, one) for one in orders]).status, 200)
        with self.rest.stream("events/subscribe", body={"topics": [name], "start": "EARLIEST", "noFollow": True}) as stream:
            items = [item["event"]["data"] for item in stream.until(lambda item: "end" in item) if "event" in item]
        reader = avro.io.DatumReader(schema, schema)
        read = [reader.read(avro.io.BinaryDecoder(io.BytesIO(base64.b64decode(one)))) for one in items]
        self.assertEqual(read, orders)

    def test_what_is_damaged_is_refused_with_its_place(self):
        name, made = self.topic(ORDER)
        self.assertEqual(made.status, 201, made)
        whole = encoded(avro.schema.parse(json.dumps(ORDER)), order(random.Random(3)))
        for cut in range(len(whole)):
            self.assertEqual(self.publish(name, whole, whole[:cut]).reason, "SCHEMA_MISMATCH", cut)
        refused = self.publish(name, whole + b"x")
        self.assert_problem(refused, 400, "SCHEMA_MISMATCH", "events[0]")
        self.assertIn("1 bytes more", refused.json["detail"])
        text = self.rest.post("events/publish", {"topic": name, "events": [{"text": "x"}]})
        self.assert_problem(text, 400, "SCHEMA_MISMATCH", "events[0]")

    def test_both_agree_which_schema_reads_which(self):
        draw = random.Random(29)
        pairs = {True: 0, False: 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while min(pairs.values()) < 40:
                writer = random_type(draw, set())
                reader = random_type(draw, set()) if draw.random() < 0.5 else changed(draw, writer)
                verdict = ReaderWriterCompatibilityChecker().get_compatibility(avro.schema.parse(json.dumps(reader)),
                                                                               avro.schema.parse(json.dumps(writer)))
                expected = verdict.compatibility is SchemaCompatibilityType.compatible
                if pairs[expected] >= 150:
                    continue
                pairs[expected] += 1
                name, made = self.topic(writer)
                self.assertEqual(made.status, 201, (writer, made))
                answer = self.rest.call("PATCH", f"events/topics/{name}", {"schema": {"format": "AVRO",
                                                                                      "definition": json.dumps(reader)}})
                self.assertEqual(answer.status, 200 if expected else 412, (reader, writer, answer))


def changed(draw, schema):
    """The schema with one small change somewhere."""
    if isinstance(schema, list):
        return schema + [leaf for leaf in LEAVES if leaf not in schema][:1]
    if isinstance(schema, str):
        return draw.choice({"int": ["long", "double"], "long": ["float", "int"], "string": ["bytes"]}.get(schema, [schema]))
    copy = dict(schema)
    if copy["type"] == "record":
        copy["fields"] = [{**field, "type": changed(draw, field["type"])} for field in copy["fields"]]
        copy["fields"].append({"name": "d", "type": "string", **({"default": ""} if draw.random() < 0.7 else {})})
    elif copy["type"] == "array":
        copy["items"] = changed(draw, copy["items"])
    elif copy["type"] == "map":
        copy["values"] = changed(draw, copy["values"])
    elif copy["type"] == "enum":
        copy["symbols"] = ["A", "B", "C"]
    return copy


if __name__ == "__main__":
    unittest.main()
