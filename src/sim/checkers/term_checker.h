// Elections: a term has one leader for ever, whoever tells about it, and each leadership has a greater term than all
// before it.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "sim/checkers/violations.h"

namespace uccp::sim {

class TermChecker {
 public:
  explicit TermChecker(Violations& violations) : violations_(violations) {}

  // A leadership began by the change at `position`, as a watch tells.
  void began(uint64_t position, uint64_t term, const std::string& leader) {
    const auto [it, first] = terms_.try_emplace(position, term);
    const bool grows = it == terms_.begin() || std::prev(it)->second < term;
    const bool passed = std::next(it) != terms_.end() && std::next(it)->second <= term;
    if (it->second != term || !grows || passed) {
      violations_.add("terms", "the leadership of " + leader + " at index " + std::to_string(position >> 16) +
                                   " has term " + std::to_string(term) +
                                   ", which does not lie between its neighbours'");
    }
    led(term, leader);
  }
  // Somebody was shown that `leader` leads in this term.
  void led(uint64_t term, const std::string& leader) {
    const auto [it, first] = leaders_.try_emplace(term, leader);
    if (first || it->second == leader) return;
    violations_.add("terms", "term " + std::to_string(term) + " is led by " + it->second + " and by " + leader);
  }
  size_t count() const { return leaders_.size(); }

 private:
  Violations& violations_;
  std::map<uint64_t, uint64_t> terms_;  // by position
  std::map<uint64_t, std::string> leaders_;
};

}  // namespace uccp::sim
