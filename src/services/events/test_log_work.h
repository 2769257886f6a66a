// A bus group with all that works on it beside its users: they propose to it, and read its state and its log.
#pragma once

#include <deque>

#include "services/events/compactor.h"
#include "services/events/log_cleaner.h"
#include "services/events/test_bus_lab.h"

namespace uccp::events {

// Runs what is to come later when nothing else is left.
class Queue final : public Executor {
 public:
  void post(Task task) override { tasks_.push_back(std::move(task)); }
  TimerId post_after(int64_t ms, Task task) override {
    waited_ms += ms;
    tasks_.push_back(std::move(task));
    return 0;
  }
  void cancel(TimerId) override {}
  bool is_current() const override { return true; }
  void run() {
    for (; !tasks_.empty(); tasks_.pop_front()) tasks_.front()();
  }
  int64_t waited_ms = 0;

 private:
  std::deque<Task> tasks_;
};

class LogWork : public testing::Test, public machine::Proposer, public machine::Reader, public machine::LogReader {
 protected:
  LogWork() { lab_.open(7, 1, settings()); }

  static internal::v1::BusSettings settings() {
    internal::v1::BusSettings settings;
    settings.set_compacted(true);
    settings.set_tombstone_retention_ms(1000);
    return settings;
  }
  void propose(GroupId, machine::Envelope envelope, machine::Proposer::Done done) override {
    ++proposed_;
    if (before_proposal_) std::exchange(before_proposal_, nullptr)();
    auto result = lab_.apply(envelope.command, envelope.payload);
    if (!result) return done(std::unexpected(result.error()));
    done(machine::Applied{lab_.machine().applied(), *result});
  }
  void read(GroupId, const machine::ReadLevel&, machine::Reader::Done done) override { done(lab_.machine().view()); }
  void read_log(GroupId, LogIndex from, LogIndex to, uint64_t bytes_max, machine::LogReader::Done done) override {
    ++log_reads_;
    std::vector<Entry> entries;
    uint64_t bytes = 0;
    for (uint64_t index = from.value; index < to.value; ++index) {
      const Entry& entry = lab_.log.at(index);
      if (!entries.empty() && bytes + entry.data.size() > bytes_max) break;
      bytes += entry.data.size();
      entries.push_back(entry);
    }
    done(std::move(entries));
  }
  // "k=v" is an event with a key; "k=" says that the key is gone.
  void publish(const std::vector<std::string>& pairs) {
    internal::v1::BusBatch batch;
    batch.set_topic(7);
    batch.set_principal("p" + std::to_string(lab_.log.size() % 2));
    for (const std::string& pair : pairs) {
      v1::Event event;
      event.set_key(pair.substr(0, pair.find('=')));
      if (!pair.ends_with('=')) event.set_text(pair);
      *batch.add_events() = event.SerializeAsString();
    }
    lab_.append(batch);
  }
  void compact(CompactorOptions options = {}) {
    Compactor compactor(options, {*this, *this, fetcher_, queue_, queue_, metrics_});
    compactor.begin(bus_group(0), {{bus_group(0), kLabScope, {7, 0}}}, [this] { return leads_; });
    queue_.run();
  }
  void clean(LogCleanerOptions options) {
    LogCleaner cleaner(options, {*this, *this, fetcher_, queue_, queue_, metrics_});
    cleaner.look(bus_group(0), lab_.machine().view(), lab_.partition(7, 0).bytes(), [this] { return leads_; });
    queue_.run();
  }

  BusLab lab_;
  Queue queue_;
  MetricsRegistry metrics_;
  Fetcher fetcher_{*this, *this, queue_};
  std::function<void()> before_proposal_;
  int proposed_ = 0;
  int log_reads_ = 0;
  bool leads_ = true;
};

}  // namespace uccp::events
