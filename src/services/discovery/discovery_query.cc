#include "services/discovery/discovery_query.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>

#include "call/wire.h"

namespace uccp::discovery {
namespace {

using call::WireField;
using call::WireReader;
using call::WireType;
using Registration = v1::ServiceRegistration;

// Who reports no load counts as half full.
constexpr int32_t kUnknownLoadMilli = 500;

void put_timestamp(std::string& out, uint32_t number, int64_t us) {
  const int64_t seconds = us / 1'000'000;
  const int64_t nanos = us % 1'000'000 * 1000;
  const size_t mark = call::begin_bytes(out, number);
  call::put_uint(out, 1, static_cast<uint64_t>(seconds));
  if (nanos != 0) call::put_uint(out, 2, static_cast<uint64_t>(nanos));
  call::end_bytes(out, mark);
}

}  // namespace

RowView view_row(std::string_view row) {
  RowView view;
  WireReader reader(row);
  WireField field;
  while (reader.next(field)) {
    switch (field.number) {
      case ServiceRow::kLeaseFieldNumber: view.lease = field.value; break;
      case ServiceRow::kSeenUsFieldNumber: view.seen_us = static_cast<int64_t>(field.value); break;
      case ServiceRow::kTtlMsFieldNumber: view.ttl_ms = static_cast<int64_t>(field.value); break;
      case ServiceRow::kAvailableFieldNumber: view.available = field.value != 0; break;
      case ServiceRow::kPriorityFieldNumber: view.priority = static_cast<int32_t>(field.value); break;
      case ServiceRow::kWeightFieldNumber: view.weight = static_cast<int32_t>(field.value); break;
      case ServiceRow::kEffectiveWeightFieldNumber: view.effective_weight = static_cast<int32_t>(field.value); break;
      case ServiceRow::kLoadMilliFieldNumber: view.load_milli = static_cast<int32_t>(field.value); break;
      case ServiceRow::kHealthScoreFieldNumber: view.health_score = std::bit_cast<double>(field.value); break;
      case ServiceRow::kServiceFieldNumber: view.service = field.bytes; break;
      default: break;
    }
  }
  // Rows of before there were effective weights.
  if (view.available && view.effective_weight == 0) view.effective_weight = view.weight;
  return view;
}

void append_times(std::string& out, const RowView& row, const Presence& presence) {
  const Presence::Times times = presence.times(row.lease, row.seen_us, row.ttl_ms);
  put_timestamp(out, Registration::kLastSeenFieldNumber, times.last_seen_us);
  put_timestamp(out, Registration::kExpireTimeFieldNumber, times.expire_us);
}

std::string shown_service(std::string_view row, const Presence& presence) {
  const RowView view = view_row(row);
  std::string out(view.service);
  append_times(out, view, presence);
  return out;
}

struct DiscoverQuery::Place {
  std::string_view region;
  std::string_view zone;
  RolloutMark mark;
};

Result<DiscoverQuery> DiscoverQuery::compile(const v1::DiscoverRequest& request) {
  DiscoverQuery query;
  query.name_ = request.name();
  if (!request.version().empty()) {
    UCCP_TRY(query.version_, VersionRange::parse(request.version()));
  }
  UCCP_TRY(query.labels_, call::LabelSelector::compile(request.labels()));
  query.region_ = request.region();
  query.zone_ = request.zone();
  query.type_ = request.type();
  query.protocol_ = request.protocol();
  query.capabilities_.assign(request.capabilities().begin(), request.capabilities().end());
  query.any_health_ = request.health() == v1::HEALTH_FILTER_ANY;
  if (request.order() != v1::DISCOVER_ORDER_UNSPECIFIED) query.order_ = request.order();
  query.role_ = request.role();
  query.deployment_ = request.deployment();
  query.near_region_ = request.near_region();
  query.near_zone_ = request.near_zone();
  if (request.limit() > 0) query.limit_ = std::min(static_cast<uint32_t>(request.limit()), kDiscoverLimitMax);
  query.looks_inside_ = query.version_ || !query.labels_.empty() || !query.region_.empty() || !query.zone_.empty() ||
                        !query.type_.empty() || !query.protocol_.empty() || !query.capabilities_.empty() ||
                        !query.near_region_.empty() || !query.near_zone_.empty() ||
                        query.role_ != v1::DEPLOYMENT_ROLE_UNSPECIFIED || !query.deployment_.empty() ||
                        query.order_ == v1::DISCOVER_ORDER_WEIGHTED;
  return query;
}

bool DiscoverQuery::matches(std::string_view service, Place& place) const {
  std::string_view version, type;
  bool speaks = protocol_.empty();
  uint32_t capable = 0;  // one bit for each capability that was asked for: at most 16
  WireReader reader(service);
  WireField field;
  while (reader.next(field)) {
    switch (field.number) {
      case Registration::kTypeFieldNumber: type = field.bytes; break;
      case Registration::kVersionFieldNumber: version = field.bytes; break;
      case Registration::kProtocolFieldNumber:
      case Registration::kProtocolsFieldNumber: speaks |= field.bytes == protocol_; break;
      case Registration::kCapabilitiesFieldNumber:
        for (size_t i = 0; i < capabilities_.size(); ++i) {
          if (capabilities_[i] == field.bytes) capable |= 1u << i;
        }
        break;
      case Registration::kRegionFieldNumber: place.region = field.bytes; break;
      case Registration::kZoneFieldNumber: place.zone = field.bytes; break;
      case Registration::kDeploymentFieldNumber: place.mark = read_mark(field.bytes); break;
      default: break;
    }
  }
  if (!speaks || (!type_.empty() && type != type_)) return false;
  if ((!region_.empty() && place.region != region_) || (!zone_.empty() && place.zone != zone_)) return false;
  if (capable != (1u << capabilities_.size()) - 1) return false;
  if (role_ != v1::DEPLOYMENT_ROLE_UNSPECIFIED && place.mark.role != role_) return false;
  if (!deployment_.empty() && place.mark.name != deployment_) return false;
  if (version_ && !version_->matches(version)) return false;
  return labels_.matches(service, Registration::kLabelsFieldNumber);
}

// Same zone, same region, elsewhere.
int DiscoverQuery::nearness(const Place& place) const {
  const bool region = near_region_.empty() || place.region == near_region_;
  if (!region) return 2;
  return near_zone_.empty() || place.zone == near_zone_ ? 0 : 1;
}

// Efraimidis and Spirakis (2006): the least of these draws is each one's with the probability of its share.
void DiscoverQuery::draw_by_share(std::vector<Candidate>& found, Random& random) {
  std::map<int32_t, std::vector<size_t>> levels;
  for (size_t i = 0; i < found.size(); ++i) levels[found[i].row.priority].push_back(i);
  for (const auto& [priority, level] : levels) {
    std::vector<TrafficMember> members;
    for (const size_t i : level) members.push_back({found[i].row.effective_weight, found[i].mark});
    const std::vector<double> shares = traffic_shares(members);
    for (size_t at = 0; at < level.size(); ++at) {
      const double spread = -std::log(1.0 - random.unit());
      // Who gets no traffic comes last.
      found[level[at]].draw = shares[at] > 0 ? spread / shares[at] : std::numeric_limits<double>::infinity();
    }
  }
}

bool DiscoverQuery::better(const Candidate& a, const Candidate& b) const {
  const bool nearest = order_ == v1::DISCOVER_ORDER_NEAREST;
  if (nearest && a.nearness != b.nearness) return a.nearness < b.nearness;
  if (a.row.priority != b.row.priority) return a.row.priority < b.row.priority;
  if (a.draw != b.draw) return a.draw < b.draw;
  if (order_ == v1::DISCOVER_ORDER_RANK && a.nearness != b.nearness) return a.nearness < b.nearness;
  if (a.row.health_score != b.row.health_score) return a.row.health_score > b.row.health_score;
  return a.order < b.order;
}

void DiscoverQuery::sort(std::vector<Candidate>& found, Random& random) const {
  if (order_ == v1::DISCOVER_ORDER_WEIGHTED) draw_by_share(found, random);
  if (order_ == v1::DISCOVER_ORDER_LOAD) {
    for (Candidate& c : found) {
      const int32_t load = c.row.load_milli < 0 ? kUnknownLoadMilli : c.row.load_milli;
      c.draw = (load + 1.0) / std::max(c.row.effective_weight, 1);
    }
  }
  const auto less = [this](const Candidate& a, const Candidate& b) { return better(a, b); };
  const size_t count = std::min<size_t>(limit_, found.size());
  const auto middle = found.begin() + static_cast<ptrdiff_t>(count);
  if (!std::ranges::is_sorted(found, less)) std::partial_sort(found.begin(), middle, found.end(), less);
  found.erase(middle, found.end());
}

Result<std::string> DiscoverQuery::run(const machine::GroupView& state, const Scope& scope, const Presence& presence,
                                       Random& random) const {
  std::vector<Candidate> found;
  // Rows are valid only while they are visited.
  std::string arena;
  size_t visited = 0;
  scan_services(state, scope, name_, "", [&](std::string_view, std::string_view bytes) {
    if (++visited > kDiscoverRowsMax) return false;
    RowView row = view_row(bytes);
    if (!row.available && !any_health_) return true;
    Place place;
    if (looks_inside_ && !matches(row.service, place)) return true;
    const int near = looks_inside_ ? nearness(place) : 0;
    const size_t offset = arena.size();
    const size_t size = row.service.size();
    arena.append(row.service);
    row.service = {};
    place.mark.name = {};
    found.push_back({row, offset, size, near, static_cast<uint32_t>(found.size()), place.mark, 0});
    return true;
  });
  if (visited > kDiscoverRowsMax) {
    return fail(Status(Code::kInvalid, "DISCOVER_TOO_BROAD",
                       "more than " + std::to_string(kDiscoverRowsMax) +
                           " instances would have to be looked at; name the service, or use ListServices")
                    .with_field("name", "is needed here", "checkout"));
  }
  sort(found, random);
  std::string out;
  std::string times;
  out.reserve(arena.size() + found.size() * 40 + 16);
  for (const Candidate& c : found) {
    if (out.size() + c.size > kDiscoverBytesMax && !out.empty()) break;
    times.clear();
    append_times(times, c.row, presence);
    call::put_tag(out, v1::DiscoverResponse::kServicesFieldNumber, WireType::kBytes);
    call::put_varint(out, c.size + times.size());
    out.append(arena, c.offset, c.size).append(times);
  }
  call::put_uint(out, v1::DiscoverResponse::kRevisionFieldNumber, state.applied().value);
  return out;
}

}  // namespace uccp::discovery
