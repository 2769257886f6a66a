#include "cli/login.h"

#include <simdjson.h>

#include "base/json.h"
#include "call/wire.h"
#include "cli/contexts.h"
#include "cli/help.h"
#include "cli/output.h"
#include "cli/render.h"
#include "uccp/v1/identity.pb.h"

namespace uccp::cli {
namespace {

// The access token is exchanged when it has less than this left.
constexpr int64_t kFreshUs = 60'000'000;
constexpr int64_t kExchangeTimeoutMs = 15'000;
constexpr const char* kExchangePath = "/uccp.v1.Identity/ExchangeToken";

int64_t us_of(const google::protobuf::Timestamp& time) { return time.seconds() * 1'000'000 + time.nanos() / 1000; }

StoredSession session_of(const v1::Tokens& tokens, const Context& context) {
  return {.server = context.targets.front(),
          .ca_pem = context.ca_pem,
          .principal = tokens.principal(),
          .tenant = tokens.tenant(),
          .access_token = tokens.access_token(),
          .refresh_token = tokens.refresh_token(),
          .expire_us = us_of(tokens.expire_time())};
}

Result<v1::Tokens> tokens_of(const std::string& response) {
  v1::Tokens tokens;
  if (tokens.ParseFromString(response)) return tokens;
  return fail(Code::kInternal, "WIRE_INVALID", "the server answered something else than tokens");
}

}  // namespace

Status fill_secret(const Session& session, const call::Method& method, std::string_view field,
                   const std::string& prompt, std::string& wire) {
  UCCP_TRY(const call::FieldPath path, call::FieldPath::compile(*method.request, field));
  if (!call::get_string(path, wire).value_or("").empty()) return Status::ok();
  UCCP_TRY(const std::string secret, session.io.read_secret(prompt));
  call::set_string(path, wire, secret);
  return Status::ok();
}

std::string session_path(const Io& io) {
  if (const auto path = io.env("UCCP_SESSION_FILE"); path && !path->empty()) return *path;
  const std::string folder = config_folder(io);
  return folder.empty() ? "" : folder + "/session.json";
}

std::optional<StoredSession> load_session(const Io& io) {
  const std::string path = session_path(io);
  if (path.empty() || !io.file_exists(path)) return std::nullopt;
  const auto text = io.read_file(path);
  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (!text || parser.parse(simdjson::padded_string(*text)).get(root) != simdjson::SUCCESS || !root.is_object())
    return std::nullopt;
  const auto word = [&](std::string_view name) {
    std::string_view value;
    return root[name].get(value) == simdjson::SUCCESS ? std::string(value) : "";
  };
  StoredSession session{word("server"),       word("ca"), word("principal"), word("tenant"), word("accessToken"),
                        word("refreshToken"), 0};
  if (root["expireUs"].get(session.expire_us) != simdjson::SUCCESS || session.server.empty()) return std::nullopt;
  return session;
}

Status save_session(const Io& io, const StoredSession& session) {
  JsonWriter json;
  json.begin_object().key("server").value(session.server).key("ca").value(session.ca_pem);
  json.key("principal").value(session.principal).key("tenant").value(session.tenant);
  json.key("accessToken").value(session.access_token).key("refreshToken").value(session.refresh_token);
  json.key("expireUs").value(session.expire_us).end_object();
  const std::string path = session_path(io);
  if (path.empty()) {
    return Status(Code::kFailedPrecondition, "NO_HOME",
                  "there is no home directory to keep the session in; set UCCP_SESSION_FILE");
  }
  return io.write_file(path, json.take() + "\n");
}

Status refresh_session(const Io& io, const Connect& connect, Context& context) {
  if (!context.session || context.session->expire_us - io.wall_us() > kFreshUs) return Status::ok();
  // Another command may be about to do the same, and a refresh token is good once.
  const auto lock = io.lock_file(session_path(io) + ".lock");
  if (const auto stored = load_session(io); stored && stored->server == context.session->server)
    context.session = *stored;
  if (context.session->expire_us - io.wall_us() <= kFreshUs) {
    Context bare = context;
    bare.token.clear();
    UCCP_TRY(const auto transport, connect(bare));
    v1::ExchangeTokenRequest request;
    request.set_refresh_token(context.session->refresh_token);
    auto response = transport->unary(kExchangePath, request.SerializeAsString(),
                                     {.timeout_ms = kExchangeTimeoutMs, .metadata = {}});
    if (!response) {
      if (response.error().code() != Code::kUnauthenticated) return std::move(response.error());
      (void)io.remove_file(session_path(io));
      return Status(Code::kUnauthenticated, "SESSION_OVER",
                    "the session of " + context.session->principal + " is over; sign in: uccp-cli auth login " +
                        context.session->principal + " --tenant " + context.session->tenant);
    }
    UCCP_TRY(const v1::Tokens tokens, tokens_of(*response));
    context.session = session_of(tokens, context);
    UCCP_RETURN_IF_ERROR(save_session(io, *context.session));
  }
  context.token = context.session->access_token;
  return Status::ok();
}

Result<int> run_auth_login(Session& session, const Command& command, Args args) {
  const call::Method& method = *command.method;
  // Whoever signs in is nobody yet.
  session.settings.anonymous = true;
  Request request(method, session.io);
  UCCP_TRY(ParsedRequest parsed, parse_request(session, request, args, {}));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, {}));
    return kExitOk;
  }
  UCCP_RETURN_IF_ERROR(fill_secret(session, method, "password", "Password: ", parsed.wire));
  auto response = session.caller.unary(method, parsed.wire);
  if (!response && response.error().reason() == "MFA_REQUIRED") {
    UCCP_RETURN_IF_ERROR(fill_secret(session, method, "code", "Code of the authenticator app: ", parsed.wire));
    response = session.caller.unary(method, parsed.wire);
  }
  if (!response) return std::unexpected(std::move(response.error()));
  UCCP_TRY(const v1::Tokens tokens, tokens_of(*response));
  UCCP_TRY(const Context context, load_context(session.settings, session.io));
  UCCP_RETURN_IF_ERROR(save_session(session.io, session_of(tokens, context)));
  if (session.settings.machine_errors() || session.settings.format == Format::kYaml) {
    UCCP_RETURN_IF_ERROR(print_answer(session, command, parsed.wire, *response));
    return kExitOk;
  }
  session.io.out("signed in as " + tokens.principal() + " of the tenant " + tokens.tenant() + "\n");
  session.note("commands to " + context.targets.front() + " now act as " + tokens.principal() +
               "; end it: uccp-cli auth logout");
  return kExitOk;
}

