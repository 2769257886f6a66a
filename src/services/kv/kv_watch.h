// Open watches of this node. A watch first gets the past from the log of revisions, then what happens, without gaps; a
// client that reads too slowly goes back to the past, and loses nothing unless that is compacted meanwhile.
//
// The machine tells each revision once, on the events executor, where all watches live: they are found by their ranges,
// however many there are, and what they get in one go is one item. Reading the past is work for the work executor; it
// only takes immutable things along.
//
// Of a revision that is cut, each part but the last says `fragment`: something of it follows for that watch.
//
// No gaps: a watch that has everything up to revision n goes live only on the events executor, and only if no later
// revision was told there already; else it reads on. A revision that is not in a state that was read will be told
// after.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/executor.h"
#include "base/metrics.h"
#include "call/call.h"
#include "machine/ports.h"
#include "services/kv/kv_events.h"
#include "services/kv/kv_past.h"
#include "services/kv/kv_rows.h"
#include "services/kv/range_index.h"
#include "uccp/v1/kv.pb.h"

namespace uccp::kv {

inline constexpr size_t kWatchesMax = 100'000;
// A client with more than this waiting for it goes back to the past, and goes on when less than kResumeBytes wait.
inline constexpr size_t kWatchQueueBytesMax = 4u << 20;
inline constexpr size_t kWatchResumeBytes = 512u << 10;

class WatchHub : public std::enable_shared_from_this<WatchHub> {
 public:
  // Everything must outlive the calls. `events`: where the watcher's callbacks come.
  struct Environment {
    machine::Reader& reader;
    machine::Watcher& watcher;
    Executor& events;
    Executor& work;
    const Clock& clock;
    MetricsRegistry& metrics;
  };
  static std::shared_ptr<WatchHub> make(const Environment& environment);

  // Callable from any thread.
  void open(const call::CallPtr& call, const v1::WatchRequest& request);
  // Answers the call, and has each of the watches tell when it is as far as that answer.
  void probe(const call::CallPtr& call, std::vector<int64_t> ids, uint64_t revision);

 private:
  struct Watch;
  using WatchPtr = std::shared_ptr<Watch>;
  // One namespace.
  struct Store {
    uint64_t told = 0;  // last revision that the machine told
    RangeIndex<Watch*> live;
    std::multimap<uint64_t, std::weak_ptr<Watch>> probes;  // by the revision that was answered
  };

  explicit WatchHub(const Environment& environment);

  // All on the events executor.
  void start(const WatchPtr& watch);
  void subscribe();
  void begin(const WatchPtr& watch, const machine::GroupView& view);
  void end(const WatchPtr& watch, Status status, uint64_t compact_revision = 0);
  void forget(const WatchPtr& watch);
  void on_lost(const Status& status);
  void go_live(const WatchPtr& watch);
  void leave_live(Watch& watch);
  bool on_change(const machine::Change& change);
  void add_event(Watch& watch, const struct EncodedEvent& event);
  void schedule_flush();
  void flush();
  void send_pending(Watch& watch, LogPlace next);
  void send_events(Watch& watch, std::string events, size_t count, LogPlace next);
  void fall_behind(const WatchPtr& watch);
  void catch_up(const WatchPtr& watch);
  void take_past(const WatchPtr& watch, PastReader::Chunk chunk);
  // Everything up to this revision was sent; 0: not known just now.
  uint64_t reached(const Watch& watch);
  void send_progress(Watch& watch, uint64_t revision);
  void answer_probes(Store& store);
  void schedule_progress();
  void tick_progress();

  const Environment env_;
  Counter& events_sent_;
  Counter& fell_behind_;
  Gauge& open_;
  std::shared_ptr<machine::Watch> subscription_;
  int64_t last_id_ = 0;
  std::map<int64_t, WatchPtr> watches_;
  std::map<machine::Scope, Store> stores_;
  std::set<int64_t> dirty_;  // numbers of watches with events that are not sent
  bool flush_scheduled_ = false;
  std::multimap<BootTime, int64_t> progress_due_;
  bool progress_scheduled_ = false;
};

}  // namespace uccp::kv
