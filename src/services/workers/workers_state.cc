#include "services/workers/workers_state.h"

#include <algorithm>

#include "machine/stable_bytes.h"
#include "services/message_types.h"
#include "services/worker_row_types.h"

namespace uccp::workers {
namespace {

using internal::v1::WorkerRow;
using machine::ApplyContext;
using machine::ApplyResult;
using services::parse;
using work::ChangeKind;
using work::store_worker;

std::unexpected<Status> no_such_worker(const std::string& id) {
  return fail(Status(Code::kNotFound, "WORKER_NOT_FOUND", "there is no worker " + id).with_resource("worker", id));
}

// What the worker gives to tasks: what the operator set, at most what the machine has. An amount of zero is not set.
void settle_total(WorkerRow& row) {
  v1::Resources total = row.has_capacity() ? row.capacity() : row.given();
  if (row.has_given() && row.has_capacity()) {
    const v1::Resources& given = row.given();
    if (given.cpu() > 0) total.set_cpu(std::min(given.cpu(), total.cpu()));
    if (given.memory() > 0) total.set_memory(std::min(given.memory(), total.memory()));
    if (given.disk() > 0) total.set_disk(std::min(given.disk(), total.disk()));
    if (given.gpu().count() > 0) {
      total.mutable_gpu()->set_count(std::min(given.gpu().count(), total.gpu().count()));
    }
  }
  *row.mutable_worker()->mutable_resources()->mutable_total() = std::move(total);
}

// The worker as its agent describes it now. What operators set in the registry stays.
v1::Worker described_again(const WorkerRow& row, const v1::Worker& described) {
  v1::Worker merged = described;
  const v1::Worker& known = row.worker();
  for (const auto& [name, value] : known.labels()) (*merged.mutable_labels())[name] = value;
  *merged.mutable_annotations() = known.annotations();
  if (known.has_create_time()) *merged.mutable_create_time() = known.create_time();
  merged.set_price_per_hour(known.price_per_hour());
  for (const std::string& field : row.set_by_operator()) {
    if (field == "name") merged.set_name(known.name());
    if (field == "type") merged.set_type(known.type());
    if (field == "pool") merged.set_pool(known.pool());
    if (field == "labels") *merged.mutable_labels() = known.labels();
    if (field == "taints") *merged.mutable_taints() = known.taints();
  }
  return merged;
}

void note_operator(WorkerRow& row, const std::string& field) {
  auto& set = *row.mutable_set_by_operator();
  if (std::ranges::find(set, field) == set.end()) *set.Add() = field;
}

// Opening a worker again ends a drain and a quarantine too.
void set_cordon(WorkerRow& row, const internal::v1::WorkerUpdateCommand& command) {
  row.set_cordoned(command.cordoned());
  row.set_cordon_reason(command.reason());
  if (command.cordoned()) return;
  row.clear_drain();
  row.clear_trust();
}

Status check_etag(const WorkerRow& row, const std::string& if_match) {
  if (if_match.empty() || if_match == row.worker().etag()) return Status::ok();
  return Status(Code::kConflict, "ETAG_MISMATCH", "the worker changed since it was read; read it again");
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> WorkersState::commands() {
  return {{"hello", hello}, {"fence", fence},           {"declare", declare},          {"update", update},
          {"drain", drain}, {"deregister", deregister}, {"note_scaling", note_scaling}};
}

ApplyResult WorkersState::hello(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::HelloCommand>(payload);
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, command.worker().id());
  // Overtaken on its way: what it says of running attempts is older than what the later session said. Taken, attempts
  // that were placed since would count as lost, and run a second time beside the first.
  if (row && command.session() != 0 && command.session() < row->session()) {
    return fail(Code::kConflict, "STREAM_STALE",
                "the worker " + command.worker().id() + " has begun session " + std::to_string(row->session()) +
                    " already; this one is " + std::to_string(command.session()));
  }
  const ChangeKind kind = row ? ChangeKind::kUpdated : ChangeKind::kAdded;
  if (!row) {
    row.emplace();
    *row->mutable_worker() = command.worker();
  } else {
    *row->mutable_worker() = described_again(*row, command.worker());
  }
  row->set_session(std::max(row->session(), command.session()));
  *row->mutable_capacity() = command.worker().resources().total();
  settle_total(*row);
  if (row->incarnation() != command.incarnation()) {
    row->set_incarnation(command.incarnation());
    row->set_epoch(row->epoch() + 1);
  }
  store_worker(c, *row, kind);
  return machine::stable_bytes(*row);
}

ApplyResult WorkersState::fence(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::FenceCommand>(payload);
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, command.worker_id());
  if (!row) return no_such_worker(command.worker_id());
  // Only the epoch that the leader saw silent is ended; a worker that came back meanwhile has a later one.
  if (row->epoch() != command.epoch()) return machine::stable_bytes(*row);
  row->set_epoch(row->epoch() + 1);
  row->mutable_worker()->set_status(v1::WORKER_STATUS_LOST);
  row->mutable_worker()->set_status_reason(command.reason());
  store_worker(c, *row, ChangeKind::kUpdated);
  return machine::stable_bytes(*row);
}

// Nothing changes: that it is committed puts it into the audit trail.
ApplyResult WorkersState::note_scaling(ApplyContext&, std::string_view) { return std::string(); }

ApplyResult WorkersState::declare(ApplyContext& c, std::string_view payload) {
  const auto command = parse<v1::Worker>(payload);
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, command.id());
  const ChangeKind kind = row ? ChangeKind::kUpdated : ChangeKind::kAdded;
  if (row) {
    v1::Worker merged = row->worker();
    merged.MergeFrom(command);
    *row->mutable_worker() = std::move(merged);
  } else {
    row.emplace();
    *row->mutable_worker() = command;
    row->mutable_worker()->set_status(v1::WORKER_STATUS_REGISTERED);
    row->set_epoch(1);
  }
  if (!command.name().empty()) note_operator(*row, "name");
  if (!command.pool().empty()) note_operator(*row, "pool");
  if (command.taints_size() > 0) note_operator(*row, "taints");
  if (command.type() != v1::WORKER_TYPE_UNSPECIFIED) note_operator(*row, "type");
  if (command.resources().has_total()) *row->mutable_given() = command.resources().total();
  settle_total(*row);
  store_worker(c, *row, kind);
  return machine::stable_bytes(*row);
}

