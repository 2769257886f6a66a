#include "agent/actor_calls.h"

#include <gtest/gtest.h>

#include "agent/function_wire.h"

namespace uccp::agent {
namespace {

constexpr uint64_t kChannel = 7;

v1::ActorRequest hello(const std::string& caller, bool owner = false) {
  v1::ActorRequest request;
  request.set_caller(caller);
  request.set_owner(owner);
  return request;
}

v1::ActorRequest calls(uint64_t first, uint64_t last, size_t bytes = 1) {
  v1::ActorRequest request;
  for (uint64_t number = first; number <= last; ++number) {
    v1::ActorCall& call = *request.add_calls();
    call.set_number(number);
    call.set_method("m");
    call.add_args()->set_data(std::string(bytes, 'x'));
  }
  return request;
}

// "name number" of each call in a packet.
std::vector<std::string> ids_in(std::string_view packet) {
  std::vector<std::string> ids;
  while (!packet.empty()) {
    const size_t size = static_cast<uint8_t>(packet[3]) << 8 | static_cast<uint8_t>(packet[4]);
    if (packet[0] == 'i') ids.emplace_back(packet.substr(5, size));
    packet.remove_prefix(5 + size);
  }
  return ids;
}

std::string result(const std::string& id, char code = 0, const std::string& index = "") {
  std::string body;
  append_field(body, 'i', id);
  append_field(body, 'q', std::string(1, code));
  if (!index.empty()) append_field(body, 'x', index);
  append_field(body, 'c', "application/octet-stream");
  append_field(body, 'd', "value");
  return body;
}

class ActorCallsTest : public testing::Test {
 protected:
  ActorCalls make(ActorLimits limits = {}) {
    return ActorCalls(limits, [this](uint64_t channel, const v1::ActorReply& reply) {
      for (const v1::ActorResult& one : reply.results()) answers.push_back({channel, one});
    });
  }
  std::vector<uint64_t> numbers() const {
    std::vector<uint64_t> found;
    for (const auto& [channel, one] : answers) found.push_back(one.number());
    return found;
  }
  std::vector<std::pair<uint64_t, v1::ActorResult>> answers;
};

using Ids = std::vector<std::string>;
using Numbers = std::vector<uint64_t>;

TEST_F(ActorCallsTest, CallsReachTheProcessInOrderAndOnce) {
  ActorCalls actor = make();
  actor.request(kChannel, hello("ann"));
  actor.request(kChannel, calls(1, 3));
  actor.request(kChannel, calls(2, 4));
  EXPECT_EQ(ids_in(*actor.next_packet()), (Ids{"ann 1", "ann 2", "ann 3", "ann 4"}));
  EXPECT_FALSE(actor.next_packet());
}

TEST_F(ActorCallsTest, TheProcessHasFewPacketsAhead) {
  ActorCalls actor = make();
  actor.request(kChannel, hello("ann"));
  actor.request(kChannel, calls(1, kPacketsAhead + 2, kActorPacketBytes));
  for (size_t i = 0; i < kPacketsAhead; ++i) EXPECT_TRUE(actor.next_packet());
  EXPECT_FALSE(actor.next_packet());
  std::string taken;
  append_field(taken, 't', {});
  actor.results(taken);
  EXPECT_TRUE(actor.next_packet());
  EXPECT_FALSE(actor.next_packet());
}

TEST_F(ActorCallsTest, ResultsComeAgainUntilTheyAreConfirmed) {
  ActorCalls actor = make();
  actor.request(kChannel, hello("ann"));
  actor.request(kChannel, calls(1, 3));
  (void)actor.next_packet();
  actor.results(result("ann 1") + result("ann 2"));
  EXPECT_EQ(numbers(), (Numbers{1, 2}));
  actor.close(kChannel);
  actor.results(result("ann 3"));  // while nobody listens
  answers.clear();
  v1::ActorRequest again = hello("ann");
  again.set_acknowledged(1);
  actor.request(kChannel + 1, again);
  EXPECT_EQ(numbers(), (Numbers{2, 3}));
  EXPECT_EQ(answers[0].first, kChannel + 1);
  actor.request(kChannel + 1, calls(2, 3));
  EXPECT_FALSE(actor.next_packet()) << "what has run is not run again";
}

TEST_F(ActorCallsTest, CallersAreToldApart) {
  ActorCalls actor = make();
  actor.request(1, hello("ann"));
  actor.request(2, hello("bob"));
  actor.request(1, calls(1, 1));
  actor.request(2, calls(1, 1));
  EXPECT_EQ(ids_in(*actor.next_packet()), (Ids{"ann 1", "bob 1"}));
  actor.results(result("bob 1"));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].first, 2u);
}

