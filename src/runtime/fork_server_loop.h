// The two ends of the fork server's socket: what travels over it, and the loop of the server. Internal to fork_server.
//
// A request is a head with descriptors beside it, then its bytes: the kind, and a plan or the two paths of a mount.
// Both ends are of one build, so the encoding has no version.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace uccp::runtime {

enum class Request : uint8_t { kBind = 1, kFork = 2 };

// Before each request; its descriptors come with it.
struct RequestHead {
  uint32_t size;
  uint32_t descriptors;
};

struct Reply {
  int32_t error_number;
  int32_t step;  // of a bind that failed
  int64_t pid;
};

inline constexpr size_t kDescriptorsMax = 64;
inline constexpr size_t kRequestBytesMax = 16u << 20;

// The descriptor under which the server's program finds its socket.
inline constexpr int kForkServerSocket = 3;

// `size` bytes in one message with descriptors beside it. False when the other end is gone.
bool send_with(int socket, const void* data, size_t size, const int* descriptors, size_t count);
// Descriptors are appended. False when the other end is gone.
bool receive_with(int socket, void* data, size_t size, std::vector<int>& descriptors);
bool send_all(int socket, const char* data, size_t size);

// Makes this process a server: detached from terminal and signals, gone when `parent` is. Returns never.
[[noreturn]] void run_fork_server(int socket, pid_t parent);

}  // namespace uccp::runtime
