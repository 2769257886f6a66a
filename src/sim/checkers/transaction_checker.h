// Transactions that read events, publish what they make of them to several topics, and confirm what they read:
// everything of one is shown or nothing, nothing is shown that was not committed, and each event has been processed
// exactly once.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/checkers/event_checker.h"
#include "sim/checkers/violations.h"

namespace uccp::sim {

class TransactionChecker {
 public:
  explicit TransactionChecker(Violations& violations) : violations_(violations) {}

  // A transaction begins. Its number here.
  size_t begun(std::string name);
  // It is about to publish `text`, which nobody else publishes to the topic, because of an event.
  void publishes(size_t transaction, const std::string& topic, const std::string& text,
                 const EventChecker::Place& place, uint64_t offset);
  // The answer: what it has published to the topic is stored.
  void stored(size_t transaction, const std::string& topic);
  // It is about to be committed: everything of it was stored and confirmed.
  void commits(size_t transaction);
  // The answer.
  void ended(size_t transaction, bool committed);
  // A reader was shown the event.
  void shown(const std::string& topic, const std::string& text);

  // A transaction that was committed has processed the event.
  bool processed(const EventChecker::Place& place, uint64_t offset) const {
    return processed_.contains(place.topic + "/" + std::to_string(place.partition) + "@" + std::to_string(offset));
  }
  // When readers have seen everything.
  void check();

 private:
  enum class Outcome : uint8_t { kOpen, kAsked, kCommitted, kAborted };
  struct Output {
    size_t transaction = 0;
    std::string input;
    bool shown = false;
  };
  struct Transaction {
    std::string name;
    Outcome outcome = Outcome::kOpen;
    std::set<std::string> stored;                              // topics
    std::vector<std::pair<std::string, std::string>> outputs;  // topic and text
  };

  Violations& violations_;
  std::vector<Transaction> transactions_;
  std::map<std::pair<std::string, std::string>, Output> outputs_;
  std::set<std::string> processed_;
};

}  // namespace uccp::sim
