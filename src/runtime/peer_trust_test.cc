#include "base/peer_trust.h"

#include <gtest/gtest.h>

#include "base/hash.h"
#include "runtime/openssl_types.h"
#include "runtime/pki.h"
#include "runtime/real_clock.h"

namespace uccp::runtime {
namespace {

class PeerTrustTest : public ::testing::Test {
 protected:
  Result<std::shared_ptr<const PeerTrust>> trust(const std::string& crl_pem = "") {
    return PeerTrust::make({.ca_pem = ca.certificate_pem, .crl_pem = crl_pem, .revoked = revoked});
  }
  std::string reason_for(const PeerTrust& trust, const PemIdentity& who) const {
    const auto certificates = openssl::parse_certificates(who.certificate_pem).value();
    const Status status = trust.accepts(certificates.front().get(), nullptr);
    return status.is_ok() ? "" : std::string(status.reason());
  }
  PemIdentity issue(const std::string& name, int64_t seconds = 1000) const {
    return issue_certificate(ca, {.common_name = name, .seconds = seconds}, now).value();
  }

  const WallTime now = RealClock().wall();
  const PemIdentity ca = create_ca("test CA", 1, now).value();
  const PemIdentity other = create_ca("test CA", 1, now).value();
  std::function<bool(const std::string&)> revoked;
};

TEST_F(PeerTrustTest, AcceptsWhatItsAuthorityIssuedAndNothingElse) {
  const auto made = trust();
  ASSERT_TRUE(made) << made.error().to_string();
  EXPECT_EQ(reason_for(**made, issue("a")), "");
  EXPECT_EQ(reason_for(**made, issue_certificate(other, {.common_name = "a"}, now).value()), "CERTIFICATE_UNTRUSTED");
  const auto ended = issue_certificate(ca, {.common_name = "a", .seconds = 1}, {now.us - 3'600'000'000}).value();
  EXPECT_EQ(reason_for(**made, ended), "CERTIFICATE_UNTRUSTED");
  EXPECT_EQ((*made)->crl_next_update(), std::nullopt);
}

TEST_F(PeerTrustTest, WithPinsOnlyChainsWithAPinnedKeyCount) {
  const auto pin_of = [](const PemIdentity& who) {
    const auto certificates = openssl::parse_certificates(who.certificate_pem).value();
    unsigned char* out = nullptr;
    const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificates.front().get()), &out);
    const std::string digest = sha256(std::string_view(reinterpret_cast<char*>(out), static_cast<size_t>(size)));
    OPENSSL_free(out);
    std::string text(64, '\0');
    text.resize(static_cast<size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                                    reinterpret_cast<const unsigned char*>(digest.data()), 32)));
    return "sha256/" + text;
  };
  const auto pinned = [&](const std::string& text) {
    return PeerTrust::make({.ca_pem = ca.certificate_pem, .pins = parse_pins(text).value()}).value();
  };
  const PemIdentity a = issue("a"), b = issue("b");
  EXPECT_EQ(reason_for(*pinned(pin_of(a)), a), "");
  EXPECT_EQ(reason_for(*pinned(pin_of(a)), b), "CERTIFICATE_UNTRUSTED");
  EXPECT_EQ(reason_for(*pinned(pin_of(b) + ", " + pin_of(a)), b), "");
  EXPECT_EQ(reason_for(*pinned(pin_of(ca)), b), "");
  EXPECT_EQ(reason_for(*pinned(pin_of(other)), b), "CERTIFICATE_UNTRUSTED");
  // A pin makes nobody trusted by itself.
  const PemIdentity stranger = issue_certificate(other, {.common_name = "a"}, now).value();
  EXPECT_EQ(reason_for(*pinned(pin_of(stranger)), stranger), "CERTIFICATE_UNTRUSTED");
  EXPECT_TRUE(parse_pins("")->empty());
  const std::string good = pin_of(a);
  for (const std::string& bad :
       {std::string("x"), good.substr(1), good.substr(0, good.size() - 1), good + "=", "sha1/" + good.substr(7),
        "sha256/" + std::string(43, '!') + "=", good + ",,", "sha256/" + std::string(42, 'A') + "=="}) {
    EXPECT_FALSE(parse_pins(bad).has_value()) << bad;
  }
}

