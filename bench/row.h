// Row: one measured number of a benchmark, with what it was compared to and whether it reached its goal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace uccp::bench {

enum class Better : uint8_t { kHigher, kLower };

// What a row has to reach: `ours`, or the ratio of ours to the peer, at least or at most `limit`.
struct Goal {
  enum class Of : uint8_t { kNothing, kOurs, kRatio };
  Of of = Of::kNothing;
  Better better = Better::kHigher;
  double limit = 0;
  std::string to_string(const std::string& unit) const;
};

struct Sample {
  bool ours = true;
  double value = 0;
};

struct Row {
  std::string metric;
  std::string unit;  // "1/s", "ms", "MB", "" for a plain number
  Better better = Better::kHigher;
  Goal goal;
  std::vector<Sample> samples;  // in the order in which they were measured
  std::string peer_name;        // empty: the goal is a number, there is nothing to compare with
  std::string peer_version;
  std::string settings;
  bool peer_required = false;        // a row whose peer did not run is not met
  bool durable = false;              // a row that shows no sync on either side is not met
  std::optional<double> syncs_ours;  // fdatasync and fsync calls for each acknowledged operation
  std::optional<double> syncs_peer;
  uint64_t verified = 0;  // operations whose result was checked
  std::string problem;    // what went wrong; not empty: not met
  std::vector<std::pair<std::string, double>> details;

  void add_ours(double value) { samples.push_back({true, value}); }
  void add_peer(double value) { samples.push_back({false, value}); }
  void detail(std::string name, double value) { details.emplace_back(std::move(name), value); }

  // Medians of the samples.
  std::optional<double> ours() const;
  std::optional<double> peer() const;
  // How many times better we are: ours/peer where higher is better, else peer/ours.
  std::optional<double> ratio() const;
  bool met() const;

  std::string to_json() const;
  std::string to_table_line() const;
};

double median(std::vector<double> values);

}  // namespace uccp::bench
