// Open streams of Subscribe without a name on this node. Each begins where it was asked to, reads what is stored as
// fast as its client takes it, and gets new batches at once when it has everything before them.
//
// Streams live on the events executor. A client that reads slowly costs nothing but its place: when too much waits for
// it, the stream stops, and goes on from the log.
#pragma once

#include <map>
#include <memory>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "call/call.h"
#include "machine/ports.h"
#include "services/events/feed.h"
#include "services/events/fetcher.h"
#include "services/events/system_topics.h"
#include "uccp/v1/events.pb.h"

namespace uccp::events {

struct StreamOptions {
  size_t streams_max = 20'000;
  size_t partitions_max = 10'000;  // of one stream
  // With more than this waiting for the client the stream stops, and goes on when the door tells that it took some.
  size_t queue_bytes_max = 4u << 20;
  uint64_t fetch_bytes = 1u << 20;
  int64_t keep_alive_ms = 15'000;
};

class Streams : public std::enable_shared_from_this<Streams> {
 public:
  // Everything must outlive the calls.
  struct Environment {
    machine::Reader& reader;
    Feed& feed;
    Fetcher& fetcher;
    Executor& events;
    Executor& work;
    const Clock& clock;
    MetricsRegistry& metrics;
  };
  static std::shared_ptr<Streams> make(StreamOptions options, const Environment& environment);

  // The topics "$sys.>", and whether a principal may do in a namespace what a permission says. Before the first call.
  using May = std::function<bool(const call::Call&, const std::string& permission)>;
  void show_changes(std::vector<services::ChangeTopic> topics, May may);
  // Requires that the request names no subscription. Callable from any thread.
  void open(const call::CallPtr& call, const v1::SubscribeRequest& request);

 private:
  class Stream;
  friend class Stream;
  Streams(StreamOptions options, const Environment& environment);
  void add(const std::shared_ptr<Stream>& stream);
  void schedule_keep_alive();

  const StreamOptions options_;
  const Environment env_;
  Gauge& open_;
  Counter& delivered_;
  Counter& delivered_bytes_;
  std::vector<services::ChangeTopic> change_topics_;
  May may_;
  std::map<Stream*, std::shared_ptr<Stream>> streams_;
  bool keep_alive_scheduled_ = false;
};

}  // namespace uccp::events
