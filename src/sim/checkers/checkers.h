// All checkers of one run.
#pragma once

#include "sim/checkers/apply_checker.h"
#include "sim/checkers/dedup_checker.h"
#include "sim/checkers/digest_checker.h"
#include "sim/checkers/durability_checker.h"
#include "sim/checkers/linearizability.h"
#include "sim/checkers/run_checker.h"
#include "sim/checkers/task_checker.h"
#include "sim/checkers/ttl_checker.h"
#include "sim/checkers/violations.h"
#include "sim/checkers/watch_checker.h"

namespace uccp::sim {

struct Checkers {
  explicit Checkers(int64_t drift_ppm_max) : ttl(violations, drift_ppm_max) {}

  Violations violations;
  ApplyChecker apply{violations};
  DedupChecker dedup{violations};
  DurabilityChecker durability{violations};
  DigestChecker digest{violations};
  LinearizabilityChecker registers{violations};
  TaskChecker tasks{violations};
  RunChecker runs{violations};
  WatchChecker watches{violations};
  TtlChecker ttl;
};

}  // namespace uccp::sim
