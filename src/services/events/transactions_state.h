// The replicated state of transactions over topics, a domain of each group bus-*: what the coordinator decides, and
// what a group that takes part has of them. Pure: runs on the loop, inside apply.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "uccp/internal/v1/transactions_state.pb.h"

namespace uccp::events {

inline constexpr std::string_view kTransactionsDomain = "transactions";

class TransactionsState final : public machine::Domain {
 public:
  std::string_view name() const override { return kTransactionsDomain; }
  // As transactions_state.proto says.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  // The time of a transaction is over. The key is that of its row.
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;
};

}  // namespace uccp::events
