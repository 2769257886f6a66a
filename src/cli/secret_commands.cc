// The commands about secrets that do more than their methods: a value that is asked for, and one that is printed bare.
#include "cli/commands.h"
#include "cli/help.h"
#include "cli/login.h"
#include "cli/output.h"
#include "cli/render.h"

namespace uccp::cli {

// Without a value it asks for one, so that none is in the history of a shell or in a list of processes.
Result<int> run_secret_put(Session& session, const Command& command, Args args) {
  const call::Method& method = *command.method;
  Request request(method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  UCCP_TRY(ParsedRequest parsed, parse_request(session, request, args, extra));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, extra));
    return kExitOk;
  }
  UCCP_RETURN_IF_ERROR(fill_secret(session, method, "value", "Value: ", parsed.wire));
  return perform(session, command, parsed.wire, options.limit);
}

// The value alone, byte for byte, unless a form for programs is asked for: PASSWORD=$(uccp-cli secret access
// db/password)
Result<int> run_secret_access(Session& session, const Command& command, Args args) {
  const call::Method& method = *command.method;
  Request request(method, session.io);
  CommandOptions options;
  const std::vector<Flag> extra = command_flags(session.catalog, request, options);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, extra));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, extra));
    return kExitOk;
  }
  if (session.settings.format != Format::kTable || session.settings.quiet) {
    return perform(session, command, parsed.wire, options.limit);
  }
  UCCP_TRY(const std::string response, session.caller.unary(method, parsed.wire));
  UCCP_TRY(const call::FieldPath value, call::FieldPath::compile(*method.response, "value"));
  session.io.out(call::get_string(value, response).value_or(""));
  return kExitOk;
}

}  // namespace uccp::cli