Result<int> run_auth_logout(Session& session, const Command& command, Args args) {
  Request request(*command.method, session.io);
  UCCP_TRY(const ParsedRequest parsed, parse_request(session, request, args, {}));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, {}));
    return kExitOk;
  }
  const auto stored = load_session(session.io);
  if (!stored) return fail(Code::kFailedPrecondition, "NO_SESSION", "nobody is signed in here");
  const auto response = session.caller.unary(*command.method, parsed.wire);
  // Whatever the server says, this machine forgets the session.
  (void)session.io.remove_file(session_path(session.io));
  if (!response && response.error().code() != Code::kUnauthenticated) return std::unexpected(response.error());
  session.io.out("signed out " + stored->principal + " of the tenant " + stored->tenant + "\n");
  return kExitOk;
}

Result<int> run_set_password(Session& session, const Command& command, Args args) {
  const call::Method& method = *command.method;
  Request request(method, session.io);
  UCCP_TRY(ParsedRequest parsed, parse_request(session, request, args, {}));
  if (parsed.wants_help) {
    session.io.out(command_help(session, command, {}));
    return kExitOk;
  }
  UCCP_TRY(const call::FieldPath name, call::FieldPath::compile(*method.request, "name"));
  const auto stored = load_session(session.io);
  if (stored && stored->principal == call::get_string(name, parsed.wire).value_or("")) {
    UCCP_RETURN_IF_ERROR(fill_secret(session, method, "old_password", "Present password: ", parsed.wire));
  }
  UCCP_RETURN_IF_ERROR(fill_secret(session, method, "password", "New password: ", parsed.wire));
  UCCP_RETURN_IF_ERROR(session.caller.unary(method, parsed.wire));
  session.note("the password is set");
  return kExitOk;
}

}  // namespace uccp::cli
