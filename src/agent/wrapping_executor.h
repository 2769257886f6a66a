// Runs some attempts by giving the executor of commands another command in place of theirs: that of a program which
// makes what they ask for, and is it or stands for it. Everything else is handed on.
//
// So such an attempt has the user, the limits, the control group, the output and the end that a command of the same
// namespace would have. A program that could start nothing exits with kNotStarted and says why in the last line of its
// standard error, after its prefix. Thread: the reactor's.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "agent/executor.h"

namespace uccp::agent {

class WrappingExecutor : public ExecutorBackend, public ExecutorSink {
 public:
  static constexpr int kNotStarted = 125;

  // The executor of commands, whose sink this one is; outlives this one. Call once, before anything else.
  void attach(ExecutorBackend& commands) { commands_ = &commands; }

  void launch(std::vector<AttemptSpec> specs) final;
  void cancel(const AttemptKey& key, const CancelOptions& options) final { commands_->cancel(key, options); }
  void credit(const AttemptKey& key, size_t bytes) final { commands_->credit(key, bytes); }
  void materialize(AttemptSpec spec, std::move_only_function<void(Status)> done) final {
    commands_->materialize(std::move(spec), std::move(done));
  }
  void release(const AttemptKey& key) final;
  Capacity capacity() const final { return commands_->capacity(); }
  AttemptUse usage(const AttemptKey& key) const final { return commands_->usage(key); }
  std::vector<std::string> reconcile() final { return commands_->reconcile(); }
  void drain(const CancelOptions& options, std::move_only_function<void()> drained) final {
    commands_->drain(options, std::move(drained));
  }

  // From the executor of commands.
  void started(const AttemptKey& key, WallTime time) final { sink_.started(key, time); }
  void output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time, std::string_view bytes) final;
  void finished(const AttemptKey& key, AttemptEnd end) final;

 protected:
  // `sink` gets what becomes of all attempts; it must outlive the executor. The program's lines begin with `prefix`.
  WrappingExecutor(std::string prefix, ExecutorSink& sink) : prefix_(std::move(prefix)), sink_(sink) {}
  // The command in place of an attempt's own; nothing if it is not one of these. It may add to the environment.
  virtual std::optional<std::vector<std::string>> command_of(AttemptSpec& spec) = 0;

 private:
  const std::string prefix_;
  ExecutorSink& sink_;
  ExecutorBackend* commands_ = nullptr;
  // Of each attempt that is one of these: the end of its standard error.
  std::unordered_map<AttemptKey, std::string> last_words_;
};

// The last line of the text without its prefix; empty if somebody else had the last word.
std::string reason_in(std::string_view text, std::string_view prefix);

}  // namespace uccp::agent
