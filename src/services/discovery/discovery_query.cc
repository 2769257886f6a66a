#include "services/discovery/discovery_query.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "call/wire.h"

namespace uccp::discovery {
namespace {

using call::WireField;
using call::WireReader;
using call::WireType;
using Registration = v1::ServiceRegistration;

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
      case ServiceRow::kHealthScoreFieldNumber: view.health_score = std::bit_cast<double>(field.value); break;
      case ServiceRow::kServiceFieldNumber: view.service = field.bytes; break;
      default: break;
    }
  }
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
  query.weighted_ = request.order() == v1::DISCOVER_ORDER_WEIGHTED;
  query.near_region_ = request.near_region();
  query.near_zone_ = request.near_zone();
  if (request.limit() > 0) query.limit_ = std::min(static_cast<uint32_t>(request.limit()), kDiscoverLimitMax);
  query.looks_inside_ = query.version_ || !query.labels_.empty() || !query.region_.empty() || !query.zone_.empty() ||
                        !query.type_.empty() || !query.protocol_.empty() || !query.capabilities_.empty() ||
                        !query.near_region_.empty() || !query.near_zone_.empty();
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
      default: break;
    }
  }
  if (!speaks || (!type_.empty() && type != type_)) return false;
  if ((!region_.empty() && place.region != region_) || (!zone_.empty() && place.zone != zone_)) return false;
  if (capable != (1u << capabilities_.size()) - 1) return false;
  if (version_ && !version_->matches(version)) return false;
  return labels_.matches(service, Registration::kLabelsFieldNumber);
}

// Same zone, same region, elsewhere.
int DiscoverQuery::nearness(const Place& place) const {
  const bool region = near_region_.empty() || place.region == near_region_;
  if (!region) return 2;
  return near_zone_.empty() || place.zone == near_zone_ ? 0 : 1;
}

void DiscoverQuery::sort(std::vector<Candidate>& found, Random& random) const {
  if (weighted_) {
    // Efraimidis and Spirakis (2006): the least of these draws is each one's with the probability of its weight.
    for (Candidate& c : found) c.draw = -std::log(1.0 - random.unit()) / std::max(c.row.weight, 1);
  }
  const auto better = [this](const Candidate& a, const Candidate& b) {
    if (a.row.priority != b.row.priority) return a.row.priority < b.row.priority;
    if (weighted_) return a.draw < b.draw;
    if (a.nearness != b.nearness) return a.nearness < b.nearness;
    if (a.row.health_score != b.row.health_score) return a.row.health_score > b.row.health_score;
    return a.order < b.order;
  };
  const size_t count = std::min<size_t>(limit_, found.size());
  const auto middle = found.begin() + static_cast<ptrdiff_t>(count);
  if (!std::ranges::is_sorted(found, better)) std::partial_sort(found.begin(), middle, found.end(), better);
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
    found.push_back({row, offset, size, near, static_cast<uint32_t>(found.size()), 0});
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
