// Any request as a transaction: it is refused, or it runs and leaves a state whose digest and counts are right. The
// first part of the input is run twice, so that keys exist.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "machine/machine.h"
#include "services/kv/kv_rows.h"
#include "services/kv/kv_state.h"
#include "services/kv/kv_txn.h"
#include "storage/memory/memory_kv.h"

namespace {

using namespace uccp;

const machine::Scope kScope{"t", "n"};

void run(machine::Machine& machine, const v1::TxnRequest& request) {
  internal::v1::KvTxnCommand command;
  *command.mutable_request() = request;
  command.mutable_limits()->set_bytes_max(1u << 20);
  command.mutable_limits()->set_keys_max(1'000);
  machine::Envelope e;
  e.scope = kScope;
  e.command = "kv.txn";
  e.payload = command.SerializeAsString();
  const Entry entry{Term(1), machine.applied().next(), EntryKind::kCommand, machine::encode_envelope(e)};
  const auto batch = machine.apply({&entry, 1});
  UCCP_CHECK(batch.has_value(), "a batch is applied");
  v1::TxnResponse response;
  const auto& result = batch->results[0].result;
  UCCP_CHECK(!result || response.ParseFromString(*result), "the answer is a message");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  storage::MemoryKv kv;
  kv::KvState state;
  machine::Machine machine(kCoreGroup, kv, {&state});
  UCCP_CHECK(machine.open().is_ok(), "an empty state opens");
  v1::TxnRequest request;
  for (const size_t part : {size / 2, size / 2, size}) {
    if (!request.ParseFromArray(data, static_cast<int>(part)) || !kv::check_txn(request, 128).is_ok()) continue;
    run(machine, request);
  }
  UCCP_CHECK(machine.verify_digest().is_ok(), "the digest follows every change");
  uint64_t keys = 0;
  const std::string prefix = machine::table_key::scope_prefix(kv::kKeyTable, kScope);
  machine.view().scan(prefix, machine::prefix_end(prefix), [&](auto, auto) { return ++keys > 0; });
  UCCP_CHECK(kv::read_head(machine.view(), kScope).keys == keys, "the head counts the keys");
  return 0;
}
