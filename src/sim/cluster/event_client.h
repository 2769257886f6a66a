// Publishes events with keys, one request at a time, and repeats each until it is answered: recognised by request id,
// by producer and sequence number, or by the events' own ids, whichever this client uses.
#pragma once

#include <string>
#include <vector>

#include "services/events/topics_state.h"
#include "sim/cluster/sim_client.h"

namespace uccp::sim {

// Topics of the simulation: one that keeps everything, one that keeps the last events of each partition, and one that
// keeps the last event of each key.
inline constexpr std::string_view kSimTopic = "all.events";
inline constexpr std::string_view kSimShortTopic = "some.events";
inline constexpr std::string_view kSimLastTopic = EventChecker::kCompactedTopic;
inline constexpr uint64_t kSimShortTopicEvents = 40;
inline constexpr int64_t kSimShortTopicSeconds = 4;
// Topics of what transactions make of the events of the first one.
inline constexpr std::string_view kSimOutputTopics[] = {"left.events", "right.events"};
inline constexpr int32_t kSimPartitions = 3;

class EventClient final : public SimClient {
 public:
  EventClient(SimCluster& cluster, size_t number, uint64_t operations);

  void start() override;
  bool finished() const override { return left_ == 0; }

 private:
  enum class Once : uint8_t { kRequest, kProducer, kEvent };

  void make_topic(std::string_view name, std::function<void()> then);
  void next();
  void send(v1::PublishRequest request);
  void take(const v1::PublishRequest& request, const std::string& answer);

  const Once once_;
  uint64_t left_;
  uint64_t numbers_ = 0;
  std::map<std::string, uint64_t> sequences_;  // next, by topic; each producer writes to one partition of it
};

}  // namespace uccp::sim
