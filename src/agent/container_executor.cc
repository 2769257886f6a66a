#include "agent/container_executor.h"

#include <sys/mman.h>
#include <unistd.h>

#include "agent/function_wire.h"
#include "runtime/subprocess.h"

namespace uccp::agent {
namespace {

// What uccp-container exits with if it started nothing, and what its messages begin with.
constexpr int kNotStarted = 125;
constexpr std::string_view kPrefix = "uccp-container: ";
constexpr size_t kLastWordsBytes = 4096;
constexpr int64_t kProbeTimeoutMs = 30'000;
constexpr uint32_t kNobody = 65534;

// The last line that is uccp-container's; empty if the container itself had the last word.
std::string reason_in(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const size_t line = text.rfind('\n');
  if (line != std::string_view::npos) text.remove_prefix(line + 1);
  return text.starts_with(kPrefix) ? std::string(text.substr(kPrefix.size())) : std::string();
}

}  // namespace

Status probe_containers(const ContainerExecutorOptions& options, bool as_nobody) {
  const runtime::OwnedFd said(memfd_create("probe", MFD_CLOEXEC));
  runtime::SpawnOptions spawn;
  spawn.argv = {options.program, "--probe", "--runc", options.runc};
  spawn.working_directory = "/";
  spawn.stderr_fd = said.get();
  if (as_nobody) spawn.identity = runtime::ProcessIdentity{.uid = kNobody, .gid = kNobody};
  UCCP_TRY(runtime::Subprocess process, runtime::Subprocess::spawn(spawn));
  UCCP_TRY(const auto exit, process.wait_for(kProbeTimeoutMs));
  if (exit && exit->succeeded()) return {};
  std::string text(kLastWordsBytes, '\0');
  text.resize(static_cast<size_t>(std::max<ssize_t>(0, pread(said.get(), text.data(), text.size(), 0))));
  const std::string reason = reason_in(text);
  return Status(Code::kFailedPrecondition, "CONTAINERS_UNAVAILABLE",
                !reason.empty() ? reason
                : exit          ? options.program + ": " + exit->to_string()
                                : options.program + " did not end within 30 s");
}

std::vector<std::string> ContainerExecutor::command_of(const AttemptSpec& spec, const std::string& cache) const {
  const ContainerSpec& container = *spec.container;
  std::vector<std::string> command = {options_.program,
                                      "--image",
                                      container.image,
                                      "--cache",
                                      cache,
                                      "--runc",
                                      options_.runc,
                                      "--host-name",
                                      spec.task_id.substr(0, 63),
                                      "--cached-images",
                                      std::to_string(options_.cached_images_max),
                                      "--image-bytes-max",
                                      std::to_string(options_.image_bytes_max)};
  if (!options_.images.empty()) command.insert(command.end(), {"--images", options_.images});
  if (container.read_only) command.emplace_back("--read-only");
  if (container.host_network) command.emplace_back("--host-network");
  if (spec.env.contains("PATH")) command.emplace_back("--keep-path");
  command.emplace_back("--");
  command.insert(command.end(), spec.command.begin(), spec.command.end());
  return command;
}

void ContainerExecutor::launch(std::vector<AttemptSpec> specs) {
  for (AttemptSpec& spec : specs) {
    if (!spec.container || last_words_.contains(spec.key)) continue;
    last_words_.emplace(spec.key, std::string());
    // Without a directory uccp-container says why there is no room for the image.
    spec.command = command_of(spec, processes_->shared_folder(spec, "images").value_or(""));
  }
  processes_->launch(std::move(specs));
}

void ContainerExecutor::release(const AttemptKey& key) {
  last_words_.erase(key);
  processes_->release(key);
}

void ContainerExecutor::output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time,
                               std::string_view bytes) {
  const auto found = last_words_.find(key);
  if (found != last_words_.end() && stream == tasks::LogStreamKind::kStderr) {
    std::string& words = found->second;
    words += bytes;
    if (words.size() > kLastWordsBytes) words.erase(0, words.size() - kLastWordsBytes);
  }
  sink_.output(key, stream, time, bytes);
}

void ContainerExecutor::finished(const AttemptKey& key, AttemptEnd end) {
  const auto found = last_words_.find(key);
  if (found != last_words_.end() && end.kind == EndKind::kExited && end.exit_code == kNotStarted) {
    if (std::string reason = reason_in(found->second); !reason.empty()) {
      end.kind = EndKind::kLaunchFailed;
      end.exit_code.reset();
      end.message = std::move(reason);
    }
  }
  sink_.finished(key, std::move(end));
}

}  // namespace uccp::agent
