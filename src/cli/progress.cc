#include "cli/progress.h"

#include <algorithm>

namespace uccp::cli {
namespace {

constexpr int64_t kBetweenUs = 50'000;
constexpr uint64_t kWidth = 30;

}  // namespace

Progress::Progress(const Session& session, std::string what, uint64_t total)
    : session_(session), what_(std::move(what)), total_(total) {}

void Progress::show(uint64_t done) {
  if (!session_.io.err_is_terminal || session_.settings.quiet) return;
  const int64_t now_us = session_.io.wall_us();
  if (on_screen_ && done != total_ && now_us - shown_us_ < kBetweenUs) return;
  shown_us_ = now_us;
  on_screen_ = true;
  session_.io.err("\r\x1b[K" + progress_line(what_, done, total_));
}

void Progress::clear() {
  if (on_screen_) session_.io.err("\r\x1b[K");
  on_screen_ = false;
}

std::string progress_line(const std::string& what, uint64_t done, uint64_t total) {
  if (total == 0) return what + " " + std::to_string(done);
  const uint64_t filled = std::min(kWidth, done * kWidth / total);
  return what + " [" + std::string(filled, '#') + std::string(kWidth - filled, '-') + "] " + std::to_string(done) +
         "/" + std::to_string(total) + " " + std::to_string(std::min<uint64_t>(100, done * 100 / total)) + " %";
}

}  // namespace uccp::cli
