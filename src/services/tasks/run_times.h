// How long tasks of one name ran of late, and so how long the next one will.
//
// Only what ended well counts. The estimate is the longest of the last runs, rounded up to half an octave, so that
// tasks of one name stay one class: it is meant to be too short rarely, not to be close. Pure memory, forgotten with
// the leadership.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace uccp::tasks {

class RunTimes {
 public:
  static constexpr size_t kRunsKept = 16;
  // Fewer say nothing.
  static constexpr size_t kRunsNeeded = 5;
  // Names that are known; beyond it the one that ended longest ago is forgotten.
  static constexpr size_t kNamesMax = 10'000;

  struct Name {
    std::string tenant, name_space, name;
    auto operator<=>(const Name&) const = default;
  };
  void note(const Name& name, int64_t run_ms);
  std::optional<int64_t> estimate_ms(const Name& name) const;

 private:
  struct Runs {
    std::vector<int64_t> last;  // a ring
    size_t next = 0;
    uint64_t noted = 0;
  };
  std::map<Name, Runs> names_;
  std::map<uint64_t, Name> by_age_;
  uint64_t notes_ = 0;
};

}  // namespace uccp::tasks
