// The messages between the agent and its function workers (docs/design/compute.md), and the socket that carries them.
//
// A packet of SOCK_SEQPACKET is: kind, 0 or 1, body. With 1 the body is in the first file beside the packet instead.
// A body is fields: tag, length u32 big endian, bytes.
// Thread: one; nothing blocks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/executor.h"
#include "base/status.h"
#include "runtime/owned_fd.h"

namespace uccp::agent {

inline constexpr size_t kPacketBytes = 64u << 10;
inline constexpr size_t kInlineBodyBytes = 48u << 10;
// Files beside one packet; the kernel's limit (SCM_MAX_FD).
inline constexpr size_t kFilesPerPacket = 253;

using runtime::OwnedFd;

// A message as it came; the body may be in a file.
struct WorkerPacket {
  char kind = 0;
  std::string body;
  OwnedFd file;
};

// What a worker says of a call that has ended.
struct WorkerReply {
  int code = 0;  // 0: it returned
  std::string message;
  std::string content_type;
  std::string content;
  int64_t cpu_us = 0;
  uint64_t memory_peak_bytes = 0;
};

// What a bundle says; `digest` is its blob's.
struct FunctionCode {
  std::string digest;
  std::string name;
  std::string entry_point;
  std::string source;
  std::vector<std::string> requirements;
};

// Reads a bundle. Errors: corruption BUNDLE_INVALID; unavailable IO_ERROR.
Result<FunctionCode> read_bundle(const std::string& path);
// Errors: corruption BUNDLE_INVALID.
Result<FunctionCode> parse_bundle(const std::string& content, std::string digest);

// The code that a call comes with. Errors: invalid CODE_MISSING; those of read_bundle().
Result<FunctionCode> code_of(const AttemptSpec& spec);

struct CallMessage {
  std::string body;
  std::vector<OwnedFd> files;
};
// A call with the files of its arguments, opened. The code goes along only with `with_source`. Errors: unavailable
// IO_ERROR; invalid ARGUMENTS_TOO_MANY.
Result<CallMessage> encode_call(const AttemptSpec& spec, const FunctionCode& code, bool with_source);

// A listening socket in the abstract namespace, and its name. Errors: unavailable.
struct WorkerListener {
  OwnedFd socket;
  std::string name;
};
Result<WorkerListener> listen_for_workers(std::string_view random);

// Sends a packet with files. Errors: unavailable.
Status send_packet(int socket, char kind, std::string_view body, const std::vector<OwnedFd>& files);
// Reads one packet if there is one. Errors: unavailable WORKER_GONE; corruption WORKER_PACKET_INVALID.
Result<std::optional<WorkerPacket>> receive_packet(int socket);
// The whole content of a file. A worker chooses what it sends, and a file takes nothing to be endless. Errors: invalid
// FILE_TOO_LARGE; unavailable IO_ERROR.
Result<std::string> read_whole(int fd, uint64_t size_max);
// The body, wherever it is. Errors: those of read_whole().
Result<std::string> body_of(WorkerPacket packet, uint64_t size_max);

// Adds a field to a body.
void append_field(std::string& body, char tag, std::string_view content);
// The first field with this tag; empty if there is none.
std::string_view find_field(std::string_view body, char tag);
// Of an 'R' packet whose body is whole.
WorkerReply reply_of(std::string_view body);

}  // namespace uccp::agent
