#include "services/events/bus_keeper.h"

#include "services/events/bus_schedule.h"
#include "services/events/bus_state.h"
#include "services/events/bus_trim.h"
#include "services/events/join.h"

namespace uccp::events {

using machine::GroupView;
using machine::ReadLevel;
using machine::Scope;

BusKeeper::BusKeeper(BusKeeperOptions options, machine::Proposer& local, machine::Proposer& anywhere,
                     machine::Reader& reader, Executor& loop, Executor& work, const Clock& clock, Compactor& compactor,
                     LogCleaner& cleaner, SilentProducers& producers, Transactions& transactions)
    : options_(options),
      local_(local),
      anywhere_(anywhere),
      reader_(reader),
      loop_(loop),
      work_(work),
      clock_(clock),
      compactor_(compactor),
      cleaner_(cleaner),
      producers_(producers),
      transactions_(transactions) {}

void BusKeeper::on_leadership(GroupId group, bool leads) {
  if (!leads) {
    rounds_.erase(group);
    return;
  }
  rounds_[group] = ++last_round_;
  look(group, last_round_);
  release(group, last_round_);
}

bool BusKeeper::current(GroupId group, uint64_t round) const {
  const auto at = rounds_.find(group);
  return at != rounds_.end() && at->second == round;
}

// Until nothing is due; then again after a while.
void BusKeeper::release(GroupId group, uint64_t round) {
  if (!current(group, round)) return;
  const auto later = [this, group, round] {
    loop_.post_after(options_.release_interval_ms, [this, group, round] { release(group, round); });
  };
  reader_.read(group, {.kind = ReadLevel::Kind::kSession}, [this, group, round, later](Result<GroupView> bus) {
    const int64_t now_us = clock_.wall().us;
    const int64_t due_us = bus ? first_due_us(*bus) : 0;
    if (due_us == 0 || due_us > now_us) return later();
    internal::v1::BusReleaseCommand command;
    command.set_now_us(now_us);
    command.set_events_max(options_.events_per_release);
    machine::Envelope envelope;
    envelope.principal = "system";
    envelope.command = std::string(kBusDomain) + ".release";
    envelope.payload = command.SerializeAsString();
    local_.propose(group, std::move(envelope), [this, group, round, later](Result<machine::Applied> applied) {
      internal::v1::BusProgress progress;
      const bool more = applied && progress.ParseFromString(applied->response) && !progress.done();
      if (!more) return later();
      loop_.post([this, group, round] { release(group, round); });
    });
  });
}

void BusKeeper::look(GroupId group, uint64_t round) {
  if (!current(group, round)) return;
  loop_.post_after(options_.interval_ms, [this, group, round] { look(group, round); });
  // The bus group first: whatever it has was made in core before, so a topic that is then not there is gone.
  reader_.read(group, {.kind = ReadLevel::Kind::kSession}, [this, group, round](Result<GroupView> bus) {
    if (!bus) return;
    reader_.read(kCoreGroup, ReadLevel::linearizable(),
                 [this, group, round, bus = std::move(*bus)](Result<GroupView> core) {
                   if (!core) return;
                   loop_.post([this, group, round, bus, core = std::move(*core)] {
                     const int64_t now_ms = machine_time_now(group, bus);
                     work_.post([this, group, round, bus, core, now_ms] { clean(group, round, bus, core, now_ms); });
                   });
                 });
  });
}

int64_t BusKeeper::machine_time_now(GroupId group, const GroupView& bus) {
  const BootTime now = clock_.boot();
  Seen& seen = seen_[group];
  if (seen.applied != bus.applied()) seen = {bus.applied(), now};
  return bus.machine_time_ms() + now.ms_since(seen.since);
}

void BusKeeper::clean(GroupId group, uint64_t round, const GroupView& bus, const GroupView& core, int64_t now_ms) {
  std::set<uint64_t> known;
  kTopics.scan_all(core, [&](const Scope&, std::string_view, const TopicRow& topic) {
    known.insert(topic.number());
    return true;
  });
  std::map<uint64_t, Scope> gone;
  std::map<Scope, internal::v1::BusTrimCommand> due;
  std::vector<PartitionAt> uncompacted;
  uint64_t live_bytes = 0;
  kPartitions.scan_all(bus, [&](const Scope& scope, std::string_view key, const BusPartitionRow& row) {
    const PartitionId id = decode_partition_key(key);
    if (!known.contains(id.topic)) {
      gone[id.topic] = scope;
    } else if (trim_due(row, now_ms) && due[scope].partitions_size() < options_.partitions_per_command) {
      internal::v1::BusPartition& one = *due[scope].add_partitions();
      one.set_topic(id.topic);
      one.set_partition(id.partition);
    }
    live_bytes += row.bytes();
    // The commands of both are of the level at which these bytes are counted.
    const bool can = known.contains(id.topic) && log_bytes_ever(bus) > 0;
    if (can && compactor_.due(row, now_ms)) uncompacted.push_back({group, scope, id});
    return true;
  });
  transactions_.look_for_strays(group, bus);
  loop_.post([this, group, round, bus, now_ms, live_bytes, uncompacted = std::move(uncompacted)]() mutable {
    if (!current(group, round)) return;
    const auto leads = [this, group, round] { return current(group, round); };
    compactor_.begin(group, std::move(uncompacted), leads);
    cleaner_.look(group, bus, live_bytes, leads);
    producers_.look(group, bus, now_ms, leads);
  });
  for (const auto& [topic, scope] : gone) {
    drop_in(local_, group, scope, topic, [](const Status&) {});
  }
  for (auto& [scope, command] : due) {
    command.set_rows_max(options_.rows_per_command);
    trim(group, scope, std::move(command));
  }
}

// Step by step until nothing is left, or this node no longer leads.
void BusKeeper::trim(GroupId group, const Scope& scope, internal::v1::BusTrimCommand command) {
  machine::Envelope envelope;
  envelope.scope = scope;
  envelope.principal = "system";
  envelope.command = std::string(kBusDomain) + ".trim";
  envelope.payload = command.SerializeAsString();
  local_.propose(group, std::move(envelope),
                 [this, group, scope, command = std::move(command)](Result<machine::Applied> applied) mutable {
                   internal::v1::BusProgress progress;
                   if (!applied || !progress.ParseFromString(applied->response) || progress.done()) return;
                   trim(group, scope, std::move(command));
                 });
}

// Step by step until nothing is left.
void BusKeeper::drop_in(machine::Proposer& proposer, GroupId group, const Scope& scope, uint64_t topic, Done done) {
  internal::v1::BusDropCommand command;
  command.set_topic(topic);
  command.set_rows_max(options_.rows_per_command);
  machine::Envelope envelope;
  envelope.scope = scope;
  envelope.principal = "system";
  envelope.command = std::string(kBusDomain) + ".drop";
  envelope.payload = command.SerializeAsString();
  proposer.propose(
      group, std::move(envelope),
      [this, &proposer, group, scope, topic, done = std::move(done)](Result<machine::Applied> applied) mutable {
        if (!applied) return done(std::move(applied.error()));
        internal::v1::BusProgress progress;
        if (!progress.ParseFromString(applied->response) || progress.done()) return done(Status::ok());
        drop_in(proposer, group, scope, topic, std::move(done));
      });
}

void BusKeeper::drop(const Scope& scope, const TopicRow& topic, Done done) {
  const std::set<uint32_t> groups(topic.groups().begin(), topic.groups().end());
  const auto join = Join::make(groups.size(), std::move(done));
  for (const uint32_t group : groups) {
    drop_in(anywhere_, bus_group(group), scope, topic.number(),
            [join](Status status) { join->arrive(std::move(status)); });
  }
}

}  // namespace uccp::events
