// Traces of batch machines from elsewhere: refused with the line, or jobs that are the same when they are written and
// read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "sim/scheduling/workload_trace.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const auto jobs = sim::parse_swf({reinterpret_cast<const char*>(data), size});
  if (!jobs) {
    UCCP_CHECK(jobs.error().reason() == "TRACE_MALFORMED", "every refusal has one reason");
    return 0;
  }
  int64_t last_s = 0;
  for (const sim::TraceJob& job : *jobs) {
    UCCP_CHECK(job.submit_s >= last_s && job.processors > 0 && job.run_s > 0 && job.limit_s >= job.run_s,
               "jobs come one after the other and have something to do");
    last_s = job.submit_s;
  }
  const auto again = sim::parse_swf(sim::to_swf(*jobs, "fuzz"));
  UCCP_CHECK(again && *again == *jobs, "jobs that were read can be written");
  return 0;
}
