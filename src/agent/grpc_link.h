// ServerLink over gRPC: the stream AgentLink.Connect and the blob methods beside it, on one channel with mutual TLS.
//
// Each connection gets a channel of its own and tries the next known address; between connections it waits 0.1 s to 5
// s, doubling, with jitter, so that the agents of a restarted server do not come all at once. Thread: public calls on
// the loop; gRPC's callback threads only queue, and post to the loop.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "agent/link.h"
#include "agent/server_address.h"
#include "base/executor.h"
#include "base/random.h"

namespace grpc {
class Channel;
}

namespace uccp::agent {

struct GrpcLinkOptions {
  // Called before each connection, on the loop; reads small files.
  std::function<Result<ServerAddress>()> find_server;
  // For tests against a server without TLS.
  bool plain_text = false;
  int64_t backoff_ms_min = 100;
  int64_t backoff_ms_max = 5'000;
  // From the beginning to the first message of the cluster.
  int64_t connect_timeout_ms = 5'000;
};

class GrpcLink final : public ServerLink {
 public:
  // `loop` and `random` must outlive the link.
  GrpcLink(Executor& loop, Random& random, GrpcLinkOptions options);
  ~GrpcLink() override;

  void start(LinkObserver& observer) override;
  void stop() override;
  void send(wire::AgentMessage message) override;
  size_t queued_bytes() const override;
  void reconnect(const std::string& why) override;
  void put_blob(BlobSource source, const wire::AttemptId& attempt, Done done) override;
  void get_blob(const std::string& sha256, const wire::AttemptId& attempt, std::unique_ptr<objects::BlobWriter> into,
                Done done) override;
  // A call beside the stream, of serialized messages; `done` comes on the loop. Errors: unavailable LINK_DOWN; else
  // what the cluster answered.
  void call(const std::string& method, std::string request, int64_t timeout_ms,
            std::function<void(Result<std::string>)> done);

 private:
  class Stream;

  void connect();
  void open_stream(const std::string& target);
  void lost(const Status& why);
  void on_message(uint64_t stream, wire::ServerMessage message);
  void on_done(uint64_t stream, const Status& why);

  Executor& loop_;
  Random& random_;
  const GrpcLinkOptions options_;
  LinkObserver* observer_ = nullptr;
  std::shared_ptr<grpc::Channel> channel_;
  std::shared_ptr<Stream> stream_;
  uint64_t stream_number_ = 0;
  size_t next_target_ = 0;
  int64_t backoff_ms_ = 0;
  bool up_ = false;
  Executor::TimerId timer_ = 0;
  // Posted completions check it.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace uccp::agent
