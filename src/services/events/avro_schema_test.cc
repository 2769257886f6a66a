// Avro: what is a schema, what is a datum of it, and which schema reads which. Data of the tables are as Apache Avro
// 1.12 for Python writes them.
#include "services/events/avro_schema.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::events {
namespace {

std::shared_ptr<const AvroSchema> parse(const std::string& definition) {
  auto schema = AvroSchema::parse(definition);
  EXPECT_TRUE(schema.has_value()) << definition << (schema ? "" : schema.error().to_string());
  return schema ? *schema : nullptr;
}

std::string record(const std::string& fields, const std::string& name = "R") {
  return R"({"type":"record","name":")" + name + R"(","fields":[)" + fields + "]}";
}

std::string of_hex(const std::string& hex) {
  std::string out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    out.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return out;
}

constexpr char kOrder[] = R"({
  "type": "record", "name": "Order", "namespace": "shop", "fields": [
    {"name": "number", "type": "long"},
    {"name": "lines", "type": {"type": "array", "items": {
      "type": "record", "name": "Line", "fields": [
        {"name": "item", "type": "string"}, {"name": "price", "type": ["null", "double"], "default": null}]}}},
    {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "DONE"]}},
    {"name": "more", "type": {"type": "map", "values": "int"}},
    {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 2}},
    {"name": "next", "type": ["null", "Order"]}]})";

TEST(AvroSchema, ReadsWhatTheSpecificationDescribes) {
  for (const char* definition :
       {R"("string")", R"({"type":"int"})", R"(["null","string"])", R"({"type":{"type":"array","items":"long"}})",
        kOrder, R"({"type":"bytes","logicalType":"decimal","precision":4,"scale":2})"}) {
    EXPECT_NE(parse(definition), nullptr);
  }
  EXPECT_EQ(parse(kOrder)->root().fields[1].type->inner.front()->full_name, "shop.Line")
      << "in the namespace around it";
}

TEST(AvroSchema, SaysWhereADefinitionIsWrong) {
  const std::pair<std::string, std::string> cases[] = {
      {"{", "cannot be read"},
      {"7", "'/' is no schema"},
      {R"("Order")", "'/' names the type 'Order'"},
      {R"("record")", "needs an object"},
      {"[]", "a union of nothing"},
      {R"([["null"]])", "'/0' is a union in a union"},
      {R"(["int","int"])", "'/1' is the second int"},
      {R"({"type":"array"})", "has no 'items'"},
      {R"({"type":"enum","name":"E","symbols":["A","A"]})", "'/symbols' has 'A' twice"},
      {R"({"type":"enum","name":"E","symbols":["A"],"default":"B"})", "'/default' is none of the symbols"},
      {R"({"type":"fixed","name":"F","size":-1})", "'/size' is no number of bytes"},
      {R"({"type":"record","name":"1","fields":[]})", "'/name' is no name"},
      {R"({"type":"record","name":"int","fields":[]})", "the name of a type of Avro"},
      {record(R"({"name":"a"})"), "'/fields/0' has no 'type'"},
      {record(R"({"name":"a","type":"int"},{"name":"a","type":"int"})"), "the second field 'a'"},
      {record(R"({"name":"a","type":"int","default":"x"})"), "'/fields/0/default' is no int"},
      {record(R"({"name":"a","type":"int","default":2147483648})"), "'/fields/0/default' is no int"},
      {record(R"({"name":"a","type":)" + record("", "R") + "}"), "defines 'R' a second time"},
  };
  for (const auto& [definition, what] : cases) {
    const auto schema = AvroSchema::parse(definition);
    ASSERT_FALSE(schema.has_value()) << definition;
    EXPECT_EQ(schema.error().reason(), "SCHEMA_INVALID");
    EXPECT_NE(schema.error().message().find(what), std::string_view::npos) << schema.error().message();
  }
  std::string deep = R"("int")";
  for (int i = 0; i < 60; ++i) deep = R"({"type":"array","items":)" + deep + "}";
  EXPECT_TRUE(AvroSchema::parse(deep).has_value());
  for (int i = 0; i < 10; ++i) deep = R"({"type":"array","items":)" + deep + "}";
  EXPECT_FALSE(AvroSchema::parse(deep).has_value());
}

TEST(AvroSchema, WhatCanBeTriedInVeryManyWaysIsGivenUp) {
  // A default that fits none of three records, on each of its levels.
  std::string value = "7";
  for (int i = 0; i < 40; ++i) value = R"({"x":)" + value + "}";
  const auto named = [&](const std::string& name, const std::string& inner) {
    return R"({"type":"record","name":")" + name + R"(","fields":[{"name":"x","type":)" + inner + "}]}";
  };
  const std::string three = named(
      "A", R"(["null","A",)" + named("B", R"(["null","A","B",)" + named("C", R"(["null","A","B","C"])") + "]") + "]");
  const auto schema = AvroSchema::parse(record(R"({"name":"y","type":)" + three + R"(,"default":)" + value + "}"));
  ASSERT_FALSE(schema.has_value());
  EXPECT_NE(schema.error().message().find("'/fields/0/default'"), std::string_view::npos) << schema.error().message();
  // Each record holds the one before: deeper than anybody compares.
  std::string branches = R"({"type":"record","name":"R0","fields":[]})";
  for (int i = 1; i < 700; ++i) {
    branches += R"(,{"type":"record","name":"R)" + std::to_string(i) + R"(","fields":[{"name":"x","type":"R)" +
                std::to_string(i - 1) + R"("}]})";
  }
  const auto deep = parse("[" + branches + "]");
  EXPECT_NE(deep->reads(*deep).message().find("reasonable time"), std::string_view::npos);
}

