// FCFS, EASY and conservative backfilling over one pool of processors, as the literature has them.
//
// Sources: Lifka, "The ANL/IBM SP scheduling system" (1995), for EASY; Mu'alem and Feitelson, "Utilization,
// predictability, workloads, and user runtime estimates in scheduling the IBM SP2 with backfilling" (2001), for
// both. Time comes with the calls.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "sim/scheduling/trace_replay.h"

namespace uccp::sim {

class ReferencePolicy {
 public:
  ReferencePolicy(Policy policy, int64_t processors) : policy_(policy), free_(processors) {}

  void submit(size_t job, int64_t processors, int64_t limit_s) { waiting_.push_back({job, processors, limit_s}); }
  void end(size_t job);
  // Jobs that start now, in the order in which they do.
  std::vector<size_t> start(int64_t now_s);
  int64_t free() const { return free_; }

 private:
  struct Waiting {
    size_t job = 0;
    int64_t processors = 0, limit_s = 0;
  };
  struct Running {
    int64_t processors = 0, ends_s = 0;  // at the latest
  };
  // Free processors from a moment on, until the next one.
  using Profile = std::map<int64_t, int64_t>;

  void begin(const Waiting& one, int64_t now_s, std::vector<size_t>& out);
  Profile profile(int64_t now_s) const;
  static int64_t earliest(const Profile& profile, const Waiting& one);
  static void take(Profile& profile, int64_t from_s, const Waiting& one);
  void start_in_order(int64_t now_s, std::vector<size_t>& out);
  void backfill_behind_first(int64_t now_s, std::vector<size_t>& out);
  void start_by_reservations(int64_t now_s, std::vector<size_t>& out);

  const Policy policy_;
  int64_t free_;
  std::vector<Waiting> waiting_;  // in the order of arrival
  std::map<size_t, Running> running_;
};

}  // namespace uccp::sim
