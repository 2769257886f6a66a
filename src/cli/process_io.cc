// Io of a real process.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "base/bytes.h"
#include "cli/errors.h"
#include "cli/io.h"
#include "cli/line_editor.h"

namespace uccp::cli {
namespace {

constexpr size_t kFileBytesMax = 64 << 20;

// Written before `length`, read by the signal handler.
std::array<char, 512> interrupt_note;
std::atomic<size_t> interrupt_note_size{0};

void on_interrupt(int) {
  // Only what may be called in a signal handler.
  const size_t size = interrupt_note_size.load();
  if (size > 0) {
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, interrupt_note.data(), size);
  }
  ::_exit(kExitInterrupted);
}

void set_note(const std::string& note) {
  interrupt_note_size.store(0);
  if (note.empty()) return;
  const std::string line = "\n" + note.substr(0, interrupt_note.size() - 2) + "\n";
  std::memcpy(interrupt_note.data(), line.data(), line.size());
  interrupt_note_size.store(line.size());
}

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    // The reader went away (`| head`): nobody is left to tell.
    if (written < 0) ::_exit(errno == EPIPE ? kExitOk : kExitError);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

Result<std::string> read_descriptor(int descriptor, const std::string& path) {
  std::string content;
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t size = ::read(descriptor, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(Code::kInvalid, "FILE_UNREADABLE", "cannot read " + path + ": " + std::strerror(errno));
    if (size == 0) return content;
    content.append(buffer.data(), static_cast<size_t>(size));
    if (content.size() > kFileBytesMax) return fail(Code::kInvalid, "FILE_TOO_LARGE", path + " is larger than 64 MiB");
  }
}

Result<std::string> read_whole_file(const std::string& path) {
  if (path == "-") return read_descriptor(STDIN_FILENO, "standard input");
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return fail(Code::kInvalid, "FILE_UNREADABLE", "cannot read " + path + ": " + std::strerror(errno));
  Result<std::string> content = read_descriptor(descriptor, path);
  ::close(descriptor);
  return content;
}

Status file_error(std::string_view what, const std::string& path, std::string_view why) {
  return {Code::kInvalid, "FILE_UNWRITABLE", "cannot " + std::string(what) + " " + path + ": " + std::string(why)};
}

Status write_whole_file(const std::string& path, std::string_view content) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return file_error("make the folder of", path, error.message());
  const std::string beside = path + ".new";
  const int descriptor = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0) return file_error("write", beside, std::strerror(errno));
  bool written = true;
  for (std::string_view rest = content; written && !rest.empty();) {
    const ssize_t size = ::write(descriptor, rest.data(), rest.size());
    if (size < 0 && errno == EINTR) continue;
    written = size > 0;
    if (written) rest.remove_prefix(static_cast<size_t>(size));
  }
  const std::string why = std::strerror(errno);
  ::close(descriptor);
  if (!written) return file_error("write", beside, why);
  std::filesystem::rename(beside, path, error);
  return error ? file_error("write", path, error.message()) : Status::ok();
}

Status remove_one_file(const std::string& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  return error ? file_error("remove", path, error.message()) : Status::ok();
}

std::vector<std::string> names_in_folder(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  return names;
}

std::shared_ptr<void> lock_file(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return nullptr;
  while (::flock(descriptor, LOCK_EX) != 0 && errno == EINTR) {}
  return std::shared_ptr<void>(nullptr, [descriptor](void*) { ::close(descriptor); });
}

Result<std::string> read_secret(const std::string& prompt) {
  const int terminal = ::open("/dev/tty", O_RDWR | O_CLOEXEC);
  const bool asks = terminal >= 0 && ::isatty(STDIN_FILENO) == 1;
  const int from = asks ? terminal : STDIN_FILENO;
  struct termios before = {};
  if (asks) {
    write_all(terminal, prompt);
    ::tcgetattr(terminal, &before);
    struct termios silent = before;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(terminal, TCSAFLUSH, &silent);
  }
  std::string line;
  for (char c = 0; line.size() < 4096;) {
    const ssize_t size = ::read(from, &c, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0 || c == '\n') break;
    line.push_back(c);
  }
  if (asks) {
    ::tcsetattr(terminal, TCSAFLUSH, &before);
    write_all(terminal, "\n");
  }
  if (terminal >= 0) ::close(terminal);
  if (line.empty()) return fail(Code::kInvalid, "USAGE", "nothing was given for: " + prompt);
  return line;
}

