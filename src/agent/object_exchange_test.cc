// Agents that read each other's objects: from whom, what is damaged or gone, and how long an owner keeps them.
#include "agent/object_exchange.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <future>

#include "runtime/posix_file_system.h"
#include "runtime/real_clock.h"

namespace uccp::agent {
namespace {

using namespace std::chrono_literals;

constexpr auto kWait = 60s;
const ObjectPlace kPlace{"tenant", "space"};

shm::ObjectId id_of_number(uint8_t number) {
  shm::ObjectId id{};
  id.fill(number);
  return id;
}

std::string content_of(size_t size) {
  std::string content(size, '\0');
  for (size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 7 + i / 256);
  return content;
}

// One agent's part of it: memory, a door and a thread.
class Side {
 public:
  explicit Side(ObjectExchangeOptions options = {}, uint64_t memory = 64u << 20) {
    std::string name = "/tmp/uccp-exchange-test-XXXXXX";
    directory_ = mkdtemp(name.data());
    signal(SIGPIPE, SIG_IGN);
    store_ = std::move(shm::Store::open(clock_, files_, budget_,
                                        {.memory_bytes_max = memory,
                                         .slots = 1024,
                                         .on_forgotten = [this](const auto& id) { exchange_->forgotten(kPlace, id); },
                                         .spill_directory = directory_})
                           .value());
    client = store_->attach().value();
    exchange_ = std::move(
        ObjectExchange::open(std::move(options), clock_, reactor_, [this](const ObjectPlace&) -> Result<shm::Store*> {
          return store_.get();
        }).value());
    reactor_.start();
  }
  ~Side() {
    exchange_->stop();
    reactor_.stop();
    std::filesystem::remove_all(directory_);
  }

  // Runs it on the reactor's thread.
  template <typename Work>
  auto on(Work work) {
    using Answer = decltype(work(*store_, *exchange_));
    std::promise<Answer> promise;
    reactor_.post([&] { promise.set_value(work(*store_, *exchange_)); });
    return promise.get_future().get();
  }
  std::string location() {
    return on([](auto&, auto& exchange) { return exchange.location(kPlace); });
  }
  void put(uint8_t number, const std::string& content) {
    ASSERT_TRUE(on([&](auto& store, auto&) { return store.put(client, id_of_number(number), content); }).is_ok());
  }
  Status refer(uint8_t number, const std::string& where) {
    return on([&](auto&, auto& exchange) { return exchange.refer(kPlace, client, id_of_number(number), where); });
  }
  Status locate(uint8_t number) {
    return on([&](auto&, auto& exchange) { return exchange.locate(kPlace, id_of_number(number)); });
  }
  // What locate() says once nothing is under way any more.
  Status fetch(uint8_t number) {
    Status status = locate(number);
    until([&] { return status.reason() != "OBJECT_COMING" || (status = locate(number), false); });
    return status;
  }
  std::string content(uint8_t number) {
    return on([&](auto& store, auto&) {
      const auto reader = store.attach().value();
      const std::string found(store.pin(reader, id_of_number(number)).value_or("not there"));
      store.detach(reader);
      return found;
    });
  }
  void release(uint8_t number) {
    on([&](auto& store, auto&) {
      store.release(client, id_of_number(number));
      return true;
    });
  }
  bool has(uint8_t number) { return locate(number).reason() != "OBJECT_UNKNOWN"; }
  void tick() {
    on([](auto& store, auto& exchange) {
      store.tick();
      exchange.tick();
      return true;
    });
  }
  ObjectExchangeStats stats() {
    return on([](auto&, auto& exchange) { return exchange.stats(kPlace); });
  }
  template <typename Condition>
  static void until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + kWait;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end);
      std::this_thread::yield();
    }
  }

  shm::Store::ClientId client = 0;

 private:
  runtime::RealClock clock_;
  runtime::PosixFileSystem files_;
  shm::Budget budget_{.bytes_max = 1ull << 30};
  std::string directory_;
  std::unique_ptr<shm::Store> store_;
  Reactor reactor_{clock_};
  std::unique_ptr<ObjectExchange> exchange_;
};

TEST(ObjectExchange, WhatIsElsewhereComesWhenItIsAskedFor) {
  Side owner, reader;
  const std::string content = content_of((3u << 20) + 17);
  owner.put(1, content);
  ASSERT_TRUE(reader.refer(1, owner.location()).is_ok());
  EXPECT_EQ(owner.stats().served, 0u) << "a reference alone moves nothing";
  EXPECT_EQ(reader.locate(1).reason(), "OBJECT_COMING");
  ASSERT_TRUE(reader.fetch(1).is_ok());
  EXPECT_EQ(reader.content(1), content);
  Side::until([&] { return owner.stats().served_bytes == content.size(); });
}

TEST(ObjectExchange, AThirdAgentReadsFromACopyThatIsNearer) {
  Side owner(ObjectExchangeOptions{.door = {.advertised = "localhost"}}), second, third;
  owner.put(1, content_of(2u << 20));
  ASSERT_TRUE(second.refer(1, owner.location()).is_ok());
  ASSERT_TRUE(second.fetch(1).is_ok());
  ASSERT_TRUE(third.refer(1, owner.location()).is_ok());
  ASSERT_TRUE(third.fetch(1).is_ok());
  EXPECT_EQ(third.content(1), content_of(2u << 20));
  Side::until([&] { return second.stats().served == 1; });
  EXPECT_EQ(owner.stats().served, 1u);
}

