// A bar on standard error for work of many steps, where a person looks at it: nothing without a terminal, or with -q.
#pragma once

#include <cstdint>
#include <string>

#include "cli/session.h"

namespace uccp::cli {

class Progress {
 public:
  // `total` 0: not known; then the count alone is shown.
  Progress(const Session& session, std::string what, uint64_t total);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Shows that `done` of all is done; at most as often as an eye can follow, but the end always.
  void show(uint64_t done);
  // Takes the bar away, so that a line can be written; the next show() brings it back.
  void clear();

 private:
  const Session& session_;
  std::string what_;
  uint64_t total_;
  int64_t shown_us_ = 0;
  bool on_screen_ = false;
};

// "apply [#######-------------] 7/20 35 %"
std::string progress_line(const std::string& what, uint64_t done, uint64_t total);

}  // namespace uccp::cli
