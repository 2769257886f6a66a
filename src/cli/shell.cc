// `uccp-cli shell`: reads lines and runs each as an invocation of this program, so that a command does the same here as
// anywhere, and Ctrl-C ends the command alone.
#include <algorithm>

#include "cli/commands.h"
#include "cli/contexts.h"
#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr std::string_view kHistoryFile = "history";

// What would put a secret into the history.
bool is_secret(const std::string& line) { return line.contains("--token") || line.contains("--password"); }

std::string prompt_of(const Session& session) {
  const std::string name = session.settings.context.empty() ? current_context(session.io) : session.settings.context;
  return name.empty() ? "uccp> " : "uccp(" + name + ")> ";
}

std::vector<std::string> with_prefix(const Session& session, const std::vector<std::string>& words) {
  std::vector<std::string> args = session.prefix;
  args.insert(args.end(), words.begin(), words.end());
  return args;
}

std::vector<std::string> complete(const Session& session, const std::string& line) {
  Result<std::vector<std::string>> words = shell_words(line);
  if (!words) return {};
  if (line.empty() || line.back() == ' ') words->emplace_back();
  std::vector<std::string> args = {"__complete"};
  args.insert(args.end(), session.prefix.begin(), session.prefix.end());
  args.insert(args.end(), words->begin(), words->end());
  std::string out;
  session.io.run_self(args, &out);
  std::vector<std::string> candidates;
  for (std::string_view rest = out; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    candidates.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return candidates;
}

}  // namespace

Result<int> run_shell(Session& session, Args args) {
  const std::vector<Flag>* const lists[] = {&session.globals};
  UCCP_TRY(const std::vector<std::string> words, parse_flags(args, lists));
  if (session.settings.help) {
    session.io.out(verbless_help("shell"));
    return kExitOk;
  }
  if (!words.empty()) return std::unexpected(usage_error("shell takes no words; it reads commands"));
  const std::string folder = config_folder(session.io);
  const LineInput input{.history_file = folder.empty() ? "" : folder + "/" + std::string(kHistoryFile),
                        .complete = [&session](const std::string& line) { return complete(session, line); },
                        .keep = [](const std::string& line) { return !is_secret(line); }};
  int first_failure = kExitOk;
  while (const std::optional<std::string> line = session.io.read_line(prompt_of(session), input)) {
    const Result<std::vector<std::string>> words = shell_words(*line);
    if (!words) {
      session.io.err("error: " + words.error().message() + "\n");
      if (first_failure == kExitOk) first_failure = kExitUsage;
      continue;
    }
    if (words->empty()) continue;
    if (words->front() == "exit" || words->front() == "quit") break;
    if (words->front() == "shell") {
      session.io.err("error: this is the shell\n");
      continue;
    }
    const int code = session.io.run_self(with_prefix(session, *words), nullptr);
    if (first_failure == kExitOk) first_failure = code;
  }
  // Whoever typed saw what failed.
  return session.io.in_is_terminal ? kExitOk : first_failure;
}

}  // namespace uccp::cli
