// Streams on a node whose bus group is ahead of its topics.
#include "services/events/streams.h"

#include "machine/test_lab.h"
#include "services/events/test_log_work.h"
#include "services/events/topics_state.h"

namespace uccp::events {
namespace {

class Collected final : public call::Sink {
 public:
  void send(std::string message) override {
    v1::EventDelivery item;
    ASSERT_TRUE(item.ParseFromString(message));
    if (item.has_end()) end = item.end().reason();
    else if (item.has_event()) texts.push_back(item.event().text());
  }
  void finish(Status status) override { EXPECT_TRUE(status.is_ok()) << status.to_string(); }
  size_t queued_bytes() const override { return 0; }

  std::vector<std::string> texts;
  v1::StreamEndReason end = v1::STREAM_END_REASON_UNSPECIFIED;
};

class StreamsTest : public testing::Test, public machine::Reader, public machine::LogReader, public machine::Watcher {
 protected:
  struct StillClock final : Clock {
    BootTime boot() const override { return {1'000'000}; }
    WallTime wall() const override { return {1'700'000'001'000'000}; }
  };
  struct Nothing final : machine::Watch {};

  StreamsTest() {
    create("a");
    bus_.open(1, 1);
    bus_.open(2, 1);
    bus_.append(BusLab::batch(2, 0, {"b1"}));
    bus_.append(BusLab::batch(1, 0, {"a1"}));
  }
  void create(const std::string& name) {
    internal::v1::TopicCreateCommand command;
    command.mutable_topic()->set_name(name);
    command.mutable_topic()->set_partitions(1);
    command.set_groups(1);
    command.set_topics_max(10);
    const auto made = core_.apply("topics.create", command.SerializeAsString());
    TopicRow row;
    ASSERT_TRUE(made && row.ParseFromString(*made));
    ASSERT_EQ(row.number(), ++topics_);
  }
  void read(GroupId group, const machine::ReadLevel&, machine::Reader::Done done) override {
    if (group != kCoreGroup) return done(bus_.machine().view());
    if (++core_reads_ == kLateReads) create("b");
    done(core_.view());
  }
  void read_log(GroupId, LogIndex from, LogIndex, uint64_t, machine::LogReader::Done done) override {
    done(std::vector<Entry>{bus_.log.at(from.value)});
  }
  std::shared_ptr<machine::Watch> watch(const machine::WatchFilter&, LogIndex, OnChange, OnEnd) override {
    return std::make_shared<Nothing>();
  }
  // Everything that is there, to its end.
  std::shared_ptr<Collected> read_all(const std::string& topics) {
    auto sink = std::make_shared<Collected>();
    auto call = std::make_shared<call::Call>();
    call->sink = sink;
    call->principal.tenant = kLabScope.tenant;
    call->name_space = kLabScope.name_space;
    v1::SubscribeRequest request;
    request.add_topics(topics);
    request.set_start(v1::SUBSCRIBE_START_EARLIEST);
    request.set_no_follow(true);
    streams_->open(call, request);
    queue_.run();
    return sink;
  }

  static constexpr int kLateReads = 3;  // of the topics, until the node has heard of the second one
  machine::MachineLab<TopicsState> core_;
  BusLab bus_;
  Queue queue_;
  StillClock clock_;
  MetricsRegistry metrics_;
  Feed feed_{*this, queue_, 1};
  Fetcher fetcher_{*this, *this, queue_};
  std::shared_ptr<Streams> streams_ = Streams::make({}, {*this, feed_, fetcher_, queue_, queue_, clock_, metrics_});
  uint64_t topics_ = 0;
  int core_reads_ = 0;
};

TEST_F(StreamsTest, WithoutFollowAPatternWaitsForTopicsWhoseEventsAreThere) {
  const auto sink = read_all(">");
  EXPECT_EQ(sink->texts, (std::vector<std::string>{"b1", "a1"})) << "a cursor behind a1 would pass b1";
  EXPECT_EQ(sink->end, v1::STREAM_END_REASON_CAUGHT_UP);
  EXPECT_EQ(core_reads_, kLateReads);
}

TEST_F(StreamsTest, ATopicThatIsNamedWaitsForNoOther) {
  const auto sink = read_all("a");
  EXPECT_EQ(sink->texts, std::vector<std::string>{"a1"});
  EXPECT_EQ(sink->end, v1::STREAM_END_REASON_CAUGHT_UP);
  EXPECT_EQ(core_reads_, 1);
}

}  // namespace
}  // namespace uccp::events
