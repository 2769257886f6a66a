// What processes of a task's own code send to the agent, and bundles and launches as they come from elsewhere: any
// bytes are a message that is understood, or an error.
#include <sys/socket.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "agent/actor_calls.h"
#include "agent/function_wire.h"
#include "agent/wire.h"
#include "base/check.h"

namespace {

using namespace uccp::agent;

// The two ends of one socket, for all inputs.
struct Wire {
  Wire() {
    int fds[2] = {-1, -1};
    UCCP_CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds) == 0, "a pair of sockets");
    worker = OwnedFd(fds[0]);
    agent = OwnedFd(fds[1]);
  }
  OwnedFd worker, agent;
};

void fields(const std::string& bytes) {
  for (const char tag : {'q', 'm', 'c', 'd', 'u', 'r', 'w', 'x', '\0'}) {
    const std::string_view found = find_field(bytes, tag);
    UCCP_CHECK(found.empty() || (found.data() >= bytes.data() && found.end() <= bytes.data() + bytes.size()),
               "a field is a part of its message");
  }
  const WorkerReply reply = reply_of(bytes);
  UCCP_CHECK(reply.code >= 0 && reply.code <= 255, "a code fits what a process can exit with");
  std::string body;
  append_field(body, 'd', bytes);
  append_field(body, 'm', "m");
  UCCP_CHECK(find_field(body, 'd') == bytes && find_field(body, 'm') == "m", "a field that was written is found");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Wire wire;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  fields(bytes);
  if (size > 0 && size < kPacketBytes) {
    UCCP_CHECK(send(wire.worker.get(), data, size, 0) == static_cast<ssize_t>(size), "a packet is sent");
    const auto packet = receive_packet(wire.agent.get());
    if (packet) {
      UCCP_CHECK(packet->has_value() && !(*packet)->file, "what was sent has come, and no file was sent");
    } else {
      UCCP_CHECK(packet.error().reason() == "WORKER_PACKET_INVALID", "the socket is open");
    }
  }
  if (const auto code = parse_bundle(bytes, "digest"))
    UCCP_CHECK(!code->entry_point.empty(), "a bundle says where it begins");

  ActorCalls calls({}, [](uint64_t, const auto&) {});
  uccp::v1::ActorRequest request;
  if (request.ParseFromString(bytes)) {
    calls.request(1, request);
    while (calls.next_packet()) continue;
  }
  calls.results(bytes);
  (void)calls.take_credits();
  calls.close_all();

  wire::LaunchAttempt launch;
  if (launch.ParseFromString(bytes) && is_valid(launch.attempt())) {
    const AttemptSpec spec = spec_of(launch);
    UCCP_CHECK(spec.key == key_of(launch.attempt()) && spec.key.find('/') == std::string::npos,
               "what names an attempt can be a file's name");
  }
  return 0;
}
