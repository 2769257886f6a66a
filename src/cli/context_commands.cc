// `uccp-cli context ...`: clusters by name.
#include "base/json.h"
#include "cli/commands.h"
#include "cli/contexts.h"
#include "cli/render.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

std::string absolute(const Io& io, std::string path) {
  const std::string here = io.env("PWD").value_or("");
  while (path.starts_with("./")) path.erase(0, 2);
  return path.starts_with('/') || here.empty() ? path : here + "/" + path;
}

std::string context_json(const Context& context, const std::string& name_space) {
  JsonWriter json;
  json.begin_object();
  if (!context.targets.empty()) json.key("grpc").value(context.targets.front());
  json.key("nodes").begin_array();
  for (const std::string& target : context.targets) json.value(target);
  json.end_array();
  for (const auto& [key, value] : {std::pair{"ca", &context.ca_pem},
                                   {"cert", &context.cert_pem},
                                   {"key", &context.key_pem},
                                   {"token", &context.token},
                                   {"namespace", &name_space}}) {
    if (!value->empty()) json.key(key).value(*value);
  }
  return json.end_object().take() + "\n";
}

Result<int> list(Session& session) {
  const std::vector<std::string> names = context_names(session.io);
  const std::string current = current_context(session.io);
  if (session.settings.machine_errors()) {
    JsonWriter json;
    json.begin_array();
    for (const std::string& name : names) {
      json.begin_object().key("name").value(name).key("current").value(name == current).end_object();
    }
    session.io.out(json.end_array().take() + "\n");
    return kExitOk;
  }
  if (session.settings.quiet || session.settings.format == Format::kName) {
    for (const std::string& name : names) session.io.out(name + "\n");
    return kExitOk;
  }
  if (names.empty()) {
    session.note("no contexts; `uccp-cli context set NAME` makes one");
    return kExitOk;
  }
  std::vector<std::vector<std::string>> rows = {{"CURRENT", "NAME", "SERVER", "NAMESPACE"}};
  for (const std::string& name : names) {
    Settings settings;
    settings.context = name;
    const Result<Context> context = load_context(settings, session.io);
    rows.push_back({name == current ? "*" : "<none>", name,
                    context ? context->targets.front() : "<" + std::string(context.error().reason()) + ">",
                    context && !context->name_space.empty() ? context->name_space : "<none>"});
  }
  session.io.out(render_table(rows));
  return kExitOk;
}

Result<int> set(Session& session, const std::string& name) {
  const Settings& settings = session.settings;
  const bool linked = !settings.context_file.empty() && settings.server.empty() && settings.ca_file.empty() &&
                      settings.token.empty() && settings.cert_file.empty();
  // Read even when only the path is kept: a context that does not work is refused now, not at its first use.
  UCCP_TRY(const Context context, load_context(settings, session.io));
  std::string json;
  if (linked) {
    JsonWriter writer;
    writer.begin_object().key("contextFile").value(absolute(session.io, settings.context_file));
    if (!settings.name_space.empty()) writer.key("namespace").value(settings.name_space);
    json = writer.end_object().take() + "\n";
  } else {
    json = context_json(context, settings.name_space.empty() ? context.name_space : settings.name_space);
  }
  UCCP_RETURN_IF_ERROR(write_context(session.io, name, json));
  if (current_context(session.io).empty()) UCCP_RETURN_IF_ERROR(use_context(session.io, name));
  session.io.out("context/" + name + " set\n");
  return kExitOk;
}

Result<int> show(Session& session, std::string name) {
  if (name.empty()) name = current_context(session.io);
  if (name.empty()) return fail(Code::kInvalid, "CONTEXT_INVALID", "no context is in use; `uccp-cli context use NAME`");
  Settings settings;
  settings.context = name;
  UCCP_TRY(const Context context, load_context(settings, session.io));
  session.io.out("name: " + name + "\nserver: " + join(context.targets, ", ") + "\n");
  if (!context.name_space.empty()) session.io.out("namespace: " + context.name_space + "\n");
  session.io.out("source: " + context.source + "\ncredentials: " +
                 (!context.token.empty()      ? "a token"
                  : !context.cert_pem.empty() ? "a certificate"
                                              : "none") +
                 std::string("\n"));
  return kExitOk;
}

}  // namespace

Result<int> run_context(Session& session, Args args) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (session.settings.help || words.empty()) {
    (session.settings.help ? session.io.out : session.io.err)(verbless_help("context"));
    return session.settings.help ? kExitOk : kExitUsage;
  }
  const std::string& verb = words.front();
  const std::string name = words.size() > 1 ? words[1] : "";
  if (words.size() > 2) return std::unexpected(usage_error("argument \"" + words[2] + "\" is one too many"));
  if (verb == "list" || verb == "ls") return list(session);
  if (verb == "show") return show(session, name);
  if (verb != "set" && verb != "use" && verb != "delete") {
    return std::unexpected(
        usage_error("unknown command \"context " + printable(verb) + "\"; there is: list, set, use, show, delete"));
  }
  if (name.empty()) return std::unexpected(usage_error("context " + verb + " takes the name of a context"));
  if (verb == "set") return set(session, name);
  if (verb == "use") {
    UCCP_RETURN_IF_ERROR(use_context(session.io, name));
    session.io.out("context/" + name + " in use\n");
    return kExitOk;
  }
  UCCP_RETURN_IF_ERROR(delete_context(session.io, name));
  session.io.out("context/" + name + " deleted\n");
  return kExitOk;
}

}  // namespace uccp::cli
