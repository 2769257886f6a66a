// Messages as bytes that are the same on every replica: map entries sorted by key. For all that apply stores or emits;
// SerializeAsString() orders maps as the process happens to.
#pragma once

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message_lite.h>

#include <string>

#include "base/check.h"

namespace uccp::machine {

inline std::string stable_bytes(const google::protobuf::MessageLite& message) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.SetSerializationDeterministic(true);
  UCCP_CHECK(message.SerializeToCodedStream(&coded), "a message without required fields can be serialized");
  coded.Trim();
  return bytes;
}

}  // namespace uccp::machine
