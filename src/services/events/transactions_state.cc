#include "services/events/transactions_state.h"

#include "services/events/transaction_coordinator.h"
#include "services/events/transaction_part.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

using machine::ApplyContext;
using machine::ApplyResult;

// A command whose answer is a message.
template <typename Command, auto kApply>
ApplyResult apply(ApplyContext& context, std::string_view payload) {
  const auto command = services::parse<Command>(payload);
  UCCP_TRY(const auto answer, kApply(context, command));
  return answer.SerializeAsString();
}

ApplyResult retire(ApplyContext& context, std::string_view payload) {
  const auto command = services::parse<internal::v1::TransactionRetireCommand>(payload);
  for (const std::string& producer : command.producers()) retire_producer(context, producer, command.idle_ms());
  for (const std::string& producer : command.guards()) retire_guard(context, producer, command.idle_ms());
  return std::string();
}

}  // namespace

std::map<std::string, machine::ApplyFunction, std::less<>> TransactionsState::commands() {
  return {{"begin", apply<internal::v1::TransactionBeginCommand, begin_transaction>},
          {"join", apply<internal::v1::TransactionJoinCommand, join_transaction>},
          {"end", apply<internal::v1::TransactionEndCommand, end_transaction>},
          {"settled", apply<internal::v1::TransactionSettledCommand, note_settled>},
          {"hold", apply<internal::v1::TransactionHoldCommand, hold_deliveries>},
          {"settle", apply<internal::v1::TransactionSettleCommand, settle_part>},
          {"retire", retire}};
}

void TransactionsState::on_lease_expired(ApplyContext& context, machine::LeaseId, std::string_view key) {
  expire_transaction(context, key);
}

}  // namespace uccp::events
