// Workloads of batch machines: rigid parallel jobs in the Standard Workload Format, read, written, and made by a model.
//
// The format is that of the Parallel Workloads Archive, version 2.2: lines of 18 numbers, comments after ';', -1 for
// what is not known. Of these are used: number (1), submit time (2), run time (4), allocated processors (5), requested
// processors (8), requested time (9), status (11) and user (12).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::sim {

struct TraceJob {
  int64_t submit_s = 0;
  int64_t run_s = 0;
  int64_t limit_s = 0;  // after which it would be stopped; not less than run_s
  int64_t processors = 0;
  int64_t user = 0;

  bool operator==(const TraceJob&) const = default;
};

// Jobs by submit time. Jobs without processors or run time never ran and are left out; a job that ran longer than it
// asked for has its run time for a limit. Errors: invalid TRACE_MALFORMED, with the line.
Result<std::vector<TraceJob>> parse_swf(std::string_view text);
std::string to_swf(const std::vector<TraceJob>& jobs, std::string_view about);

struct TraceModel {
  size_t jobs = 2'000;
  int64_t processors = 256;  // of the machine
  double load = 0.9;         // work that arrives, of what the machine can do
  size_t users = 24;
};

// A synthetic workload. Sizes and run times are those of Lublin and Feitelson's model of rigid batch jobs ("The
// workload on parallel supercomputers", JPDC 63, 2003): a quarter serial, sizes two-stage uniform in the logarithm,
// mostly powers of two; the logarithm of the run time is hyper-gamma, with larger jobs mostly longer. Arrivals are
// Poisson with a day of three levels, stretched to the load that is asked for. Users are Zipf-distributed; each job
// asks for the time of a list that people use (a quarter of an hour to three days) that is enough for one to five times
// its run.
std::vector<TraceJob> make_trace(uint64_t seed, const TraceModel& model);

}  // namespace uccp::sim
