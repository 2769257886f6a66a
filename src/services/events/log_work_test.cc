// Passes of compaction and of the cleaner of the log over a bus group, with all that they read and propose.
#include <deque>

#include "services/events/compactor.h"
#include "services/events/log_cleaner.h"
#include "services/events/test_bus_lab.h"

namespace uccp::events {
namespace {

using Texts = std::vector<std::string>;
using Offsets = std::vector<uint64_t>;

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
  void publish(const Texts& pairs) {
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

TEST_F(LogWork, APieceEndsBetweenEntriesAndNotWithinOne) {
  const auto three = [](const std::string& text) {
    return std::vector{BusLab::batch(7, 0, {text + "1"}), BusLab::batch(7, 0, {text + "2"}),
                       BusLab::batch(7, 0, {text + "3"})};
  };
  lab_.append(three("a"));
  lab_.append(three("b"));
  std::vector<std::vector<uint64_t>> pieces;
  uint64_t next = 0;
  for (bool whole = false; !whole;) {
    fetcher_.fetch(bus_group(0), {{kLabScope, {7, 0}, next}}, 1, [&](Result<Fetched> fetched) {
      ASSERT_TRUE(fetched.has_value());
      pieces.emplace_back();
      for (const BatchPtr& batch : fetched->batches) pieces.back().push_back(batch->row.first_offset());
      next = fetched->next.at({7, 0});
      whole = fetched->whole;
    });
    queue_.run();
  }
  EXPECT_EQ(pieces, (std::vector<std::vector<uint64_t>>{{0, 1, 2}, {3, 4, 5}}));
  EXPECT_EQ(log_reads_, 2) << "each entry was read once";
}

TEST_F(LogWork, OfEachKeyTheNewestEventIsLeft) {
  publish({"a=1", "b=1"});
  publish({"a=2", "c=1"});
  publish({"b=2"});
  publish({"d=1"});
  compact();
  EXPECT_EQ(lab_.read(7, 0), (Texts{"a=2", "c=1", "b=2", "d=1"}));
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{2, 3, 4, 5}));
  EXPECT_EQ(lab_.partition(7, 0).compacted_offset(), 5u);
  EXPECT_EQ(lab_.rows_of(kIndexTable), 3u);
  // Later passes see old and new together.
  publish({"a=3", "c=2"});
  publish({"e=1"});
  compact();
  EXPECT_EQ(lab_.read(7, 0), (Texts{"b=2", "d=1", "a=3", "c=2", "e=1"}));
  EXPECT_EQ(metrics_.value("uccp_bus_compacted_events_total"), 4);
}

TEST_F(LogWork, NothingIsProposedButTheProgressWhereNoKeyComesAgain) {
  publish({"a=1"});
  publish({"b=1"});
  compact();
  EXPECT_EQ(proposed_, 1);
  compact();
  EXPECT_EQ(proposed_, 1) << "there is nothing new but the newest batch";
}

TEST_F(LogWork, AKeyThatIsGoneIsSaidForAWhile) {
  publish({"a=1"});
  publish({"a="});
  publish({"b=1"});
  compact();
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{1, 2}));
  const int64_t now_ms = lab_.machine().view().machine_time_ms();
  EXPECT_FALSE(compaction_due(lab_.partition(7, 0), now_ms + 1000, {}));
  EXPECT_TRUE(compaction_due(lab_.partition(7, 0), now_ms + 1001, {}));
  lab_.now_ms += 1001;
  lab_.open(7, 1, settings());
  compact();
  EXPECT_EQ(lab_.offsets(7, 0), Offsets{2});
  EXPECT_FALSE(lab_.partition(7, 0).has_oldest_tombstone_ms());
}

TEST_F(LogWork, MoreKeysThanMayBeRememberedTakeSeveralPasses) {
  for (int i = 0; i < 40; ++i) publish({"k" + std::to_string(i % 20) + "=" + std::to_string(i)});
  publish({"end=1"});
  int passes = 0;
  for (; lab_.partition(7, 0).compacted_offset() < 40; ++passes) {
    ASSERT_LT(passes, 40);
    compact({.memory_bytes_max = 500});
  }
  EXPECT_GT(passes, 3);
  EXPECT_EQ(lab_.read(7, 0).size(), 21u);
  EXPECT_EQ(lab_.offsets(7, 0).front(), 20u);
}

