#include "services/events/gatherer.h"

#include <memory>

#include "services/events/bus_state.h"

namespace uccp::events {

uint64_t bytes_of(const internal::v1::BusBatch& batch) {
  uint64_t bytes = 0;
  for (const std::string& event : batch.events()) bytes += event.size();
  return bytes;
}

Gatherer::Gatherer(GathererOptions options, machine::Proposer& proposer, Executor& executor, const Clock& clock,
                   MetricsRegistry& metrics)
    : options_(options),
      proposer_(proposer),
      executor_(executor),
      clock_(clock),
      gathered_(metrics.histogram("uccp_bus_gathered_publishes", "Publishes that one command of a bus group carries",
                                  {}, {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024})) {}

void Gatherer::append(GroupId group, const machine::Scope& scope, std::vector<internal::v1::BusBatch> batches,
                      std::optional<BootTime> deadline, Done done) {
  Publish publish{.batches = std::move(batches), .deadline = deadline, .done = std::move(done)};
  for (const auto& batch : publish.batches) publish.bytes += bytes_of(batch);
  executor_.post(
      [this, key = Key(group, scope), publish = std::move(publish)]() mutable { add(key, std::move(publish)); });
}

void Gatherer::add(const Key& key, Publish publish) {
  if (queued_bytes_ + publish.bytes > options_.queue_bytes_max) {
    return publish.done(fail(Status(Code::kExhausted, "EVENTS_QUEUE_FULL",
                                    std::to_string(queued_bytes_ >> 20) +
                                        " MiB of events wait to be stored; nothing was published, retry later")
                                 .with_retry_after_ms(100)));
  }
  queued_bytes_ += publish.bytes;
  queues_[key].waiting.push_back(std::move(publish));
  flush(key);
}

void Gatherer::flush(const Key& key) {
  Queue& queue = queues_[key];
  if (queue.under_way >= options_.under_way_max || queue.waiting.empty()) return;
  internal::v1::BusAppendCommand command;
  std::vector<Publish> publishes;
  std::map<std::pair<uint64_t, uint32_t>, int> last;  // batch of each partition
  uint64_t bytes = 0;
  const BootTime now = clock_.boot();
  while (!queue.waiting.empty()) {
    Publish& next = queue.waiting.front();
    if (!publishes.empty() && bytes + next.bytes > options_.command_bytes_max) break;
    queued_bytes_ -= next.bytes;
    if (next.deadline && *next.deadline <= now) {
      next.done(fail(Code::kDeadline, "DEADLINE_EXCEEDED", "the deadline passed before the events were stored"));
    } else {
      bytes += next.bytes;
      for (auto& batch : next.batches) next.slots.push_back(put(command, last, std::move(batch)));
      publishes.push_back(std::move(next));
    }
    queue.waiting.pop_front();
  }
  if (publishes.empty()) return;
  ++queue.under_way;
  gathered_.observe(static_cast<double>(publishes.size()));
  machine::Envelope envelope;
  envelope.scope = key.second;
  envelope.principal = std::string(kBusDomain);
  envelope.command = std::string(kBusDomain) + ".append";
  envelope.payload = command.SerializeAsString();
  proposer_.propose(
      key.first, std::move(envelope),
      [this, key, publishes = std::move(publishes)](Result<machine::Applied> applied) mutable {
        executor_.post([this, key, publishes = std::move(publishes), applied = std::move(applied)]() mutable {
          finish(key, std::move(publishes), std::move(applied));
        });
      });
}

// Behind what the command has for the partition already, so that nothing overtakes.
Gatherer::Slot Gatherer::put(internal::v1::BusAppendCommand& command,
                             std::map<std::pair<uint64_t, uint32_t>, int>& last, internal::v1::BusBatch batch) {
  const auto alone = [](const internal::v1::BusBatch& one) {
    return !one.producer_id().empty() || one.has_expected_offset() || one.has_expected_version() ||
           one.transaction() != 0;
  };
  const auto count = static_cast<uint32_t>(batch.events_size());
  const auto [at, fresh] = last.try_emplace({batch.topic(), batch.partition()}, command.batches_size());
  if (!fresh) {
    internal::v1::BusBatch& before = *command.mutable_batches(at->second);
    if (!alone(before) && !alone(batch) && before.principal() == batch.principal() &&
        before.ephemeral() == batch.ephemeral()) {
      const auto first = static_cast<uint32_t>(before.events_size());
      for (std::string& event : *batch.mutable_events()) *before.add_events() = std::move(event);
      return {at->second, first, count};
    }
    at->second = command.batches_size();
  }
  *command.add_batches() = std::move(batch);
  return {at->second, 0, count};
}

// What the answer for the whole batch says of some of its events.
internal::v1::BusBatchResult Gatherer::result_of(const Slot& slot, const internal::v1::BusBatchResult& whole) {
  internal::v1::BusBatchResult part;
  part.set_refusal(whole.refusal());
  part.set_expected(whole.expected());
  part.set_version(whole.version());
  part.set_staged(whole.staged());
  uint32_t repeated_before = 0;  // or scheduled: what has no offset of its own
  for (int i = 0; i < whole.duplicates_size(); ++i) {
    const uint32_t place = whole.duplicates(i);
    repeated_before += place < slot.first ? 1 : 0;
    if (place < slot.first || place >= slot.first + slot.count) continue;
    part.add_duplicates(place - slot.first);
    part.add_duplicate_offsets(whole.duplicate_offsets(i));
  }
  for (const uint32_t place : whole.scheduled()) {
    repeated_before += place < slot.first ? 1 : 0;
    if (place >= slot.first && place < slot.first + slot.count) part.add_scheduled(place - slot.first);
  }
  part.set_first_offset(whole.first_offset() + slot.first - repeated_before);
  return part;
}

void Gatherer::finish(const Key& key, std::vector<Publish> publishes, Result<machine::Applied> applied) {
  Queue& queue = queues_[key];
  --queue.under_way;
  if (queue.waiting.empty() && queue.under_way == 0) queues_.erase(key);
  else flush(key);
  internal::v1::BusAppendResult result;
  if (applied && !result.ParseFromString(applied->response)) {
    applied = fail(Code::kInternal, "BUS_ANSWER", "a bus group answered what is no BusAppendResult");
  }
  for (Publish& publish : publishes) {
    if (!applied) {
      publish.done(std::unexpected(applied.error()));
      continue;
    }
    std::vector<internal::v1::BusBatchResult> results;
    for (const Slot& slot : publish.slots) {
      results.push_back(slot.batch < result.batches_size() ? result_of(slot, result.batches(slot.batch))
                                                           : internal::v1::BusBatchResult());
    }
    publish.done(std::move(results));
  }
}

}  // namespace uccp::events
