// JSON as protobuf's Value, which events carry and schemas are written in.
#pragma once

#include <google/protobuf/struct.pb.h>

#include <string_view>

#include "base/status.h"

namespace uccp::events {

// Errors: invalid JSON_INVALID with what is wrong; also for what is nested more than 64 deep.
Result<google::protobuf::Value> parse_json(std::string_view text);
bool same_json(const google::protobuf::Value& a, const google::protobuf::Value& b);
// The member of an object; null if there is none, or it is none.
const google::protobuf::Value* member(const google::protobuf::Value& object, std::string_view name);

}  // namespace uccp::events
