// Schemas that events of a topic follow: what is published is checked, and what a schema may become.
//
// JSON: the payload is `json`, or `text` or `data` that is JSON. Protobuf: `data` is a message of the type that the
// schema names, out of a descriptor set. Avro: `data` is the binary encoding. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/status.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {

class CompiledSchema {
 public:
  // Errors: invalid SCHEMA_INVALID.
  static Result<std::shared_ptr<const CompiledSchema>> make(const v1::EventSchema& schema);
  virtual ~CompiledSchema() = default;

  // Errors: invalid SCHEMA_MISMATCH.
  virtual Status check(const v1::Event& event) const = 0;
  // Whether what was written by `writer` can be read by this schema. Errors: failed_precondition SCHEMA_INCOMPATIBLE.
  virtual Status reads(const CompiledSchema& writer) const = 0;
};

// Whether `after` may come behind the versions `before`, oldest first, by the compatibility that it asks for: with the
// newest of them, or if that is transitive with all. Errors: failed_precondition SCHEMA_INCOMPATIBLE; invalid
// SCHEMA_INVALID.
Status may_follow(const std::vector<v1::EventSchema>& before, const v1::EventSchema& after);

// Compiled schemas of topics, the newest few.
class SchemaCache {
 public:
  Result<std::shared_ptr<const CompiledSchema>> find(uint64_t topic, const v1::EventSchema& schema);

 private:
  static constexpr size_t kKept = 256;
  std::mutex mutex_;
  std::map<std::pair<uint64_t, int32_t>, std::shared_ptr<const CompiledSchema>> compiled_;
};

}  // namespace uccp::events
