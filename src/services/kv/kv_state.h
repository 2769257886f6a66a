// The replicated key-value store: versions, revisions, transactions, leases, compaction. Pure: runs on the loop, inside
// apply. Each namespace is a store of its own. kv_rows.h says how it lies in the state; kv_writer.h how it changes.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "services/kv/creation_order.h"

namespace uccp::kv {

inline constexpr std::string_view kDomain = "kv";

class KvState final : public machine::Domain {
 public:
  std::string_view name() const override { return kDomain; }
  // As kv_state.proto says.
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
  void on_lease_expired(machine::ApplyContext& context, machine::LeaseId lease, std::string_view key) override;
  void on_state_opened() override { order_.forget(); }

 private:
  CreationOrder order_;
};

}  // namespace uccp::kv
