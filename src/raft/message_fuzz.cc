// Whatever bytes a peer sends: decoding them ends, and what it accepts can be encoded and read again.
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "raft/membership.h"
#include "raft/message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp::raft;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (const auto message = decode_message(bytes)) {
    UCCP_CHECK(decode_message(encode_message(*message, EntryForm::kPacked)).value() == *message,
               "a message survives the wire");
  }
  if (const auto membership = decode_membership(bytes)) {
    UCCP_CHECK(encode_membership(*membership) == bytes, "a membership has one encoding");
  }
  return 0;
}
