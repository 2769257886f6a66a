// Runs commands in containers, by giving the process executor a program that makes the container and becomes it
// (uccp-container), and hands everything else on.
//
// So a container has the user, the limits, the control group, the output and the end that a command of the same
// namespace would have, and an image is read with no more rights than the task has. Unpacked images are kept in a
// directory of each namespace's user until the agent starts anew.
// Thread: the reactor's.
#pragma once

#include <string>
#include <unordered_map>

#include "agent/executor.h"
#include "agent/process_executor.h"

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

class ContainerExecutor final : public ExecutorBackend, public ExecutorSink {
 public:
  // `sink` gets what becomes of containers and commands alike; it must outlive the executor.
  ContainerExecutor(ContainerExecutorOptions options, ExecutorSink& sink) : options_(std::move(options)), sink_(sink) {}
  // The executor of commands, whose sink this one is; outlives this one. Call once, before anything else.
  void attach(ProcessExecutor& processes) { processes_ = &processes; }

  void launch(std::vector<AttemptSpec> specs) override;
  void cancel(const AttemptKey& key, const CancelOptions& options) override { processes_->cancel(key, options); }
  void credit(const AttemptKey& key, size_t bytes) override { processes_->credit(key, bytes); }
  void materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) override {
    processes_->materialize(std::move(spec), std::move(done));
  }
  void release(const AttemptKey& key) override;
  Capacity capacity() const override { return processes_->capacity(); }
  AttemptUse usage(const AttemptKey& key) const override { return processes_->usage(key); }
  std::vector<std::string> reconcile() override { return processes_->reconcile(); }
  void drain(const CancelOptions& options, std::move_only_function<void()> drained) override {
    processes_->drain(options, std::move(drained));
  }

  // From the process executor.
  void started(const AttemptKey& key, WallTime time) override { sink_.started(key, time); }
  void output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time, std::string_view bytes) override;
  void finished(const AttemptKey& key, AttemptEnd end) override;

 private:
  std::vector<std::string> command_of(const AttemptSpec& spec, const std::string& cache) const;

  const ContainerExecutorOptions options_;
  ExecutorSink& sink_;
  ProcessExecutor* processes_ = nullptr;
  // Of each container: the end of its standard error, where uccp-container says why it could not be started.
  std::unordered_map<AttemptKey, std::string> last_words_;
};

}  // namespace uccp::agent