TEST_F(LogWork, ItReadsNoFasterThanItMay) {
  for (int i = 0; i < 20; ++i) publish({"a=" + std::string(1000, 'x')});
  publish({"b=1"});
  compact({.bytes_per_second = 10'000, .fetch_bytes = 2'000});
  EXPECT_GT(queue_.waited_ms, 3'000) << "twice 20 KB";
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{19, 20}));
}

TEST_F(LogWork, WhoNoLongerLeadsProposesNothingMore) {
  for (int i = 0; i < 20; ++i) publish({"a=" + std::to_string(i)});
  before_proposal_ = [this] { leads_ = false; };
  compact({.fetch_bytes = 1, .rows_per_command = 1});
  EXPECT_EQ(proposed_, 1);
}

constexpr LogCleanerOptions kEager{.live_percent_min = 80, .log_bytes_min = 1, .command_bytes = 3000};

TEST_F(LogWork, TheOldestRowsAreStoredAgainAndTheLogBeforeThemCanGo) {
  publish({"old=1", "old2=1"});
  for (int i = 0; i < 50; ++i) publish({"a=" + std::string(1000, 'x') + std::to_string(i)});
  publish({"b=1"});
  compact();
  EXPECT_EQ(lab_.floor(), LogIndex(2)) << "of the second entry one event is needed, so the whole log is";
  const Texts before = lab_.read(7, 0);
  clean(kEager);
  EXPECT_GT(lab_.floor(), LogIndex(50));
  EXPECT_EQ(lab_.read(7, 0), before);
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{0, 1, 51, 52}));
  EXPECT_GT(metrics_.value("uccp_bus_rewritten_bytes_total"), 0);
  std::erase_if(lab_.log, [this](const auto& entry) { return entry.first < lab_.floor().value; });
  EXPECT_EQ(lab_.read(7, 0), before);
}

TEST_F(LogWork, ALogThatIsMostlyNeededIsLeftAlone) {
  for (int i = 0; i < 50; ++i) publish({"k" + std::to_string(i)});
  clean(kEager);
  EXPECT_EQ(proposed_, 0) << "small events take more beside them than they have; storing them again frees nothing";
  for (int i = 0; i < 50; ++i) publish({"k" + std::to_string(i) + "=" + std::string(1000, 'x')});
  clean({.live_percent_min = 45, .log_bytes_min = 1});
  clean({.live_percent_min = 100, .log_bytes_min = 1 << 20});
  EXPECT_EQ(proposed_, 0);
}

TEST_F(LogWork, APassStoresNoMoreThanItMay) {
  for (int i = 0; i < 100; ++i) publish({"k" + std::to_string(i) + "=" + std::string(100, 'x')});
  for (int i = 0; i < 100; ++i) publish({"a=" + std::string(1000, 'x') + std::to_string(i)});
  compact();
  proposed_ = 0;
  LogCleanerOptions options = kEager;
  options.pass_bytes = 1000;
  // Of the next pass nothing is proposed.
  before_proposal_ = [this] { leads_ = false; };
  options.command_bytes = 1 << 20;
  clean(options);
  EXPECT_LE(metrics_.value("uccp_bus_rewritten_bytes_total"), 1200);
  EXPECT_GE(metrics_.value("uccp_bus_rewritten_bytes_total"), 800);
  EXPECT_EQ(lab_.read(7, 0).size(), 102u);
}

TEST_F(LogWork, ARowThatGoesWhileItIsStoredAgainIsGone) {
  publish({"a=1"});
  for (int i = 0; i < 10; ++i) publish({"k=" + std::string(1000, 'x') + std::to_string(i)});
  compact();
  before_proposal_ = [this] {
    internal::v1::BusCompactCommand command;
    command.set_topic(7);
    command.add_rows()->add_gone(0);
    ASSERT_TRUE(lab_.apply("bus.compact", command.SerializeAsString()).has_value());
  };
  LogCleanerOptions options = kEager;
  clean(options);
  EXPECT_EQ(lab_.offsets(7, 0), (Offsets{9, 10}));
}

}  // namespace
}  // namespace uccp::events
