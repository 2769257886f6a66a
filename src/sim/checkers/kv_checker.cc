#include "sim/checkers/kv_checker.h"

#include <algorithm>

namespace uccp::sim {
namespace {

std::string shown(const std::optional<KvChecker::Pair>& pair) {
  return pair ? pair->value + " of revision " + std::to_string(pair->mod_revision) : "nothing";
}

}  // namespace

void KvChecker::changed(int64_t revision, const std::string& key, std::optional<std::string> value) {
  const int64_t last = this->revision();
  if (revision < last || revision > last + 1) {
    if (last > 0 || revision > 2) {
      violations_.add("kv", "revision " + std::to_string(revision) + " comes after " + std::to_string(last));
    }
  }
  events_.push_back({revision, key, value});
  keys_[key].push_back({revision, std::move(value)});
}

std::optional<KvChecker::Pair> KvChecker::at(const std::string& key, int64_t revision) const {
  const auto found = keys_.find(key);
  if (found == keys_.end()) return std::nullopt;
  const auto after = std::ranges::upper_bound(found->second, revision, {}, &Version::revision);
  if (after == found->second.begin() || !std::prev(after)->value) return std::nullopt;
  return Pair{key, *std::prev(after)->value, std::prev(after)->revision};
}

void KvChecker::compared(int64_t revision, const std::string& key, const std::string& value, bool equal) {
  const auto before = at(key, revision - 1);
  if ((before && before->value == value) == equal) return;
  violations_.add("kv", "a transaction of revision " + std::to_string(revision) + " found " + key +
                            (equal ? " to be " : " not to be ") + value + "; it was " + shown(before));
}

void KvChecker::compacted(int64_t revision) {
  if (revision <= compacted_ || revision > this->revision()) {
    violations_.add("kv", "revision " + std::to_string(revision) + " was compacted after " +
                              std::to_string(compacted_) + ", when the newest was " + std::to_string(this->revision()));
  }
  compacted_ = revision;
}

void KvChecker::refused(const std::string& who, int64_t revision, int64_t least) {
  if (revision < compacted_ && least <= compacted_ && (least == 0 || revision < least)) return;
  violations_.add("kv", who + " was told that revision " + std::to_string(revision) + " is compacted, and " +
                            std::to_string(least) + " not; " + std::to_string(compacted_) + " is");
}

void KvChecker::read(const std::string& reader, int64_t revision, const std::string& from, const std::string& to,
                     const std::vector<Pair>& pairs) {
  std::map<std::string, Pair> got;
  for (const Pair& pair : pairs) got[pair.key] = pair;
  auto key = keys_.lower_bound(from);
  for (; key != keys_.end() && key->first < to; ++key) {
    const auto expected = at(key->first, revision);
    const auto found = got.find(key->first);
    const auto actual = found == got.end() ? std::nullopt : std::optional<Pair>(found->second);
    if (found != got.end()) got.erase(found);
    if (actual == expected) continue;
    violations_.add("kv", reader + " read " + shown(actual) + " in " + key->first + " at revision " +
                              std::to_string(revision) + ", where it is " + shown(expected));
  }
  for (const auto& [name, pair] : got) {
    violations_.add("kv", reader + " read " + shown(pair) + " in " + name + ", which nobody wrote");
  }
}

size_t KvChecker::watched(int64_t start) {
  watches_.push_back({start, {}});
  return watches_.size() - 1;
}

void KvChecker::told(size_t watch, Event event) { watches_[watch].told.push_back(std::move(event)); }

void KvChecker::check_watches(const std::vector<size_t>& caught_up) {
  for (size_t number = 0; number < watches_.size(); ++number) {
    const Watch& watch = watches_[number];
    const auto first = std::ranges::lower_bound(events_, watch.start, {}, &Event::revision);
    const auto expected = static_cast<size_t>(events_.end() - first);
    size_t same = 0;
    const size_t both = std::min(expected, watch.told.size());
    while (same < both && watch.told[same] == first[static_cast<ptrdiff_t>(same)]) ++same;
    const bool all_due = std::ranges::find(caught_up, number) != caught_up.end();
    if (same == watch.told.size() && (!all_due || same == expected)) continue;
    violations_.add("kv", "watch " + std::to_string(number) + " from revision " + std::to_string(watch.start) +
                              " was told " + std::to_string(watch.told.size()) + " changes of " +
                              std::to_string(expected) + ", of which the first " + std::to_string(same) + " are right");
    return;
  }
}

}  // namespace uccp::sim
