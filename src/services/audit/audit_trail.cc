#include "services/audit/audit_trail.h"

#include <algorithm>

#include "base/bytes.h"

namespace uccp::audit {
namespace {

constexpr uint64_t kChunk = 256;

// The lowest number in [low, high) for which `is_behind` holds, if it holds for all numbers above too; else high.
template <typename Predicate>
uint64_t lowest(uint64_t low, uint64_t high, Predicate is_behind) {
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (is_behind(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

std::string encode_key(const std::vector<TrailReader>& readers) {
  ByteWriter key;
  for (const TrailReader& reader : readers) key.u64(UINT64_MAX - reader.position());
  return key.take();
}

}  // namespace

AuditRange range_of(const machine::KeyReader& state) {
  const auto oldest = machine::read_audit(state, 0, 1);
  if (oldest.empty()) return {};
  const uint64_t first = oldest.front().number;
  const auto is_behind = [&](uint64_t number) { return machine::read_audit(state, number, 1).empty(); };
  uint64_t span = 1;
  while (!is_behind(first + span)) span *= 2;
  return {first, lowest(first + span / 2, first + span, is_behind)};
}

TrailReader::TrailReader(const machine::KeyReader& state, std::string group, std::optional<uint64_t> before)
    : state_(state), group_(std::move(group)), range_(range_of(state)) {
  position_ = before ? std::clamp(*before, range_.first, range_.next) : range_.next;
}

const machine::AuditRecord* TrailReader::head() {
  while (!chunk_.empty() && chunk_.back().number >= position_) chunk_.pop_back();
  if (chunk_.empty()) {
    if (position_ <= range_.first) return nullptr;
    const uint64_t from = std::max(range_.first, position_ - std::min(position_, kChunk));
    chunk_ = machine::read_audit(state_, from, static_cast<size_t>(position_ - from));
    if (chunk_.empty()) return nullptr;
  }
  return &chunk_.back();
}

void TrailReader::pop() {
  if (const machine::AuditRecord* record = head(); record != nullptr) position_ = record->number;
}

void TrailReader::skip_to(int64_t wall_us) {
  position_ = lowest(range_.first, position_, [&](uint64_t number) {
    const auto at = machine::read_audit(state_, number, 1);
    return at.empty() || at.front().wall_us >= wall_us;
  });
  chunk_.clear();
}

void walk_trails(const std::vector<Trail>& trails, const TrailWindow& window, std::string_view after,
                 const VisitRecord& visit) {
  std::vector<TrailReader> readers;
  ByteReader positions(after);
  for (const auto& [group, state] : trails) {
    const std::optional<uint64_t> before = after.empty() ? std::nullopt : std::optional(UINT64_MAX - positions.u64());
    TrailReader& reader = readers.emplace_back(*state, group, before);
    if (window.end_us < INT64_MAX - kClockSlackUs) reader.skip_to(window.end_us + kClockSlackUs);
  }
  while (true) {
    TrailReader* newest = nullptr;
    for (TrailReader& reader : readers) {
      if (reader.head() != nullptr && (newest == nullptr || reader.head()->wall_us > newest->head()->wall_us))
        newest = &reader;
    }
    if (newest == nullptr) return;
    const machine::AuditRecord record = *newest->head();
    if (window.start_us > INT64_MIN + kClockSlackUs && record.wall_us < window.start_us - kClockSlackUs) return;
    newest->pop();
    if (record.wall_us < window.start_us || record.wall_us >= window.end_us) continue;
    if (!visit(encode_key(readers), newest->group(), record)) return;
  }
}

}  // namespace uccp::audit
