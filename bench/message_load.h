// Publishers and readers of the systems that the event bus is compared with, over TLS: JetStream of NATS and streams of
// Redis. The load is paced and counted as in load.h; a message counts when the server has confirmed it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "bench/load.h"

namespace uccp::bench {

// One connection's side of a protocol.
class MessageProtocol {
 public:
  virtual ~MessageProtocol() = default;
  // What a connection begins with.
  virtual void begin(std::string& out) = 0;
  // The message `id`, which `answered` names again.
  virtual void publish(std::string& out, uint64_t id, std::string_view payload) = 0;
  // Takes whole answers from the front of `in` and returns how many bytes they had. May write to `out`. Errors: what
  // the server says.
  using Answered = std::function<void(uint64_t id, bool ok, std::string_view answer)>;
  using Delivered = std::function<void(std::string_view payload)>;
  virtual Result<size_t> take(std::string_view in, std::string& out, const Answered& answered,
                              const Delivered& delivered) = 0;
};

std::unique_ptr<MessageProtocol> nats_protocol(const std::string& subject);
std::unique_ptr<MessageProtocol> redis_protocol(const std::string& stream);

class MessageLoad {
 public:
  using MakeProtocol = std::function<std::unique_ptr<MessageProtocol>()>;
  static Result<std::unique_ptr<MessageLoad>> connect(const std::vector<std::string>& targets, const TlsIdentity& tls,
                                                      const MakeProtocol& protocol, int connections);
  virtual ~MessageLoad() = default;
  // `payload` makes the content of message `i`. Blocks until all are answered.
  virtual LoadResult run(const std::function<std::string(uint64_t i)>& payload, const Plan& plan) = 0;
};

// One request to JetStream's API; the answer is JSON.
Result<std::string> nats_request(const std::string& target, const TlsIdentity& tls, const std::string& subject,
                                 const std::string& body);
// Reads what is delivered to an ordered push consumer of the stream, from its first message on, until `take` returns
// false. `ready`, if there is one, is called when the consumer is there.
Status nats_consume(const std::string& target, const TlsIdentity& tls, const std::string& stream, bool from_start,
                    const std::function<bool(std::string_view payload)>& take, const std::function<void()>& ready = {});

}  // namespace uccp::bench
