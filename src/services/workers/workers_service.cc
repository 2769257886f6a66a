#include "services/workers/workers_service.h"

#include <algorithm>
#include <array>
#include <set>
#include <vector>

#include "call/command.h"
#include "call/validate.h"
#include "machine/resource_id.h"

namespace uccp::workers {
namespace {

using call::CallPtr;
using internal::v1::WorkerRow;

constexpr int64_t kDrainMsDefault = 3'600'000;

}  // namespace

void WorkersService::register_handlers(call::HandlerTable& handlers) {
  const auto raw = [&](std::string_view name, void (WorkersService::*member)(const CallPtr&, std::string)) {
    handlers.add(
        "uccp.v1.WorkerManagement/" + std::string(name),
        [this, member](const CallPtr& call, std::string request) { (this->*member)(call, std::move(request)); });
  };
  raw("RegisterWorker", &WorkersService::register_worker);
  raw("DeregisterWorker", &WorkersService::deregister);
  raw("UpdateWorkerResources", &WorkersService::update_resources);
  raw("ListWorkers", &WorkersService::list);
  raw("GetWorkerStatus", &WorkersService::get);
  raw("DrainWorker", &WorkersService::drain);
  raw("UpdateWorker", &WorkersService::update_worker);
  handlers.add("uccp.v1.WorkerManagement/CordonWorker", [this](const CallPtr& call, std::string bytes) {
    auto request = call::parse_request<v1::CordonWorkerRequest>(bytes);
    if (!request) return call->finish(request.error());
    set_cordon(call, bytes, {.id = request->id(), .cordoned = true, .reason = request->reason()});
  });
  handlers.add("uccp.v1.WorkerManagement/UncordonWorker", [this](const CallPtr& call, std::string bytes) {
    auto request = call::parse_request<v1::UncordonWorkerRequest>(bytes);
    if (!request) return call->finish(request.error());
    set_cordon(call, bytes, {.id = request->id()});
  });
}

v1::Worker WorkersService::public_worker(const WorkerRow& row) const {
  v1::Worker worker = row.worker();
  env_.overlay(worker, row);
  return worker;
}

services::ChangeTopic WorkersService::change_topic() const {
  return {.name = "$sys.workers",
          .group = kWorkGroup,
          .feed = std::string(work::kWorkerTopic),
          .scoped = false,
          .permission = "workers.read",
          .resource_type = "uccp.v1.Worker",
          .show = [this](const machine::Change& change) -> std::optional<services::ShownChange> {
            WorkerRow row;
            if (!row.ParseFromString(change.payload)) return std::nullopt;
            constexpr std::string_view kTypes[] = {"", "worker.added", "worker.updated", "worker.removed"};
            return services::ShownChange{std::string(kTypes[change.kind % std::size(kTypes)]), row.worker().id(),
                                         public_worker(row).SerializeAsString()};
          }};
}

// Proposes a command whose result is the worker's row, and answers the worker. Workers belong to no tenant.
void WorkersService::propose_row(const CallPtr& call, machine::Envelope envelope) {
  envelope.scope.name_space = "";
  env_.proposer.propose(kWorkGroup, std::move(envelope), [this, call](Result<machine::Applied> applied) {
    if (!applied) return call->finish(applied.error());
    WorkerRow row;
    (void)row.ParseFromString(applied->response);
    call->reply(public_worker(row).SerializeAsString());
  });
}

void WorkersService::register_worker(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::RegisterWorkerRequest>(bytes);
  if (!request) return call->finish(request.error());
  v1::Worker worker;
  (void)worker.ParseFromString(
      call::canonical(call::Contract::get().plan("uccp.v1.Worker"), request->worker().SerializeAsString())
          .value_or(""));
  if (worker.id().empty()) {
    std::lock_guard lock(random_mutex_);
    worker.set_id(machine::make_id("worker", env_.clock.wall(), env_.random));
  }
  if (request->validate_only()) return call->reply(worker.SerializeAsString());
  propose_row(call, call::make_envelope(*call, bytes, "workers.declare", worker.SerializeAsString()));
}

void WorkersService::deregister(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DeregisterWorkerRequest>(bytes);
  if (!request) return call->finish(request.error());
  env_.reader.read(
      kWorkGroup, machine::ReadLevel::linearizable(),
      [this, call, bytes = std::move(bytes), request = std::move(*request)](Result<machine::GroupView> view) {
        if (!view) return call->finish(view.error());
        const auto row = work::kWorkers.get(*view, work::kWorkerScope, request.id());
        if (row && !request.force() && public_worker(*row).running_tasks() > 0) {
          return call->finish(Status(Code::kFailedPrecondition, "WORKER_BUSY",
                                     "the worker runs " + std::to_string(public_worker(*row).running_tasks()) +
                                         " tasks; drain it first, or set force to stop and queue them again")
                                  .with_resource("worker", request.id()));
        }
        internal::v1::WorkerRemoveCommand command;
        command.set_worker_id(request.id());
        command.set_if_match(request.if_match());
        env_.proposer.propose(kWorkGroup,
                              call::make_envelope(*call, bytes, "workers.deregister", command.SerializeAsString()),
                              [call](Result<machine::Applied> applied) {
                                if (!applied) return call->finish(applied.error());
                                call->reply(v1::DeregisterWorkerResponse().SerializeAsString());
                              });
      });
}

void WorkersService::update(const CallPtr& call, std::string_view bytes, internal::v1::WorkerUpdateCommand command) {
  propose_row(call, call::make_envelope(*call, bytes, "workers.update", command.SerializeAsString()));
}

void WorkersService::update_resources(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::UpdateWorkerResourcesRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::WorkerUpdateCommand command;
  command.mutable_worker()->set_id(request->id());
  *command.mutable_worker()->mutable_resources()->mutable_total() = request->total();
  command.add_fields("total");
  command.set_if_match(request->if_match());
  update(call, bytes, std::move(command));
}

void WorkersService::set_cordon(const CallPtr& call, const std::string& bytes, Cordon cordon) {
  internal::v1::WorkerUpdateCommand command;
  command.mutable_worker()->set_id(std::move(cordon.id));
  command.add_fields("cordoned");
  command.set_cordoned(cordon.cordoned);
  command.set_reason(std::move(cordon.reason));
  update(call, bytes, std::move(command));
}

void WorkersService::drain(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DrainWorkerRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::DrainCommand command;
  command.set_worker_id(request->id());
  const auto& deadline = request->deadline();
  command.set_within_ms(request->has_deadline() ? deadline.seconds() * 1000 + deadline.nanos() / 1'000'000
                                                : kDrainMsDefault);
  command.set_reason(request->reason());
  propose_row(call, call::make_envelope(*call, bytes, "workers.drain", command.SerializeAsString()));
}

void WorkersService::update_worker(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::UpdateWorkerRequest>(bytes);
  if (!request) return call->finish(request.error());
  static constexpr std::array<std::string_view, 7> kFields = {"name", "labels", "annotations",   "taints",
                                                              "pool", "type",   "price_per_hour"};
  internal::v1::WorkerUpdateCommand command;
  *command.mutable_worker() = request->worker();
  command.set_if_match(request->if_match());
  std::set<std::string> wanted(request->update_mask().paths().begin(), request->update_mask().paths().end());
  if (wanted.empty()) {
    // Without a mask: what is there. A value that equals its default is not there.
    std::vector<const google::protobuf::FieldDescriptor*> present;
    request->worker().GetReflection()->ListFields(request->worker(), &present);
    for (const auto* field : present) {
      if (std::ranges::find(kFields, field->name()) != kFields.end()) wanted.insert(field->name());
    }
  }
  for (const std::string& field : wanted) {
    if (std::ranges::find(kFields, field) == kFields.end()) {
      return call->finish(
          Status(Code::kInvalid, "FIELD_INVALID", "the field " + field + " of a worker cannot be changed")
              .with_field("updateMask", "names " + field, "labels,pool"));
    }
    command.add_fields(field);
  }
  update(call, bytes, std::move(command));
}

void WorkersService::get(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::GetWorkerStatusRequest>(bytes);
  if (!request) return call->finish(request.error());
  env_.reader.read(kWorkGroup, call->read_level, [this, call, id = request->id()](Result<machine::GroupView> view) {
    if (!view) return call->finish(view.error());
    const auto row = work::kWorkers.get(*view, work::kWorkerScope, id);
    if (!row) {
      return call->finish(
          Status(Code::kNotFound, "WORKER_NOT_FOUND", "there is no worker " + id).with_resource("worker", id));
    }
    call->reply(public_worker(*row).SerializeAsString());
  });
}

void WorkersService::list(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ListWorkersRequest>(bytes);
  if (!request) return call->finish(request.error());
  auto query = call::compile_list(
      *call->method, bytes,
      {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = {call->principal.tenant, ""}});
  if (!query) return call->finish(query.error());
  auto labels = call::LabelSelector::compile(request->labels());
  if (!labels) return call->finish(labels.error());
  env_.reader.read(
      kWorkGroup, call->read_level,
      [this, call, query = std::move(*query), request = std::move(*request),
       labels = std::move(*labels)](Result<machine::GroupView> view) {
        if (!view) return call->finish(view.error());
        auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
          work::kWorkers.scan(*view, work::kWorkerScope, "", after, [&](std::string_view key, const WorkerRow& row) {
            if (key == after) return true;
            const v1::Worker worker = public_worker(row);
            if (request.status_size() > 0 && std::find(request.status().begin(), request.status().end(),
                                                       worker.status()) == request.status().end()) {
              return true;
            }
            const std::string item = worker.SerializeAsString();
            if (!labels.empty() && !labels.matches(item, v1::Worker::kLabelsFieldNumber)) return true;
            return visit(key, item);
          });
        });
        if (!page) return call->finish(page.error());
        call->reply(call::encode_page(*call->method, *page));
      });
}

}  // namespace uccp::workers
