// Discover: which instances of a service, in which order, as response bytes.
//
// Works on stored bytes: a row is never parsed, the registration in it is looked into only for conditions that need it,
// and the response is put together from the stored registrations with last_seen and expire_time appended. Pure, except
// for Presence; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "call/listing.h"
#include "services/discovery/discovery_state.h"
#include "services/discovery/presence.h"
#include "services/discovery/semver.h"
#include "services/discovery/traffic.h"

namespace uccp::discovery {

inline constexpr uint32_t kDiscoverLimitDefault = 100;
inline constexpr uint32_t kDiscoverLimitMax = 1000;
// Rows that one Discover looks at; beyond it has to name the service, or list with pages.
inline constexpr size_t kDiscoverRowsMax = 20'000;
inline constexpr size_t kDiscoverBytesMax = 3u << 20;

// The front of a ServiceRow, and the registration as bytes that point into the row.
struct RowView {
  machine::LeaseId lease = 0;
  int64_t seen_us = 0;
  int64_t ttl_ms = 0;
  bool available = false;
  int32_t priority = 0;
  int32_t weight = 0;
  int32_t effective_weight = 0;
  int32_t load_milli = -1;  // not known
  double health_score = 0;
  std::string_view service;
};
RowView view_row(std::string_view row);
// Appends last_seen and expire_time as fields of the registration.
void append_times(std::string& out, const RowView& row, const Presence& presence);
// The registration as clients see it.
std::string shown_service(std::string_view row, const Presence& presence);

class DiscoverQuery {
 public:
  // Errors: invalid VERSION_INVALID, SELECTOR_INVALID.
  static Result<DiscoverQuery> compile(const v1::DiscoverRequest& request);

  // A serialized DiscoverResponse. `random` is used for the weighted order only. Errors: invalid DISCOVER_TOO_BROAD.
  Result<std::string> run(const machine::GroupView& state, const Scope& scope, const Presence& presence,
                          Random& random) const;

 private:
  struct Candidate {
    RowView row;  // `service` is empty; it lies in the arena
    size_t offset;
    size_t size;
    int nearness;      // 0 is nearest
    uint32_t order;    // in which it was found: by id
    RolloutMark mark;  // its name is not kept
    double draw = 0;   // for the orders by weight and by load
  };
  struct Place;
  bool matches(std::string_view service, Place& place) const;
  int nearness(const Place& place) const;
  bool better(const Candidate& a, const Candidate& b) const;
  static void draw_by_share(std::vector<Candidate>& found, Random& random);
  void sort(std::vector<Candidate>& found, Random& random) const;

  std::string name_;
  std::optional<VersionRange> version_;
  std::string region_, zone_, type_, protocol_;
  call::LabelSelector labels_;
  std::vector<std::string> capabilities_;
  bool any_health_ = false;
  v1::DiscoverOrder order_ = v1::DISCOVER_ORDER_RANK;
  v1::DeploymentRole role_ = v1::DEPLOYMENT_ROLE_UNSPECIFIED;
  std::string deployment_;
  std::string near_region_, near_zone_;
  uint32_t limit_ = kDiscoverLimitDefault;
  bool looks_inside_ = false;  // some condition needs the registration itself
};

}  // namespace uccp::discovery
