// Linearizability of single registers: the search of Wing and Gong ("Testing and verifying concurrent objects", 1993)
// with Lowe's memory of visited configurations ("Testing for linearizability", 2017).
//
// A history is cut by key. An operation whose outcome the client never learned may have happened at any time after its
// call, or never: it has no return. A search may take too many steps, mostly for many operations without an outcome;
// such histories are counted, and only OrderChecker decides about them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "sim/checkers/violations.h"

namespace uccp::sim {

struct RegisterOperation {
  enum class Kind : uint8_t { kPut, kGet, kCompareAndSet };
  static constexpr int64_t kNeverReturned = INT64_MAX;

  Kind kind = Kind::kGet;
  uint64_t expected = 0;  // of kCompareAndSet
  uint64_t value = 0;     // put, set, or what kGet answered; 0: the register is empty
  bool done = false;      // kCompareAndSet: it set the value
  int64_t called_us = 0;
  int64_t returned_us = kNeverReturned;

  bool unknown() const { return returned_us == kNeverReturned; }
};

enum class Linearizability : uint8_t { kYes, kNo, kTooHard };
inline constexpr uint64_t kSearchStepsMax = 500'000;
// Of the operations on one register, which is empty at first.
Linearizability check_linearizable(const std::vector<RegisterOperation>& operations,
                                   uint64_t steps_max = kSearchStepsMax);

class LinearizabilityChecker {
 public:
  explicit LinearizabilityChecker(Violations& violations) : violations_(violations) {}

  void add(const std::string& key, const RegisterOperation& operation) { history_[key].push_back(operation); }
  void check(uint64_t steps_max = kSearchStepsMax);
  // Histories that the search did not decide.
  uint64_t undecided() const { return undecided_; }

 private:
  Violations& violations_;
  uint64_t undecided_ = 0;
  std::map<std::string, std::vector<RegisterOperation>> history_;
};

}  // namespace uccp::sim