ApplyResult WorkersState::update(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::WorkerUpdateCommand>(payload);
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, command.worker().id());
  if (!row) return no_such_worker(command.worker().id());
  UCCP_RETURN_IF_ERROR(check_etag(*row, command.if_match()));
  v1::Worker& worker = *row->mutable_worker();
  for (const std::string& field : command.fields()) {
    if (field == "name") worker.set_name(command.worker().name());
    else if (field == "labels") *worker.mutable_labels() = command.worker().labels();
    else if (field == "annotations") *worker.mutable_annotations() = command.worker().annotations();
    else if (field == "taints") *worker.mutable_taints() = command.worker().taints();
    else if (field == "pool") worker.set_pool(command.worker().pool());
    else if (field == "total") *row->mutable_given() = command.worker().resources().total();
    else if (field == "type") worker.set_type(command.worker().type());
    else if (field == "price_per_hour") worker.set_price_per_hour(command.worker().price_per_hour());
    else if (field == "cordoned") set_cordon(*row, command);
    else return fail(Code::kInvalid, "FIELD_INVALID", "the field " + field + " of a worker cannot be changed");
    note_operator(*row, field);
  }
  settle_total(*row);
  store_worker(c, *row, ChangeKind::kUpdated);
  return machine::stable_bytes(*row);
}

ApplyResult WorkersState::drain(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::DrainCommand>(payload);
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, command.worker_id());
  if (!row) return no_such_worker(command.worker_id());
  internal::v1::Drain& drain = *row->mutable_drain();
  drain.set_deadline_ms(c.now_ms() + command.within_ms());
  drain.set_deadline_wall_us(c.envelope().wall.us + command.within_ms() * 1000);
  drain.set_reason(command.reason());
  store_worker(c, *row, ChangeKind::kUpdated);
  return machine::stable_bytes(*row);
}

ApplyResult WorkersState::deregister(ApplyContext& c, std::string_view payload) {
  const auto command = parse<internal::v1::WorkerRemoveCommand>(payload);
  auto row = work::kWorkers.get(c.state(), work::kWorkerScope, command.worker_id());
  if (!row) return no_such_worker(command.worker_id());
  UCCP_RETURN_IF_ERROR(check_etag(*row, command.if_match()));
  work::kWorkers.erase(c.state(), work::kWorkerScope, command.worker_id());
  c.emit_in(work::kWorkerScope, work::kWorkerTopic, command.worker_id(), static_cast<uint8_t>(ChangeKind::kRemoved),
            machine::stable_bytes(*row));
  return std::string();
}

}  // namespace uccp::workers
