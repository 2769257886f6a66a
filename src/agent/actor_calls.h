// The calls of one actor: who calls, what waits for its process, what callers have not confirmed yet.
//
// Invariants: the calls of a caller reach the process in the order of their numbers, each once, however often they are
// sent; a result is kept until its caller says that it has it, over any number of streams. Calls beyond the limits are
// answered as failed, in their order, and do not run. The process has at most kPacketsAhead packets that it has not
// taken, so what waits does so here.
// Thread: one; nothing blocks.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "uccp/v1/compute.pb.h"

namespace uccp::agent {

struct ActorLimits {
  size_t calls_max = 100'000;        // that wait for the process
  uint64_t bytes_max = 64ull << 20;  // of them, and of results that callers have not confirmed
  size_t callers_max = 10'000;       // those without a stream are forgotten first, the oldest of them
};

// Between agent and process (docs/design/compute.md): packets are read one after the other.
inline constexpr size_t kPacketsAhead = 4;
// A packet holds calls up to this size; one that is larger goes alone.
inline constexpr size_t kActorPacketBytes = 40u << 10;

class ActorCalls {
 public:
  // Sends a message to the caller behind a channel.
  using Answer = std::function<void(uint64_t channel, const v1::ActorReply& reply)>;

  ActorCalls(ActorLimits limits, Answer answer) : limits_(limits), answer_(std::move(answer)) {}

  // A message of a caller. The first one of a channel names the caller, whose results so far come again.
  void request(uint64_t channel, const v1::ActorRequest& request);
  // The stream of a caller is over; the caller may come back with another.
  void close(uint64_t channel);
  // All streams are over.
  void close_all();

  // The next packet for the process, if it takes one.
  std::optional<std::string> next_packet();
  // What the process says of calls, and of packets that it has taken.
  void results(std::string_view body);
  // Values of generators that callers took, for the process; empty: nothing new.
  std::string take_credits() { return std::exchange(credits_, {}); }

  // An owner has a stream.
  bool owned() const { return owners_connected_ > 0; }
  size_t waiting() const { return waiting_.size(); }

 private:
  struct Caller {
    std::string name;
    uint64_t channel = 0;  // 0: no stream
    bool owner = false;
    uint64_t taken = 0;  // number of the last call that was accepted
    std::map<uint64_t, std::deque<v1::ActorResult>> kept;
    uint64_t left = 0;  // when its stream ended, in the order of such ends
  };
  struct Waiting {
    std::string caller;
    v1::ActorCall call;
    size_t bytes = 0;
  };

  Caller* caller_of(uint64_t channel);
  Caller& attach(uint64_t channel, const v1::ActorRequest& request);
  void answer_again(const Caller& caller);
  void detach(Caller& caller);
  void forget_old_callers();
  void keep(Caller& caller, v1::ActorResult result, v1::ActorReply& reply);
  void confirm(Caller& caller, uint64_t up_to);
  void credit(Caller& caller, const v1::ActorCredit& credit);

  const ActorLimits limits_;
  const Answer answer_;
  std::map<std::string, Caller> callers_;
  std::map<uint64_t, std::string> channels_;
  std::deque<Waiting> waiting_;
  uint64_t waiting_bytes_ = 0;
  uint64_t kept_bytes_ = 0;
  std::string credits_;
  size_t ahead_ = 0;
  size_t owners_connected_ = 0;
  uint64_t departures_ = 0;
};

}  // namespace uccp::agent
