#include "doors/etcd/etcd_convert.h"

#include <gtest/gtest.h>

#include "doors/etcd/etcd_errors.h"

namespace uccp::doors {
namespace {

TEST(EtcdConvert, ARangeWithALimitIsCountedWholeAndOthersAreNot) {
  etcd::RangeRequest request;
  request.set_key("a");
  EXPECT_FALSE(from_etcd(request).count_total()) << "one key counts itself";
  request.set_range_end("b");
  EXPECT_FALSE(from_etcd(request).count_total()) << "all of it is answered";
  request.set_limit(10);
  EXPECT_TRUE(from_etcd(request).count_total());
  request.set_limit(0);
  request.set_min_mod_revision(3);
  EXPECT_TRUE(from_etcd(request).count_total()) << "the count ignores filters";
  request.set_count_only(true);
  EXPECT_FALSE(from_etcd(request).count_total());
}

TEST(EtcdConvert, ATargetWithoutAnOrderSortsAscending) {
  etcd::RangeRequest request;
  EXPECT_EQ(from_etcd(request).order_by(), v1::KEY_ORDER_UNSPECIFIED);
  request.set_sort_target(etcd::RangeRequest::MOD);
  EXPECT_EQ(from_etcd(request).order_by(), v1::KEY_ORDER_MOD_REVISION);
  EXPECT_FALSE(from_etcd(request).descending());
  request.set_sort_order(etcd::RangeRequest::DESCEND);
  EXPECT_TRUE(from_etcd(request).descending());
}

TEST(EtcdConvert, AComparisonWithZeroKeepsItsTarget) {
  etcd::TxnRequest request;
  etcd::Compare& compare = *request.add_compare();
  compare.set_key("k");
  compare.set_target(etcd::Compare::CREATE);
  const Result<v1::TxnRequest> converted = from_etcd(request);
  ASSERT_TRUE(converted);
  EXPECT_EQ(converted->compare(0).target_case(), v1::KeyCompare::kCreateRevision);
  EXPECT_EQ(converted->compare(0).result(), v1::COMPARE_RESULT_EQUAL);
}

// With the errors that etcd has for them.
TEST(EtcdConvert, OperationsAndComparisonsThatNameNothingAreRefused) {
  etcd::TxnRequest request;
  request.add_success();
  EXPECT_EQ(from_etcd(request).error().reason(), "KEY_NOT_FOUND");
  etcd::TxnRequest outer;
  *outer.add_failure()->mutable_request_txn() = request;
  EXPECT_EQ(from_etcd(outer).error().reason(), "KEY_NOT_FOUND") << "inside as well";
  request.mutable_success(0)->mutable_request_range();
  EXPECT_EQ(from_etcd(request).error().reason(), "KEY_MISSING");
  request.mutable_success(0)->mutable_request_put();
  EXPECT_EQ(from_etcd(request).error().reason(), "KEY_MISSING");
  request.mutable_success(0)->mutable_request_delete_range();
  EXPECT_EQ(from_etcd(request).error().reason(), "KEY_MISSING");
  request.Clear();
  request.add_compare();
  EXPECT_EQ(from_etcd(request).error().reason(), "KEY_MISSING");
}

TEST(EtcdConvert, PartsOfATransactionTellItsRevision) {
  etcd::TxnRequest request;
  request.add_success()->mutable_request_put()->set_key("k");
  request.add_success()->mutable_request_range()->set_key("k");
  v1::TxnResponse answer;
  answer.set_revision(9);
  answer.set_succeeded(true);
  answer.add_responses()->mutable_put();
  answer.add_responses()->mutable_range()->add_pairs()->set_key("k");
  const etcd::TxnResponse converted = to_etcd(answer, request);
  ASSERT_EQ(converted.responses_size(), 2);
  EXPECT_EQ(converted.responses(0).response_put().header().revision(), 9);
  EXPECT_EQ(converted.responses(1).response_range().header().revision(), 9);
  EXPECT_EQ(converted.responses(1).response_range().count(), 1);
}

TEST(EtcdErrors, HaveTheCodesAndTextsThatClientsCompare) {
  const auto of = [](Code code, const char* reason) { return etcd_error(Status(code, reason, "x")); };
  EXPECT_EQ(etcd_error(Status::ok()).grpc_code, 0);
  EXPECT_EQ(of(Code::kFailedPrecondition, "REVISION_COMPACTED").grpc_code, 11);
  EXPECT_EQ(of(Code::kFailedPrecondition, "REVISION_COMPACTED").text,
            "etcdserver: mvcc: required revision has been compacted");
  EXPECT_EQ(of(Code::kNotFound, "LEASE_NOT_FOUND").text, "etcdserver: requested lease not found");
  EXPECT_EQ(of(Code::kUnauthenticated, "TOKEN_EXPIRED").grpc_code, 16);
  EXPECT_EQ(of(Code::kInternal, "NO_LEADER").text, "election: no leader");
  EXPECT_EQ(of(Code::kNotLeader, "NOT_LEADER").text, "etcdserver: no leader");
  EXPECT_EQ(of(Code::kInvalid, "FIELD_INVALID").text, "etcdserver: x") << "others keep what was wrong";
}

}  // namespace
}  // namespace uccp::doors
