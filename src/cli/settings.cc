#include "cli/settings.h"

#include <simdjson.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "call/json_codec_text.h"
#include "cli/contexts.h"
#include "cli/json_path.h"
#include "cli/login.h"

namespace uccp::cli {
namespace {

constexpr const char* kDevContext = "./data/dev.json";
constexpr int64_t kMsPerSecond = 1000;
constexpr int64_t kTimeoutSecondsMax = 315'576'000'000;  // as of durations in the contract
constexpr int64_t kNsPerMs = 1000000;

Status parse_format(std::string_view text, Settings& settings) {
  static constexpr std::array<std::pair<std::string_view, Format>, 9> kFormats = {{
      {"table", Format::kTable},
      {"wide", Format::kWide},
      {"json", Format::kJson},
      {"yaml", Format::kYaml},
      {"name", Format::kName},
      {"jsonl", Format::kJsonl},
      {"ndjson", Format::kJsonl},
      {"csv", Format::kCsv},
      {"manifest", Format::kManifest},
  }};
  for (const auto& [name, value] : kFormats) {
    if (text == name) {
      settings.format = value;
      return Status::ok();
    }
  }
  constexpr std::string_view kJsonPathPrefix = "jsonpath=";
  if (text.starts_with(kJsonPathPrefix)) {
    settings.format = Format::kJsonPath;
    settings.json_path = std::string(text.substr(kJsonPathPrefix.size()));
    const Result<JsonPath> parsed = JsonPath::parse(settings.json_path);
    return parsed ? Status::ok() : parsed.error();
  }
  return usage_error("-o \"" + std::string(text) +
                     "\" is not one of table, wide, json, jsonl, yaml, csv, name, manifest, jsonpath=TEMPLATE");
}

Status parse_switch(std::string_view text, bool& value) {
  if (text != "true" && text != "false") return usage_error("\"" + std::string(text) + "\" is not true or false");
  value = text == "true";
  return Status::ok();
}

Flag text_flag(std::string name, char letter, std::string value_name, std::string help, std::string& target) {
  return Flag{.names = {std::move(name)},
              .letter = letter,
              .value_name = std::move(value_name),
              .help = std::move(help),
              .set = [&target](std::string_view value) {
                target = std::string(value);
                return Status::ok();
              }};
}

Flag switch_flag(std::string name, char letter, std::string help, bool& target) {
  return Flag{.names = {std::move(name)},
              .letter = letter,
              .is_switch = true,
              .help = std::move(help),
              .set = [&target](std::string_view value) { return parse_switch(value, target); }};
}

std::string first_of(std::string flag, std::optional<std::string> environment) {
  if (!flag.empty()) return flag;
  return environment.value_or("");
}

std::string directory_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash + 1);
}

// A certificate or key is given inline or as a path, which is relative to the file that names it, or to where it was
// written from when an older tool put it relative to the working directory.
Result<std::string> read_pem(const Io& io, const std::string& directory, const std::string& value) {
  if (value.empty() || value.starts_with("-----BEGIN")) return value;
  const std::string beside = value.starts_with('/') ? value : directory + value;
  return io.read_file(io.file_exists(beside) ? beside : value);
}

class ContextFile {
 public:
  static Result<ContextFile> load(const Io& io, const std::string& path) {
    ContextFile file;
    UCCP_TRY(file.text_, io.read_file(path));
    file.directory_ = directory_of(path);
    file.parser_ = std::make_unique<simdjson::dom::parser>();
    if (file.parser_->parse(simdjson::padded_string(file.text_)).get(file.root_) != simdjson::SUCCESS ||
        !file.root_.is_object()) {
      return fail(Code::kInvalid, "CONTEXT_INVALID", "context file " + path + " is not a JSON object");
    }
    return file;
  }

  std::string text(std::string_view key) const {
    std::string_view value;
    return root_[key].get(value) == simdjson::SUCCESS ? std::string(value) : "";
  }

