// How messages of protobuf carry commands and times: what every domain reads and writes the same way.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "base/clock.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace uccp::services {

// Of a payload that this program wrote itself, or that the pipeline has checked.
template <typename Message>
Message parse(std::string_view payload) {
  Message message;
  UCCP_CHECK(message.ParseFromArray(payload.data(), static_cast<int>(payload.size())), "a command is readable");
  return message;
}

inline void set_wall(google::protobuf::Timestamp* out, WallTime wall) {
  out->set_seconds(wall.us / 1'000'000);
  out->set_nanos(static_cast<int32_t>(wall.us % 1'000'000 * 1000));
}
inline int64_t us_of(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000 + time.nanos() / 1000;
}
inline int64_t ms_of(const google::protobuf::Duration& d) { return d.seconds() * 1000 + d.nanos() / 1'000'000; }
inline void set_ms(google::protobuf::Duration* out, int64_t ms) {
  out->set_seconds(ms / 1000);
  out->set_nanos(static_cast<int32_t>(ms % 1000) * 1'000'000);
}

}  // namespace uccp::services
