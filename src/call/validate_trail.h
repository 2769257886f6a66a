// The way from the outermost message to the value at hand, and the violations found on it. Costs nothing until an
// error asks for its text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "call/plan.h"

namespace uccp::call {

class Trail {
 public:
  explicit Trail(std::string_view prefix = {}) : prefix_(prefix) {}

  void push(const FieldPlan& field) { steps_.push_back({&field, -1, {}, false}); }
  void pop() { steps_.pop_back(); }
  // Position within the field on top. `key` must live until it is replaced or popped.
  void set_index(size_t index) { steps_.back().index = static_cast<int64_t>(index); }
  void set_key(std::string_view key) {
    steps_.back().key = key;
    steps_.back().keyed = true;
  }
  // A step into a Struct or a list within a Value.
  void push_key(std::string_view key) { steps_.push_back({nullptr, -1, key, true}); }
  void push_index(size_t index) { steps_.push_back({nullptr, static_cast<int64_t>(index), {}, false}); }

  // "task.env[\"PATH\"]", "task.inputs[2].path".
  std::string text() const;
  // True if a field on the way is marked `redact`: its value must not be quoted.
  bool redacted() const;

  // Notes a violation; beyond kViolationsMax they are only counted.
  void violate(std::string description, std::string example = {}) {
    violate_at(text(), std::move(description), std::move(example));
  }
  void violate_at(std::string path, std::string description, std::string example = {});
  bool clean() const { return count_ == 0; }
  bool full() const { return count_ >= kViolationsMax; }
  // OK, or invalid FIELD_INVALID with all violations.
  Status status() const;

 private:
  struct Step {
    const FieldPlan* field;
    int64_t index;
    std::string_view key;
    bool keyed;
  };
  std::string prefix_;
  std::vector<Step> steps_;
  std::vector<FieldViolation> violations_;
  size_t count_ = 0;
};

}  // namespace uccp::call