TEST_F(PeerTrustTest, AListRevokesExactlyWhatItNames) {
  const PemIdentity a = issue("a"), b = issue("b");
  const std::string serial = inspect_certificate(a.certificate_pem)->serial;
  const auto made = trust(make_revocation_list(ca, {serial}, now, 3600).value());
  ASSERT_TRUE(made) << made.error().to_string();
  EXPECT_EQ(reason_for(**made, a), "CERTIFICATE_REVOKED");
  EXPECT_EQ(reason_for(**made, b), "");
  EXPECT_EQ((*made)->crl_entries(), 1u);
  EXPECT_EQ((*made)->crl_next_update()->us / 1'000'000, now.us / 1'000'000 + 3600);
  // One that is out of date goes on to count.
  const auto late = trust(make_revocation_list(ca, {serial}, {now.us - 7'200'000'000}, 3600).value());
  EXPECT_EQ(reason_for(**late, a), "CERTIFICATE_REVOKED");
}

TEST_F(PeerTrustTest, AListOfASecondAuthorityDoesNotRevokeSerialsOfTheFirst) {
  const PemIdentity second = create_ca("second CA", 1, now).value();
  const PemIdentity a = issue("a");
  const std::string serial = inspect_certificate(a.certificate_pem)->serial;
  const auto made = PeerTrust::make({.ca_pem = ca.certificate_pem + second.certificate_pem,
                                     .crl_pem = make_revocation_list(second, {serial}, now, 3600).value()});
  ASSERT_TRUE(made);
  EXPECT_EQ(reason_for(**made, a), "");
}

TEST_F(PeerTrustTest, RefusesListsOfStrangersAndWhatIsNoPem) {
  EXPECT_EQ(trust(make_revocation_list(other, {}, now, 3600).value()).error().reason(), "CRL_UNTRUSTED");
  EXPECT_EQ(trust("nothing").error().reason(), "PEM_INVALID");
  EXPECT_EQ(
      trust(make_revocation_list(ca, {}, now, 3600).value() + "-----BEGIN X509 CRL-----\nAA\n-----END X509 CRL-----\n")
          .error()
          .reason(),
      "PEM_INVALID");
  EXPECT_EQ(PeerTrust::make({.ca_pem = ""}).error().reason(), "PEM_INVALID");
  EXPECT_EQ(
      PeerTrust::make({.ca_pem = ca.certificate_pem + "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"})
          .error()
          .reason(),
      "PEM_INVALID");
}

TEST_F(PeerTrustTest, AsksWhetherALeafWasRevoked) {
  const PemIdentity a = issue("a"), b = issue("b");
  std::vector<std::string> asked;
  revoked = [&](const std::string& pem) {
    asked.push_back(inspect_certificate(pem)->common_name);
    return asked.back() == "a";
  };
  const auto made = trust();
  EXPECT_EQ(reason_for(**made, a), "CERTIFICATE_REVOKED");
  EXPECT_EQ(reason_for(**made, b), "");
  EXPECT_EQ(asked, (std::vector<std::string>{"a", "b"}));
}

TEST(SigningRequests, ARequestBringsItsKeyAndNothingElse) {
  const WallTime now = RealClock().wall();
  const PemIdentity ca = create_ca("test CA", 1, now).value();
  const SigningRequest request = make_signing_request().value();
  const std::string made =
      sign_request(ca, request.request_pem, {.common_name = "agent", .organizations = {"agent"}}, now).value();
  EXPECT_TRUE(check_identity({made, request.key_pem}, ca.certificate_pem, now).is_ok());
  EXPECT_EQ(inspect_certificate(made)->common_name, "agent");
  std::string broken = request.request_pem;
  // A bit of the signature, which is at the end.
  const size_t at = broken.find("-----END") - 8;
  broken[at] = broken[at] == 'A' ? 'B' : 'A';
  for (const std::string& wrong : {broken, std::string("none"), ca.certificate_pem}) {
    EXPECT_EQ(sign_request(ca, wrong, {.common_name = "x"}, now).error().reason(), "SIGNING_REQUEST_INVALID");
  }
}

}  // namespace
}  // namespace uccp::runtime
