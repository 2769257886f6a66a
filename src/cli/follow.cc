#include "cli/follow.h"

#include <cstdlib>

#include "cli/progress.h"
#include "cli/render.h"

namespace uccp::cli {
namespace {

constexpr int64_t kPauseMs = 200;
constexpr double kPercent = 100;

}  // namespace

bool can_be_followed(const Catalog& catalog, const Command& command) {
  const Command* get = catalog.find(command.noun, "get");
  const call::MessagePlan& plan = *command.method->response;
  return get != nullptr && command.method->mutating && get->method->response == &plan &&
         command.method->cli->long_running && plan.by_name("progress") != nullptr &&
         plan.by_name("end_time") != nullptr;
}

Result<std::string> follow_to_end(Session& session, const Command& command, const std::string& response) {
  const call::Method& get = *session.catalog.find(command.noun, "get")->method;
  const std::string id = resource_id(*command.method->response, response);
  UCCP_TRY(const call::FieldPath ended, call::FieldPath::compile(*get.response, "end_time"));
  UCCP_TRY(const call::FieldPath progress, call::FieldPath::compile(*get.response, "progress"));
  Request request(get, session.io);
  UCCP_RETURN_IF_ERROR(request.set_arguments({id}));
  UCCP_TRY(std::string wire, request.wire());
  wire = session.caller.prepared(get, std::move(wire));
  Progress bar(session, command.noun + "/" + id, static_cast<uint64_t>(kPercent));
  for (std::string now = response;;) {
    if (call::has_field(ended, now)) return now;
    bar.show(
        static_cast<uint64_t>(std::strtod(call::get_text(progress, now).value_or("0").c_str(), nullptr) * kPercent));
    session.io.sleep_ms(kPauseMs);
    UCCP_TRY(now, session.caller.unary(get, wire));
  }
}

}  // namespace uccp::cli
