#include "agent/function_wire.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/bytes.h"
#include "services/function_names.h"
#include "uccp/v1/compute.pb.h"

namespace uccp::agent {
namespace {

constexpr int kBacklog = 128;
// As many as a message of the contract may have.
constexpr uint64_t kBundleBytesMax = 64u << 20;

Status io_error(const std::string& what) {
  return Status(Code::kUnavailable, "IO_ERROR", what + ": " + std::strerror(errno));
}

char tag_of(FunctionArgument::Kind kind) {
  switch (kind) {
    case FunctionArgument::Kind::kJson: return 'j';
    case FunctionArgument::Kind::kText: return 't';
    case FunctionArgument::Kind::kData: return 'd';
    case FunctionArgument::Kind::kFile: return 'b';
    case FunctionArgument::Kind::kNone: break;
  }
  return 'z';
}

Result<OwnedFd> open_input(const AttemptSpec& spec, const std::string& path) {
  for (const InputFile& input : spec.inputs) {
    if (input.path != path) continue;
    OwnedFd file(open(input.source_path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) return std::unexpected(io_error("the argument " + path + " cannot be read"));
    return file;
  }
  return fail(Code::kUnavailable, "IO_ERROR", "the argument " + path + " did not come with the attempt");
}

// A memory file with this content, read from its beginning by whoever gets it.
Result<OwnedFd> memory_file(std::string_view content) {
  OwnedFd file(memfd_create("uccp-call", MFD_CLOEXEC));
  if (!file) return std::unexpected(io_error("no memory file for a call"));
  for (size_t at = 0; at < content.size();) {
    const ssize_t written = write(file.get(), content.data() + at, content.size() - at);
    if (written <= 0) return std::unexpected(io_error("no memory for the arguments of a call"));
    at += static_cast<size_t>(written);
  }
  return file;
}

int64_t number_of(std::string_view text) {
  int64_t value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

void append_field(std::string& body, char tag, std::string_view content) {
  body += ByteWriter().u8(static_cast<uint8_t>(tag)).u32(static_cast<uint32_t>(content.size())).raw(content).take();
}

Result<std::string> read_whole(int fd, uint64_t size_max) {
  struct stat info{};
  if (fstat(fd, &info) != 0) return std::unexpected(io_error("a file of a call cannot be looked at"));
  if (info.st_size < 0 || static_cast<uint64_t>(info.st_size) > size_max) {
    return fail(Code::kInvalid, "FILE_TOO_LARGE",
                "a file of a call has " + std::to_string(info.st_size) + " bytes, at most " + std::to_string(size_max) +
                    " are possible");
  }
  std::string content(static_cast<size_t>(info.st_size), '\0');
  for (size_t at = 0; at < content.size();) {
    const ssize_t got = pread(fd, content.data() + at, content.size() - at, static_cast<off_t>(at));
    if (got < 0) return std::unexpected(io_error("a file of a call cannot be read"));
    if (got == 0) {
      content.resize(at);
      break;
    }
    at += static_cast<size_t>(got);
  }
  return content;
}

Result<std::string> body_of(WorkerPacket packet, uint64_t size_max) {
  if (packet.file) return read_whole(packet.file.get(), size_max);
  return std::move(packet.body);
}

Result<FunctionCode> read_bundle(const std::string& path) {
  const OwnedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return std::unexpected(io_error("the code of a function cannot be read"));
  UCCP_TRY(const std::string content, read_whole(file.get(), kBundleBytesMax));
  return parse_bundle(content, path.substr(path.rfind('/') + 1));
}

Result<FunctionCode> parse_bundle(const std::string& content, std::string digest) {
  v1::Function bundle;
  if (!bundle.ParseFromString(content) || bundle.entry_point().empty()) {
    return fail(Code::kCorruption, "BUNDLE_INVALID", "the bundle of a function is not one");
  }
  FunctionCode code{.digest = std::move(digest),
                    .name = bundle.name(),
                    .entry_point = bundle.entry_point(),
                    .source = bundle.source()};
  code.requirements.assign(bundle.requirements().begin(), bundle.requirements().end());
  return code;
}

Result<FunctionCode> code_of(const AttemptSpec& spec) {
  const auto bundle = std::ranges::find(spec.inputs, functions::kBundleInput, &InputFile::path);
  if (bundle == spec.inputs.end())
    return fail(Code::kInvalid, "CODE_MISSING", "the code of the function did not come along");
  return read_bundle(bundle->source_path);
}

Result<CallMessage> encode_call(const AttemptSpec& spec, const FunctionCode& code, bool with_source) {
  CallMessage message;
  append_field(message.body, 'f', code.digest);
  append_field(message.body, 'e', code.entry_point);
  append_field(message.body, 'n', code.name);
  if (spec.function->actor) append_field(message.body, 'a', {});
  if (with_source) append_field(message.body, 's', code.source);
  for (const auto& [name, value] : spec.env) append_field(message.body, 'v', name + "=" + value);
  append_field(message.body, 'v', "UCCP_TASK_ID=" + spec.task_id);
  append_field(message.body, 'v', "UCCP_ATTEMPT=" + std::to_string(spec.attempt_number));
  for (const FunctionArgument& argument : spec.function->arguments) {
    if (!argument.name.empty()) append_field(message.body, 'k', argument.name);
    if (!argument.content_type.empty()) append_field(message.body, 'c', argument.content_type);
    append_field(message.body, tag_of(argument.kind), argument.content);
    if (argument.kind != FunctionArgument::Kind::kFile) continue;
    UCCP_TRY(OwnedFd file, open_input(spec, argument.input));
    message.files.push_back(std::move(file));
  }
  if (message.files.size() >= kFilesPerPacket) {
    return fail(Code::kInvalid, "ARGUMENTS_TOO_MANY",
                "the call has " + std::to_string(message.files.size()) + " large arguments, at most " +
                    std::to_string(kFilesPerPacket - 1) + " are possible; put some together");
  }
  return message;
}

Result<WorkerListener> listen_for_workers(std::string_view random) {
  WorkerListener listener{.socket = OwnedFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)),
                          .name = "uccp-functions-" + std::string(random)};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // The first byte of an abstract name is 0.
  std::memcpy(address.sun_path + 1, listener.name.data(), listener.name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + listener.name.size());
  if (!listener.socket || bind(listener.socket.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      listen(listener.socket.get(), kBacklog) != 0) {
    return std::unexpected(io_error("the socket of function workers cannot be opened"));
  }
  return listener;
}

Status send_packet(int socket, char kind, std::string_view body, const std::vector<OwnedFd>& files) {
  std::string packet(1, kind);
  OwnedFd in_file;
  if (body.size() > kInlineBodyBytes) {
    UCCP_TRY(in_file, memory_file(body));
    packet += '\1';
  } else {
    packet += '\0';
    packet += body;
  }
  std::vector<int> fds;
  if (in_file) fds.push_back(in_file.get());
  for (const OwnedFd& file : files) fds.push_back(file.get());
  iovec part{.iov_base = packet.data(), .iov_len = packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kFilesPerPacket)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  if (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) return io_error("a function worker takes no call");
  return Status::ok();
}

Result<std::optional<WorkerPacket>> receive_packet(int socket) {
  std::string buffer(kPacketBytes, '\0');
  iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 4)] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (got <= 0) return fail(Code::kUnavailable, "WORKER_GONE", "the function worker closed its socket");
  WorkerPacket packet;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= header->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
      OwnedFd owned(fd);
      if (!packet.file) packet.file = std::move(owned);
    }
  }
  if (got < 2 || (message.msg_flags & MSG_TRUNC) != 0 || (buffer[1] == 1 && !packet.file)) {
    return fail(Code::kCorruption, "WORKER_PACKET_INVALID", "a function worker sent what is no message");
  }
  packet.kind = buffer[0];
  if (buffer[1] == 0) packet.body.assign(buffer, 2, static_cast<size_t>(got) - 2);
  return packet;
}

std::string_view find_field(std::string_view body, char tag) {
  ByteReader in(body);
  while (in.ok() && in.remaining() > 0) {
    const char found = static_cast<char>(in.u8());
    const std::string_view content = in.raw(in.u32());
    if (in.ok() && found == tag) return content;
  }
  return {};
}

WorkerReply reply_of(std::string_view body) {
  const std::string_view code = find_field(body, 'q');
  return {.code = code.empty() ? 1 : static_cast<uint8_t>(code[0]),
          .message = std::string(find_field(body, 'm')),
          .content_type = std::string(find_field(body, 'c')),
          .content = std::string(find_field(body, 'd')),
          .cpu_us = number_of(find_field(body, 'u')),
          .memory_peak_bytes = static_cast<uint64_t>(number_of(find_field(body, 'r')))};
}

}  // namespace uccp::agent
