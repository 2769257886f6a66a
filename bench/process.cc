#include "bench/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <simdjson.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

namespace uccp::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kReadyMax = std::chrono::seconds(30);
constexpr auto kPoll = std::chrono::milliseconds(2);
constexpr int64_t kStopMs = 10'000;

double status_field_mb(int pid, std::string_view name) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(name)) return std::stod(line.substr(name.size() + 1)) / 1024;
  }
  return 0;
}

std::string string_field(simdjson::dom::element object, const char* name) {
  std::string_view text;
  return object[name].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

}  // namespace

std::string new_directory(const Context& context, const std::string& prefix) {
  std::string path = context.work_dir + "/" + prefix + "-XXXXXX";
  return ::mkdtemp(path.data()) == nullptr ? std::string() : path;
}

bool installed(const char* program) {
  std::istringstream path(std::getenv("PATH") != nullptr ? std::getenv("PATH") : "/usr/bin");
  for (std::string folder; std::getline(path, folder, ':');) {
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) return true;
  }
  return false;
}

std::string http_get(const std::string& address, const std::string& path) {
  const size_t colon = address.rfind(':');
  sockaddr_in to{};
  to.sin_family = AF_INET;
  const std::string host = address.substr(0, colon);
  if (colon == std::string::npos || ::inet_pton(AF_INET, host.c_str(), &to.sin_addr) != 1) return {};
  to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(colon + 1))));
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  // A node that was stopped takes connections and never answers.
  const timeval patience{.tv_sec = 2, .tv_usec = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  std::string answer;
  size_t wanted = std::string::npos;
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\nConnection: close\r\n\r\n";
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0 &&
      ::send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
    char buffer[4096];
    for (ssize_t got = 0; answer.size() < wanted && (got = ::recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
      answer.append(buffer, static_cast<size_t>(got));
      const size_t head = answer.find("\r\n\r\n"), length = answer.find("Content-Length: ");
      if (head != std::string::npos && length < head) wanted = head + 4 + std::stoul(answer.substr(length + 16));
    }
  }
  ::close(fd);
  const size_t head = answer.find("\r\n\r\n");
  return head == std::string::npos ? std::string() : answer.substr(head + 4);
}

