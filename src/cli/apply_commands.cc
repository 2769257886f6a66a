// `apply`, `diff` and `delete`: what files say there should be.
#include <algorithm>
#include <ranges>

#include "base/json.h"
#include "call/json_codec.h"
#include "cli/commands.h"
#include "cli/line_diff.h"
#include "cli/manifest.h"
#include "cli/paint.h"
#include "cli/progress.h"
#include "cli/render.h"
#include "cli/text.h"
#include "cli/yaml.h"

namespace uccp::cli {
namespace {

constexpr int kExitDiffers = 1;

Flag files_flag(std::vector<std::string>& files) {
  return {.names = {"file"},
          .letter = 'f',
          .value_name = "FILE",
          .help = "YAML or JSON with resources by kind; again for more files; - is standard input",
          .set = [&files](std::string_view text) {
            files.emplace_back(text);
            return Status::ok();
          }};
}

// What went wrong with one of many; the first decides the exit code.
class Failures {
 public:
  explicit Failures(Session& session) : session_(session) {}
  void add(const Wanted& wanted, const Status& status) {
    const ErrorContext context{.noun = wanted.kind->noun, .request_id = {}, .can_list = wanted.kind->list != nullptr};
    session_.io.err(render_error(located(wanted.where, status), session_.settings, context));
    if (code_ == kExitOk) code_ = exit_code(status);
  }
  int code() const { return code_; }