struct Datum {
  std::string schema;
  std::string hex;
  const char* wrong;  // empty: it is right
};

TEST(AvroSchema, ChecksTheBinaryEncoding) {
  // {"number": 17, "lines": [{"item": "ab", "price": 1.5}], "state": "DONE", "more": {"a": -1}, "hash": "xy",
  //  "next": None}
  const std::string order = "220204616202000000000000f83f00020202610100787900";
  const Datum cases[] = {
      {R"("null")", "", ""},
      {R"("int")", "01", ""},
      {R"("int")", "feffffff0f", ""},
      {R"("int")", "8080808010", "is too large for an int"},
      {R"("long")", "ffffffffffffffffff01", ""},
      {R"("long")", "ffffffffffffffffff02", "is no long"},
      {R"("boolean")", "02", "is no boolean"},
      {R"("double")", "000000000000f8", "is no double"},
      {R"("string")", "04c3a4", ""},
      {R"("string")", "02ff", "is no UTF-8"},
      {R"("bytes")", "02ff", ""},
      {R"("bytes")", "04ff", "ends before its bytes do"},
      {R"("int")", "0202", "1 bytes more"},
      {R"(["null","int"])", "04", "names no branch"},
      {R"({"type":"enum","name":"E","symbols":["A","B"]})", "04", "is no symbol of enum E"},
      {R"({"type":"array","items":"int"})", "040204000000", "2 bytes more"},
      {R"({"type":"array","items":"int"})",
       "03040204"
       "00",
       ""},
      {R"({"type":"array","items":"int"})", "0306020400", "another size"},
      {R"({"type":"array","items":"null"})",
       "808080808080808001"
       "00",
       "takes too long"},
      {kOrder, order, ""},
      {kOrder, "2202", "'/lines/0/item' ends before"},
      {kOrder, "220202ff0000", "'/lines/0/item' is no UTF-8"},
  };
  for (const Datum& one : cases) {
    const Status status = parse(one.schema)->check(of_hex(one.hex));
    SCOPED_TRACE(one.schema + " " + one.hex + " " + status.to_string());
    EXPECT_EQ(status.is_ok(), std::string_view(one.wrong).empty());
    if (status.is_ok()) continue;
    EXPECT_EQ(status.reason(), "SCHEMA_MISMATCH");
    EXPECT_NE(status.message().find(one.wrong), std::string_view::npos);
  }
  // Each order holds the next one.
  std::string deep;
  for (int i = 0; i < 200; ++i) deep += of_hex("02000000787902");
  EXPECT_NE(parse(kOrder)->check(deep).message().find("nested more than 128 deep"), std::string_view::npos);
}

struct Pair {
  std::string reader, writer;
  bool reads;
};

TEST(AvroSchema, IsResolvedAsTheSpecificationSays) {
  const auto enumeration = [](const std::string& symbols, const std::string& more = "") {
    return R"({"type":"enum","name":"E","symbols":[)" + symbols + "]" + more + "}";
  };
  const auto fixed = [](int size) { return R"({"type":"fixed","name":"F","size":)" + std::to_string(size) + "}"; };
  const auto decimal = [](int precision) {
    return R"({"type":"bytes","logicalType":"decimal","precision":)" + std::to_string(precision) + "}";
  };
  const std::string a = R"({"name":"a","type":"int"})";
  const std::string list = record(R"({"name":"next","type":["null","R"]})");
  const Pair cases[] = {
      {R"("long")", R"("int")", true},
      {R"("int")", R"("long")", false},
      {R"("double")", R"("long")", true},
      {R"("float")", R"("double")", false},
      {R"("string")", R"("bytes")", true},
      {R"("bytes")", R"("string")", true},
      {R"("boolean")", R"("int")", false},
      {R"(["null","int"])", R"("int")", true},
      {R"("int")", R"(["null","int"])", false},
      {R"(["null","string","int"])", R"(["int","null"])", true},
      {R"(["null","long"])", R"("int")", true},
      {R"({"type":"array","items":"long"})", R"({"type":"array","items":"int"})", true},
      {R"({"type":"map","values":"int"})", R"({"type":"map","values":"string"})", false},
      {enumeration(R"("A","B")"), enumeration(R"("A")"), true},
      {enumeration(R"("A")"), enumeration(R"("A","B")"), false},
      {enumeration(R"("A")", R"(,"default":"A")"), enumeration(R"("A","B")"), true},
      {fixed(4), fixed(4), true},
      {fixed(4), fixed(8), false},
      {decimal(4), decimal(4), true},
      {decimal(4), decimal(5), false},
      {decimal(4), R"("bytes")", true},
      {record(a), record(a + R"(,{"name":"b","type":"string"})"), true},
      {record(a + R"(,{"name":"b","type":"string"})"), record(a), false},
      {record(a + R"(,{"name":"b","type":"string","default":""})"), record(a), true},
      {record(a, "R"), record(a, "S"), false},
      {record(a, "x.R"), record(a, "y.R"), true},
      {R"({"type":"record","name":"R","aliases":["S"],"fields":[]})", record(a, "S"), true},
      {record(R"({"name":"b","aliases":["a"],"type":"int"})"), record(a), true},
      {record(R"({"name":"a","type":"string"})"), record(a), false},
      {list, list, true},
      {list, record(R"({"name":"next","type":["null","R","int"]})"), false},
  };
  for (const Pair& one : cases) {
    const Status status = parse(one.reader)->reads(*parse(one.writer));
    EXPECT_EQ(status.is_ok(), one.reads) << one.reader << " " << one.writer << " " << status.to_string();
    if (!one.reads) EXPECT_EQ(status.reason(), "SCHEMA_INCOMPATIBLE");
  }
}

}  // namespace
}  // namespace uccp::events
