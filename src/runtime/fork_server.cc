#include "runtime/fork_server.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <system_error>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "runtime/child_setup.h"
#include "runtime/fork_server_loop.h"

namespace uccp::runtime {
namespace {

constexpr std::array<const char*, 3> kBindSteps = {"unshare", "make mounts private", "bind"};

// A plan as bytes. Its descriptors travel beside it: report_fd first, then those of the program.
void put_text(ByteWriter& out, const char* text) {
  out.u8(text != nullptr);
  if (text != nullptr) out.bytes(text);
}

void put_list(ByteWriter& out, char* const* list) {
  uint32_t count = 0;
  while (list[count] != nullptr) ++count;
  out.u32(count);
  for (uint32_t i = 0; i < count; ++i) out.bytes(list[i]);
}

void put_plan(ByteWriter& out, const ChildPlan& plan) {
  put_text(out, plan.program);
  put_text(out, plan.directory);
  put_text(out, plan.oom_score_adjust);
  put_list(out, plan.argv);
  put_list(out, plan.environment);
  out.u8(plan.new_session).u8(plan.new_group).u32(static_cast<uint32_t>(plan.death_signal));
  out.u8(plan.change_identity).u32(plan.uid).u32(plan.gid).u8(plan.no_new_privileges);
  out.u8(plan.nice != nullptr).u32(plan.nice == nullptr ? 0 : static_cast<uint32_t>(*plan.nice));
  out.u8(plan.umask != nullptr).u32(plan.umask == nullptr ? 0 : *plan.umask);
  out.u32(static_cast<uint32_t>(plan.group_count));
  for (size_t i = 0; i < plan.group_count; ++i) out.u32(plan.groups[i]);
  out.u32(static_cast<uint32_t>(plan.cgroup_count));
  for (size_t i = 0; i < plan.cgroup_count; ++i) out.bytes(plan.cgroups[i]);
  out.u32(static_cast<uint32_t>(plan.limit_count));
  for (size_t i = 0; i < plan.limit_count; ++i) {
    const ChildLimit& limit = plan.limits[i];
    out.u32(static_cast<uint32_t>(limit.resource)).u64(limit.value.rlim_cur).u64(limit.value.rlim_max);
  }
}

std::string text_of(int error_number) { return std::system_category().message(error_number); }

// In the forked child: the small program if there is one, else this image, which forks more slowly.
[[noreturn]] void become_server(const char* program, int socket, pid_t parent) {
  if (*program != '\0') {
    char number[16];
    *std::to_chars(number, number + sizeof number - 1, parent).ptr = '\0';
    const char* const argv[] = {"uccp-spawn", number, nullptr};
    const char* const environment[] = {nullptr};
    if (socket == kForkServerSocket) ::fcntl(socket, F_SETFD, 0);
    else ::dup2(socket, kForkServerSocket);
    socket = kForkServerSocket;
    ::execve(program, const_cast<char* const*>(argv), const_cast<char* const*>(environment));
  }
  run_fork_server(socket, parent);
}

}  // namespace

Result<std::unique_ptr<ForkServer>> ForkServer::start(const std::string& program) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return fail(Code::kExhausted, "FORK_SERVER_FAILED", "no socket for the fork server: " + text_of(errno));
  }
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) become_server(program.c_str(), ends[1], parent);
  const int error_number = errno;
  ::close(ends[1]);
  if (pid < 0) {
    ::close(ends[0]);
    return fail(Code::kExhausted, "FORK_SERVER_FAILED", "cannot fork the fork server: " + text_of(error_number));
  }
  return std::unique_ptr<ForkServer>(new ForkServer(ends[0], pid));
}

ForkServer::~ForkServer() {
  ::close(socket_);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {}
}

bool ForkServer::alive() const {
  std::lock_guard lock(mutex_);
  return alive_;
}

Status ForkServer::gone(const char* what) {
  alive_ = false;
  return Status(Code::kUnavailable, "FORK_SERVER_GONE", std::string("the fork server is gone, ") + what);
}

Status ForkServer::bind(const std::string& from, const std::string& to) {
  std::lock_guard lock(mutex_);
  if (!alive_) return gone("nothing was mounted");
  ByteWriter body;
  body.u8(static_cast<uint8_t>(Request::kBind)).bytes(from).bytes(to);
  const RequestHead head{static_cast<uint32_t>(body.data().size()), 0};
  Reply reply{};
  std::vector<int> none;
  if (!send_with(socket_, &head, sizeof head, nullptr, 0) ||
      !send_all(socket_, body.data().data(), body.data().size()) ||
      !receive_with(socket_, &reply, sizeof reply, none)) {
    return gone("nothing was mounted");
  }
  if (reply.error_number == 0) return Status::ok();
  return Status(Code::kFailedPrecondition, "MOUNT_NAMESPACE_FAILED",
                std::string("cannot ") + kBindSteps[static_cast<size_t>(reply.step)] + " " + from + " at " + to + ": " +
                    text_of(reply.error_number));
}

Result<ForkedChild> ForkServer::fork(const ChildPlan& plan) {
  UCCP_CHECK(!plan.unshare_mount && plan.descriptor_count < kDescriptorsMax,
             "the fork server has its mounts by bind()");
  ByteWriter body;
  body.u8(static_cast<uint8_t>(Request::kFork));
  put_plan(body, plan);
  std::vector<int> descriptors = {plan.report_fd};
  descriptors.insert(descriptors.end(), plan.descriptors, plan.descriptors + plan.descriptor_count);
  const RequestHead head{static_cast<uint32_t>(body.data().size()), static_cast<uint32_t>(descriptors.size())};
  if (head.size > kRequestBytesMax) {
    return fail(Code::kInvalid, "SPAWN_OPTIONS_INVALID", "arguments and environment are too large to start a program");
  }
  Reply reply{};
  std::vector<int> received;
  std::lock_guard lock(mutex_);
  if (!alive_) return fail(gone("no process was made"));
  if (!send_with(socket_, &head, sizeof head, descriptors.data(), descriptors.size()) ||
      !send_all(socket_, body.data().data(), body.data().size()) ||
      !receive_with(socket_, &reply, sizeof reply, received)) {
    return fail(gone("no process was made"));
  }
  if (reply.error_number != 0) {
    return fail(Code::kExhausted, "SPAWN_EXHAUSTED",
                std::string("cannot start ") + plan.program + ", failed in forking: " + text_of(reply.error_number) +
                    "; retry later");
  }
  if (received.size() != 1) return fail(gone("its reply had no descriptor"));
  return ForkedChild{static_cast<pid_t>(reply.pid), received[0]};
}

}  // namespace uccp::runtime
