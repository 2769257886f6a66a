// Avro schemas (specification 1.12): what their binary encoding must be, and whether one reads what another has
// written.
//
// A datum is the binary encoding alone, without the header of a file. What the specification leaves open is taken
// strictly: the default of a union field may be of any branch, a name is looked up in its own namespace only, and of
// logical types only `decimal` counts when schemas are resolved. Time and memory are bounded: a schema has at most
// 64 levels, a datum is walked to 128, and work that does not consume bytes ends after 100,000 steps. Immutable once
// made; any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::events {

enum class AvroKind : uint8_t {
  kNull,
  kBoolean,
  kInt,
  kLong,
  kFloat,
  kDouble,
  kBytes,
  kString,
  kRecord,
  kEnum,
  kArray,
  kMap,
  kUnion,
  kFixed,
};
std::string_view avro_kind_name(AvroKind kind);

struct AvroType {
  struct Field {
    std::string name;
    std::vector<std::string> aliases;
    const AvroType* type = nullptr;
    bool has_default = false;
  };

  AvroKind kind = AvroKind::kNull;
  std::string full_name;             // of a record, enum or fixed: "shop.Order"
  std::vector<std::string> aliases;  // full names
  std::vector<Field> fields;         // of a record
  std::vector<std::string> symbols;  // of an enum
  bool has_default = false;          // of an enum
  uint64_t size = 0;                 // of a fixed
  // Items of an array, values of a map, branches of a union.
  std::vector<const AvroType*> inner;
  // Of bytes and fixed that are decimals; precision 0: they are none.
  int32_t precision = 0;
  int32_t scale = 0;

  bool named() const { return kind == AvroKind::kRecord || kind == AvroKind::kEnum || kind == AvroKind::kFixed; }
  std::string_view short_name() const;
  // "record shop.Order", "int".
  std::string shown() const;
};

class AvroSchema {
 public:
  // Errors: invalid SCHEMA_INVALID with the place and what is wrong.
  static Result<std::shared_ptr<const AvroSchema>> parse(const std::string& definition);

  // Whether the bytes are one datum and nothing else. Errors: invalid SCHEMA_MISMATCH.
  Status check(std::string_view datum) const;
  // Whether this schema reads every datum of `writer`. Errors: failed_precondition SCHEMA_INCOMPATIBLE.
  Status reads(const AvroSchema& writer) const;

  const AvroType& root() const { return *root_; }

 private:
  friend class AvroReader;
  AvroSchema() = default;

  std::vector<std::unique_ptr<AvroType>> types_;
  const AvroType* root_ = nullptr;
};

}  // namespace uccp::events
