#include "server/process.h"

#include <fmt/format.h>
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/log.h"
#include "runtime/jwt.h"
#include "server/authenticator.h"

namespace uccp::server {
namespace {

constexpr int64_t kAdminTokenSeconds = 365LL * 24 * 3600;

}  // namespace

int report(const Status& status) {
  fmt::print(stderr, "error: {}\n", status.message());
  for (const FieldViolation& field : status.detail().fields)
    fmt::print(stderr, "  {}: {}\n", field.field, field.description);
  return code_info(status.code()).exit;
}

Result<NodeId> node_id(const std::string& text) {
  uint64_t number = 0;
  const char* digits = text.c_str() + (text.starts_with('n') ? 1 : 0);
  char* end = nullptr;
  number = std::strtoull(digits, &end, 10);
  if (*digits == '\0' || *end != '\0' || number == 0) {
    return fail(Code::kInvalid, "CONFIG_INVALID", "node_id '" + text + "' is not n1, n2, ...");
  }
  return NodeId(number);
}

void warn_of_unused(const Config& config) {
  for (const std::string& key : config.unused())
    log::warn("this setting has no effect in this version", {{"key", key}});
}

std::string absolute(const std::string& path) { return std::filesystem::absolute(path).lexically_normal().string(); }

Result<std::string> admin_token(const std::string& key_pem, const Clock& clock) {
  UCCP_TRY(const auto signer, runtime::TokenSigner::from_pem(key_pem));
  runtime::TokenClaims claims;
  claims.issuer = std::string(kTokenIssuer);
  claims.audience = {std::string(kTokenAudience)};
  claims.subject = "admin";
  claims.tenant = "default";
  claims.roles = {"admin"};
  claims.issued_at_s = clock.wall().us / 1'000'000;
  claims.expires_at_s = claims.issued_at_s + kAdminTokenSeconds;
  return signer.sign(claims);
}

std::string program_folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path().string(); }

StopSignal::StopSignal() : watcher_({SIGINT, SIGTERM}, nullptr, [this](int) { stop({}); }) {}

void StopSignal::stop(std::optional<Status> why) {
  std::lock_guard lock(mutex_);
  if (!stopped_ && why) failure_ = std::move(why);
  stopped_ = true;
  changed_.notify_all();
}

std::optional<Status> StopSignal::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return stopped_; });
  return failure_;
}

int finish(const std::optional<Status>& failure, Server& server) {
  if (!failure) {
    server.stop();
    return 0;
  }
  // The disk or the state is not to be trusted any more: nothing is flushed, nothing is answered.
  log::error("the node cannot go on", {{"reason", failure->reason()}, {"detail", failure->message()}});
  std::_Exit(code_info(failure->code()).exit);
}

}  // namespace uccp::server
