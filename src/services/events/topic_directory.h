// Looks up topics by name: from the state at hand first, from the leader's if there is none, because the topic may have
// just been made. Callable from any thread.
#pragma once

#include <functional>
#include <string>

#include "machine/ports.h"
#include "services/events/topics_state.h"

namespace uccp::events {

// How old the state may be that a topic is looked up in.
inline constexpr int64_t kTopicBoundMs = 5'000;

class TopicDirectory {
 public:
  explicit TopicDirectory(machine::Reader& reader) : reader_(reader) {}

  // `done` may run before find() returns, on any thread. Errors: not_found TOPIC_NOT_FOUND; those of the reader.
  using Done = std::move_only_function<void(Result<TopicRow>)>;
  void find(const machine::Scope& scope, const std::string& name, Done done) {
    find(scope, name, machine::ReadLevel::bounded(kTopicBoundMs), std::move(done));
  }
  // The same, but never an old one.
  void find_fresh(const machine::Scope& scope, const std::string& name, Done done) {
    find(scope, name, machine::ReadLevel::linearizable(), std::move(done));
  }

 private:
  void find(const machine::Scope& scope, const std::string& name, const machine::ReadLevel& level, Done done);

  machine::Reader& reader_;
};

}  // namespace uccp::events
