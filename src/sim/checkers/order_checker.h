// Strict serializability by replay: the order of the log is an order of all operations, on any number of keys, that
// what they answered follows from (see ValueChecker); it is the one that clients saw if an operation that was called
// after another had returned comes later in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class OrderChecker {
 public:
  struct Operation {
    int64_t called_us = 0;
    int64_t returned_us = 0;
    LogIndex index;  // of the change, or of the state that was read
    bool changes = false;
  };

  explicit OrderChecker(Violations& violations) : violations_(violations) {}

  void add(const Operation& operation) { operations_.push_back(operation); }
  void check() {
    std::ranges::sort(operations_, {}, &Operation::called_us);
    std::vector<const Operation*> by_return;
    for (const Operation& operation : operations_) by_return.push_back(&operation);
    std::ranges::sort(by_return, {}, &Operation::returned_us);
    auto returned = by_return.begin();
    const Operation* latest = nullptr;  // in the log, of those that returned
    for (const Operation& operation : operations_) {
      for (; returned != by_return.end() && (*returned)->returned_us < operation.called_us; ++returned) {
        if (latest == nullptr || latest->index < (*returned)->index) latest = *returned;
      }
      if (latest == nullptr || operation.index > latest->index) continue;
      if (!operation.changes && operation.index == latest->index) continue;
      violations_.add("order", std::string(operation.changes ? "a change" : "a read") + " called at " +
                                   std::to_string(operation.called_us) + " us has index " +
                                   std::to_string(operation.index.value) + "; index " +
                                   std::to_string(latest->index.value) + " was seen at " +
                                   std::to_string(latest->returned_us) + " us");
    }
  }

 private:
  Violations& violations_;
  std::vector<Operation> operations_;
};

}  // namespace uccp::sim
