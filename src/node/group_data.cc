// Groups whose data stays in their log: reading entries again, and the entries that a snapshot has to bring along
// because whoever installs it has no log before it.
#include <algorithm>

#include "machine/kept_entries.h"
#include "machine/planted.h"
#include "machine/restore.h"
#include "node/group.h"

namespace uccp::node {
namespace {

constexpr uint64_t kKeptReadBytes = 4u << 20;

}  // namespace

// The state as it is applied, with what was kept beside it since.
machine::GroupView Group::fresh_view() {
  const auto slot = static_cast<machine::StateSlot>(machine::kStateSlots - 1 - machine_.spare_slot());
  return {id_, kv_.view(), machine_.applied(), machine_.machine_time_ms(), slot};
}

// Recent entries are in memory; older ones are read between two writes of the log; those before it may be beside the
// state.
void Group::read_log(LogIndex from, LogIndex to, uint64_t bytes_max, machine::LogReader::Done done) {
  if (closed_) return done(fail(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
  if (from > machine_.applied() || to < from) {
    return done(fail(Code::kInvalid, "LOG_RANGE", "the entry " + std::to_string(from.value) + " is not applied yet"));
  }
  to = std::min(to, machine_.applied().next());
  if (const LogIndex begin = history_begin(); from < begin) {
    auto kept = machine::read_kept(fresh_view(), from, std::min(to, begin), bytes_max);
    if (!kept.empty() && kept.front().index == from) return done(std::move(kept));
    return done(fail(Code::kNotFound, "LOG_COMPACTED",
                     "the entry " + std::to_string(from.value) + " is of before a restore, which did not bring it"));
  }
  if (auto entries = cache_.recent(from, to, bytes_max)) return done(std::move(*entries));
  auto read = std::make_shared<Result<std::vector<Entry>>>();
  env_.disk.run(
      [this, from, to, bytes_max, read] {
        *read = env_.log.read(id_, from, to, bytes_max);
        return Status::ok();
      },
      [this, from, to, bytes_max, read, done = std::move(done)]() mutable {
        if (!*read && read->error().reason() == "LOG_COMPACTED") {
          auto kept = machine::read_kept(fresh_view(), from, to, bytes_max);
          if (!kept.empty() && kept.front().index == from) return done(std::move(kept));
        }
        done(std::move(*read));
      });
}

void Group::offer_snapshot(NodeId peer) {
  if (!log_is_data()) return sender_.want(peer);
  keep_needed([this, peer] {
    if (!closed_ && leads()) sender_.want(peer);
  });
}

// Entries before it that a restored state names are those of another log: they came with the state.
LogIndex Group::history_begin() const { return machine::restored_mark(machine_.view()).index; }

void Group::read_whole(machine::Reader::Done done) {
  if (!log_is_data()) return done(fresh_view());
  keep_needed([this, done = std::move(done)]() mutable {
    if (closed_) return done(fail(Code::kUnavailable, "SHUTTING_DOWN", "this node is shutting down"));
    done(fresh_view());
  });
}

// What is in the log need not be beside the state, unless a follower is being sent both.
void Group::drop_copies() {
  if (!log_is_data() || closed_ || !sender_.idle()) return;
  auto begin = std::make_shared<LogIndex>();
  env_.disk.run(
      [this, begin]() -> Status {
        UCCP_TRY(const storage::GroupLog log, env_.log.load(id_));
        *begin = log.start.index.next();
        return Status::ok();
      },
      [this, begin] {
        if (closed_ || !sender_.idle() || !keeping_.empty()) return;
        const auto slot = static_cast<machine::StateSlot>(machine::kStateSlots - 1 - machine_.spare_slot());
        const Status status = machine::drop_kept_from(kv_, id_, slot, std::max(*begin, history_begin()));
        if (!status.is_ok()) return env_.fatal(status);
        kept_to_ = begin->prev();
      });
}

LogIndex Group::first_to_keep() {
  const LogIndex floor = env_.log_floor(machine_.view(), history_begin());
  if (machine::planted_bug("lose_kept")) return machine_.applied().next();
  return floor ? std::max(floor, kept_to_.next()) : machine_.applied().next();
}

// `done` comes in a turn of the loop in which every entry that the state needs is beside it, or in the log of all who
// will ever have the state of that turn.
void Group::keep_needed(std::move_only_function<void()> done) {
  keeping_.push_back(std::move(done));
  if (keeping_.size() == 1) finish_keeping();
}

void Group::finish_keeping() {
  const LogIndex from = first_to_keep();
  const auto slot = static_cast<machine::StateSlot>(machine::kStateSlots - 1 - machine_.spare_slot());
  const LogIndex to = machine_.applied().next();
  const auto recent = from < to ? cache_.recent(from, to, UINT64_MAX) : std::vector<Entry>();
  if (closed_ || recent) {
    if (recent) {
      if (const Status status = machine::keep_entries(kv_, id_, slot, *recent); !status.is_ok())
        return env_.fatal(status);
      kept_to_ = machine_.applied();
    }
    for (auto& waiting : std::exchange(keeping_, {})) waiting();
    return;
  }
  auto entries = std::make_shared<std::vector<Entry>>();
  env_.disk.run(
      [this, from, to, entries]() -> Status {
        // Entries before the log are beside the state already, from the snapshot that it began with.
        UCCP_TRY(const storage::GroupLog log, env_.log.load(id_));
        const LogIndex first = std::max(from, log.start.index.next());
        if (first < to) {
          UCCP_TRY(*entries, env_.log.read(id_, first, to, kKeptReadBytes));
        }
        return Status::ok();
      },
      [this, slot, to, entries] {
        const Status status = machine::keep_entries(kv_, id_, slot, *entries);
        if (!status.is_ok()) return env_.fatal(status);
        kept_to_ = std::max(kept_to_, entries->empty() ? to.prev() : entries->back().index);
        finish_keeping();
      });
}

// After a flush: entries that are not needed any more.
void Group::drop_kept() {
  if (!log_is_data() || closed_) return;
  const LogIndex floor = env_.log_floor(machine_.view(), LogIndex(0));
  const auto slot = static_cast<machine::StateSlot>(machine::kStateSlots - 1 - machine_.spare_slot());
  const Status status = machine::drop_kept(kv_, id_, slot, floor ? floor : machine_.applied());
  if (!status.is_ok()) env_.fatal(status);
}

}  // namespace uccp::node
