// The replicated state of elections: groups, candidates, leaderships. Pure: runs on the loop, inside apply.
//
// Invariants: a group has at most one leader, which is one of its candidates and no observer; every leadership has a
// greater term and a greater fencing token than all before; while there is a candidate that may lead, somebody leads; a
// running leadership is never taken away by a better candidate, only transferred.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/coordination_state.pb.h"
#include "uccp/v1/coordination.pb.h"

namespace uccp::elections {

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::TableId kGroupsTable = 56;
inline constexpr machine::Table<internal::v1::ElectionRow> kGroups(kGroupsTable);  // name
inline constexpr machine::BytesTable kCounts(
    57);  // "groups" in each namespace; in all: "leaders", "candidates", "terms"

inline constexpr std::string_view kDomain = "elections";
inline constexpr std::string_view kTopic = "elections";
enum class ChangeKind : uint8_t {
  kElected = 2,
  kLeaderless = 3,
  kCandidates = 4,
};

inline constexpr int kCandidatesMax = 256;
inline constexpr int kHistoryMax = 16;
inline constexpr uint64_t kGroupsMax = 100'000;
// A group without candidates keeps its term and history for so long.
inline constexpr int64_t kForgetAfterMs = int64_t{7} * 24 * 3600 * 1000;

// Who leads next, best first; observers last.
std::vector<internal::v1::ElectionCandidate> ranked(const internal::v1::ElectionRow& row);
const internal::v1::ElectionCandidate* find_candidate(const internal::v1::ElectionRow& row, std::string_view id);
const internal::v1::ElectionCandidate* find_candidate(const internal::v1::ElectionRow& row, uint64_t lease,
                                                      uint64_t secret);
uint64_t read_count(const machine::KeyReader& state, std::string_view what);

Status group_not_found(const std::string& group);
Status candidacy_ended(const std::string& group);

class ElectionsState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // enter, resign, report, transfer: as coordination_state.proto says. Each answers an ElectionResult.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;

 private:
  static machine::ApplyResult enter(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult resign(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult report(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult transfer(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::elections
