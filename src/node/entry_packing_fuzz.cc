// An append with packed entries, as a peer might send it: unpacking ends, and what it accepts is read back the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "node/entry_packing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto message = raft::decode_message(bytes);
  if (!message || !node::unpack_entries(*message).is_ok()) return 0;
  auto again = raft::decode_message(raft::encode_message(*message, raft::EntryForm::kPacked));
  UCCP_CHECK(again && node::unpack_entries(*again).is_ok() && *again == *message, "what was unpacked is read back");
  auto plain = raft::decode_message(raft::encode_message(*message));
  UCCP_CHECK(plain && *plain == *message, "both forms mean the same");
  return 0;
}
