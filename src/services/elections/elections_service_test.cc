#include "services/elections/elections_service.h"

#include <gtest/gtest.h>

#include "services/coordination_test_node.h"

namespace uccp::elections {
namespace {

using coordination::Exchange;
using coordination::TestNode;

class ElectionsServiceTest : public ::testing::Test {
 protected:
  ElectionsServiceTest() {
    n_.start();
    service_.add_handlers(n_.handlers);
  }
  Exchange enter(std::string id, std::string candidate = "", std::string more = "", TestNode::Client client = {}) {
    Exchange x =
        n_.begin("ElectLeader", R"({"group":"g","candidate":{"id":")" + id + "\"" + candidate + "}" + more + "}",
                 std::move(client));
    n_.scheduler.run_for_ms(20);
    return x;
  }
  v1::Election get() {
    const auto e = n_.ask("GetLeader", R"({"group":"g"})").answer<v1::Election>();
    // What holds at any moment.
    EXPECT_GE(e.term(), term_);
    EXPECT_GE(e.fencing_token(), token_);
    if (e.term() == term_) {
      EXPECT_EQ(e.fencing_token(), token_);
    } else {
      EXPECT_GT(e.fencing_token(), token_);
    }
    term_ = e.term();
    token_ = e.fencing_token();
    return e;
  }
  std::string leader() { return get().leader().id(); }
  Exchange with(std::string rpc, const v1::Election& own, std::string more = "") {
    return n_.ask(rpc, R"({"group":"g","leaseId":")" + own.lease_id() + "\"" + more + "}");
  }
  std::string order() {
    std::string out;
    for (const auto& candidate : get().candidates()) out += candidate.id();
    return out;
  }
  static std::string events(const Exchange& x) {
    std::string out;
    for (const std::string& message : x.sink->messages) {
      v1::ElectionEvent event;
      EXPECT_TRUE(event.ParseFromString(message));
      EXPECT_TRUE(event.election().lease_id().empty());
      out += event.has_end()
                 ? "END "
                 : v1::ElectionEventKind_Name(event.kind()).substr(20) + ":" + event.election().leader().id() + " ";
    }
    return out;
  }

  ElectionsState state_;
  TestNode n_{{&state_}};
  ElectionsService service_{{n_.node, n_.node, n_.node, n_.node, n_.work, n_.clock, n_.service_random, n_.metrics,
                             n_.signer, [](const call::Principal& p, std::string_view) { return p.name == "alice"; }}};
  uint64_t term_ = 0, token_ = 0;
};

TEST_F(ElectionsServiceTest, ARepeatIsNotAnsweredWithALeadershipThatHasEnded) {
  const auto a = enter("a", "", R"(,"ttl":"2s")", {.request_id = "r1"}).answer<v1::Election>();
  EXPECT_TRUE(enter("a", "", R"(,"ttl":"2s")", {.request_id = "r1"}).answer<v1::Election>().is_leader());
  const auto b = enter("b", "", R"(,"ttl":"60s")").answer<v1::Election>();
  EXPECT_EQ(n_.ask("TransferLeadership", R"({"group":"g","targetId":"b"})").reason(), "");
  EXPECT_FALSE(enter("a", "", R"(,"ttl":"2s")", {.request_id = "r1"}).answer<v1::Election>().is_leader());
  n_.scheduler.run_for_ms(5000);
  EXPECT_EQ(enter("a", "", R"(,"ttl":"2s")", {.request_id = "r1"}).reason(), "CANDIDACY_ENDED");
}

