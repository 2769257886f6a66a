#include "agent/wrapping_executor.h"

namespace uccp::agent {
namespace {

constexpr size_t kLastWordsBytes = 4096;

}  // namespace

std::string reason_in(std::string_view text, std::string_view prefix) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  const size_t line = text.rfind('\n');
  if (line != std::string_view::npos) text.remove_prefix(line + 1);
  return text.starts_with(prefix) ? std::string(text.substr(prefix.size())) : std::string();
}

void WrappingExecutor::launch(std::vector<AttemptSpec> specs) {
  for (AttemptSpec& spec : specs) {
    if (last_words_.contains(spec.key)) continue;
    auto command = command_of(spec);
    if (!command) continue;
    last_words_.emplace(spec.key, std::string());
    spec.command = std::move(*command);
  }
  commands_->launch(std::move(specs));
}

void WrappingExecutor::release(const AttemptKey& key) {
  last_words_.erase(key);
  commands_->release(key);
}

void WrappingExecutor::output(const AttemptKey& key, tasks::LogStreamKind stream, WallTime time,
                              std::string_view bytes) {
  const auto found = last_words_.find(key);
  if (found != last_words_.end() && stream == tasks::LogStreamKind::kStderr) {
    std::string& words = found->second;
    words += bytes;
    if (words.size() > kLastWordsBytes) words.erase(0, words.size() - kLastWordsBytes);
  }
  sink_.output(key, stream, time, bytes);
}

void WrappingExecutor::finished(const AttemptKey& key, AttemptEnd end) {
  const auto found = last_words_.find(key);
  if (found != last_words_.end() && end.kind == EndKind::kExited && end.exit_code == kNotStarted) {
    if (std::string reason = reason_in(found->second, prefix_); !reason.empty()) {
      end.kind = EndKind::kLaunchFailed;
      end.exit_code.reset();
      end.message = std::move(reason);
    }
  }
  sink_.finished(key, std::move(end));
}

}  // namespace uccp::agent
