// Io: everything by which a command touches the machine it runs on, so that tests can replace all of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace uccp::cli {

// What reading a line can do for whoever types it.
struct LineInput {
  std::string history_file;                                                   // empty: none
  std::function<std::vector<std::string>(const std::string& line)> complete;  // candidates for the last word
  std::function<bool(const std::string& line)> keep;                          // whether a line may go into the history
};

struct Io {
  std::function<void(std::string_view)> out;  // written through at once: a follower is read line by line
  std::function<void(std::string_view)> err;
  std::function<std::optional<std::string>(const std::string& name)> env;
  // A whole file; "-" is standard input.
  std::function<Result<std::string>(const std::string& path)> read_file;
  std::function<bool(const std::string& path)> file_exists;
  // Puts the content in place at once, for this user only (mode 0600); makes the folders that are missing.
  std::function<Status(const std::string& path, std::string_view content)> write_file;
  std::function<Status(const std::string& path)> remove_file;
  // Names in a folder, in any order; none if there is no such folder.
  std::function<std::vector<std::string>(const std::string& path)> list_folder;
  // Waits until no other process holds the lock; it is held until the result is gone.
  std::function<std::shared_ptr<void>(const std::string& path)> lock_file;
  // A line without showing what is typed; from standard input if there is no terminal.
  std::function<Result<std::string>(const std::string& prompt)> read_secret;
  std::function<int64_t()> wall_us;
  std::function<void(int64_t ms)> sleep_ms;
  std::function<std::string()> make_request_id;
  // What to print when Ctrl-C ends the program from here on; empty: nothing.
  std::function<void(const std::string& note)> set_interrupt_note;
  // A line of standard input, without its break; nothing at the end.
  std::function<std::optional<std::string>(const std::string& prompt, const LineInput& input)> read_line;
  // Runs this program with other arguments and answers its exit code. Ctrl-C goes to it alone. With `captured`, its
  // standard output goes there and its errors nowhere.
  std::function<int(const std::vector<std::string>& args, std::string* captured)> run_self;
  // Becomes a module of the Python package, with these arguments. Returns only if it cannot, with the reason.
  std::function<Status(const std::string& module, const std::vector<std::string>& args)> become_python;
  bool in_is_terminal = false;
  bool err_is_terminal = false;
  bool out_is_terminal = false;
};

// The Io of a process; installs the handler that turns Ctrl-C into exit code 130.
Io process_io();

}  // namespace uccp::cli
