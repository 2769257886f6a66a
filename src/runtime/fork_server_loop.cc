#include "runtime/fork_server_loop.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "runtime/child_setup.h"

namespace uccp::runtime {
namespace {

union ControlBuffer {
  cmsghdr alignment;
  char bytes[CMSG_SPACE(kDescriptorsMax * sizeof(int))];
};

bool read_all(int fd, char* data, size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(fd, data, size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    data += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

// What a plan that came over the socket points to. One for all requests: what it holds is reused.
class ReceivedPlan {
 public:
  bool read(std::string_view bytes, const std::vector<int>& descriptors) {
    ByteReader in(bytes);
    texts_.clear();
    // Pointers into texts_ are taken at the end, when it grows no more.
    const size_t program = text(in), directory = text(in), oom = text(in);
    const auto argv = list(in), environment = list(in);
    plan_ = {};
    plan_.new_session = in.u8() != 0;
    plan_.new_group = in.u8() != 0;
    plan_.death_signal = static_cast<int>(in.u32());
    plan_.change_identity = in.u8() != 0;
    plan_.uid = in.u32();
    plan_.gid = in.u32();
    plan_.no_new_privileges = in.u8() != 0;
    const bool has_nice = in.u8() != 0;
    nice_ = static_cast<int>(in.u32());
    const bool has_umask = in.u8() != 0;
    umask_ = in.u32();
    groups_.resize(std::min<size_t>(in.u32(), in.remaining()));
    for (gid_t& group : groups_) group = in.u32();
    const auto cgroups = list(in);
    limits_.resize(std::min<size_t>(in.u32(), in.remaining()));
    for (ChildLimit& limit : limits_) {
      limit.resource = static_cast<int>(in.u32());
      limit.value.rlim_cur = in.u64();
      limit.value.rlim_max = in.u64();
    }
    if (!in.at_end() || descriptors.empty()) return false;
    point(argv, argv_);
    point(environment, environment_);
    point(cgroups, cgroups_);
    plan_.program = at(program);
    plan_.directory = at(directory);
    plan_.oom_score_adjust = at(oom);
    plan_.argv = argv_.data();
    plan_.environment = environment_.data();
    plan_.nice = has_nice ? &nice_ : nullptr;
    plan_.umask = has_umask ? &umask_ : nullptr;
    plan_.groups = groups_.data();
    plan_.group_count = groups_.size();
    plan_.cgroups = cgroups_.data();
    plan_.cgroup_count = cgroups_.size() - 1;
    plan_.limits = limits_.data();
    plan_.limit_count = limits_.size();
    plan_.report_fd = descriptors[0];
    plan_.descriptors = descriptors.data() + 1;
    plan_.descriptor_count = descriptors.size() - 1;
    scratch_.resize(plan_.descriptor_count);
    plan_.scratch = scratch_.data();
    plan_.parent = ::getppid();
    return true;
  }
  const ChildPlan& plan() const { return plan_; }

 private:
  static constexpr size_t kNone = SIZE_MAX;
  using Range = std::pair<size_t, size_t>;

  size_t text(ByteReader& in) {
    if (in.u8() == 0) return kNone;
    texts_.emplace_back(in.bytes());
    return texts_.size() - 1;
  }
  Range list(ByteReader& in) {
    const size_t count = std::min<size_t>(in.u32(), in.remaining());
    const size_t first = texts_.size();
    for (size_t i = 0; i < count; ++i) texts_.emplace_back(in.bytes());
    return {first, count};
  }
  char* at(size_t index) { return index == kNone ? nullptr : texts_[index].data(); }
  template <typename Pointer>
  void point(Range range, std::vector<Pointer>& out) {
    out.clear();
    for (size_t i = 0; i < range.second; ++i) out.push_back(texts_[range.first + i].data());
    out.push_back(nullptr);
  }

  std::vector<std::string> texts_;
  std::vector<char*> argv_, environment_;
  std::vector<const char*> cgroups_;
  std::vector<gid_t> groups_;
  std::vector<ChildLimit> limits_;
  std::vector<int> scratch_;
  int nice_ = 0;
  mode_t umask_ = 0;
  ChildPlan plan_{};
};

Reply bind_here(const std::string& from, const std::string& to, bool& own_namespace) {
  int step = 0;
  if (!own_namespace) {
    if (::unshare(CLONE_NEWNS) != 0) return {errno, step, 0};
    ++step;
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return {errno, step, 0};
    own_namespace = true;
  }
  step = 2;
  if (::mount(from.c_str(), to.c_str(), nullptr, MS_BIND, nullptr) != 0) return {errno, step, 0};
  return {0, 0, 0};
}

// Fork without the handlers of the C library, and for the parent of this process. Signals stay blocked, the child
// unblocks them.
Reply fork_here(const ChildPlan& plan, int& pidfd) {
  const long pid = ::syscall(SYS_clone, CLONE_PARENT | CLONE_PIDFD | SIGCHLD, nullptr, &pidfd, nullptr, nullptr);
  if (pid == 0) run_child(plan);
  return {pid < 0 ? errno : 0, 0, pid};
}

[[noreturn]] void serve(int socket) {
  ReceivedPlan received;
  std::string bytes;
  std::vector<int> descriptors;
  bool own_namespace = false;
  for (;;) {
    for (const int fd : std::exchange(descriptors, {})) ::close(fd);
    RequestHead head{};
    if (!receive_with(socket, &head, sizeof head, descriptors) || head.size == 0 || head.size > kRequestBytesMax) break;
    bytes.resize(head.size);
    if (!read_all(socket, bytes.data(), bytes.size()) || descriptors.size() != head.descriptors) break;
    const std::string_view body = std::string_view(bytes).substr(1);
    Reply reply{EINVAL, 0, 0};
    int pidfd = -1;
    if (static_cast<Request>(bytes[0]) == Request::kBind) {
      ByteReader in(body);
      const std::string from(in.bytes()), to(in.bytes());
      if (in.at_end()) reply = bind_here(from, to, own_namespace);
    } else if (static_cast<Request>(bytes[0]) == Request::kFork && received.read(body, descriptors)) {
      reply = fork_here(received.plan(), pidfd);
    }
    const bool sent = send_with(socket, &reply, sizeof reply, &pidfd, pidfd >= 0 ? 1 : 0);
    if (pidfd >= 0) ::close(pidfd);
    if (!sent) break;
  }
  ::_exit(0);
}

}  // namespace

bool send_all(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t put = ::send(fd, data, size, MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    data += put;
    size -= static_cast<size_t>(put);
  }
  return true;
}

bool send_with(int socket, const void* data, size_t size, const int* descriptors, size_t count) {
  iovec part{const_cast<void*>(data), size};
  ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
  }
  ssize_t put = -1;
  do {
    put = ::sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (put < 0 && errno == EINTR);
  // What is sent this way is far below what a socket takes at once.
  return put == static_cast<ssize_t>(size);
}

bool receive_with(int socket, void* data, size_t size, std::vector<int>& descriptors) {
  iovec part{data, size};
  ControlBuffer control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  ssize_t got = -1;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
  } while (got < 0 && errno == EINTR);
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); got > 0 && header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    const size_t before = descriptors.size();
    descriptors.resize(before + count);
    std::memcpy(descriptors.data() + before, CMSG_DATA(header), count * sizeof(int));
  }
  return got == static_cast<ssize_t>(size);
}

void run_fork_server(int socket, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(0);
  ::setsid();
  ::prctl(PR_SET_NAME, "uccp-spawn");
  // Ctrl-C and the like are for the program; children unblock what they were given.
  sigset_t all;
  sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  // Nothing of the program's is kept open but the socket: whoever waits for its output to end must not wait for this.
  const int null = ::open("/dev/null", O_RDWR);
  for (const int fd : {0, 1, 2}) ::dup2(null, fd);
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
  if (socket != kForkServerSocket) ::dup3(socket, kForkServerSocket, O_CLOEXEC);
  ::syscall(SYS_close_range, static_cast<unsigned>(kForkServerSocket + 1), ~0U, 0);
  serve(kForkServerSocket);
}

}  // namespace uccp::runtime
