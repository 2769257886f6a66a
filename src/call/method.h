// Method: one rpc of the contract with its compiled policy. The doors, the pipeline and the CLI read everything they
// do differently for different methods from here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "call/plan.h"
#include "call/wire.h"

namespace uccp::call {

struct Method;

enum class AuditLevel : uint8_t { kNone, kMetadata, kRequest };
enum class Lane : uint8_t { kUser, kAdmin, kAgent };
enum class DefaultRead : uint8_t { kLinearizable, kBounded };

// One REST binding of a method: of google.api.http, an additional binding of it, or the generic rpc path.
struct RestBinding {
  enum class Body : uint8_t { kNone, kAll, kField };

  const Method* method = nullptr;
  std::string verb;  // "GET"
  std::string path;  // "/api/v1/tasks/{id}:resume"
  Body body = Body::kNone;
  const FieldPlan* body_field = nullptr;      // kField
  const FieldPlan* response_field = nullptr;  // response_body: only this field is answered; null: the response
  bool rpc_path = false;  // "POST /uccp.v1.TaskScheduling/ScheduleTask": always 200, JSON in and out
};

struct CliCommand {
  std::string noun;
  std::string verb;
  std::vector<FieldPath> args;       // request fields
  std::vector<std::string> columns;  // lowerCamelCase paths in an item, as in its JSON: "service.id"
  std::vector<std::string> wide_columns;
  bool long_running = false;
};

struct PagingRule {
  uint32_t page_size_default = 50;
  uint32_t page_size_max = 1000;
  FieldPath page_size;  // in the request
  FieldPath page_token;
  FieldPath order_by;  // empty if the request has none
  FieldPath filter;
  FieldPath fields;
  FieldPath next_page_token;  // in the response
};

struct Method {
  std::string full_name;  // "uccp.v1.TaskScheduling/ScheduleTask"
  std::string grpc_path;  // "/uccp.v1.TaskScheduling/ScheduleTask"
  std::string service;    // "uccp.v1.TaskScheduling"
  std::string name;       // "ScheduleTask"
  uint16_t index = 0;     // in Contract::methods()
  bool client_streaming = false;
  bool server_streaming = false;
  bool deprecated = false;
  const MessagePlan* request = nullptr;
  const MessagePlan* response = nullptr;

  // Who may call it, on what.
  std::string permission;  // "tasks.write"; "public" for public methods
  bool is_public = false;
  FieldPath resource;    // request field that names the resource; empty: the namespace itself
  FieldPath name_space;  // `namespace` of the request or of its body resource; empty: none
  AuditLevel audit = AuditLevel::kNone;
  FieldTree redact;          // never in audit or logs, beside fields marked so
  bool has_secrets = false;  // there are such fields

  // Repeating it.
  bool mutating = false;  // has an idempotency rule
  bool naturally_idempotent = false;
  FieldPath request_id;  // field of the dedup key; set also when naturally idempotent, if there is a `request_id`

  std::string quota_class = "read";
  uint32_t quota_cost = 1;
  DefaultRead read_level = DefaultRead::kLinearizable;
  uint32_t read_bound_ms = 5000;
  Lane lane = Lane::kUser;
  FieldPath resume;  // request field for the cursor of a server stream; empty: not resumable
  FieldPath cursor;  // `cursor` of an item of a server stream; empty: none
  FieldPath end;     // `end` of an item of a server stream (the explicit last item); empty: none

  // REST.
  std::vector<RestBinding> bindings;  // first the main one, then additional ones, then the rpc path
  int rest_success = 200;
  std::string location;  // "/api/v1/tasks/{id}", filled from the response; empty: none
  FieldPath etag;        // in the response
  FieldPath if_match;    // in the request
  uint32_t cache_max_age_s = 0;

  std::optional<PagingRule> paging;
  const FieldPlan* items = nullptr;  // field of the response that holds the rows (paging or CLI); null: none
  std::optional<CliCommand> cli;
};

// The Location header for a response, percent-encoded; empty if the method has none or a field is absent.
std::string location_of(const Method& method, std::string_view response);

}  // namespace uccp::call