 private:
  Session& session_;
  int code_ = kExitOk;
};

void report(Session& session, const std::string& label, const std::string& outcome) {
  const Settings& settings = session.settings;
  if (settings.quiet || settings.format == Format::kName) {
    session.io.out(label + "\n");
  } else if (settings.machine_errors()) {
    std::string line = "{\"resource\":";
    append_json_string(line, label);
    line += ",\"outcome\":";
    append_json_string(line, outcome);
    session.io.out(line + (settings.dry_run ? ",\"dryRun\":true}\n" : "}\n"));
  } else {
    session.io.out(label + " " + outcome + (settings.dry_run ? " (checked only, nothing was changed)" : "") + "\n");
  }
}

Result<std::string> apply_one(Session& session, const Wanted& wanted, std::string& label) {
  UCCP_TRY(const std::optional<Found> current, find_current(session, wanted));
  if (current) {
    if (wanted.name.empty()) label = wanted.kind->noun + "/" + printable(current->id);
    UCCP_TRY(const std::string before, settable(wanted, current->wire));
    UCCP_TRY(const std::string after, merged(wanted, current->wire));
    if (before == after) return std::string("unchanged");
  }
  UCCP_TRY(const Step step, step_to(session, wanted, current ? &*current : nullptr));
  UCCP_TRY(const std::string response, session.caller.unary(*step.command->method, step.request));
  const std::string id = resource_id(*step.command->method->response, response);
  if (!id.empty()) label = wanted.kind->noun + "/" + printable(id);
  return step.outcome;
}

Result<std::string> shown(const Wanted& wanted, const std::string& wire) {
  UCCP_TRY(const std::string json, call::wire_to_json(*wanted.plan, wire, {.emit = call::Emit::kSet, .redact = true}));
  return json == "{}" ? std::string() : printable(json_to_yaml(json), Breaks::kKeep);
}

Result<bool> diff_one(Session& session, const Wanted& wanted) {
  UCCP_TRY(const std::optional<Found> current, find_current(session, wanted));
  std::string before_wire;
  if (current) {
    UCCP_TRY(before_wire, settable(wanted, current->wire));
  }
  UCCP_TRY(const std::string after_wire, merged(wanted, before_wire));
  if (current && before_wire == after_wire) return false;
  UCCP_TRY(const std::string before, shown(wanted, before_wire));
  UCCP_TRY(const std::string after, shown(wanted, after_wire));
  std::string text = "--- " + wanted.label() + (current ? " (as it is)" : " (absent)") + "\n+++ " + wanted.label() +
                     " (" + wanted.where + ")\n";
  const std::string lines = line_diff(before, after);
  text += lines.empty() ? "@@ a value that is not shown\n" : lines;
  session.io.out(session.paint.diff(text));
  return true;
}

Result<std::string> delete_one(Session& session, const Wanted& wanted, std::string& label) {
  UCCP_TRY(const std::optional<Found> current, find_current(session, wanted));
  if (!current) return std::string("absent");
  const std::string& name = wanted.name.empty() ? current->id : wanted.name;
  label = wanted.kind->noun + "/" + printable(name);
  const call::Method& method = *wanted.kind->remove->method;
  UCCP_TRY(const std::string request, named_request(session, wanted, method, name));
  const Result<std::string> response = session.caller.unary(method, request);
  if (!response && response.error().code() == Code::kNotFound) return std::string("absent");
  if (!response) return std::unexpected(response.error());
  return past(wanted.kind->remove->verb);
}

struct Files {
  std::vector<std::string> names;
  std::vector<std::string> words;
};

// The flags of the three. Errors: as parse_flags(); invalid USAGE for a key that only one change can have.
Result<Files> parse_files(Session& session, Args args) {
  Files files;
  const std::vector<Flag> extra = {files_flag(files.names)};
  const std::vector<Flag>* const lists[] = {&extra, &session.globals};
  UCCP_TRY(files.words, parse_flags(args, lists));
  if (!files.names.empty() && !session.settings.request_id.empty()) {
    return std::unexpected(usage_error("--request-id is the key of one change; a file may hold many"));
  }
  return files;
}

using Act = Result<std::string> (*)(Session&, const Wanted&, std::string& label);

int act_on_all(Session& session, const std::vector<Wanted>& all, const std::string& what, Act act) {
  Failures failures(session);
  Progress progress(session, what, all.size() > 1 ? all.size() : 0);
  uint64_t done = 0;
  for (const Wanted& wanted : all) {
    if (all.size() > 1) progress.show(done++);
    std::string label = wanted.label();
    const Result<std::string> outcome = act(session, wanted, label);
    progress.clear();
    outcome ? report(session, label, *outcome) : failures.add(wanted, outcome.error());
  }
  return failures.code();
}

}  // namespace

Result<int> run_apply(Session& session, Args args) {
  UCCP_TRY(const Files files, parse_files(session, args));
  if (session.settings.help) {
    session.io.out(verbless_help("apply"));
    return kExitOk;
  }
  if (files.names.empty() || !files.words.empty()) return std::unexpected(usage_error("apply takes files: -f FILE"));
  const Kinds kinds(session.catalog);
  UCCP_TRY(const std::vector<Wanted> all, read_manifests(session, kinds, files.names));
  return act_on_all(session, all, "apply", apply_one);
}

Result<int> run_diff(Session& session, Args args) {
  UCCP_TRY(const Files files, parse_files(session, args));
  if (session.settings.help) {
    session.io.out(verbless_help("diff"));
    return kExitOk;
  }
  if (files.names.empty() || !files.words.empty()) return std::unexpected(usage_error("diff takes files: -f FILE"));
  const Kinds kinds(session.catalog);
  UCCP_TRY(const std::vector<Wanted> all, read_manifests(session, kinds, files.names));
  Failures failures(session);
  bool differs = false;
  for (const Wanted& wanted : all) {
    const Result<bool> different = diff_one(session, wanted);
    if (!different) failures.add(wanted, different.error());
    differs = differs || (different && *different);
  }
  if (failures.code() != kExitOk) return failures.code();
  return differs ? kExitDiffers : kExitOk;
}

Result<int> run_delete(Session& session, Args args) {
  const Kinds kinds(session.catalog);
  const bool by_name = !args.empty() && !args.front().starts_with('-');
  if (by_name) {
    UCCP_TRY(const Kind* kind, kinds.find(args.front()));
    if (kind->remove == nullptr) {
      return std::unexpected(
          usage_error("a " + kind->noun + " cannot be deleted; `uccp-cli " + kind->noun + " --help`"));
    }
    return run_each(session, *kind->remove, args.subspan(1));
  }
  UCCP_TRY(const Files files, parse_files(session, args));
  if (session.settings.help) {
    session.io.out(verbless_help("delete"));
    return kExitOk;
  }
  if (files.names.empty() || !files.words.empty()) {
    return std::unexpected(usage_error("delete takes KIND NAME, or files: -f FILE"));
  }
  UCCP_TRY(std::vector<Wanted> all, read_manifests(session, kinds, files.names));
  std::ranges::reverse(all);
  return act_on_all(session, all, "delete", delete_one);
}

}  // namespace uccp::cli
