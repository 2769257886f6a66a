#include "runtime/pki.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "runtime/dev_pki.h"
#include "runtime/jwt.h"
#include "runtime/posix_file_system.h"
#include "runtime/test_support.h"

namespace uccp::runtime {
namespace {

using testing::FixedClock;
using testing::TemporaryDirectory;

constexpr int64_t kDayUs = int64_t{24} * 3600 * 1'000'000;

TEST(Pki, ACertificateSaysWhatWasAskedFor) {
  const WallTime now = RealClock().wall();
  const PemIdentity ca = create_ca("test CA", 10, now).value();
  const PemIdentity issued = issue_certificate(ca,
                                               {.common_name = "alice",
                                                .organizations = {"operator", "auditor"},
                                                .dns_names = {"localhost", "a.example"},
                                                .ip_addresses = {"127.0.0.1", "::1"},
                                                .uris = {principal_uri("acme", "alice")},
                                                .seconds = 90 * 86400,
                                                .use = CertificateUse::kServerAndClient},
                                               now)
                                 .value();
  const CertificateInfo info = inspect_certificate(issued.certificate_pem).value();
  EXPECT_EQ(info.common_name, "alice");
  EXPECT_EQ(info.organizations, (std::vector<std::string>{"operator", "auditor"}));
  EXPECT_EQ(info.dns_names, (std::vector<std::string>{"localhost", "a.example"}));
  EXPECT_EQ(info.ip_addresses, (std::vector<std::string>{"127.0.0.1", "::1"}));
  EXPECT_EQ(info.uris, (std::vector<std::string>{"spiffe://uccp/tenant/acme/principal/alice"}));
  EXPECT_EQ(info.not_after.us / 1'000'000, (now.us + 90 * kDayUs) / 1'000'000);
  EXPECT_LT(info.not_before, now);
  EXPECT_EQ(info.serial.size(), 32u);
  EXPECT_EQ(info.fingerprint.size(), 64u);
  EXPECT_FALSE(info.is_authority);
  EXPECT_TRUE(inspect_certificate(ca.certificate_pem)->is_authority);
  EXPECT_TRUE(check_identity(issued, ca.certificate_pem, now).is_ok());
  EXPECT_TRUE(check_identity(ca, ca.certificate_pem, now).is_ok());
}

TEST(Pki, ANameCannotSmuggleInAnother) {
  const WallTime now = RealClock().wall();
  const PemIdentity ca = create_ca("test CA", 10, now).value();
  const auto issued = issue_certificate(
      ca, {.common_name = "eve", .dns_names = {"a.example,DNS:b.example"}, .uris = {"spiffe://a,URI:spiffe://b"}}, now);
  ASSERT_TRUE(issued);
  const CertificateInfo info = inspect_certificate(issued->certificate_pem).value();
  EXPECT_EQ(info.dns_names.size(), 1u);
  EXPECT_EQ(info.uris.size(), 1u);
}

TEST(Pki, ARequestThatCannotBeMadeIsInvalid) {
  const WallTime now = RealClock().wall();
  const PemIdentity ca = create_ca("test CA", 10, now).value();
  const std::vector<CertificateRequest> wrong = {
      {.common_name = ""},
      {.common_name = std::string(200, 'x')},
      {.common_name = "a", .ip_addresses = {"300.1.1.1"}},
      {.common_name = "a", .uris = {std::string("a\0b", 3)}},
      {.common_name = "a", .dns_names = {""}},
      {.common_name = "a", .seconds = 0},
  };
  for (const CertificateRequest& request : wrong) {
    const auto issued = issue_certificate(ca, request, now);
    ASSERT_FALSE(issued);
    EXPECT_EQ(issued.error().reason(), "CERTIFICATE_REQUEST_INVALID");
  }
  EXPECT_EQ(issue_certificate({"no", "no"}, {.common_name = "a"}, now).error().reason(), "PEM_INVALID");
}

TEST(Pki, AnIdentityIsRefusedWithTheWrongKeyAuthorityOrTime) {
  const WallTime now = RealClock().wall();
  const PemIdentity ca = create_ca("test CA", 10, now).value();
  const PemIdentity other = create_ca("test CA", 10, now).value();
  const PemIdentity a = issue_certificate(ca, {.common_name = "a", .seconds = 10 * 86400}, now).value();
  const PemIdentity b = issue_certificate(ca, {.common_name = "b", .seconds = 10 * 86400}, now).value();
  EXPECT_EQ(check_identity({a.certificate_pem, b.key_pem}, ca.certificate_pem, now).reason(), "KEY_MISMATCH");
  EXPECT_EQ(check_identity(a, other.certificate_pem, now).reason(), "CERTIFICATE_UNTRUSTED");
  EXPECT_EQ(check_identity(a, ca.certificate_pem, {now.us + 11 * kDayUs}).reason(), "CERTIFICATE_EXPIRED");
  EXPECT_EQ(check_identity(a, ca.certificate_pem, {now.us - kDayUs}).reason(), "CERTIFICATE_EXPIRED");
  EXPECT_EQ(check_identity({"x", a.key_pem}, ca.certificate_pem, now).reason(), "PEM_INVALID");
  EXPECT_EQ(inspect_certificate("").error().reason(), "PEM_INVALID");
  EXPECT_EQ(inspect_certificate(a.key_pem).error().reason(), "PEM_INVALID");
}

class DevPkiTest : public ::testing::Test {
 protected:
  Result<DevPki> ensure() { return ensure_dev_pki(files, clock, options); }

