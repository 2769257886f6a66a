// A machine with the state of one domain and no raft, for tests: applies commands, lets leases end as time goes on, and
// checks the digest after every command.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "machine/machine.h"
#include "storage/memory/memory_kv.h"

namespace uccp::machine {

inline const Scope kLabScope{"t", "n"};

template <typename State>
class MachineLab {
 public:
  MachineLab() : machine_(kCoreGroup, kv_, {&state_}) { EXPECT_TRUE(machine_.open().is_ok()); }

  ApplyResult apply(std::string command, std::string payload, std::string request_id = "", Scope scope = kLabScope) {
    Envelope e;
    e.scope = command == kExpireCommand ? Scope() : std::move(scope);
    e.principal = "p";
    e.method = "m";
    e.feature_level = feature_level;
    e.command = std::move(command);
    e.dedup.request_id = std::move(request_id);
    e.boot = {now_ms_ * 1000};
    e.wall = {1'700'000'000'000'000 + now_ms_ * 1000};
    e.payload = std::move(payload);
    const Entry entry{Term(1), machine_.applied().next(), EntryKind::kCommand, encode_envelope(e)};
    auto batch = machine_.apply({&entry, 1});
    EXPECT_TRUE(batch.has_value());
    if (checked) EXPECT_TRUE(machine_.verify_digest().is_ok());
    for (const auto& change : batch->leases) {
      if (change.ttl_ms < 0) deadlines_.erase(change.lease);
      else deadlines_[change.lease] = {now_ms_ + change.ttl_ms, change.generation};
    }
    changes.insert(changes.end(), batch->changes.begin(), batch->changes.end());
    last_ = std::move(*batch);
    return last_.results[0].result;
  }
  ApplyResult expire(LeaseId lease, uint64_t generation) {
    return apply(kExpireCommand, encode_expire(lease, generation, Term(1)));
  }

  // Leases end in the order of their deadlines, each at its time.
  void advance(int64_t ms) {
    const int64_t until = now_ms_ + ms;
    while (true) {
      auto due = deadlines_.end();
      for (auto it = deadlines_.begin(); it != deadlines_.end(); ++it) {
        if (it->second.at_ms <= until && (due == deadlines_.end() || it->second.at_ms < due->second.at_ms)) due = it;
      }
      if (due == deadlines_.end()) break;
      now_ms_ = due->second.at_ms;
      const auto [lease, deadline] = *due;
      deadlines_.erase(due);
      EXPECT_TRUE(expire(lease, deadline.generation).has_value());
    }
    now_ms_ = until;
  }

  GroupView view() const { return machine_.view(); }
  const Machine& machine() const { return machine_; }
  int64_t now_ms() const { return now_ms_; }
  size_t leases() const { return deadlines_.size(); }
  bool has_deadline(LeaseId lease) const { return deadlines_.contains(lease); }
  // What the last command resulted in.
  const AppliedBatch& last() const { return last_; }

  bool checked = true;  // false where a test applies so much that looking at all of the state each time would take long
  uint32_t feature_level = 0;
  std::vector<Change> changes;  // since the test cleared it

 private:
  struct Deadline {
    int64_t at_ms;
    uint64_t generation;
  };
  static constexpr const char* kExpireCommand = "machine.expire";

  storage::MemoryKv kv_;
  State state_;
  Machine machine_;
  AppliedBatch last_;
  int64_t now_ms_ = 1000;
  std::map<LeaseId, Deadline> deadlines_;
};

}  // namespace uccp::machine
