#include "sim/checkers/event_checker.h"

#include <algorithm>
#include <charconv>

namespace uccp::sim {
namespace {

std::string name(const EventChecker::Place& place, uint64_t offset) {
  return place.topic + "/" + std::to_string(place.partition) + "@" + std::to_string(offset);
}

uint64_t number_of(const std::string& event) {
  const size_t hash = event.rfind('#') + 1;
  uint64_t number = 0;
  std::from_chars(event.data() + hash, event.data() + event.size(), number);
  return number;
}

}  // namespace

void EventChecker::observe(const Place& place, uint64_t offset, const std::string& event, const std::string& who) {
  const auto [at, fresh] = events_[place].try_emplace(offset, event);
  if (at->second == event) return;
  violations_.add("events",
                  who + " has '" + event + "' at " + name(place, offset) + ", where '" + at->second + "' was seen");
}

void EventChecker::acknowledged(const Place& place, uint64_t offset, const std::string& event, bool duplicate) {
  observe(place, offset, event, duplicate ? "an answer that it was there already" : "an answer");
  if (place.topic != kCompactedTopic) acknowledged_.emplace_back(place, offset);
}

size_t EventChecker::opened(Positions from) {
  streams_.push_back({std::move(from), {}});
  return streams_.size() - 1;
}

void EventChecker::told(size_t stream, const Place& place, uint64_t offset, const std::string& event) {
  Stream& one = streams_[stream];
  observe(place, offset, event, "stream " + std::to_string(stream));
  const auto known = one.at.find(place);
  const bool gap = place.topic == kCompactedTopic && (known == one.at.end() || known->second < offset);
  if (gap) {
    gaps_.push_back({stream, place, known == one.at.end() ? 0 : known->second, offset});
  } else if (known != one.at.end() && known->second != offset) {
    violations_.add("events", "stream " + std::to_string(stream) + " shows " + name(place, offset) + " where " +
                                  name(place, known->second) + " follows");
  }
  one.first.try_emplace(place, offset);
  one.at[place] = offset + 1;
}

void EventChecker::check_complete(size_t stream) {
  const Stream& one = streams_[stream];
  for (const auto& [place, offset] : acknowledged_) {
    const auto first = one.first.find(place);
    const bool shown = first != one.first.end() && first->second <= offset && offset < one.at.at(place);
    if (shown) continue;
    return violations_.add("events", "'" + events_[place][offset] + "' was acknowledged at " + name(place, offset) +
                                         " and is not shown to who reads everything");
  }
  // A partition of the compacted topic ends where it ended: its newest events are never left out.
  for (const auto& [place, events] : events_) {
    const auto at = one.at.find(place);
    const bool to_the_end = at != one.at.end() && at->second > events.rbegin()->first;
    if (place.topic != kCompactedTopic || to_the_end) continue;
    return violations_.add("events", "'" + events.rbegin()->second + "', the newest at " +
                                         name(place, events.rbegin()->first) +
                                         ", is not shown to who reads everything");
  }
}

bool EventChecker::was_replaced(const Place& place, uint64_t offset) const {
  const auto& events = events_.at(place);
  const std::string& event = events.at(offset);
  const std::string key = event.substr(0, event.rfind('#') + 1);
  return std::any_of(events.upper_bound(offset), events.end(),
                     [&](const auto& later) { return later.second.starts_with(key); });
}

void EventChecker::check_compaction() {
  for (const Gap& gap : gaps_) {
    const auto& events = events_[gap.place];
    for (auto at = events.lower_bound(gap.from); at != events.end() && at->first < gap.to; ++at) {
      if (was_replaced(gap.place, at->first)) continue;
      return violations_.add("events", "stream " + std::to_string(gap.stream) + " leaves out " +
                                           name(gap.place, at->first) + ", '" + at->second +
                                           "', which no later event of its key replaced");
    }
  }
}

void EventChecker::check_order() {
  std::map<std::string, std::pair<Place, uint64_t>> seen;
  std::map<std::string, uint64_t> last;  // number of the key
  for (const auto& [place, events] : events_) {
    for (const auto& [offset, event] : events) {
      const auto [at, fresh] = seen.try_emplace(event, place, offset);
      if (!fresh) {
        return violations_.add("events", "'" + event + "' is at " + name(place, offset) + " and at " +
                                             name(at->second.first, at->second.second));
      }
      const std::string key = place.topic + " " + event.substr(0, event.rfind('#'));
      const uint64_t number = number_of(event);
      if (number <= last[key]) {
        return violations_.add("events", "'" + event + "' is behind number " + std::to_string(last[key]) +
                                             " of its key, at " + name(place, offset));
      }
      last[key] = number;
    }
  }
}

}  // namespace uccp::sim