TEST_F(ActorCallsTest, BeyondTheLimitsCallsFailAndDoNotRun) {
  ActorCalls actor = make({.calls_max = 2});
  actor.request(kChannel, hello("ann"));
  actor.request(kChannel, calls(1, 3));
  ASSERT_EQ(numbers(), (Numbers{3}));
  EXPECT_TRUE(answers[0].second.failed());
  EXPECT_NE(answers[0].second.message().find("at most 2"), std::string::npos) << answers[0].second.message();
  EXPECT_EQ(ids_in(*actor.next_packet()), (Ids{"ann 1", "ann 2"}));
}

TEST_F(ActorCallsTest, UnconfirmedResultsCountAgainstTheLimit) {
  ActorCalls actor = make({.bytes_max = 60});
  actor.request(kChannel, hello("ann"));
  actor.request(kChannel, calls(1, 1));
  (void)actor.next_packet();
  actor.results(result("ann 1"));
  answers.clear();
  actor.request(kChannel, calls(2, 2, 20));
  ASSERT_EQ(numbers(), (Numbers{2}));
  EXPECT_TRUE(answers[0].second.failed());
  v1::ActorRequest confirmed = calls(3, 3, 20);
  confirmed.set_acknowledged(2);
  actor.request(kChannel, confirmed);
  EXPECT_EQ(ids_in(*actor.next_packet()), (Ids{"ann 3"}));
}

TEST_F(ActorCallsTest, WhatCannotBeCalledIsRefused) {
  ActorCalls actor = make();
  actor.request(kChannel, hello("ann"));
  v1::ActorRequest request = calls(1, 3);
  request.mutable_calls(0)->set_method("__init__");
  request.mutable_calls(1)->mutable_args(0)->mutable_blob()->set_sha256("00");
  actor.request(kChannel, request);
  EXPECT_EQ(numbers(), (Numbers{1, 2}));
  EXPECT_EQ(ids_in(*actor.next_packet()), (Ids{"ann 3"}));
}

TEST_F(ActorCallsTest, TakenValuesOfGeneratorsAreForgottenAndGiveCredit) {
  ActorCalls actor = make();
  actor.request(kChannel, hello("ann"));
  actor.request(kChannel, calls(1, 1));
  (void)actor.next_packet();
  actor.results(result("ann 1", 2) + result("ann 1", 2, "1") + result("ann 1", 2, "2"));
  EXPECT_TRUE(answers[2].second.more());
  EXPECT_EQ(answers[2].second.index(), 2u);
  v1::ActorRequest credit;
  credit.add_credits()->set_number(1);
  credit.mutable_credits(0)->set_taken(2);
  actor.request(kChannel, credit);
  const std::string credits = actor.take_credits();
  EXPECT_EQ(find_field(credits, 'i'), "ann 1");
  EXPECT_EQ(find_field(credits, 'w'), "2");
  answers.clear();
  actor.request(kChannel + 1, hello("ann"));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].second.index(), 2u);
}

TEST_F(ActorCallsTest, OwnersCountWhileTheyHaveAStream) {
  ActorCalls actor = make();
  EXPECT_FALSE(actor.owned());
  actor.request(1, hello("ann"));
  EXPECT_FALSE(actor.owned());
  actor.request(2, hello("bob", true));
  EXPECT_TRUE(actor.owned());
  actor.request(3, hello("bob", true));  // another stream of the same owner takes its place
  actor.close(2);
  EXPECT_TRUE(actor.owned());
  actor.close(3);
  EXPECT_FALSE(actor.owned());
}

TEST_F(ActorCallsTest, OldCallersWithoutAStreamAreForgotten) {
  ActorCalls actor = make({.callers_max = 2});
  for (const std::string name : {"ann", "bob"}) {
    actor.request(1, hello(name));
    actor.request(1, calls(1, 1));
    actor.close(1);
  }
  actor.request(2, hello("cid"));
  (void)actor.next_packet();
  actor.results(result("ann 1") + result("bob 1"));
  EXPECT_TRUE(answers.empty());
  actor.request(3, hello("bob"));
  EXPECT_EQ(numbers(), (Numbers{1}));
}

TEST_F(ActorCallsTest, MalformedResultsChangeNothing) {
  ActorCalls actor = make();
  actor.request(kChannel, hello("ann"));
  actor.results("");
  actor.results("i");
  actor.results(std::string("i\xff\xff\xff\xff", 5));
  actor.results(result("nobody 1"));
  actor.results(result(""));
  EXPECT_TRUE(answers.empty());
}

}  // namespace
}  // namespace uccp::agent
