#include "sim/cluster/evidence.h"

#include <fmt/format.h>

#include <iterator>

#include "base/bytes.h"
#include "base/hash.h"
#include "sim/checkers/checkers.h"

namespace uccp::sim {

uint64_t injected(const SimResult& result) {
  uint64_t total = 0;
  for (size_t i = 0; i < static_cast<size_t>(Fault::kInjected); ++i) total += result.faults[i];
  return total;
}

void Evidence::add(const SimResult& result) {
  ++seeds_;
  operations_ += result.operations;
  attempts_ += result.attempts;
  elections_ += result.elections;
  events_ += result.events;
  undecided_ += result.undecided;
  injected_ += injected(result);
  virtual_us_ += result.virtual_us;
  hash_ = hash64(ByteWriter().u64(hash_).u64(result.trace_hash).data());
  for (size_t i = 0; i < kFaults; ++i) faults_[i] += result.faults[i];
}

std::string Evidence::missing() const {
  std::string names;
  for (size_t i = 0; i < kFaults; ++i) {
    if (faults_[i] == 0) names += " " + std::string(fault_name(static_cast<Fault>(i)));
  }
  return names;
}

std::string Evidence::summary(double wall_s, double cpu_s) const {
  std::string out = fmt::format(
      "{} seeds, {} not clean; {} operations, {} faults, {:.0f} virtual seconds; {:.0f} operations and {:.0f} faults a "
      "second of a core, {:.3f} s a seed; took {:.1f} s of a core, {:.1f} s in all; hash {:016x}",
      seeds_, failed_.size(), operations_, injected_, static_cast<double>(virtual_us_) / 1e6,
      static_cast<double>(operations_) / cpu_s, static_cast<double>(injected_) / cpu_s,
      cpu_s / static_cast<double>(seeds_), cpu_s, wall_s, hash_);
  for (const uint64_t seed : failed_) out += fmt::format("\nnot clean: seed {}", seed);
  return out;
}

std::string Evidence::to_tsv(const std::string& commit, uint64_t first_seed, uint64_t operations) const {
  std::string out;
  const auto line = [&](std::string_view name, const auto& value) {
    fmt::format_to(std::back_inserter(out), "{}\t{}\n", name, value);
  };
  line("commit", commit);
  line("first_seed", first_seed);
  line("seeds", seeds_);
  line("seeds_not_clean", failed_.size());
  line("seeds_run_twice", repeated_);
  line("operations_asked_a_seed", operations);
  line("operations", operations_);
  line("faults", injected_);
  line("terms", elections_);
  line("task_attempts", attempts_);
  line("events", events_);
  line("virtual_seconds", virtual_us_ / 1'000'000);
  line("histories_undecided_by_search", undecided_);
  line("checkers", kCheckerNames);
  line("hash", fmt::format("{:016x}", hash_));
  for (size_t i = 0; i < kFaults; ++i) {
    line(fmt::format("fault_{}", fault_name(static_cast<Fault>(i))), faults_[i]);
  }
  for (const uint64_t seed : failed_) line("not_clean", seed);
  return out;
}

}  // namespace uccp::sim
