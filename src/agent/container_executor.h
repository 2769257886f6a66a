// Runs commands in containers, by a program that makes the container and becomes it (uccp-container).
//
// So an image is read with no more rights than the task has. Unpacked images are kept in a
// directory of each namespace's user until the agent starts anew.
// Thread: the reactor's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/process_executor.h"
#include "agent/wrapping_executor.h"

namespace uccp::agent {

struct ContainerExecutorOptions {
  std::string program;  // uccp-container
  std::string runc;
  std::string images;  // directory of images that the operator provides; empty: none
  size_t cached_images_max = 8;
  uint64_t image_bytes_max = 16ull << 30;
};

// Whether containers can be run here by the users that tasks have; tried. The error says why not. Blocks.
Status probe_containers(const ContainerExecutorOptions& options, bool as_nobody);

class ContainerExecutor final : public WrappingExecutor {
 public:
  // `sink` gets what becomes of containers and commands alike; it must outlive the executor.
  ContainerExecutor(ContainerExecutorOptions options, ExecutorSink& sink);
  // Where directories of namespaces are; outlives this one. Call once, before anything else.
  void attach(ProcessExecutor& processes) {
    WrappingExecutor::attach(processes);
    processes_ = &processes;
  }

 private:
  std::optional<std::vector<std::string>> command_of(AttemptSpec& spec) override;

  const ContainerExecutorOptions options_;
  ProcessExecutor* processes_ = nullptr;
};

}  // namespace uccp::agent
