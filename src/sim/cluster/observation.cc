#include "sim/cluster/observation.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "services/discovery/discovery_state.h"
#include "services/kv/kv_service.h"
#include "services/locks/locks_state.h"
#include "services/tasks/task_arrays.h"
#include "services/tasks/tasks_state.h"
#include "sim/cluster/register_domain.h"

namespace uccp::sim {
namespace {

uint64_t hash_of(std::string_view command, std::string_view payload, const machine::ApplyResult& result) {
  uint64_t hash = hash64(command) ^ hash64(payload) * 3;
  return hash ^ (result ? hash64(*result) * 5 : hash64(result.error().reason()) * 7);
}

}  // namespace

void Observation::applied(NodeId node, GroupId group, machine::ApplyContext& context, std::string_view command,
                          std::string_view payload, const machine::ApplyResult& result) {
  const uint64_t hash = hash_of(command, payload, result);
  scheduler_.trace(hash);
  // Which node is first does not matter to what follows: a command has one result for ever.
  if (!checkers_.apply.applied(node, group, context.index(), command, hash)) return;
  note_request(group, context);
  if (!result) return;
  if (command.starts_with("registers.") && *result == "1") {
    const RegisterCommand change = decode_command(payload);
    checkers_.values.wrote(change.key, context.index(), change.value);
  }
  if (command.starts_with("discovery.")) note_discovery(context.index(), command, payload, *result);
  if (command.starts_with("permits.")) note_permits(context);
  if (command.starts_with("kv.")) note_kv(command, payload, *result);
  if (group == kWorkGroup) note_work(context, command, payload, *result);
}

void Observation::note_request(GroupId group, const machine::ApplyContext& context) {
  const machine::Envelope& e = context.envelope();
  if (!e.dedup.session && e.dedup.request_id.empty()) return;
  std::string key = std::to_string(group.value) + "/" + e.principal + "/";
  if (e.dedup.session) key += std::to_string(e.dedup.session.value) + "." + std::to_string(e.dedup.sequence);
  else key += e.method + "/" + e.dedup.request_id;
  checkers_.dedup.executed(key, context.index());
}

void Observation::note_discovery(LogIndex index, std::string_view command, std::string_view payload,
                                 const std::string& result) {
  using Health = ListingChecker::Health;
  if (command == "discovery.expired") {
    ByteReader key(payload);
    key.bytes();
    key.bytes();
    const std::string_view id = key.bytes();
    // Other leases of an instance end without it.
    if (key.at_end()) checkers_.listings.changed(index, std::string(id), "", Health::kGone);
  } else if (command == "discovery.deregister") {
    internal::v1::DeregisterServiceCommand ended;
    if (ended.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
      checkers_.listings.changed(index, ended.id(), "", Health::kGone);
    }
  } else if (discovery::ServiceRow row; row.ParseFromString(result)) {
    const v1::HealthStatus health = row.service().health_status();
    const bool healthy = health == v1::HEALTH_STATUS_HEALTHY || health == v1::HEALTH_STATUS_DEGRADED;
    checkers_.listings.changed(index, row.service().id(), row.service().service_name(),
                               healthy ? Health::kHealthy : Health::kUnhealthy);
  }
}

// Counts rows, and not what the rows of locks say about their number.
void Observation::note_permits(machine::ApplyContext& context) {
  const machine::Scope scope{"t", "n"};
  locks::kPermits.scan(context.state(), scope, "", "", [&](std::string_view key, const internal::v1::PermitRow& row) {
    size_t waiters = 0;
    size_t holders = 0;
    locks::kWaiters.scan(context.state(), scope, key, "", [&](std::string_view, const auto&) { return ++waiters > 0; });
    if (waiters == 0) return true;
    locks::kHolders.scan(context.state(), scope, key, "",
                         [&](std::string_view, const auto&) { return ++holders == 0; });
    checkers_.queues.left(row.name(), context.index().value, waiters, holders);
    return true;
  });
}

// Clients of the simulation write single keys, and in transactions that compare one value.
void Observation::note_kv(std::string_view command, std::string_view payload, const std::string& result) {
  KvChecker& kv = checkers_.kv;
  const auto parse = [](auto& message, std::string_view bytes) {
    return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
  };
  if (command == "kv.put") {
    internal::v1::KvPutCommand put;
    v1::PutResponse answer;
    if (!parse(put, payload) || !parse(answer, result)) return;
    kv.changed(answer.revision(), put.request().key(), put.request().value());
  } else if (command == "kv.delete") {
    internal::v1::KvDeleteCommand erase;
    v1::DeleteResponse answer;
    if (parse(erase, payload) && parse(answer, result) && answer.deleted() > 0) {
      kv.changed(answer.revision(), erase.request().key(), std::nullopt);
    }
  } else if (command == "kv.compact") {
    internal::v1::KvCompactCommand compact;
    if (parse(compact, payload)) kv.compacted(compact.revision());
  } else if (command == "kv.txn") {
    internal::v1::KvTxnCommand txn;
    v1::TxnResponse answer;
    if (!parse(txn, payload) || !parse(answer, result)) return;
    const v1::TxnRequest& request = txn.request();
    const auto& compare = request.compare(0);
    // What changes nothing has the revision of what it saw.
    kv.compared(answer.revision() + (answer.succeeded() ? 0 : 1), compare.key(), compare.value(), answer.succeeded());
    if (!answer.succeeded()) return;
    for (const auto& operation : request.success()) {
      if (operation.has_put()) kv.changed(answer.revision(), operation.put().key(), operation.put().value());
    }
  }
}

void Observation::note_work(machine::ApplyContext& context, std::string_view command, std::string_view payload,
                            const std::string& result) {
  if (command == "workers.hello" || command == "workers.fence") {
    internal::v1::WorkerRow row;
    if (row.ParseFromString(result)) {
      checkers_.tasks.worker_epoch(context.index(), row.worker().id(), row.epoch());
    }
  } else if (command == "tasks.cancel") {
    v1::Task task;
    if (task.ParseFromString(result) && task.status() == v1::TASK_STATUS_CANCELLED) {
      checkers_.tasks.ended(context.index(), task.id());
    }
  } else if (command == "tasks.stop_gangs") {
    note_stopped_gangs(context, payload);
  } else if (command == "tasks.outcomes") {
    note_outcomes(context, payload, result);
  }
}

// Of what the command names, what it found as it says.
void Observation::note_stopped_gangs(machine::ApplyContext& context, std::string_view payload) {
  internal::v1::StopGangsCommand command;
  if (!command.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) return;
  std::map<std::string, std::set<std::string>> attempts;
  for (const auto& item : command.items()) {
    const auto row =
        work::kTasks.get(context.state(), {item.task().tenant(), item.task().namespace_()}, item.task().id());
    const auto& attempt = item.attempt();
    if (!row || row->stopped().term() != attempt.term() || row->stopped().sequence() != attempt.sequence()) continue;
    attempts[row->task().gang().id()].insert(item.task().id() + ":" + std::to_string(attempt.term()) + "." +
                                             std::to_string(attempt.sequence()));
  }
  for (const auto& [gang, all] : attempts) checkers_.gangs.stopped(gang, all);
}

void Observation::note_outcomes(machine::ApplyContext& context, std::string_view payload, const std::string& result) {
  internal::v1::OutcomesCommand outcomes;
  internal::v1::OutcomesResult accepted;
  if (!outcomes.ParseFromArray(payload.data(), static_cast<int>(payload.size())) || !accepted.ParseFromString(result)) {
    return;
  }
  for (int i = 0; i < accepted.accepted_size(); ++i) {
    if (!accepted.accepted(i)) continue;
    const auto& outcome = outcomes.items(i).outcome();
    const auto& id = outcome.attempt();
    const auto row = tasks::find_task(context.state(), {id.tenant(), id.namespace_()}, id.task_id());
    checkers_.tasks.counted({.index = context.index(),
                             .task = id.task_id(),
                             .number = id.attempt_number(),
                             .worker = id.worker_id(),
                             .epoch = id.worker_epoch(),
                             .lost = outcome.kind() == v1::ATTEMPT_OUTCOME_KIND_LOST,
                             .final = row && work::is_terminal(row->task().status())});
  }
}

}  // namespace uccp::sim
