// What a range of seeds ran and met, for the record that is kept with the project.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "sim/cluster/simulation.h"

namespace uccp::sim {

// Faults that were injected, those that are only counted left out.
uint64_t injected(const SimResult& result);

class Evidence {
 public:
  void add(const SimResult& result);
  void repeated() { ++repeated_; }
  void failed(uint64_t seed) { failed_.push_back(seed); }

  bool clean() const { return failed_.empty(); }
  // Names of faults that never fired, each behind a space.
  std::string missing() const;
  // `cpu_s`: of one core, whatever else ran on it.
  std::string summary(double wall_s, double cpu_s) const;
  // One fact a line: name, tab, value. The hash is of the trace hashes of all seeds in their order.
  std::string to_tsv(const std::string& commit, uint64_t first_seed, uint64_t operations) const;

 private:
  uint64_t seeds_ = 0;
  uint64_t repeated_ = 0;
  uint64_t operations_ = 0;
  uint64_t attempts_ = 0;
  uint64_t elections_ = 0;
  uint64_t events_ = 0;
  uint64_t injected_ = 0;
  uint64_t undecided_ = 0;
  int64_t virtual_us_ = 0;
  uint64_t hash_ = 0;
  std::array<uint64_t, kFaults> faults_{};
  std::vector<uint64_t> failed_;
};

}  // namespace uccp::sim
