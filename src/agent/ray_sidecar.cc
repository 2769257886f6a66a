#include "agent/ray_sidecar.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/bytes.h"
#include "base/log.h"
#include "runtime/os_random.h"

namespace uccp::agent {
namespace {

constexpr size_t kStarterTasksMax = 100;
constexpr size_t kLastWordsBytes = 1000;
// From the end of its connection to the end of its process.
constexpr int64_t kGoneMs = 2'000;
// To the next try of a packet that the socket had no room for, while nothing else will tell of room.
constexpr int64_t kRetryMs = 10;

size_t number_of(std::string_view text) {
  size_t value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// The last line that says something.
std::string last_line(std::string_view text) {
  while (text.ends_with('\n')) text.remove_suffix(1);
  return std::string(text.substr(text.rfind('\n') + 1));
}

}  // namespace

RaySidecar::RaySidecar(Reactor& reactor, RaySidecarOptions options, RaySidecarObserver& observer)
    : reactor_(reactor),
      options_(std::move(options)),
      observer_(observer),
      restart_ms_(options_.restart_ms_min),
      starter_({.name = "ray-sidecar", .threads = 1, .queue_tasks_max = kStarterTasksMax}) {}

RaySidecar::~RaySidecar() {
  *alive_ = false;
  starter_.stop();
  reactor_.cancel(timer_);
  for (const OwnedFd* fd : {&listener_.socket, &stranger_, &socket_}) {
    if (*fd) reactor_.unwatch(fd->get());
  }
  if (process_) reactor_.unwatch(process_->pidfd());
}

Status RaySidecar::start() {
  UCCP_TRY(listener_, listen_for_workers(to_hex(runtime::random_bytes(16))));
  reactor_.watch(listener_.socket.get(), [this] { accept_one(); });
  spawn();
  return {};
}

void RaySidecar::spawn() {
  epoch_ += 1;
  secret_ = to_hex(runtime::random_bytes(16));
  runtime::SpawnOptions spawn;
  spawn.argv = options_.command;
  spawn.environment = {{"UCCP_RAY_SOCKET", listener_.name},
                       {"UCCP_RAY_SECRET", secret_},
                       {"UCCP_RAY_EPOCH", std::to_string(epoch_)},
                       {"UCCP_RAY_ADDRESS", options_.address}};
  spawn.working_directory = "/";
  spawn.new_session = true;
  spawn.parent_death_signal = SIGKILL;
  spawn.fork_server = options_.fork_server;
  timer_ = reactor_.post_after(options_.start_timeout_ms, [this, alive = alive_] {
    if (*alive) down("it did not say within " + std::to_string(options_.start_timeout_ms) + " ms that it is ready");
  });
  const Status posted = starter_.post([this, spawn = std::move(spawn), epoch = epoch_, alive = alive_]() mutable {
    const OwnedFd log(open(options_.log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    spawn.stdout_fd = spawn.stderr_fd = log.get();
    auto process = std::make_shared<Result<runtime::Subprocess>>(runtime::Subprocess::spawn(spawn));
    reactor_.post([this, epoch, process, alive] {
      if (*alive) spawned(epoch, std::move(*process));
    });
  });
  if (!posted.is_ok()) down(posted.message());
}

void RaySidecar::spawned(uint64_t epoch, Result<runtime::Subprocess> process) {
  if (epoch != epoch_ || secret_.empty()) return;  // it was given up meanwhile; its object kills it
  if (!process) return down(process.error().message());
  process_ = std::move(*process);
  reactor_.watch(process_->pidfd(), [this] { on_exit(); });
}

void RaySidecar::accept_one() {
  OwnedFd fd(accept4(listener_.socket.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  // Whoever says nothing is in the way of nobody.
  if (stranger_) reactor_.unwatch(stranger_.get());
  stranger_ = std::move(fd);
  reactor_.watch(stranger_.get(), [this, number = stranger_.get()] { on_stranger(number); });
}

// The first message proves by its secret that it is the sidecar of this epoch.
void RaySidecar::on_stranger(int fd) {
  auto packet = receive_packet(fd);
  if (packet && !packet->has_value()) return;
  reactor_.unwatch(fd);
  OwnedFd socket = std::move(stranger_);
  if (!packet) return;
  const WorkerPacket& message = **packet;
  const bool is_it = !up_ && !secret_.empty() && find_field(message.body, 'x') == secret_ &&
                     find_field(message.body, 'w') == std::to_string(epoch_);
  if (!is_it) {
    log::warn("somebody who is not the present driver of Ray connected as it", {{"epoch", epoch_}});
    return;
  }
  if (message.kind != 'H') return down(std::string(find_field(message.body, 'm')));
  socket_ = std::move(socket);
  said_hello(message);
}

void RaySidecar::said_hello(const WorkerPacket& packet) {
  reactor_.cancel(timer_);
  reactor_.watch(socket_.get(), [this] { on_packet(); });
  up_ = true;
  restart_ms_ = options_.restart_ms_min;
  log::info("connected to Ray", {{"address", options_.address},
                                 {"version", find_field(packet.body, 'v')},
                                 {"resources", find_field(packet.body, 'r')},
                                 {"epoch", epoch_}});
  observer_.sidecar_up();
}

void RaySidecar::on_packet() {
  if (read_packet() != Read::kEnd) return;
  // The end of its process says why, and comes at once.
  reactor_.pause(socket_.get(), true);
  timer_ = reactor_.post_after(kGoneMs, [this, alive = alive_] {
    if (*alive) down("it closed its connection to the agent and did not end");
  });
}

RaySidecar::Read RaySidecar::read_packet() {
  auto packet = receive_packet(socket_.get());
  if (!packet) return Read::kEnd;
  if (!packet->has_value()) return Read::kNothing;
  if ((*packet)->kind != 'B') return Read::kOne;
  const auto body = body_of(std::move(**packet), options_.packet_bytes_max);
  if (body) read_batch(*body);
  else down(body.error().message());
  return Read::kOne;
}

void RaySidecar::read_batch(std::string_view body) {
  ByteReader in(body);
  const uint64_t epoch = epoch_;
  while (in.ok() && in.remaining() > 0) {
    const char kind = static_cast<char>(in.u8());
    const std::string_view fields = in.raw(in.u32());
    if (!in.ok()) return down("it sent what is no message");
    if (kind == 'T') {
      ahead_ -= std::min(ahead_, number_of(find_field(fields, 'w')));
      flush();
    } else {
      observer_.sidecar_message(kind, fields);
    }
    if (epoch != epoch_ || !up_) return;
  }
}

void RaySidecar::send(char kind, std::string_view fields, std::vector<OwnedFd> files) {
  const bool fits = !queue_.empty() && files.empty() && queue_.back().files.empty() &&
                    queue_.back().body.size() + fields.size() + 8 <= kInlineBodyBytes;
  if (!fits) queue_.emplace_back();
  append_field(queue_.back().body, kind, fields);
  if (!files.empty()) queue_.back().files = std::move(files);
  // At the end of the turn: what comes in one turn goes in one packet.
  flush_later(0);
}

void RaySidecar::flush_later(int64_t delay_ms) {
  if (std::exchange(flush_posted_, true)) return;
  reactor_.post_after(delay_ms, [this, alive = alive_] {
    if (!*alive) return;
    flush_posted_ = false;
    flush();
  });
}

void RaySidecar::flush() {
  while (up_ && !queue_.empty() && ahead_ < options_.packets_ahead) {
    if (!send_packet(socket_.get(), 'B', queue_.front().body, queue_.front().files).is_ok()) {
      // No room; a process that is gone tells so by its end.
      if (ahead_ == 0) flush_later(kRetryMs);
      return;
    }
    queue_.pop_front();
    ahead_ += 1;
  }
}

void RaySidecar::on_exit() {
  const auto exit = process_->try_wait();
  if (exit && !exit->has_value()) return;
  std::string why = exit ? (*exit)->to_string() : std::string(exit.error().message());
  // What it said before its end counts: why it could not begin, or outcomes.
  if (!up_ && stranger_) on_stranger(stranger_.get());
  while (up_ && read_packet() == Read::kOne) {}
  if (!process_) return;
  if (const std::string words = last_words(); !words.empty()) why += "; it wrote: " + words;
  down(why);
}

void RaySidecar::down(const std::string& why) {
  reactor_.cancel(timer_);
  for (OwnedFd* fd : {&stranger_, &socket_}) {
    if (*fd) reactor_.unwatch(fd->get());
    *fd = OwnedFd();
  }
  if (process_) {
    reactor_.unwatch(process_->pidfd());
    // Killed and waited for elsewhere.
    auto ended = std::make_shared<std::optional<runtime::Subprocess>>(std::move(process_));
    process_.reset();
    (void)starter_.post([ended] { ended->reset(); });
  }
  up_ = false;
  secret_.clear();
  queue_.clear();
  ahead_ = 0;
  log::error("the driver of Ray has ended or cannot begin",
             {{"address", options_.address}, {"error", why}, {"next start ms", restart_ms_}});
  timer_ = reactor_.post_after(restart_ms_, [this, alive = alive_] {
    if (*alive) spawn();
  });
  restart_ms_ = std::min(2 * restart_ms_, options_.restart_ms_max);
  observer_.sidecar_down(why);
}

std::string RaySidecar::last_words() const {
  const OwnedFd file(open(options_.log_path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return {};
  const off_t size = lseek(file.get(), 0, SEEK_END);
  std::string text(kLastWordsBytes, '\0');
  const off_t begin = std::max<off_t>(0, size - static_cast<off_t>(text.size()));
  text.resize(static_cast<size_t>(std::max<ssize_t>(0, pread(file.get(), text.data(), text.size(), begin))));
  return last_line(text);
}

}  // namespace uccp::agent
