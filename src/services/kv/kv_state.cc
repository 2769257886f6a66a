#include "services/kv/kv_state.h"

#include "base/bytes.h"
#include "base/check.h"
#include "services/kv/kv_answers.h"
#include "services/kv/kv_compaction.h"
#include "services/kv/kv_history.h"
#include "services/kv/kv_txn.h"
#include "services/kv/kv_writer.h"

namespace uccp::kv {
namespace {

using machine::ApplyContext;
using machine::ApplyResult;

template <typename Command>
Command parse(std::string_view payload) {
  Command command;
  UCCP_CHECK(command.ParseFromArray(payload.data(), static_cast<int>(payload.size())), "a command is readable");
  return command;
}

ApplyResult put(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvPutCommand>(payload);
  StoreWriter writer(context, order);
  UCCP_TRY(const auto before, writer.put(command.request(), command.limits()));
  std::string answer = put_answer(command.request(), before, writer.revision());
  writer.finish();
  return answer;
}

ApplyResult erase(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvDeleteCommand>(payload);
  const v1::DeleteRequest& request = command.request();
  UCCP_RETURN_IF_ERROR(check_delete(request));
  UCCP_TRY(const KeyRange range, range_of(request));
  StoreWriter writer(context, order);
  UCCP_RETURN_IF_ERROR(writer.check_match(range, request.if_match()));
  UCCP_TRY(const auto deleted, writer.erase(range));
  UCCP_TRY(std::string answer, delete_answer(request, deleted, writer.revision()));
  writer.finish();
  return answer;
}

ApplyResult txn(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvTxnCommand>(payload);
  StoreWriter writer(context, order);
  UCCP_TRY(std::string answer, run_txn(context, writer, command.request(), command.limits()));
  writer.finish();
  return answer;
}

ApplyResult apply_compact(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvCompactCommand>(payload);
  StoreWriter writer(context, order);
  UCCP_RETURN_IF_ERROR(compact(writer, static_cast<uint64_t>(command.revision())));
  v1::CompactResponse response;
  response.set_revision(static_cast<int64_t>(read_head(context.state(), context.scope()).revision));
  return response.SerializeAsString();
}

ApplyResult apply_sweep(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvSweepCommand>(payload);
  StoreWriter writer(context, order);
  internal::v1::KvSweepResult result;
  result.set_done(sweep(context, writer, command.changes_max()));
  return result.SerializeAsString();
}

ApplyResult grant(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvGrantCommand>(payload);
  StoreWriter writer(context, order);
  UCCP_TRY(const int64_t id, writer.grant(command.id(), command.ttl_ms(), command.limits()));
  writer.finish();
  v1::KeyLease lease = shown_lease(context.scope(), id, *read_lease(context.state(), context.scope(), id));
  *lease.mutable_remaining() = lease.ttl();
  lease.set_revision(static_cast<int64_t>(writer.revision()));
  return lease.SerializeAsString();
}

ApplyResult revoke(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvRevokeCommand>(payload);
  StoreWriter writer(context, order);
  UCCP_TRY(const uint64_t deleted, writer.revoke(command.id()));
  v1::RevokeLeaseResponse response;
  response.set_revision(static_cast<int64_t>(writer.revision()));
  response.set_deleted(static_cast<int64_t>(deleted));
  writer.finish();
  return response.SerializeAsString();
}

ApplyResult set_quota(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvQuotaCommand>(payload);
  StoreWriter writer(context, order);
  Head& head = writer.head();
  head.bytes_max = command.request().bytes_max();
  head.keys_max = static_cast<uint64_t>(command.request().keys_max());
  head.leases_max = static_cast<uint64_t>(command.request().leases_max());
  writer.finish();
  return shown_store(context.scope(), head, command.limits()).SerializeAsString();
}

ApplyResult apply_rollback(ApplyContext& context, CreationOrder& order, std::string_view payload) {
  const auto command = parse<internal::v1::KvRollbackCommand>(payload);
  StoreWriter writer(context, order);
  UCCP_TRY(const v1::RollbackResponse response, roll_back(context, writer, command.request(), command.limits()));
  writer.finish();
  return response.SerializeAsString();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> KvState::commands() {
  using Function = ApplyResult (*)(ApplyContext&, CreationOrder&, std::string_view);
  const std::pair<const char*, Function> all[] = {
      {"put", put},     {"delete", erase},  {"txn", txn},         {"compact", apply_compact},  {"sweep", apply_sweep},
      {"grant", grant}, {"revoke", revoke}, {"quota", set_quota}, {"rollback", apply_rollback}};
  std::map<std::string, machine::ApplyFunction, std::less<>> commands;
  for (const auto& [verb, function] : all) {
    commands[verb] = [this, function](ApplyContext& context, std::string_view payload) {
      return function(context, order_, payload);
    };
  }
  return commands;
}

void KvState::on_lease_expired(ApplyContext& context, machine::LeaseId /*lease*/, std::string_view key) {
  StoreWriter writer(context, order_);
  writer.expire(static_cast<int64_t>(ByteReader(key).u64()));
  writer.finish();
}

}  // namespace uccp::kv
