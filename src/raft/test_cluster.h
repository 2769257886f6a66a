// Hosts for cores in tests: a disk with a queue of writes that a crash loses, an applied state, an outbox.
//
// A TestNode does the host's duties of core.h and decides nothing: tests say when it syncs and what is delivered.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "raft/core.h"

namespace uccp::raft {

// What survives a crash. `log` holds the entries behind `start`.
class TestDisk final : public LogReader {
 public:
  HardState hard_state;
  LogPosition start;
  std::vector<Entry> log;
  // The flushed state of the machine: its position, and the membership in force there.
  LogPosition state;
  Membership membership;
  bool slow = false;  // entries() answers `unavailable`

  LogPosition last() const { return log.empty() ? start : LogPosition{log.back().term, log.back().index}; }
  bool holds(LogPosition position) const {
    return position.index <= last().index && term(position.index).value_or(Term()) == position.term;
  }
  const Entry& at(LogIndex index) const { return log[index.value - start.index.value - 1]; }

  Result<Term> term(LogIndex index) const override {
    if (index == start.index) return start.term;
    if (index < start.index) return fail(Code::kNotFound, "LOG_COMPACTED", "reading a term");
    UCCP_CHECK(index <= last().index, "the core asks for durable entries only");
    return at(index).term;
  }

  Result<std::vector<Entry>> entries(LogIndex from, LogIndex to, uint64_t bytes_max) const override {
    if (from <= start.index) return fail(Code::kNotFound, "LOG_COMPACTED", "reading entries");
    if (slow) return fail(Code::kUnavailable, "LOG_NOT_IN_MEMORY", "reading entries");
    UCCP_CHECK(to <= last().index.next(), "the core asks for durable entries only");
    std::vector<Entry> out;
    uint64_t bytes = 0;
    for (LogIndex i = from; i < to; i = i.next()) {
      bytes += at(i).data.size();
      if (!out.empty() && bytes > bytes_max) break;
      out.push_back(at(i));
    }
    return out;
  }

  void write(const Persist& persist) {
    if (persist.hard_state) hard_state = *persist.hard_state;
    if (persist.log_start) {
      start = *persist.log_start;
      log.clear();
    }
    if (persist.entries.empty()) return;
    const LogIndex first = persist.entries.front().index;
    UCCP_CHECK(first > start.index && first <= last().index.next(), "appended entries follow the log");
    log.resize(first.value - start.index.value - 1);
    log.insert(log.end(), persist.entries.begin(), persist.entries.end());
  }

  void compact(LogPosition position) {
    if (position.index <= start.index) return;
    log.erase(log.begin(), log.begin() + static_cast<std::ptrdiff_t>(position.index.value - start.index.value));
    start = position;
  }
};

class TestNode {
 public:
  explicit TestNode(const Options& options, uint64_t seed) : options_(options), seed_(seed) {}

  NodeId id() const { return options_.id; }
  bool up() const { return core_ != nullptr; }
  Core& core() { return *core_; }

  // Called for every entry as it is applied.
  std::function<void(const Entry&)> on_apply;
  // Called with what each event puts out, before the node acts on it.
  std::function<void(const Outputs&)> on_outputs;

  void start() {
    // A snapshot became durable, and the log that should begin behind it did not.
    if (!disk.holds(disk.state)) {
      disk.start = disk.state;
      disk.log.clear();
    }
    Initial initial{disk.hard_state, disk.membership, disk.start, disk.last(), disk.state.index, {}};
    for (const Entry& entry : disk.log) {
      if (entry.index > disk.state.index && entry.kind == EntryKind::kConfiguration)
        initial.configurations.push_back(entry);
    }
    applied = disk.state;
    membership = disk.membership;
    // Far apart, or a node that restarts twice draws the timeouts of its neighbour, and both campaign together for
    // ever.
    seed_ += 1'000'003;
    core_ = std::make_unique<Core>(options_, initial, disk, seed_);
  }

  // Everything that was not synced is lost, the outbox with it.
  void crash() {
    core_.reset();
    writes.clear();
    outbox.clear();
  }

  void step(Event event) {
    Outputs out;
    core_->step(std::move(event), out);
    if (on_outputs) on_outputs(out);
    std::move(out.messages.begin(), out.messages.end(), std::back_inserter(outbox));
    if (!out.persist.empty()) writes.push_back(std::move(out.persist));
    if (out.commit) apply_to(*out.commit);
  }

  // Makes the oldest `count` writes durable, with one sync.
  void sync(size_t count = SIZE_MAX) {
    uint64_t sequence = 0;
    std::vector<Message> released;
    for (; count > 0 && !writes.empty(); --count) {
      Persist& persist = writes.front();
      disk.write(persist);
      sequence = persist.sequence;
      std::move(persist.messages.begin(), persist.messages.end(), std::back_inserter(released));
      writes.pop_front();
    }
    if (sequence == 0) return;
    std::move(released.begin(), released.end(), std::back_inserter(outbox));
    step(Persisted{sequence});
  }

  // The machine's state is flushed as it is applied now.
  void flush_state() {
    disk.state = applied;
    disk.membership = membership;
  }

  void compact() {
    flush_state();
    // After a snapshot, until the new start of the log is durable, there is nothing to drop.
    if (!disk.holds(applied)) return;
    disk.compact(applied);
    step(Compacted{applied});
  }

  void install(LogPosition position, const Membership& at_position) {
    if (position.index > applied.index) {
      applied = disk.state = position;
      membership = disk.membership = at_position;
    }
    step(SnapshotInstalled{position, at_position});
  }

  TestDisk disk;
  std::deque<Persist> writes;  // put out, not durable
  std::vector<Message> outbox;
  LogPosition applied;
  Membership membership;  // at `applied`

 private:
  void apply_to(LogIndex index) {
    while (applied.index < index) {
      const LogIndex next = applied.index.next();
      UCCP_CHECK(next > disk.start.index && next <= disk.last().index, "what is applied is durable here");
      const Entry& entry = disk.at(next);
      applied = {entry.term, entry.index};
      if (entry.kind == EntryKind::kConfiguration) membership = decode_membership(entry.data).value();
      if (on_apply) on_apply(entry);
    }
    step(Applied{applied.index});
  }

  const Options options_;
  uint64_t seed_;
  std::unique_ptr<Core> core_;
};

}  // namespace uccp::raft
