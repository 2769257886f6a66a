// Colors, where a person looks: standard output is a terminal, and neither --no-color nor $NO_COLOR forbids them.
#pragma once

#include <string>
#include <string_view>

#include "cli/io.h"
#include "cli/settings.h"

namespace uccp::cli {

// Nobody forbids colors: no --no-color, and $NO_COLOR is unset or empty (https://no-color.org).
bool colors_allowed(const Settings& settings, const Io& io);

class Paint {
 public:
  // Both must outlive it.
  Paint(const Settings& settings, const Io& io) : settings_(settings), io_(io) {}

  bool on() const;
  // The heading of a table, a cell by what it says (FAILED, READY, ...), a diff by its first characters.
  std::string heading(const std::string& text) const;
  std::string cell(const std::string& text) const;
  std::string diff(const std::string& text) const;

 private:
  const Settings& settings_;
  const Io& io_;
};

}  // namespace uccp::cli