std::string random_request_id() {
  std::random_device device;
  std::string bytes;
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = device();
    bytes.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  return "cli-" + to_hex(bytes);
}

// Reads until the writer is gone.
std::string drained(int descriptor) {
  std::string out;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t size = ::read(descriptor, buffer.data(), buffer.size());
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return out;
    out.append(buffer.data(), static_cast<size_t>(size));
  }
}

int run_this_program(const std::vector<std::string>& args, std::string* captured) {
  std::vector<char*> words = {const_cast<char*>("uccp-cli")};
  for (const std::string& arg : args) words.push_back(const_cast<char*>(arg.c_str()));
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  std::array<int, 2> ends = {-1, -1};
  if (captured != nullptr && ::pipe2(ends.data(), O_CLOEXEC) == 0) {
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t defaults;
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGINT);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  // Ctrl-C reaches the whole foreground group; it is for the command.
  ::signal(SIGINT, SIG_IGN);
  pid_t pid = 0;
  const int failed = ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (ends[1] >= 0) ::close(ends[1]);
  if (failed == 0 && captured != nullptr) *captured = drained(ends[0]);
  if (ends[0] >= 0) ::close(ends[0]);
  if (failed != 0) return kExitError;
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  return WIFEXITED(status) ? WEXITSTATUS(status) : kExitInterrupted;
}

Status become_python(const std::string& module, const std::vector<std::string>& args) {
  const char* named = std::getenv("UCCP_PYTHON");
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::string python = named != nullptr && *named != '\0'
                                 ? std::string(named)
                                 : (self.parent_path().parent_path() / "venv" / "bin" / "python").string();
  std::vector<char*> words = {const_cast<char*>(python.c_str()), const_cast<char*>("-m"),
                              const_cast<char*>(module.c_str())};
  for (const std::string& arg : args) words.push_back(const_cast<char*>(arg.c_str()));
  words.push_back(nullptr);
  ::execv(python.c_str(), words.data());
  return Status(Code::kFailedPrecondition, "PYTHON_MISSING",
                "cannot run " + python + ": " + std::strerror(errno) +
                    "; UCCP_PYTHON names a Python that has the package uccp (`make build-ml` makes one)");
}

}  // namespace

Io process_io() {
  struct sigaction action = {};
  action.sa_handler = on_interrupt;
  ::sigaction(SIGINT, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  Io io;
  io.out = [](std::string_view text) { write_all(STDOUT_FILENO, text); };
  io.err = [](std::string_view text) { write_all(STDERR_FILENO, text); };
  io.env = [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  io.read_file = read_whole_file;
  io.file_exists = [](const std::string& path) {
    struct stat info = {};
    return ::stat(path.c_str(), &info) == 0;
  };
  io.write_file = write_whole_file;
  io.remove_file = remove_one_file;
  io.list_folder = names_in_folder;
  io.lock_file = lock_file;
  io.read_secret = read_secret;
  io.wall_us = [] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return static_cast<int64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  };
  io.sleep_ms = [](int64_t ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); };
  io.make_request_id = random_request_id;
  io.set_interrupt_note = set_note;
  io.read_line = [](const std::string& prompt, const LineInput& input) {
    // At the prompt there is nothing to interrupt.
    ::signal(SIGINT, SIG_IGN);
    return read_line(prompt, input);
  };
  io.run_self = run_this_program;
  io.become_python = become_python;
  io.in_is_terminal = ::isatty(STDIN_FILENO) == 1;
  io.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  io.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  return io;
}

}  // namespace uccp::cli
