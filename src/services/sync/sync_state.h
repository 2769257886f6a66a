// The replicated state of barriers and latches. Pure: runs on the loop, inside apply.
//
// Invariants: a generation of a barrier ends exactly once, opened by its last party or broken; a participant counts
// once a generation; a latch only counts down and never closes again.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "machine/table.h"
#include "uccp/internal/v1/coordination_state.pb.h"

namespace uccp::sync {

// Tables of the core group; the numbers are part of the on-disk format.
inline constexpr machine::Table<internal::v1::BarrierRow> kBarriers(64);              // name
inline constexpr machine::Table<internal::v1::BarrierParticipant> kParticipants(65);  // barrier, participant
inline constexpr machine::BytesTable kArrivals(66);                                   // barrier, order -> participant
inline constexpr machine::Table<internal::v1::LatchRow> kLatches(67);                 // name
inline constexpr machine::BytesTable kCounts(68);  // one row a namespace: how many names

inline constexpr std::string_view kDomain = "sync";
inline constexpr std::string_view kTopic = "sync";
enum class ChangeKind : uint8_t {
  kOpened = 1,  // a generation of a barrier; the payload is a BarrierPast
  kBroken = 2,
  kLatchOpened = 3,
  kLatchDeleted = 4,
};

inline constexpr int kPartiesMax = 10'000;
inline constexpr int kPastMax = 16;
inline constexpr uint64_t kNamesMax = 1'000'000;
inline constexpr int64_t kForgetAfterMs = 24 * 3600 * 1000;

std::optional<internal::v1::BarrierParticipant> find_participant(const machine::KeyReader& state,
                                                                 const machine::Scope& scope, std::string_view barrier,
                                                                 std::string_view participant);
// In the order of arrival.
void scan_participants(const machine::KeyReader& state, const machine::Scope& scope,
                       const internal::v1::BarrierRow& row,
                       const std::function<bool(std::string_view participant)>& visit);
// How a generation ended; nothing if it has not, or too long ago.
std::optional<internal::v1::BarrierPast> find_past(const internal::v1::BarrierRow& row, uint64_t generation);

Status barrier_not_found(const std::string& name);
Status latch_not_found(const std::string& name);

class SyncState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // arrive, withdraw, reset (a BarrierRow), create_latch, count_down, delete_latch (a LatchRow).
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;

 private:
  static machine::ApplyResult arrive(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult withdraw(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult reset(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult create_latch(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult count_down(machine::ApplyContext& context, std::string_view payload);
  static machine::ApplyResult delete_latch(machine::ApplyContext& context, std::string_view payload);
};

}  // namespace uccp::sync
