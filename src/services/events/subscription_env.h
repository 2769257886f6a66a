// What subscriptions run on.
#pragma once

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "machine/ports.h"
#include "services/events/feed.h"
#include "services/events/fetcher.h"
#include "services/events/gatherer.h"
#include "services/events/topic_directory.h"

namespace uccp::events {

struct SubscriptionOptions {
  // Events of a partition that are read ahead of those who take them.
  size_t buffered_events = 256;
  uint64_t fetch_bytes = 256u << 10;
  // How far behind the newest delivery the oldest unconfirmed event of a partition may be.
  uint64_t window_events = 10'000;
  size_t queue_bytes_max = 4u << 20;
  int64_t tick_ms = 50;
  int64_t keep_alive_ms = 15'000;
  // Until a dead letter that could not be stored is tried again.
  int64_t dead_letter_retry_ms = 1'000;
};

struct SubscriptionCounters {
  Counter& delivered;
  Counter& redelivered;
  Counter& acknowledged;
  Counter& dead_lettered;
  Counter& dropped;
};

// Everything must outlive the subscriptions.
struct SubscriptionEnvironment {
  SubscriptionOptions options;
  machine::Proposer& anywhere;
  machine::Reader& reader;
  Feed& feed;
  Fetcher& fetcher;
  Gatherer& gatherer;
  TopicDirectory& topics;
  Executor& events;
  const Clock& clock;
  MetricsRegistry& metrics;
  SubscriptionCounters& counters;
};

}  // namespace uccp::events
