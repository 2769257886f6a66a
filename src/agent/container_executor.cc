#include "agent/container_executor.h"

#include <sys/mman.h>
#include <unistd.h>

#include "agent/function_wire.h"
#include "runtime/subprocess.h"

namespace uccp::agent {
namespace {

// What its messages begin with.
constexpr std::string_view kPrefix = "uccp-container: ";
constexpr size_t kLastWordsBytes = 4096;
constexpr int64_t kProbeTimeoutMs = 30'000;
constexpr uint32_t kNobody = 65534;

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
  const std::string reason = reason_in(text, kPrefix);
  return Status(Code::kFailedPrecondition, "CONTAINERS_UNAVAILABLE",
                !reason.empty() ? reason
                : exit          ? options.program + ": " + exit->to_string()
                                : options.program + " did not end within 30 s");
}

ContainerExecutor::ContainerExecutor(ContainerExecutorOptions options, ExecutorSink& sink)
    : WrappingExecutor(std::string(kPrefix), sink), options_(std::move(options)) {}

std::optional<std::vector<std::string>> ContainerExecutor::command_of(AttemptSpec& spec) {
  if (!spec.container) return std::nullopt;
  const ContainerSpec& container = *spec.container;
  std::vector<std::string> command = {options_.program, "--image", container.image,
                                      // Without a directory it says why there is no room for the image.
                                      "--cache", processes_->shared_folder(spec, "images").value_or(""), "--runc",
                                      options_.runc, "--host-name", spec.task_id.substr(0, 63), "--cached-images",
                                      std::to_string(options_.cached_images_max), "--image-bytes-max",
                                      std::to_string(options_.image_bytes_max)};
  if (!options_.images.empty()) command.insert(command.end(), {"--images", options_.images});
  if (container.read_only) command.emplace_back("--read-only");
  if (container.host_network) command.emplace_back("--host-network");
  if (spec.env.contains("PATH")) command.emplace_back("--keep-path");
  command.emplace_back("--");
  command.insert(command.end(), spec.command.begin(), spec.command.end());
  return command;
}

}  // namespace uccp::agent
