// All checkers of one run.
#pragma once

#include "sim/checkers/apply_checker.h"
#include "sim/checkers/commit_checker.h"
#include "sim/checkers/dedup_checker.h"
#include "sim/checkers/digest_checker.h"
#include "sim/checkers/durability_checker.h"
#include "sim/checkers/event_checker.h"
#include "sim/checkers/freshness_checker.h"
#include "sim/checkers/gang_checker.h"
#include "sim/checkers/hold_checker.h"
#include "sim/checkers/kv_checker.h"
#include "sim/checkers/leader_checker.h"
#include "sim/checkers/linearizability.h"
#include "sim/checkers/listing_checker.h"
#include "sim/checkers/log_checker.h"
#include "sim/checkers/order_checker.h"
#include "sim/checkers/queue_checker.h"
#include "sim/checkers/run_checker.h"
#include "sim/checkers/subscription_checker.h"
#include "sim/checkers/task_checker.h"
#include "sim/checkers/term_checker.h"
#include "sim/checkers/transaction_checker.h"
#include "sim/checkers/ttl_checker.h"
#include "sim/checkers/value_checker.h"
#include "sim/checkers/violations.h"
#include "sim/checkers/watch_checker.h"

namespace uccp::sim {

// Names under which they report, for the evidence of a run.
inline constexpr std::string_view kCheckerNames =
    "apply commits dedup digest durability events fencing freshness holds kv leaders linearizability listings logs "
    "order "
    "queues runs subscriptions tasks terms transactions ttl values watch progress";

struct Checkers {
  explicit Checkers(int64_t drift_ppm_max)
      : freshness(violations, drift_ppm_max), holds(violations, drift_ppm_max), ttl(violations, drift_ppm_max) {}

  Violations violations;
  ApplyChecker apply{violations};
  CommitChecker commits{violations};
  DedupChecker dedup{violations};
  DigestChecker digest{violations};
  DurabilityChecker durability{violations};
  EventChecker events{violations};
  FreshnessChecker freshness;
  GangChecker gangs{violations};
  HoldChecker holds;
  KvChecker kv{violations};
  OrderChecker kv_order{violations};
  LeaderChecker leaders{violations};
  ListingChecker listings{violations};
  LogChecker logs{violations};
  OrderChecker order{violations};
  QueueChecker queues{violations};
  LinearizabilityChecker registers{violations};
  RunChecker runs{violations};
  SubscriptionChecker subscriptions{violations};
  TaskChecker tasks{violations};
  TermChecker terms{violations};
  TransactionChecker transactions{violations};
  TtlChecker ttl;
  ValueChecker values{violations};
  WatchChecker watches{violations};
};

}  // namespace uccp::sim
