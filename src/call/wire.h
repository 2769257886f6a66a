// Reading and changing serialized protobuf messages without parsing them into objects.
//
// Merge rule used throughout: of a singular scalar the last occurrence counts, occurrences of a singular message are
// merged (their bytes concatenated), of a oneof the last member counts. Appending a field therefore sets it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/plan.h"

namespace uccp::call {

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;      // varint and fixed types
  std::string_view bytes;  // kBytes
};

// Walks the fields of one message. Groups and malformed bytes end the walk with ok() false.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : p_(bytes.data()), end_(bytes.data() + bytes.size()) {}
  // False at the end and on malformed bytes.
  bool next(WireField& field);
  bool ok() const { return ok_; }
  // For the values of a packed field.
  bool next_varint(uint64_t& value);
  bool next_fixed32(uint64_t& value);
  bool next_fixed64(uint64_t& value);
  bool at_end() const { return p_ == end_; }

 private:
  bool fail() {
    ok_ = false;
    return false;
  }
  const char* p_;
  const char* end_;
  bool ok_ = true;
};

void put_varint(std::string& out, uint64_t value);
void put_tag(std::string& out, uint32_t number, WireType type);
void put_fixed32(std::string& out, uint32_t value);
void put_fixed64(std::string& out, uint64_t value);
void put_bytes(std::string& out, uint32_t number, std::string_view value);  // string, bytes, message
void put_uint(std::string& out, uint32_t number, uint64_t value);           // varint kinds
// Bytes that put_bytes() and put_uint() append.
size_t bytes_size(uint32_t number, size_t value_bytes);
size_t uint_size(uint32_t number, uint64_t value);
// A length-delimited field whose content is appended between begin and end. Nests.
size_t begin_bytes(std::string& out, uint32_t number);
void end_bytes(std::string& out, size_t mark);

// A compiled path through singular messages to a field, such as "task.namespace". Names may be proto or JSON names.
class FieldPath {
 public:
  FieldPath() = default;
  // Errors: invalid FIELD_INVALID if a name is unknown, or a step before the last is not a singular message.
  static Result<FieldPath> compile(const MessagePlan& root, std::string_view path);

  bool empty() const { return steps_.empty(); }
  const FieldPlan& leaf() const { return *steps_.back(); }
  std::span<const FieldPlan* const> steps() const { return steps_; }
  std::string text() const;  // "task.createTime"
  // The message type that the step is a field of.
  const MessagePlan& owner(size_t step) const { return *owners_[step]; }

 private:
  std::vector<const FieldPlan*> steps_;
  std::vector<const MessagePlan*> owners_;  // the message that each step is a field of
};

// The value of a singular string or bytes field; nullopt if absent. The view points into `message`.
std::optional<std::string_view> get_string(const FieldPath& path, std::string_view message);
// The raw varint or fixed bits of a singular field (bool, integers, enum; zigzag undone); nullopt if absent.
std::optional<uint64_t> get_uint(const FieldPath& path, std::string_view message);
// Any singular scalar as text: strings as they are, numbers in decimal, enums by JSON name. Nullopt if absent.
std::optional<std::string> get_text(const FieldPath& path, std::string_view message);
// The bytes of a singular message field, merged; nullopt if absent.
std::optional<std::string> get_message(const FieldPath& path, std::string_view message);
// All items of a repeated string or message field.
std::vector<std::string_view> get_items(const FieldPath& path, std::string_view message);
// True if the field occurs at all, even with its zero value.
bool has_field(const FieldPath& path, std::string_view message);
// Sets a string or bytes field (replaces; of a repeated one: adds) by appending to `message`.
void set_string(const FieldPath& path, std::string& message, std::string_view value);
void set_uint(const FieldPath& path, std::string& message, uint64_t value);
// Appends already encoded fields of the message that holds the leaf: `fields` goes where the leaf lives.
void append_at(const FieldPath& path, std::string& message, std::string_view fields);

// A set of field paths as a tree; repeated fields and maps are passed through ("services.id", "task.inputs.data").
class FieldTree {
 public:
  FieldTree() = default;
  // Paths as in a FieldMask, proto or JSON names, "*" for all. A path below a map or a Struct names the whole field.
  // Errors: invalid FIELD_INVALID naming the unknown field.
  static Result<FieldTree> compile(const MessagePlan& root, std::span<const std::string> paths);

  bool empty() const { return nodes_.empty(); }

  struct Node {
    const FieldPlan* field = nullptr;
    bool whole = false;              // the field with everything below
    std::vector<uint32_t> children;  // in nodes_
  };
  // The child of `node` for `field`; nullptr: not in the set. node == nullptr: the root.
  const Node* child(const Node* node, const FieldPlan& field) const;

 private:
  std::vector<Node> nodes_;
  std::vector<uint32_t> roots_;
  bool all_ = false;
};

// A copy of `message` with only the fields in `tree`; unknown fields are dropped. Errors: invalid WIRE_INVALID.
Result<std::string> project(const MessagePlan& plan, std::string_view message, const FieldTree& tree);

// The fields of one message in ascending order, merged by the rule above; for walkers. Reused across messages.
struct WireEntry {
  const FieldPlan* field = nullptr;  // null: unknown field number, kept only on request
  WireField value;
  uint32_t order = 0;  // position in the message
};
enum class UnknownFields : uint8_t { kSkip, kKeep };
// Appends the entries of `message` to `out`. A known field with the wrong wire type makes it fail. Singular scalars
// are already reduced to the last one; several entries of a singular message remain and are merged by the caller
// (merged_message). Returns false on malformed bytes.
bool scan_message(const MessagePlan& plan, std::string_view message, UnknownFields unknown,
                  std::vector<WireEntry>& out);
// The bytes of the singular message at out[at], whose entries end before `end`: a view of the one occurrence, or the
// concatenation of several, kept in `storage`. Moves `at` to the last of them.
std::string_view merged_message(const std::vector<WireEntry>& entries, size_t& at, size_t end, std::string& storage);

}  // namespace uccp::call