  // `grpc` of the file, then that of every node in `nodes` (addresses, or objects with `grpc`).
  std::vector<std::string> targets() const {
    std::vector<std::string> targets;
    add(text("grpc"), targets);
    simdjson::dom::array nodes;
    if (root_["nodes"].get(nodes) != simdjson::SUCCESS) return targets;
    for (const simdjson::dom::element node : nodes) {
      std::string_view target;
      if (node.is_object() ? node["grpc"].get(target) == simdjson::SUCCESS : node.get(target) == simdjson::SUCCESS) {
        add(std::string(target), targets);
      }
    }
    return targets;
  }

  Status fill(const Io& io, Context& context) const {
    context.targets = targets();
    UCCP_TRY(context.ca_pem, read_pem(io, directory_, text("ca")));
    UCCP_TRY(context.cert_pem, read_pem(io, directory_, text("cert")));
    UCCP_TRY(context.key_pem, read_pem(io, directory_, text("key")));
    context.token = text("token");
    context.name_space = text("namespace");
    return Status::ok();
  }

 private:
  static void add(std::string target, std::vector<std::string>& targets) {
    if (const size_t scheme = target.find("://"); scheme != std::string::npos) target.erase(0, scheme + 3);
    if (target.empty()) return;
    for (const std::string& known : targets) {
      if (known == target) return;
    }
    targets.push_back(std::move(target));
  }

  std::string text_;
  std::string directory_;
  std::unique_ptr<simdjson::dom::parser> parser_;
  simdjson::dom::element root_;
};

// Who has signed in at this cluster is who calls; without any other context its cluster is the one that is meant.
void use_session(StoredSession session, Context& context) {
  if (context.targets.empty()) {
    context.targets = {session.server};
    context.source = "the session of " + session.principal;
  }
  if (std::ranges::find(context.targets, session.server) == context.targets.end()) return;
  if (context.ca_pem.empty()) context.ca_pem = session.ca_pem;
  context.token = session.access_token;
  context.cert_pem = context.key_pem = "";
  context.session = std::move(session);
}

}  // namespace

std::vector<Flag> global_flags(Settings& settings) {
  std::vector<Flag> flags;
  flags.push_back({.names = {"output"},
                   .letter = 'o',
                   .value_name = "FORMAT",
                   .help = "table, wide, json, jsonl, yaml, csv, name, manifest or jsonpath=TEMPLATE; default table",
                   .set = [&settings](std::string_view value) { return parse_format(value, settings); }});
  flags.push_back(text_flag("namespace", 'n', "NAME", "namespace; default the credential's", settings.name_space));
  flags.push_back(switch_flag("dry-run", 0, "check a change and do not make it", settings.dry_run));
  flags.push_back(switch_flag("quiet", 'q', "print ids only and no notes", settings.quiet));
  flags.push_back({.names = {"timeout", "call-timeout"},
                   .value_name = "DURATION",
                   .help = "longest time of the call; default 60s, none for what waits or streams",
                   .set = [&settings](std::string_view value) -> Status {
                     UCCP_TRY(settings.timeout_ms, parse_timeout_ms(value));
                     return Status::ok();
                   }});
  flags.push_back(
      text_flag("consistency", 0, "LEVEL", "linearizable, lease, bounded:MS or session:TOKEN", settings.consistency));
  flags.push_back(
      text_flag("request-id", 0, "ID", "deduplication key of a change; default a fresh one", settings.request_id));
  flags.push_back(text_flag("data", 0, "JSON", "the body as JSON; flags are applied on top", settings.data));
  flags.push_back(
      text_flag("file", 'f', "FILE", "the body as a JSON or YAML file; - is standard input", settings.data_file));
  flags.push_back(text_flag("context", 0, "NAME",
                            "cluster and credentials by name; default $UCCP_CONTEXT, then that of `context use`",
                            settings.context));
  flags.push_back(text_flag("context-file", 0, "FILE",
                            "cluster and credentials in a file; default $UCCP_CONTEXT_FILE, ./data/dev.json",
                            settings.context_file));
  flags.push_back(text_flag("server", 0, "HOST:PORT", "gRPC address; default from the context file", settings.server));
  flags.push_back(text_flag("ca", 0, "FILE", "certificate authority of the cluster", settings.ca_file));
  flags.push_back(text_flag("cert", 0, "FILE", "client certificate", settings.cert_file));
  flags.push_back(text_flag("key", 0, "FILE", "key of the client certificate", settings.key_file));
  flags.push_back(text_flag("token", 0, "TOKEN", "bearer token or API key; default $UCCP_TOKEN", settings.token));
  flags.push_back(switch_flag("no-color", 0, "no colors; so does $NO_COLOR", settings.no_color));
  flags.push_back(switch_flag("help", 'h', "what the command does", settings.help));
  return flags;
}

