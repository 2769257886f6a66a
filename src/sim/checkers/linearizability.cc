#include "sim/checkers/linearizability.h"

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

namespace uccp::sim {
namespace {

using Kind = RegisterOperation::Kind;

// The value after `op` on `state`, or none if `op` cannot have answered what it did.
std::optional<uint64_t> step(const RegisterOperation& op, uint64_t state) {
  switch (op.kind) {
    case Kind::kPut: return op.value;
    case Kind::kGet:
      if (op.unknown() || op.value == state) return state;
      return std::nullopt;
    case Kind::kCompareAndSet: {
      const bool sets = op.expected == state;
      if (!op.unknown() && sets != op.done) return std::nullopt;
      return sets ? op.value : state;
    }
  }
  return std::nullopt;
}

// Calls and returns in order of time, as a list from which linearized operations are lifted and put back.
class Search {
 public:
  Search(const std::vector<RegisterOperation>& operations, uint64_t steps_max)
      : operations_(operations), steps_max_(steps_max) {
    struct Moment {
      int64_t at;
      bool is_return;
      size_t operation;
      auto operator<=>(const Moment&) const = default;
    };
    std::vector<Moment> moments;
    for (size_t i = 0; i < operations.size(); ++i) {
      moments.push_back({operations[i].called_us, false, i});
      moments.push_back({operations[i].returned_us, true, i});
    }
    // At the same time calls come first: such operations count as concurrent.
    std::ranges::sort(moments);
    nodes_.resize(moments.size() + 1);
    std::vector<size_t> call_of(operations.size());
    for (size_t i = 0; i < moments.size(); ++i) {
      Node& node = nodes_[i + 1];
      node = {.operation = moments[i].operation, .previous = i, .next = i + 2 <= moments.size() ? i + 2 : 0};
      if (moments[i].is_return) nodes_[call_of[moments[i].operation]].match = i + 1;
      else call_of[moments[i].operation] = i + 1;
    }
    nodes_[0].next = moments.empty() ? 0 : 1;
  }

  Linearizability run() {
    size_t left = 0;  // operations that returned and are not linearized yet
    for (const RegisterOperation& op : operations_) left += op.unknown() ? 0 : 1;
    size_t at = nodes_[0].next;
    // Operations of unknown outcome are tried when no other one fits: most of them happened never or are seen at once.
    bool trying_unknown = false;
    for (uint64_t steps = 0; left > 0; ++steps) {
      if (steps > steps_max_) return Linearizability::kTooHard;
      const Node& node = nodes_[at];
      if (node.match != 0) {
        const bool unknown = operations_[node.operation].unknown();
        if (unknown == trying_unknown && take(at)) {
          left -= unknown ? 0 : 1;
          at = nodes_[0].next;
          trying_unknown = false;
        } else {
          at = node.next;
        }
        continue;
      }
      // A return: its operation must come before here, and nothing that was tried can.
      if (!std::exchange(trying_unknown, true)) {
        at = nodes_[0].next;
        continue;
      }
      if (taken_.empty()) return Linearizability::kNo;
      const auto [call, state] = taken_.back();
      taken_.pop_back();
      state_ = state;
      put_back(call);
      trying_unknown = operations_[nodes_[call].operation].unknown();
      left += trying_unknown ? 0 : 1;
      at = nodes_[call].next;
    }
    return Linearizability::kYes;
  }

 private:
  struct Node {
    size_t operation = 0;
    size_t match = 0;  // the return of a call; 0 for a return
    size_t previous = 0;
    size_t next = 0;  // 0: the end
  };

  // Linearizes the operation called at `call` next, unless it cannot be or that was tried in this configuration.
  bool take(size_t call) {
    const size_t operation = nodes_[call].operation;
    const auto state = step(operations_[operation], state_);
    if (!state) return false;
    // One of unknown outcome and without effect may as well never have happened.
    if (operations_[operation].unknown() && *state == state_) return false;
    const uint64_t with = linearized_ ^ mixed(operation);
    if (!visited_.insert(mixed(mixed(with) + *state)).second) return false;
    linearized_ = with;
    taken_.emplace_back(call, state_);
    state_ = *state;
    unlink(call);
    unlink(nodes_[call].match);
    return true;
  }
  void put_back(size_t call) {
    linearized_ ^= mixed(nodes_[call].operation);
    link(nodes_[call].match);
    link(call);
  }
  // The finalizer of splitmix64.
  static uint64_t mixed(uint64_t value) {
    uint64_t z = value + 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  void unlink(size_t at) {
    nodes_[nodes_[at].previous].next = nodes_[at].next;
    if (nodes_[at].next != 0) nodes_[nodes_[at].next].previous = nodes_[at].previous;
  }
  void link(size_t at) {
    nodes_[nodes_[at].previous].next = at;
    if (nodes_[at].next != 0) nodes_[nodes_[at].next].previous = at;
  }

  const std::vector<RegisterOperation>& operations_;
  const uint64_t steps_max_;
  std::vector<Node> nodes_;  // 0 is the head
  uint64_t linearized_ = 0;  // the set of operations, as the sum of their hashes modulo two (Zobrist)
  uint64_t state_ = 0;
  std::vector<std::pair<size_t, uint64_t>> taken_;  // calls with the state before them
  std::unordered_set<uint64_t> visited_;            // hashes of configurations: the set and the state
};

}  // namespace

Linearizability check_linearizable(const std::vector<RegisterOperation>& operations, uint64_t steps_max) {
  return Search(operations, steps_max).run();
}

void LinearizabilityChecker::check(uint64_t steps_max) {
  for (const auto& [key, operations] : history_) {
    const Linearizability verdict = check_linearizable(operations, steps_max);
    undecided_ += verdict == Linearizability::kTooHard ? 1 : 0;
    if (verdict != Linearizability::kNo) continue;
    violations_.add("linearizability", "the history of register " + key + " (" + std::to_string(operations.size()) +
                                           " operations) has no linear order");
  }
}

}  // namespace uccp::sim
