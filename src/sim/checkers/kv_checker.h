// The key-value store replayed in the order of its revisions: what reads of any level, transactions and watches show is
// what the changes up to their revision leave over. That the order is the one that clients saw is OrderChecker's part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class KvChecker {
 public:
  struct Version {
    int64_t revision = 0;
    std::optional<std::string> value;  // none: deleted
  };
  struct Pair {
    std::string key;
    std::string value;
    int64_t mod_revision = 0;
    bool operator==(const Pair&) const = default;
  };
  struct Event {
    int64_t revision = 0;
    std::string key;
    std::optional<std::string> value;
    bool operator==(const Event&) const = default;
  };

  explicit KvChecker(Violations& violations) : violations_(violations) {}

  // The first application of each change, in the order of the log. Revisions grow by one with each command that changes
  // something.
  void changed(int64_t revision, const std::string& key, std::optional<std::string> value);
  // A transaction that compared the value of a key said so.
  void compared(int64_t revision, const std::string& key, const std::string& value, bool equal);
  // The first application of a compaction: what is older than `revision` may be refused.
  void compacted(int64_t revision);
  // `who` asked for `revision` and was told that it is compacted; `least`, if not 0, is what is left.
  void refused(const std::string& who, int64_t revision, int64_t least = 0);
  // A read of all keys in [from, to) showed these at `revision`.
  void read(const std::string& reader, int64_t revision, const std::string& from, const std::string& to,
            const std::vector<Pair>& pairs);

  // A watch of everything from `start` on.
  size_t watched(int64_t start);
  void told(size_t watch, Event event);
  // Of the watches those in `caught_up` must have been told everything.
  void check_watches(const std::vector<size_t>& caught_up);
  int64_t revision() const { return events_.empty() ? 0 : events_.back().revision; }

 private:
  // Of the key at that revision; none if it did not exist.
  std::optional<Pair> at(const std::string& key, int64_t revision) const;

  struct Watch {
    int64_t start = 0;
    std::vector<Event> told;
  };
  Violations& violations_;
  std::map<std::string, std::vector<Version>> keys_;
  std::vector<Event> events_;
  int64_t compacted_ = 0;
  std::vector<Watch> watches_;
};

}  // namespace uccp::sim