Result<int64_t> parse_timeout_ms(std::string_view text) {
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error == std::errc() && end == text.data() + text.size() && seconds >= 0 && seconds <= kTimeoutSecondsMax)
    return seconds * kMsPerSecond;
  call::SecondsNanos duration;
  if (!call::parse_duration(text, duration) || duration.seconds < 0 || duration.nanos < 0) {
    return std::unexpected(usage_error("\"" + std::string(text) + "\" is not a duration such as 30s, 2m or 500ms"));
  }
  return duration.seconds * kMsPerSecond + duration.nanos / kNsPerMs;
}

// The context file to read; empty: none.
static Result<std::string> select_file(const Settings& settings, const Io& io) {
  if (!settings.context_file.empty()) return settings.context_file;
  if (!settings.context.empty()) return context_path(io, settings.context);
  if (const auto file = io.env("UCCP_CONTEXT_FILE"); file && !file->empty()) return *file;
  if (const auto name = io.env("UCCP_CONTEXT"); name && !name->empty()) return context_path(io, *name);
  if (!settings.server.empty()) return std::string();
  if (const std::string name = current_context(io); !name.empty()) return context_path(io, name);
  return io.file_exists(kDevContext) ? std::string(kDevContext) : std::string();
}

Result<Context> load_context(const Settings& settings, const Io& io) {
  Context context;
  UCCP_TRY(std::string path, select_file(settings, io));
  if (!path.empty()) {
    UCCP_TRY(ContextFile file, ContextFile::load(io, path));
    // A context may stand for a file that another program keeps up to date.
    if (const std::string linked = file.text("contextFile"); !linked.empty()) {
      context.name_space = file.text("namespace");
      path = linked;
      UCCP_TRY(file, ContextFile::load(io, path));
    }
    const std::string name_space = context.name_space;
    UCCP_RETURN_IF_ERROR(file.fill(io, context));
    if (!name_space.empty()) context.name_space = name_space;
    context.source = path;
  }
  if (!settings.server.empty()) {
    context.targets = {settings.server};
    context.source = "--server";
  }
  const std::string token = first_of(settings.token, io.env("UCCP_TOKEN"));
  const bool names_credential = !token.empty() || !settings.cert_file.empty() || settings.anonymous;
  if (auto session = names_credential ? std::nullopt : load_session(io)) use_session(std::move(*session), context);
  if (context.targets.empty()) {
    std::string message = path.empty()
                              ? "no cluster is given: no context is in use, and there is no ./data/dev.json here"
                              : "context file " + path + " names no \"grpc\" address";
    return fail(Code::kInvalid, "CONTEXT_INVALID", std::move(message));
  }
  if (!settings.ca_file.empty()) {
    UCCP_TRY(context.ca_pem, io.read_file(settings.ca_file));
  }
  if (!settings.cert_file.empty()) {
    UCCP_TRY(context.cert_pem, io.read_file(settings.cert_file));
  }
  if (!settings.key_file.empty()) {
    UCCP_TRY(context.key_pem, io.read_file(settings.key_file));
  }
  if (!token.empty()) context.token = token;
  if (settings.anonymous) context.token = context.cert_pem = context.key_pem = "";
  return context;
}

}  // namespace uccp::cli