  TemporaryDirectory directory;
  PosixFileSystem files;
  FixedClock clock;
  DevPkiOptions options{.directory = directory.at("pki"), .cluster_id = "c1", .node = NodeId(3)};
};

TEST_F(DevPkiTest, MakesUsableIdentitiesInFilesForTheirOwnerOnly) {
  const Result<DevPki> made = ensure();
  ASSERT_TRUE(made) << made.error().to_string();
  for (const PemIdentity* identity : {&made->server, &made->admin, &made->agent, &made->node}) {
    EXPECT_TRUE(check_identity(*identity, made->ca.certificate_pem, clock.wall()).is_ok());
  }
  const CertificateInfo admin = inspect_certificate(made->admin.certificate_pem).value();
  EXPECT_EQ(admin.uris, (std::vector<std::string>{"spiffe://uccp/tenant/default/principal/admin"}));
  EXPECT_EQ(admin.organizations, (std::vector<std::string>{"admin"}));
  const CertificateInfo node = inspect_certificate(made->node.certificate_pem).value();
  EXPECT_EQ(node.uris, (std::vector<std::string>{"spiffe://uccp/cluster/c1/node/3"}));
  EXPECT_TRUE(TokenSigner::from_pem(made->token_key_pem));
  const std::vector<std::string> names = files.list(options.directory).value();
  EXPECT_EQ(names.size(), 11u);
  for (const std::string& name : names) {
    struct stat info{};
    ASSERT_EQ(::stat((options.directory + "/" + name).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0600u) << name;
  }
}

TEST_F(DevPkiTest, KeepsEverythingAcrossRestarts) {
  const DevPki first = ensure().value();
  const DevPki second = ensure().value();
  EXPECT_EQ(first.ca.certificate_pem, second.ca.certificate_pem);
  EXPECT_EQ(first.server.certificate_pem, second.server.certificate_pem);
  EXPECT_EQ(first.admin.key_pem, second.admin.key_pem);
  EXPECT_EQ(first.token_key_pem, second.token_key_pem);
}

TEST_F(DevPkiTest, RenewsCertificatesThirtyDaysBeforeTheirEndButKeepsTheAuthority) {
  const DevPki first = ensure().value();
  clock.advance_days(334);
  EXPECT_EQ(ensure()->server.certificate_pem, first.server.certificate_pem);
  clock.advance_days(2);
  const DevPki renewed = ensure().value();
  EXPECT_NE(renewed.server.certificate_pem, first.server.certificate_pem);
  EXPECT_EQ(renewed.ca.certificate_pem, first.ca.certificate_pem);
  EXPECT_TRUE(check_identity(renewed.server, first.ca.certificate_pem, clock.wall()).is_ok());
}

TEST_F(DevPkiTest, RenewsTheAuthorityTogetherWithEverythingBelowIt) {
  const DevPki first = ensure().value();
  clock.advance_days(3650 - 20);
  const DevPki renewed = ensure().value();
  EXPECT_NE(renewed.ca.certificate_pem, first.ca.certificate_pem);
  EXPECT_TRUE(check_identity(renewed.node, renewed.ca.certificate_pem, clock.wall()).is_ok());
}

TEST_F(DevPkiTest, WhatAnAuthorityOnItsWayOutSignedIsReplaced) {
  const DevPki first = ensure().value();
  PemIdentity both = create_ca("the next", 10, clock.wall()).value();
  const std::string next = both.certificate_pem;
  both.certificate_pem += first.ca.certificate_pem;
  ASSERT_TRUE(replace_authority(files, both, first.paths).is_ok());
  const DevPki second = ensure().value();
  EXPECT_EQ(split_pem(second.ca.certificate_pem), (std::vector<std::string>{next, first.ca.certificate_pem}));
  for (const PemIdentity* identity : {&second.server, &second.node, &second.admin, &second.agent}) {
    EXPECT_TRUE(check_identity(*identity, next, clock.wall()).is_ok());
  }
}

TEST_F(DevPkiTest, IssuesANewCertificateWhenANameIsMissingOrAFileIsDamaged) {
  const DevPki first = ensure().value();
  options.hosts = {"10.1.2.3", "db.example"};
  const DevPki second = ensure().value();
  EXPECT_NE(second.server.certificate_pem, first.server.certificate_pem);
  EXPECT_EQ(second.admin.certificate_pem, first.admin.certificate_pem);
  ASSERT_TRUE(write_file_atomically(files, first.paths.admin_key, "garbage").is_ok());
  EXPECT_NE(ensure()->admin.certificate_pem, first.admin.certificate_pem);
}

TEST_F(DevPkiTest, NeverReplacesADamagedAuthority) {
  const DevPki first = ensure().value();
  ASSERT_TRUE(write_file_atomically(files, first.paths.ca_certificate, "garbage").is_ok());
  EXPECT_EQ(ensure().error().code(), Code::kCorruption);
  EXPECT_EQ(read_file(files, first.paths.ca_certificate, 100).value(), "garbage");
}

}  // namespace
}  // namespace uccp::runtime