Result<Ended> run_program(const std::vector<std::string>& command, const std::string& log) {
  UCCP_TRY(Child child, Child::start(command, log));
  std::optional<std::string> how;
  while (!(how = child.ended())) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  UCCP_TRY(std::string text, read_text(log));
  return Ended{std::move(*how), std::move(text)};
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return fail(Code::kNotFound, "FILE_NOT_FOUND", "there is no file " + path);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

double own_cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

namespace {

double cpu_seconds_of_one(int pid) {
  const auto text = read_text("/proc/" + std::to_string(pid) + "/stat");
  if (!text) return 0;
  // The fields behind the name, which may contain spaces: state is the first, utime the 12th, stime the 13th.
  std::istringstream fields(text->substr(text->rfind(')') + 1));
  std::string word;
  for (int i = 0; i < 11; ++i) fields >> word;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace

double cpu_seconds_of(const std::vector<int>& pids) {
  double seconds = 0;
  for (int pid : pids) seconds += cpu_seconds_of_one(pid);
  return seconds;
}

double rss_mb(int pid) { return status_field_mb(pid, "VmRSS:"); }
double rss_max_mb(int pid) { return status_field_mb(pid, "VmHWM:"); }

uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ::bind(fd, reinterpret_cast<const sockaddr*>(&address), size);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(fd);
  return ntohs(address.sin_port);
}

Result<Child> Child::start(std::vector<std::string> argv, const std::string& log_path) {
  const int log = ::open(log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  runtime::SpawnOptions options;
  options.argv = std::move(argv);
  options.stdout_fd = log;
  options.stderr_fd = log;
  // strace has to attach to a process that is not its child, and agents start tasks under other users.
  options.no_new_privileges = false;
  options.parent_death_signal = SIGKILL;
  auto process = runtime::Subprocess::spawn(options);
  ::close(log);
  if (!process) return fail(process.error());
  return Child(std::move(*process));
}

std::optional<std::string> Child::ended() {
  auto status = process_.try_wait();
  if (!status || !*status) return std::nullopt;
  return (*status)->to_string();
}

void Child::stop(int signal) {
  if (!running_) return;
  running_ = false;
  (void)process_.signal(signal);
  const auto status = process_.wait_for(kStopMs);
  if (status && *status) return;
  (void)process_.signal_group(SIGKILL);
  (void)process_.wait();
}

Child::~Child() { stop(SIGTERM); }

Result<std::unique_ptr<DevServer>> DevServer::start(const Context& context, const Options& options) {
  std::unique_ptr<DevServer> server(new DevServer);
  server->directory_ = new_directory(context, "uccp");
  const std::string ready = server->directory_ + "/dev.json";
  const std::string log = context.work_dir + "/uccp.log";
  std::vector<std::string> argv = {context.bin_dir + "/uccp", "dev",     "--data-dir",
                                   server->directory_,        "--ports", "auto"};
  if (!options.agent) argv.push_back("--no-agent");
  argv.insert(argv.end(), options.flags.begin(), options.flags.end());
  const auto begin = Clock::now();
  UCCP_TRY(Child child, Child::start(std::move(argv), log));
  server->child_.emplace(std::move(child));
  while (!std::filesystem::exists(ready)) {
    const auto ended = server->child_->ended();
    if (ended || Clock::now() - begin > kReadyMax) {
      return fail(Code::kUnavailable, "SERVER_NOT_READY",
                  "uccp dev is not ready: " + ended.value_or("no dev.json after 30 s") +
                      "; its log ends with: " + read_text(log).value_or("").substr(0, 2000));
    }
    std::this_thread::sleep_for(kPoll);
  }
  server->ready_ms_ = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  UCCP_TRY(const std::string text, read_text(ready));
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  if (parser.parse(text).get(json) != simdjson::SUCCESS) {
    return fail(Code::kUnavailable, "SERVER_NOT_READY", "dev.json is not JSON: " + text);
  }
  server->grpc_ = string_field(json, "grpc");
  server->https_ = string_field(json, "https");
  UCCP_TRY(server->tls_.ca_pem, read_text(string_field(json, "ca")));
  UCCP_TRY(server->tls_.certificate_pem, read_text(string_field(json, "cert")));
  UCCP_TRY(server->tls_.key_pem, read_text(string_field(json, "key")));
  return server;
}

DevServer::~DevServer() {
  child_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

int DevServer::agent_pid() const {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(pid()) + "/task")) {
    const auto children = read_text(entry.path().string() + "/children");
    if (children && !children->empty()) return std::stoi(*children);
  }
  return 0;
}

Result<std::unique_ptr<Etcd>> Etcd::start(const Context& context, const std::string& pki_directory) {
  if (!installed("etcd")) {
    return fail(Code::kNotFound, "ETCD_MISSING", "etcd is not installed (Debian: apt-get install etcd-server)");
  }
  std::unique_ptr<Etcd> etcd(new Etcd);
  etcd->directory_ = new_directory(context, "etcd");
  const std::string version_log = context.work_dir + "/etcd-version.txt";
  {
    UCCP_TRY(Child version, Child::start({"/usr/bin/env", "etcd", "--version"}, version_log));
    while (!version.ended()) std::this_thread::sleep_for(kPoll);
    const std::string text = read_text(version_log).value_or("");
    etcd->version_ = text.substr(0, text.find('\n'));
  }
  etcd->target_ = "127.0.0.1:" + std::to_string(free_port());
  const std::string peer = "http://127.0.0.1:" + std::to_string(free_port());
  const std::string client = "https://" + etcd->target_;
  UCCP_TRY(Child child, Child::start({"/usr/bin/env",
                                      "etcd",
                                      "--name",
                                      "n1",
                                      "--data-dir",
                                      etcd->directory_ + "/data",
                                      "--listen-client-urls",
                                      client,
                                      "--advertise-client-urls",
                                      client,
                                      "--listen-peer-urls",
                                      peer,
                                      "--initial-advertise-peer-urls",
                                      peer,
                                      "--initial-cluster",
                                      "n1=" + peer,
                                      "--log-level",
                                      "error",
                                      "--enable-grpc-gateway=false",
                                      "--client-cert-auth",
                                      "--trusted-ca-file",
                                      pki_directory + "/ca.crt",
                                      "--cert-file",
                                      pki_directory + "/server.crt",
                                      "--key-file",
                                      pki_directory + "/server.key"},
                                     context.work_dir + "/etcd.log"));
  etcd->child_.emplace(std::move(child));
  return etcd;
}

Etcd::~Etcd() {
  child_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

Result<SyncCounter> SyncCounter::start(const Context& context, int pid) {
  if (!installed("strace")) return fail(Code::kNotFound, "STRACE_MISSING", "strace is not installed");
  const std::string path = context.work_dir + "/syncs.txt";
  const std::string log = context.work_dir + "/strace.log";
  std::filesystem::remove(path);
  UCCP_TRY(Child child,
           Child::start({"/usr/bin/env", "strace", "-f", "-e", "trace=fdatasync,fsync,msync,sync_file_range", "-o",
                         path, "-p", std::to_string(pid)},
                        log));
  for (const auto begin = Clock::now(); Clock::now() - begin < std::chrono::seconds(5);) {
    if (read_text(log).value_or("").find("attached") != std::string::npos) return SyncCounter(std::move(child), path);
    std::this_thread::sleep_for(kPoll);
  }
  return fail(Code::kUnavailable, "STRACE_FAILED", "strace did not attach: " + read_text(log).value_or(""));
}

uint64_t SyncCounter::stop() {
  child_.stop(SIGINT);
  std::ifstream in(path_);
  uint64_t count = 0;
  // A call that another thread interrupted has a second line, "<... fdatasync resumed>", without the parenthesis.
  for (std::string line; std::getline(in, line);) {
    for (const char* name : {"fdatasync(", "fsync(", "msync(", "sync_file_range("}) {
      if (line.find(name) != std::string::npos) {
        ++count;
        break;
      }
    }
  }
  return count;
}

}  // namespace uccp::bench
