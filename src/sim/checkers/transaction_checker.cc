#include "sim/checkers/transaction_checker.h"

namespace uccp::sim {

size_t TransactionChecker::begun(std::string name) {
  transactions_.push_back({.name = std::move(name), .outcome = Outcome::kOpen, .stored = {}, .outputs = {}});
  return transactions_.size() - 1;
}

void TransactionChecker::publishes(size_t transaction, const std::string& topic, const std::string& text,
                                   const EventChecker::Place& place, uint64_t offset) {
  const std::string input = place.topic + "/" + std::to_string(place.partition) + "@" + std::to_string(offset);
  outputs_[{topic, text}] = {.transaction = transaction, .input = input, .shown = false};
  transactions_[transaction].outputs.emplace_back(topic, text);
}

void TransactionChecker::stored(size_t transaction, const std::string& topic) {
  transactions_[transaction].stored.insert(topic);
}

void TransactionChecker::commits(size_t transaction) { transactions_[transaction].outcome = Outcome::kAsked; }

void TransactionChecker::ended(size_t transaction, bool committed) {
  Transaction& one = transactions_[transaction];
  one.outcome = committed ? Outcome::kCommitted : Outcome::kAborted;
  for (const auto& output : one.outputs) {
    const Output& of = outputs_.at(output);
    if (committed) processed_.insert(of.input);
    else if (of.shown)
      violations_.add("transactions", "'" + output.second + "' of " + one.name + " was shown, and it is aborted");
  }
}

void TransactionChecker::shown(const std::string& topic, const std::string& text) {
  const auto at = outputs_.find({topic, text});
  if (at == outputs_.end()) return;
  at->second.shown = true;
  const Transaction& one = transactions_[at->second.transaction];
  if (one.outcome == Outcome::kAsked || one.outcome == Outcome::kCommitted) return;
  violations_.add("transactions", "'" + text + "' of " + one.name + " is shown, which " +
                                      (one.outcome == Outcome::kOpen ? "nobody has committed" : "is aborted"));
}

void TransactionChecker::check() {
  std::map<std::pair<std::string, std::string>, std::string> done;  // topic and input: by whom
  for (const Transaction& one : transactions_) {
    size_t shown = 0;
    size_t hidden = 0;
    for (const auto& output : one.outputs) {
      const Output& of = outputs_.at(output);
      if (one.stored.contains(output.first)) ++(of.shown ? shown : hidden);
      if (!of.shown) continue;
      const auto [at, fresh] = done.try_emplace({output.first, of.input}, one.name);
      if (fresh) continue;
      return violations_.add("transactions", of.input + " was processed by " + at->second + " and by " + one.name +
                                                 ", and both are in " + output.first);
    }
    if (one.outcome == Outcome::kCommitted ? hidden > 0 : shown > 0 && hidden > 0) {
      return violations_.add("transactions", "of " + one.name + " " + std::to_string(shown) + " events are shown and " +
                                                 std::to_string(hidden) + " are not");
    }
  }
}

}  // namespace uccp::sim
