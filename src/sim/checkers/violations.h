// What the checkers found. A run is clean if there is nothing in it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace uccp::sim {

class Violations {
 public:
  // Kept up to a bound: one bug mostly shows in many ways, and the first ones say most.
  void add(std::string_view checker, std::string_view what) {
    if (found_.size() < kKeptMax) found_.push_back(std::string(checker) + ": " + std::string(what));
  }
  bool empty() const { return found_.empty(); }
  const std::vector<std::string>& found() const { return found_; }

 private:
  static constexpr size_t kKeptMax = 20;
  std::vector<std::string> found_;
};

}  // namespace uccp::sim
