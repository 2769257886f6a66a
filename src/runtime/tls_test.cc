#include "runtime/tls.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "runtime/openssl_types.h"
#include "runtime/real_clock.h"

namespace uccp::runtime {
namespace {

using Connection = std::unique_ptr<SSL, openssl::Free<SSL_free>>;

class TlsTest : public ::testing::Test {
 protected:
  struct Ends {
    Connection client;
    Connection server;
    bool established = false;
  };

  // A handshake in memory.
  Ends connect(const TlsContext& client_context, const TlsContext& server_context, const std::string& host = {},
               int client_version_max = 0) {
    Ends ends{Connection(SSL_new(client_context.get())), Connection(SSL_new(server_context.get()))};
    BIO* client_bio = nullptr;
    BIO* server_bio = nullptr;
    BIO_new_bio_pair(&client_bio, 0, &server_bio, 0);
    SSL_set_bio(ends.client.get(), client_bio, client_bio);
    SSL_set_bio(ends.server.get(), server_bio, server_bio);
    SSL_set_connect_state(ends.client.get());
    SSL_set_accept_state(ends.server.get());
    if (client_version_max != 0) {
      SSL_set_min_proto_version(ends.client.get(), TLS1_2_VERSION);
      SSL_set_max_proto_version(ends.client.get(), client_version_max);
    }
    if (!host.empty()) EXPECT_TRUE(expect_server(ends.client.get(), host).is_ok());
    bool client_done = false;
    bool server_done = false;
    for (int turn = 0; turn < 10; ++turn) {
      client_done = SSL_do_handshake(ends.client.get()) == 1;
      server_done = SSL_do_handshake(ends.server.get()) == 1;
    }
    ends.established = client_done && server_done;
    take_openssl_errors();
    return ends;
  }

  TlsContext server(PeerCertificate wanted) {
    return make_server_context({server_identity, ca.certificate_pem, wanted}).value();
  }

  WallTime now = RealClock().wall();
  PemIdentity ca = create_ca("CA", 1, now).value();
  PemIdentity other_ca = create_ca("other CA", 1, now).value();
  PemIdentity server_identity = issue_certificate(ca,
                                                  {.common_name = "server",
                                                   .dns_names = {"localhost"},
                                                   .ip_addresses = {"127.0.0.1"},
                                                   .use = CertificateUse::kServer},
                                                  now)
                                    .value();
  PemIdentity alice =
      issue_certificate(ca, {.common_name = "alice", .uris = {principal_uri("t", "alice")}}, now).value();
  PemIdentity mallory = issue_certificate(other_ca, {.common_name = "mallory"}, now).value();
};

TEST_F(TlsTest, AServerLearnsWhoTheClientIs) {
  const TlsContext client = make_client_context({alice, ca.certificate_pem}).value();
  const Ends ends = connect(client, server(PeerCertificate::kRequired), "localhost");
  ASSERT_TRUE(ends.established);
  EXPECT_STREQ(SSL_get_version(ends.server.get()), "TLSv1.3");
  const CertificateInfo seen = peer_certificate(ends.server.get()).value();
  EXPECT_EQ(seen.common_name, "alice");
  EXPECT_EQ(seen.uris, (std::vector<std::string>{principal_uri("t", "alice")}));
  EXPECT_EQ(seen.fingerprint, inspect_certificate(alice.certificate_pem)->fingerprint);
}

TEST_F(TlsTest, AClientWithoutCertificateIsWelcomeOnlyWhereItIsOptional) {
  const TlsContext client = make_client_context({{}, ca.certificate_pem}).value();
  const Ends optional = connect(client, server(PeerCertificate::kOptional));
  EXPECT_TRUE(optional.established);
  EXPECT_EQ(peer_certificate(optional.server.get()).error().reason(), "PEER_CERTIFICATE_MISSING");
  EXPECT_FALSE(connect(client, server(PeerCertificate::kRequired)).established);
}

TEST_F(TlsTest, ACertificateOfAnotherAuthorityIsRefusedEvenWhereItIsOptional) {
  const TlsContext client = make_client_context({mallory, ca.certificate_pem}).value();
  EXPECT_FALSE(connect(client, server(PeerCertificate::kOptional)).established);
}

TEST_F(TlsTest, AClientRefusesAServerOfAnotherAuthorityOrName) {
  const TlsContext stranger = make_client_context({alice, other_ca.certificate_pem}).value();
  EXPECT_FALSE(connect(stranger, server(PeerCertificate::kOptional)).established);
  const TlsContext client = make_client_context({alice, ca.certificate_pem}).value();
  EXPECT_TRUE(connect(client, server(PeerCertificate::kOptional), "127.0.0.1").established);
  EXPECT_FALSE(connect(client, server(PeerCertificate::kOptional), "127.0.0.2").established);
  EXPECT_FALSE(connect(client, server(PeerCertificate::kOptional), "example.org").established);
}

TEST_F(TlsTest, AClientCertificateDoesNotMakeAServer) {
  const TlsContext posing = make_server_context({alice, ca.certificate_pem, PeerCertificate::kNotAsked}).value();
  const TlsContext client = make_client_context({{}, ca.certificate_pem}).value();
  EXPECT_FALSE(connect(client, posing).established);
}

TEST_F(TlsTest, OlderVersionsAreRefused) {
  const TlsContext client = make_client_context({alice, ca.certificate_pem}).value();
  EXPECT_FALSE(connect(client, server(PeerCertificate::kOptional), {}, TLS1_2_VERSION).established);
}

TEST_F(TlsTest, AContextNeedsAMatchingPair) {
  EXPECT_EQ(
      make_server_context({{alice.certificate_pem, server_identity.key_pem}, ca.certificate_pem}).error().reason(),
      "KEY_MISMATCH");
  EXPECT_EQ(make_server_context({{"x", "y"}, ca.certificate_pem}).error().reason(), "PEM_INVALID");
  EXPECT_EQ(make_client_context({alice, "x"}).error().reason(), "PEM_INVALID");
}

}  // namespace
}  // namespace uccp::runtime
