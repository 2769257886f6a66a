#include "agent/function_environments.h"

#include <unistd.h>

#include <algorithm>

#include "base/bytes.h"
#include "base/hash.h"

namespace uccp::agent {
namespace {

constexpr size_t kTailBytes = 2000;
// A failed build is tried again by calls that come later than this: an index may have been away.
constexpr int64_t kFailureMs = 10'000;

// $0 is Python of the agent, $1 the requirements. The environment sees the agent's packages behind its own.
constexpr std::string_view kBuild = R"(set -e
"$0" -m venv --without-pip venv
own=$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
"$0" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$own/uccp-agent.pth"
printf '%s\n' "$1" >requirements.txt
exec "$0" -m pip --python venv/bin/python install --no-input --disable-pip-version-check --no-cache-dir \
  --progress-bar off -r requirements.txt
)";

// How the agent itself reaches packages is how environments do.
std::map<std::string, std::string> index_settings() {
  std::map<std::string, std::string> found;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const bool proxy = name == "https_proxy" || name == "HTTPS_PROXY" || name == "no_proxy" || name == "NO_PROXY";
    if (name.starts_with("PIP_") || name == "SSL_CERT_FILE" || proxy) found.emplace(name, text.substr(equals + 1));
  }
  return found;
}

// The last line that says something.
std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text.substr(text.rfind('\n') + 1));
}

}  // namespace

std::string FunctionEnvironments::key_of(const Wanted& wanted) {
  if (wanted.requirements.empty()) return {};
  std::vector<std::string> sorted = wanted.requirements;
  std::ranges::sort(sorted);
  ByteWriter key;
  key.bytes(wanted.tenant).bytes(wanted.name_space);
  for (const std::string& one : sorted) key.bytes(one);
  return to_hex(sha256(key.data()));
}

FunctionEnvironments::Found FunctionEnvironments::find(const Wanted& wanted, ExecutorBackend& processes) {
  if (wanted.requirements.empty()) return {.command = {options_.python, "-m", "uccp_worker"}};
  const std::string key = key_of(wanted);
  auto found = environments_.find(key);
  const BootTime now = clock_.boot();
  if (found != environments_.end() && found->second.state == State::kFailed &&
      now.ms_since(found->second.used) > kFailureMs) {
    environments_.erase(found);
    found = environments_.end();
  }
  if (found == environments_.end()) {
    make_room(processes);
    Environment& made = environments_[key];
    made.attempt = std::string(kPrefix) + std::to_string(next_++) + "-" + key.substr(0, 12);
    made.used = now;
    builds_[made.attempt] = key;
    processes.launch({build_of(wanted, made.attempt)});
    return {.state = State::kBuilding};
  }
  Environment& environment = found->second;
  if (environment.state != State::kReady) return {.state = environment.state, .error = environment.error};
  environment.used = now;
  // Folders of attempts are beside each other; where is known to the process alone.
  return {
      .command = {"/bin/sh", "-c", "exec \"${PWD%/*}/" + environment.attempt + "/venv/bin/python\" -m uccp_worker"}};
}

AttemptSpec FunctionEnvironments::build_of(const Wanted& wanted, const AttemptKey& key) const {
  std::string lines;
  for (const std::string& one : wanted.requirements) lines += (lines.empty() ? "" : "\n") + one;
  AttemptSpec spec;
  spec.key = key;
  spec.tenant = wanted.tenant;
  spec.namespace_name = wanted.name_space;
  spec.command = {"/bin/sh", "-c", std::string(kBuild), options_.python, lines};
  spec.env = index_settings();
  spec.timeout_ms = options_.build_timeout_ms;
  spec.grace_ms = 0;
  return spec;
}

void FunctionEnvironments::make_room(ExecutorBackend& processes) {
  if (environments_.size() < options_.environments_max) return;
  auto oldest = environments_.end();
  for (auto it = environments_.begin(); it != environments_.end(); ++it) {
    if (it->second.users > 0 || it->second.state == State::kBuilding) continue;
    if (oldest == environments_.end() || it->second.used < oldest->second.used) oldest = it;
  }
  if (oldest == environments_.end()) return;
  if (oldest->second.state == State::kReady) processes.release(oldest->second.attempt);
  environments_.erase(oldest);
}

void FunctionEnvironments::entered(const Wanted& wanted) {
  if (const auto found = environments_.find(key_of(wanted)); found != environments_.end()) found->second.users += 1;
}

void FunctionEnvironments::left(const Wanted& wanted) {
  if (const auto found = environments_.find(key_of(wanted)); found != environments_.end()) found->second.users -= 1;
}

bool FunctionEnvironments::is_of(const AttemptKey& key, const Wanted& wanted) const {
  const auto build = builds_.find(key);
  return build != builds_.end() && build->second == key_of(wanted);
}

std::string FunctionEnvironments::progress(const AttemptKey& key, std::string_view bytes) {
  const auto build = builds_.find(key);
  if (build == builds_.end()) return {};
  Environment& environment = environments_.at(build->second);
  environment.tail += bytes;
  if (environment.tail.size() > kTailBytes) environment.tail.erase(0, environment.tail.size() - kTailBytes);
  return "environment: " + last_line(bytes) + "\n";
}

void FunctionEnvironments::finished(const AttemptKey& key, const AttemptEnd& end, ExecutorBackend& processes) {
  const auto build = builds_.extract(key);
  if (build.empty()) return;
  Environment& environment = environments_.at(build.mapped());
  environment.used = clock_.boot();
  if (end.kind == EndKind::kExited && end.exit_code == 0) {
    environment.state = State::kReady;
    return;
  }
  environment.state = State::kFailed;
  environment.error = "the environment of the function cannot be built (" + end.message + "): " + environment.tail;
  processes.release(key);
}

}  // namespace uccp::agent
