#include "agent/function_values.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "services/function_names.h"

namespace uccp::agent {
namespace {

constexpr size_t kDiskTasksMax = 100'000;

// Where a value too large for an outcome waits for its upload. On a disk thread.
Result<CollectedArtifact> write_value(const std::string& path, std::string_view content) {
  const OwnedFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const auto failed = [&] {
    return fail(Code::kUnavailable, "IO_ERROR", "the value cannot be kept in " + path + ": " + std::strerror(errno));
  };
  if (!file) return failed();
  for (size_t at = 0; at < content.size();) {
    const ssize_t written = write(file.get(), content.data() + at, content.size() - at);
    if (written <= 0) return failed();
    at += static_cast<size_t>(written);
  }
  return CollectedArtifact{.path = std::string(functions::kValueArtifact),
                           .size = content.size(),
                           .sha256 = to_hex(sha256(content)),
                           .mode = 0600,
                           .file = path};
}

}  // namespace

FunctionValues::FunctionValues(Executor& loop, const Clock& clock, const std::string& data_directory)
    : loop_(loop),
      clock_(clock),
      directory_(data_directory + "/values"),
      disk_({.name = "function-disk", .threads = 1, .queue_tasks_max = kDiskTasksMax}) {}

FunctionValues::~FunctionValues() {
  *alive_ = false;
  disk_.stop();
}

void FunctionValues::keep(const AttemptKey& key, WorkerReply reply, WallTime start, Done done) {
  AttemptEnd end{.kind = EndKind::kExited, .exit_code = reply.code, .start = start, .end = clock_.wall()};
  end.message = reply.code == 0 ? "returned" : std::move(reply.message);
  end.usage.cpu_seconds = static_cast<double>(reply.cpu_us) / 1e6;
  end.usage.memory_peak_bytes = reply.memory_peak_bytes;
  end.value = AttemptValue{.content_type = std::move(reply.content_type)};
  if (reply.content.size() <= functions::kInlineValueBytes) {
    end.value->data = std::move(reply.content);
    return done(std::move(end));
  }
  on_disk_.insert(key);
  end.value->is_artifact = true;
  const auto shared = std::make_shared<std::pair<AttemptEnd, Done>>(std::move(end), std::move(done));
  const auto settle = [this, shared, alive = alive_](Result<CollectedArtifact> written) {
    if (!*alive) return;
    AttemptEnd& ended = shared->first;
    if (written) {
      ended.artifacts.push_back(std::move(*written));
    } else {
      ended = {.kind = EndKind::kLost,
               .message = written.error().message(),
               .worker_fault = true,
               .start = ended.start,
               .end = clock_.wall()};
    }
    shared->second(std::move(ended));
  };
  Status posted = disk_.post([this, settle, path = path_of(key), content = std::move(reply.content)] {
    loop_.post([settle, written = write_value(path, content)]() mutable { settle(std::move(written)); });
  });
  if (!posted.is_ok()) loop_.post([settle, posted] { settle(std::unexpected(posted)); });
}

void FunctionValues::forget(const AttemptKey& key) {
  if (on_disk_.erase(key) > 0) (void)disk_.post([path = path_of(key)] { unlink(path.c_str()); });
}

void FunctionValues::clear() {
  std::error_code error;
  std::filesystem::remove_all(directory_, error);
  std::filesystem::create_directories(directory_, error);
  if (error)
    log::error("large values of functions cannot be kept", {{"directory", directory_}, {"error", error.message()}});
}

}  // namespace uccp::agent
