// A machine with the key-value state and no raft, for tests: applies commands, lets leases end as time goes on, and
// checks the digest and the counts of the head after every command.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "machine/test_lab.h"
#include "services/kv/kv_compaction.h"
#include "services/kv/kv_events.h"
#include "services/kv/kv_range.h"
#include "services/kv/kv_state.h"
#include "services/kv/kv_txn.h"

namespace uccp::kv {

using machine::kLabScope;

class KvLab : public machine::MachineLab<KvState> {
 public:
  KvLab() {
    limits.set_bytes_max(1ull << 30);
    limits.set_keys_max(1'000'000);
    limits.set_leases_max(1'000);
    limits.set_txn_operations_max(128);
  }

  machine::ApplyResult apply(std::string command, std::string payload, machine::Scope scope = kLabScope) {
    auto result = MachineLab::apply(std::move(command), std::move(payload), "", std::move(scope));
    if (checked) check();
    return result;
  }
  void advance(int64_t ms) {
    MachineLab::advance(ms);
    if (checked) check();
  }

  template <typename Response>
  Result<Response> run(std::string verb, const google::protobuf::MessageLite& command) {
    auto result = apply("kv." + verb, command.SerializeAsString());
    if (!result) return std::unexpected(result.error());
    Response response;
    EXPECT_TRUE(response.ParseFromString(*result));
    return response;
  }
  Result<v1::PutResponse> put(const v1::PutRequest& request) {
    internal::v1::KvPutCommand command;
    *command.mutable_request() = request;
    *command.mutable_limits() = limits;
    return run<v1::PutResponse>("put", command);
  }
  // The revision of the put.
  int64_t put(const std::string& key, const std::string& value, int64_t lease = 0) {
    v1::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    request.set_lease(lease);
    const auto response = put(request);
    EXPECT_TRUE(response.has_value()) << response.error().to_string();
    return response ? response->revision() : 0;
  }
  Result<v1::DeleteResponse> erase(const v1::DeleteRequest& request) {
    internal::v1::KvDeleteCommand command;
    *command.mutable_request() = request;
    return run<v1::DeleteResponse>("delete", command);
  }
  int64_t erase(const std::string& key) {
    v1::DeleteRequest request;
    request.set_key(key);
    return erase(request)->deleted();
  }
  // As the service does: checked, then run.
  Result<v1::TxnResponse> txn(const v1::TxnRequest& request) {
    UCCP_RETURN_IF_ERROR(check_txn(request, limits.txn_operations_max()));
    internal::v1::KvTxnCommand command;
    *command.mutable_request() = request;
    *command.mutable_limits() = limits;
    return run<v1::TxnResponse>("txn", command);
  }
  Status compact(int64_t revision) {
    internal::v1::KvCompactCommand command;
    command.set_revision(revision);
    const auto response = run<v1::CompactResponse>("compact", command);
    return response ? Status::ok() : response.error();
  }
  // Steps until nothing is left to remove.
  int sweep(uint32_t changes_max) {
    internal::v1::KvSweepCommand command;
    command.set_changes_max(changes_max);
    for (int steps = 1;; ++steps) {
      if (run<internal::v1::KvSweepResult>("sweep", command)->done()) return steps;
    }
  }
  int64_t grant(int64_t ttl_ms, int64_t id = 0) {
    internal::v1::KvGrantCommand command;
    command.set_id(id);
    command.set_ttl_ms(ttl_ms);
    *command.mutable_limits() = limits;
    const auto lease = run<v1::KeyLease>("grant", command);
    EXPECT_TRUE(lease.has_value()) << lease.error().to_string();
    return lease ? lease->id() : 0;
  }
  Result<v1::RevokeLeaseResponse> revoke(int64_t id) {
    internal::v1::KvRevokeCommand command;
    command.set_id(id);
    return run<v1::RevokeLeaseResponse>("revoke", command);
  }

  Head head(const machine::Scope& scope = kLabScope) const { return read_head(view(), scope); }
  Result<v1::RangeResponse> range(const v1::RangeRequest& request, size_t keys_a_step = 1'000) const {
    UCCP_TRY(RangeRun run, RangeRun::make(request, kLabScope, head()));
    while (true) {
      UCCP_TRY(const bool whole, run.step(view(), keys_a_step));
      if (whole) break;
    }
    v1::RangeResponse response;
    EXPECT_TRUE(response.ParseFromString(run.answer()));
    return response;
  }
  std::optional<v1::KeyValuePair> get(const std::string& key, int64_t revision = 0) const {
    v1::RangeRequest request;
    request.set_key(key);
    request.set_revision(revision);
    const auto response = range(request);
    EXPECT_TRUE(response.has_value()) << response.error().to_string();
    if (!response || response->pairs().empty()) return std::nullopt;
    return response->pairs(0);
  }

  // The head counts exactly the rows that there are.
  void check() const {
    const auto rows = [&](machine::TableId table, const auto& visit) {
      const std::string prefix = machine::table_key::scope_prefix(table, kLabScope);
      view().scan(prefix, machine::prefix_end(prefix), [&](std::string_view key, std::string_view row) {
        visit(key.substr(prefix.size()), row);
        return true;
      });
    };
    uint64_t keys = 0, bytes = 0, history = 0, leases = 0, attached = 0, lease_keys = 0;
    rows(kKeyTable, [&](std::string_view key, std::string_view row) {
      ++keys;
      bytes += key.size() + row.size();
      attached += decode_version(row)->lease != 0 ? 1 : 0;
    });
    rows(kHistoryTable, [&](std::string_view key, std::string_view row) {
      ByteReader in(key);
      history += in.key_part().size() + row.size();
    });
    rows(kRevisionTable, [&](std::string_view, std::string_view row) { history += kRevisionRowBytes + row.size(); });
    rows(kLeaseTable, [&](std::string_view, std::string_view row) {
      ++leases;
      lease_keys += decode_lease(row).keys;
    });
    uint64_t lease_key_rows = 0;
    rows(kLeaseKeyTable, [&](std::string_view, std::string_view) { ++lease_key_rows; });
    EXPECT_EQ(head().keys, keys);
    EXPECT_EQ(head().bytes, bytes);
    EXPECT_EQ(head().history_bytes, history);
    EXPECT_EQ(head().leases, leases);
    EXPECT_EQ(attached, lease_key_rows);
    EXPECT_EQ(lease_keys, lease_key_rows);
  }
  size_t rows_of(machine::TableId table) const {
    size_t rows = 0;
    const std::string prefix = machine::table_key::scope_prefix(table, kLabScope);
    view().scan(prefix, machine::prefix_end(prefix), [&](auto, auto) { return ++rows > 0; });
    return rows;
  }

  internal::v1::KvLimits limits;
};

}  // namespace uccp::kv
