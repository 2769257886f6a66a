#include "services/certificates/certificates_state.h"

#include <gtest/gtest.h>

#include "services/coordination_test_node.h"

namespace uccp::certificates {
namespace {

using internal::v1::AuthoritiesRow;
using internal::v1::AuthorityRow;
using internal::v1::RotateCertificatesCommand;

AuthorityRow authority(const std::string& name, int64_t signs_from_us = 0) {
  AuthorityRow row;
  row.set_certificate_pem(name);
  row.set_signs_from_us(signs_from_us);
  return row;
}

std::vector<std::string> names(const AuthoritiesRow& row, int64_t now_us) {
  std::vector<std::string> out;
  for (const AuthorityRow* one : trusted_authorities(row, {now_us})) out.push_back(one->certificate_pem());
  return out;
}

class CertificatesStateTest : public ::testing::Test {
 protected:
  CertificatesStateTest() { lab.start(); }

  Result<AuthoritiesRow> rotate(const RotateCertificatesCommand& command) {
    machine::Envelope envelope;
    envelope.command = "certificates.rotate";
    envelope.payload = command.SerializeAsString();
    std::optional<Result<machine::Applied>> done;
    lab.node.propose(kCoreGroup, std::move(envelope),
                     [&](Result<machine::Applied> applied) { done = std::move(applied); });
    EXPECT_TRUE(lab.wait([&] { return done.has_value(); }));
    if (!*done) return std::unexpected(std::move(done->error()));
    AuthoritiesRow row;
    EXPECT_TRUE(row.ParseFromString((*done)->response));
    return row;
  }
  static RotateCertificatesCommand new_authority(const std::string& name, int64_t now_us, int64_t overlap_us) {
    RotateCertificatesCommand command;
    command.set_scope(v1::CERTIFICATE_SCOPE_AUTHORITY);
    command.set_request_us(now_us);
    command.set_old_trusted_until_us(now_us + overlap_us);
    *command.mutable_authority() = authority(name, now_us + overlap_us / 2);
    *command.add_known() = authority("first");
    return command;
  }

  CertificatesState state;
  coordination::TestNode lab{{&state}};
};

TEST_F(CertificatesStateTest, ANewAuthorityIsTrustedAtOnceSignsAtHalfTimeAndIsAloneAtTheEnd) {
  const auto row = rotate(new_authority("second", 1'000, 100));
  ASSERT_TRUE(row) << row.error().to_string();
  EXPECT_EQ(names(*row, 1'000), (std::vector<std::string>{"first", "second"}));
  EXPECT_EQ(names(*row, 1'049), (std::vector<std::string>{"first", "second"}));
  EXPECT_EQ(names(*row, 1'050), (std::vector<std::string>{"second", "first"}));
  EXPECT_EQ(names(*row, 1'099), (std::vector<std::string>{"second", "first"}));
  EXPECT_EQ(names(*row, 1'100), (std::vector<std::string>{"second"}));
  EXPECT_EQ(row->generation(), 1u);
}

TEST_F(CertificatesStateTest, AnotherAuthorityWaitsForTheEndOfTheOverlap) {
  ASSERT_TRUE(rotate(new_authority("second", 1'000, 100)));
  EXPECT_EQ(rotate(new_authority("third", 1'050, 100)).error().reason(), "ROTATION_UNDER_WAY");
  const auto row = rotate(new_authority("third", 1'100, 100));
  ASSERT_TRUE(row) << row.error().to_string();
  EXPECT_EQ(names(*row, 1'100), (std::vector<std::string>{"second", "third"}));
}

TEST_F(CertificatesStateTest, WithoutOverlapTheOldOnesAreForgottenEvenDuringAnother) {
  ASSERT_TRUE(rotate(new_authority("second", 1'000, 100)));
  const auto row = rotate(new_authority("third", 1'050, 0));
  ASSERT_TRUE(row) << row.error().to_string();
  EXPECT_EQ(names(*row, 1'050), (std::vector<std::string>{"third"}));
}

TEST_F(CertificatesStateTest, RenewalsNameNodesAndTimes) {
  RotateCertificatesCommand command;
  command.set_scope(v1::CERTIFICATE_SCOPE_NODES);
  command.set_request_us(5);
  command.add_node_ids("n2");
  *command.add_known() = authority("first");
  auto row = rotate(command);
  ASSERT_TRUE(row);
  EXPECT_EQ(row->nodes_issued_before_us(), 5);
  EXPECT_EQ(row->node_ids(0), "n2");
  command.set_scope(v1::CERTIFICATE_SCOPE_AGENTS);
  command.set_request_us(9);
  row = rotate(command);
  EXPECT_EQ(row->agents_issued_before_us(), 9);
  EXPECT_EQ(row->nodes_issued_before_us(), 5);
  EXPECT_EQ(row->generation(), 2u);
  EXPECT_EQ(names(*row, 10), (std::vector<std::string>{"first"}));
}

TEST_F(CertificatesStateTest, ReportsAreKeptForAsManyNodesAsAClusterHas) {
  const auto report = [&](const std::string& node) {
    internal::v1::ReportCertificatesCommand command;
    command.set_node_id(node);
    machine::Envelope envelope;
    envelope.command = "certificates.report";
    envelope.payload = command.SerializeAsString();
    std::string reason = "none";
    lab.node.propose(kCoreGroup, std::move(envelope), [&](Result<machine::Applied> applied) {
      reason = applied ? "" : std::string(applied.error().reason());
    });
    EXPECT_TRUE(lab.wait([&] { return reason != "none"; }));
    return reason;
  };
  for (size_t i = 1; i <= kNodesMax; ++i) EXPECT_EQ(report("n" + std::to_string(i)), "");
  EXPECT_EQ(report("n1"), "");
  EXPECT_EQ(report("n99"), "CERTIFICATE_NODES_LIMIT");
}

}  // namespace
}  // namespace uccp::certificates