TEST_F(ElectionsServiceTest, TheFirstLeadsUntilItResignsAndTheNextFollows) {
  const auto a = enter("a", R"(,"address":"h:1")").answer<v1::Election>();
  EXPECT_TRUE(a.is_leader());
  EXPECT_EQ(a.term(), 1u);
  EXPECT_EQ(a.leader().address(), "h:1");
  const auto b = enter("b").answer<v1::Election>();
  EXPECT_FALSE(b.is_leader());
  Exchange waits = enter("c", "", R"(,"waitTimeout":"60s","ttl":"2s")", {.deadline_ms = 100'000});
  n_.scheduler.run_for_ms(10'000);
  EXPECT_FALSE(waits.done()) << "the node keeps the candidacy of who waits alive";
  EXPECT_TRUE(get().lease_id().empty());
  EXPECT_EQ(n_.metrics.value("uccp_election_candidates"), 3);
  with("ResignLeadership", b);
  with("ResignLeadership", a);
  n_.scheduler.run_for_ms(20);
  const auto c = waits.answer<v1::Election>();
  EXPECT_TRUE(c.is_leader());
  EXPECT_GT(c.fencing_token(), a.fencing_token());
  ASSERT_EQ(c.history_size(), 2);
  EXPECT_EQ(c.history(0).candidate_id(), "c");
  EXPECT_EQ(c.history(1).end_reason(), v1::LEADERSHIP_END_RESIGNED);
  EXPECT_EQ(with("ResignLeadership", a).reason(), "CANDIDACY_ENDED");
  EXPECT_EQ(n_.ask("GetLeader", R"({"group":"none"})").reason(), "ELECTION_NOT_FOUND");
}

TEST_F(ElectionsServiceTest, ALeaderThatStopsRenewingIsReplaced) {
  const auto a = enter("a", "", R"(,"ttl":"2s")").answer<v1::Election>();
  const auto b = enter("b", "", R"(,"ttl":"600s")").answer<v1::Election>();
  for (int i = 0; i < 5; ++i) {
    n_.scheduler.run_for_ms(1500);
    EXPECT_TRUE(with("RenewLeadership", a).answer<v1::Election>().is_leader());
  }
  EXPECT_EQ(leader(), "a");
  n_.scheduler.run_for_ms(2500);
  EXPECT_EQ(leader(), "b");
  EXPECT_EQ(get().history(1).end_reason(), v1::LEADERSHIP_END_EXPIRED);
  EXPECT_EQ(with("RenewLeadership", a).reason(), "CANDIDACY_ENDED");
  EXPECT_TRUE(with("RenewLeadership", b).answer<v1::Election>().is_leader());
  EXPECT_EQ(with("RenewLeadership", v1::Election()).reason(), "LEASE_ID_INVALID");
}

TEST_F(ElectionsServiceTest, EachStrategyRanksInItsWay) {
  struct Case {
    std::string strategy, a, b, c, order;
  };
  for (const Case& t :
       {Case{R"(,"strategy":"FIRST_COME")", R"(,"priority":1)", R"(,"priority":9)", "", "abc"},
        Case{R"(,"strategy":"PRIORITY")", R"(,"priority":1)", R"(,"priority":5)", R"(,"priority":9)", "cba"},
        Case{R"(,"strategy":"RESOURCE")", R"(,"load":0.9)", R"(,"load":0.1)", R"(,"load":0.5)", "bca"},
        Case{R"(,"strategy":"CUSTOM")", R"(,"score":-1)", R"(,"score":2.5)", R"(,"score":2.4)", "bca"},
        Case{R"(,"strategy":"GEOGRAPHIC","preferredRegion":"eu","preferredZone":"z1")", R"(,"region":"us","zone":"z1")",
             R"(,"region":"eu","zone":"z2")", R"(,"region":"eu","zone":"z1")", "cba"}}) {
    SCOPED_TRACE(t.strategy);
    // Another one leads first and holds the group together.
    const auto first = enter("x", R"(,"observer":false)", t.strategy).answer<v1::Election>();
    enter("a", t.a), enter("b", t.b), enter("c", t.c), enter("o", R"(,"observer":true,"priority":1000,"score":99)");
    EXPECT_EQ(leader(), "x") << "a running leadership is not taken away";
    with("ResignLeadership", first);
    EXPECT_EQ(order(), t.order + "o");
    EXPECT_EQ(leader(), t.order.substr(0, 1));
    EXPECT_EQ(enter("a", t.a,
                    R"(,"strategy":")" +
                        std::string(t.strategy.find("CUSTOM") == std::string::npos ? "CUSTOM" : "PRIORITY") + "\"")
                  .reason(),
              "STRATEGY_MISMATCH");
    n_.scheduler.run_for_ms(20'000);
    EXPECT_EQ(leader(), "") << "all expired";
  }
}

TEST_F(ElectionsServiceTest, LeadersAreDrawnInProportionToTheirWeight) {
  int heavy = 0;
  for (int i = 0; i < 200; ++i) {
    const auto first = enter("x", "", R"(,"strategy":"WEIGHTED")").answer<v1::Election>();
    enter("heavy", R"(,"weight":9)"), enter("light", ""), enter("o", R"(,"observer":true,"weight":100)");
    std::string told = order();
    EXPECT_EQ(told.back(), 'o') << "an observer is never drawn";
    std::erase(told, 'x');
    EXPECT_EQ(with("ResignLeadership", first).reason(), "");
    EXPECT_EQ(leader(), told.starts_with("heavy") ? "heavy" : "light") << "as it was told, though one has gone";
    heavy += leader() == "heavy";
    n_.scheduler.run_for_ms(20'000);
    EXPECT_EQ(leader(), "") << "all expired";
  }
  EXPECT_NEAR(heavy, 180, 15) << "nine of ten terms";
}

TEST_F(ElectionsServiceTest, AReportedLoadDecidesTheNextElection) {
  const auto a = enter("a", R"(,"load":0.2)", R"(,"strategy":"RESOURCE")").answer<v1::Election>();
  const auto b = enter("b", R"(,"load":0.3)").answer<v1::Election>();
  enter("c", R"(,"load":0.4)");
  EXPECT_FALSE(with("RenewLeadership", b, R"(,"load":0.8)").answer<v1::Election>().is_leader());
  EXPECT_EQ(order(), "acb");
  with("ResignLeadership", a);
  EXPECT_EQ(leader(), "c");
}

TEST_F(ElectionsServiceTest, LeadershipIsHandedOver) {
  const auto a = enter("a", "", R"(,"ttl":"600s")").answer<v1::Election>();
  EXPECT_EQ(with("TransferLeadership", a).reason(), "NO_CANDIDATE");
  const auto b = enter("b").answer<v1::Election>();
  enter("o", R"(,"observer":true)");
  EXPECT_EQ(with("TransferLeadership", b).reason(), "NOT_THE_LEADER");
  EXPECT_EQ(with("TransferLeadership", a, R"(,"targetId":"o")").reason(), "CANDIDATE_OBSERVES");
  EXPECT_EQ(with("TransferLeadership", a, R"(,"targetId":"z")").reason(), "CANDIDATE_NOT_FOUND");
  EXPECT_EQ(with("TransferLeadership", a, R"(,"targetId":"b")").answer<v1::Election>().leader().id(), "b");
  EXPECT_FALSE(with("RenewLeadership", a).answer<v1::Election>().is_leader());
  EXPECT_EQ(get().history(1).end_reason(), v1::LEADERSHIP_END_TRANSFERRED);
  // Operators need no proof, others do.
  EXPECT_EQ(n_.ask("TransferLeadership", R"({"group":"g","targetId":"a"})", {.principal = "bob"}).reason(),
            "PERMISSION_DENIED");
  EXPECT_EQ(n_.ask("TransferLeadership", R"({"group":"g","targetId":"a"})").answer<v1::Election>().leader().id(), "a");
  const uint64_t term = get().term();
  n_.ask("TransferLeadership", R"({"group":"g","targetId":"a"})");
  EXPECT_EQ(get().term(), term);
}

TEST_F(ElectionsServiceTest, ACandidateIsOneHoweverOftenItEnters) {
  const auto a = enter("a", R"(,"priority":1)").answer<v1::Election>();
  const auto again = enter("a", R"(,"priority":7)").answer<v1::Election>();
  EXPECT_EQ(again.lease_id(), a.lease_id());
  EXPECT_EQ(get().candidates_size(), 1);
  EXPECT_EQ(get().candidates(0).priority(), 7);
  EXPECT_EQ(enter("a", "", "", {.principal = "bob"}).reason(), "CANDIDATE_TAKEN");
  EXPECT_EQ(enter("b", "", R"(,"waitTimeout":"1s")").reason(), "");
  n_.scheduler.run_for_ms(1500);
  EXPECT_EQ(get().candidates_size(), 2) << "who waited in vain stays a candidate";
}

TEST_F(ElectionsServiceTest, GroupsAreIndependentAndListed) {
  enter("a");
  n_.ask("ElectLeader", R"({"group":"h","candidate":{"id":"z"},"strategy":"PRIORITY"})");
  const auto list = n_.ask("ListElections", "{}").answer<v1::ListElectionsResponse>();
  ASSERT_EQ(list.elections_size(), 2);
  EXPECT_EQ(list.elections(0).leader().id(), "a");
  EXPECT_EQ(list.elections(1).leader().id(), "z");
  EXPECT_EQ(n_.ask("ListElections", R"({"filter":"strategy = PRIORITY"})")
                .answer<v1::ListElectionsResponse>()
                .elections_size(),
            1);
  EXPECT_EQ(n_.metrics.value("uccp_elections_led"), 2);
}

TEST_F(ElectionsServiceTest, AWatchTellsEveryLeader) {
  const auto a = enter("a", "", R"(,"ttl":"2s")").answer<v1::Election>();
  Exchange watch = n_.begin("WatchLeader", R"({"group":"g"})", {.deadline_ms = 0});
  n_.scheduler.run_for_ms(20);
  enter("b");
  n_.ask("ElectLeader", R"({"group":"other","candidate":{"id":"z"}})");
  n_.scheduler.run_for_ms(20'000);
  EXPECT_EQ(events(watch), "PRESENT:a CANDIDATES:a ELECTED:b LEADERLESS: ");
  for (size_t seen = 1; seen <= 4; ++seen) {
    v1::ElectionEvent event;
    ASSERT_TRUE(event.ParseFromString(watch.sink->messages[seen - 1]));
    Exchange resumed =
        n_.begin("WatchLeader", R"({"group":"g","since":")" + event.cursor() + "\"}", {.deadline_ms = 0});
    n_.scheduler.run_for_ms(20);
    EXPECT_EQ(resumed.sink->messages.size(), 4 - seen);
    resumed.call->deliver_cancel();
  }
  watch.call->deliver_cancel();
}

}  // namespace
}  // namespace uccp::elections