TEST(ObjectExchange, ACopyThatIsGoneIsNotMissed) {
  Side owner(ObjectExchangeOptions{.door = {.advertised = "localhost"}}), third;
  owner.put(1, content_of(100));
  {
    Side second;
    ASSERT_TRUE(second.refer(1, owner.location()).is_ok());
    ASSERT_TRUE(second.fetch(1).is_ok());
  }
  ASSERT_TRUE(third.refer(1, owner.location()).is_ok());
  ASSERT_TRUE(third.fetch(1).is_ok());
  EXPECT_EQ(third.content(1), content_of(100));
}

TEST(ObjectExchange, AReferenceGoesOnToAThirdAgentWithoutHavingCome) {
  Side owner, second, third;
  owner.put(1, "carried on");
  ASSERT_TRUE(second.refer(1, owner.location()).is_ok());
  ASSERT_TRUE(third.refer(1, second.location()).is_ok());
  ASSERT_TRUE(third.fetch(1).is_ok());
  EXPECT_EQ(third.content(1), "carried on");
}

TEST(ObjectExchange, AnOwnerThatIsGoneIsALossThatSaysSo) {
  Side reader;
  std::string where;
  {
    Side owner;
    owner.put(1, "lost");
    where = owner.location();
    ASSERT_TRUE(reader.refer(1, where).is_ok());
  }
  const Status status = reader.fetch(1);
  EXPECT_EQ(status.code(), Code::kCorruption);
  EXPECT_EQ(status.reason(), "OBJECT_LOST");
  EXPECT_NE(status.message().find(parse_location(where)->address), std::string::npos) << status.message();
}

TEST(ObjectExchange, AnObjectThatItsOwnerHasForgottenIsALoss) {
  Side owner, reader;
  ASSERT_TRUE(reader.refer(1, owner.location()).is_ok());
  EXPECT_EQ(reader.fetch(1).reason(), "OBJECT_LOST");
}

TEST(ObjectExchange, WhatOthersReferToStaysUntilTheyLetGoOrSayNothingMore) {
  Side owner(ObjectExchangeOptions{.lease_ms = 60'000}), reader;
  owner.put(1, "held");
  owner.put(2, "not held");
  ASSERT_TRUE(reader.refer(1, owner.location()).is_ok());
  // The owner has been told when it holds a reference of the reader.
  reader.tick();
  Side::until([&] { return owner.on([](auto& store, auto&) { return store.stats().clients; }) == 2; });
  owner.release(1);
  owner.release(2);
  EXPECT_TRUE(owner.has(1));
  EXPECT_FALSE(owner.has(2));
  reader.release(1);
  Side::until([&] { return reader.tick(), !owner.has(1); });
}

TEST(ObjectExchange, AReaderThatDiesHoldsNothingForLongerThanItsLease) {
  Side owner(ObjectExchangeOptions{.lease_ms = 1'000});
  owner.put(1, "held");
  {
    Side reader;
    ASSERT_TRUE(reader.refer(1, owner.location()).is_ok());
    reader.tick();
    Side::until([&] { return owner.on([](auto& store, auto&) { return store.stats().clients; }) == 2; });
  }
  owner.release(1);
  Side::until([&] { return owner.tick(), !owner.has(1); });
}

TEST(ObjectExchange, WhoShowsAnotherGrantGetsNothing) {
  Side owner, reader;
  owner.put(1, "secret");
  ObjectLocation where = parse_location(owner.location()).value();
  where.grant.front() = where.grant.front() == '0' ? '1' : '0';
  ASSERT_TRUE(reader.refer(1, encode(where)).is_ok());
  const Status status = reader.fetch(1);
  EXPECT_EQ(status.reason(), "OBJECT_LOST");
  EXPECT_NE(status.message().find("grant"), std::string::npos) << status.message();
  EXPECT_EQ(reader.refer(2, "nonsense").reason(), "LOCATION_INVALID");
}

TEST(ObjectExchange, ADoorOfAnotherAuthorityIsNotTrusted) {
  Side owner, impostor, reader;
  impostor.put(1, "false");
  ObjectLocation where = parse_location(impostor.location()).value();
  where.authority = parse_location(owner.location())->authority;
  ASSERT_TRUE(reader.refer(1, encode(where)).is_ok());
  EXPECT_EQ(reader.fetch(1).reason(), "OBJECT_LOST");
  EXPECT_EQ(impostor.stats().served, 0u);
}

TEST(ObjectExchange, WhatDoesNotFitHereIsRefusedAndNotLost) {
  Side owner, reader({}, 1u << 20);
  owner.put(1, content_of(2u << 20));
  ASSERT_TRUE(reader.refer(1, owner.location()).is_ok());
  EXPECT_EQ(reader.fetch(1).reason(), "OBJECT_TOO_LARGE");
}

}  // namespace
}  // namespace uccp::agent
