// Which workers have fetched which contents of late, and so need not fetch them again.
//
// Hints and no more: a worker may have dropped a content since. Pure memory, forgotten with the leadership.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace uccp::tasks {

class DataHints {
 public:
  // Contents that are known; beyond it the one that was fetched longest ago is forgotten.
  static constexpr size_t kContentsMax = 100'000;
  // Workers of each content, those that fetched it last.
  static constexpr size_t kWorkersEach = 4;

  struct Content {
    std::string id;
    uint64_t bytes = 0;
  };
  void note(const std::string& id, const std::string& worker);
  // Workers that have some of these, with the percentage of the bytes that each has, 1 to 100; by name.
  std::vector<std::pair<std::string, int32_t>> workers(const std::vector<Content>& contents) const;
  void clear();

 private:
  struct Holders {
    std::vector<std::string> workers;  // the latest last
    uint64_t noted = 0;
  };
  std::map<std::string, Holders> contents_;
  std::map<uint64_t, std::string> by_age_;
  uint64_t notes_ = 0;
};

}  // namespace uccp::tasks
