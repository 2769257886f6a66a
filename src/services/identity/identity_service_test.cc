#include "services/identity/identity_service.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/bytes.h"
#include "base/hash.h"
#include "services/coordination_test_node.h"
#include "services/feature_types.h"

namespace uccp::identity {
namespace {

// Quick and visible instead of strong.
class FakeCrypto final : public IdentityCrypto {
 public:
  Result<std::string> hash_password(const std::string& password) override { return "h:" + to_hex(sha256(password)); }
  bool check_password(const std::string& hash, const std::string& password) override {
    ++checked;
    return hash == "h:" + to_hex(sha256(password));
  }
  Result<std::string> hash_api_key(const std::string& secret) override { return hash_password(secret); }
  std::string seal(std::string_view secret, std::string_view context) override {
    return "sealed:" + std::string(context) + ":" + std::string(secret);
  }
  Result<std::string> open(std::string_view sealed, std::string_view context) override {
    const std::string prefix = "sealed:" + std::string(context) + ":";
    if (!sealed.starts_with(prefix)) return fail(Code::kFailedPrecondition, "SEAL_BROKEN", "no");
    return std::string(sealed.substr(prefix.size()));
  }
  std::string random_bytes(size_t size) override {
    std::string out;
    while (out.size() < size) out += sha256(std::to_string(++drawn_));
    return out.substr(0, size);
  }
  std::string totp(std::string_view secret, uint64_t step) override {
    return std::to_string(100'000 + hash64(std::string(secret) + std::to_string(step)) % 900'000);
  }
  Result<SigningKeyPair> make_signing_key() override {
    const std::string id = "k" + std::to_string(++keys_);
    return SigningKeyPair{.key_id = id, .public_pem = "public " + id, .private_pem = "private " + id};
  }
  Result<std::string> sign(const std::string& private_pem, const AccessTokenClaims& claims) override {
    last = claims;
    return "token of " + private_pem;
  }
  Result<PublicJwk> jwk(const std::string& public_pem) override {
    return PublicJwk{.kty = "OKP", .crv = "Ed25519", .x = "x", .kid = public_pem.substr(7), .alg = "EdDSA"};
  }
  std::pair<std::string, std::string> token_id(const std::string& token) override { return {token, ""}; }

  AccessTokenClaims last;
  int checked = 0;

 private:
  int drawn_ = 0;
  int keys_ = 0;
};

class IdentityServiceTest : public ::testing::Test {
 protected:
  IdentityServiceTest() {
    lab.start();
    directory = IdentityDirectory::make(
        {lab.node, [this] { return lab.node.view(kCoreGroup); }, key_secrets, lab.work, lab.clock, lab.metrics});
    service = std::make_unique<IdentityService>(
        IdentityEnvironment{.proposer = lab.node,
                            .reader = lab.node,
                            .work = lab.work,
                            .passwords = lab.work,
                            .clock = lab.clock,
                            .random = lab.service_random,
                            .metrics = lab.metrics,
                            .page_tokens = lab.signer,
                            .crypto = crypto,
                            .key_secrets = key_secrets,
                            .directory = *directory,
                            .feature_level = [this] { return feature_level; },
                            .has_data = [this](const machine::Scope&) { return has_data; }});
    service->add_handlers(lab.handlers);
    directory->start();
    lab.scheduler.run_for_ms(10);
  }
  ~IdentityServiceTest() override { directory->stop(); }

  call::Principal principal(std::string name, std::string tenant = "acme", std::vector<std::string> roles = {}) {
    call::Principal p;
    p.kind = call::Principal::Kind::kUser;
    p.tenant = std::move(tenant);
    p.name = std::move(name);
    p.roles = std::move(roles);
    directory->complete(p);
    return p;
  }
  call::Principal operators() { return principal("root", "default", {"admin"}); }
  call::Principal admin() { return principal("root", "acme", {"admin"}); }

  coordination::Exchange ask(std::string_view rpc, const std::string& json, const call::Principal& who,
                             std::string request_id = "", std::string address = "10.0.0.1:1") {
    coordination::Exchange x{std::make_shared<call::Call>(), std::make_shared<coordination::Collector>()};
    x.call->method = call::Contract::get().find(
        (rpc == "RevokeToken" ? "uccp.v1.Administration/" : "uccp.v1.Identity/") + std::string(rpc));
    x.call->sink = x.sink;
    x.call->principal = who;
    x.call->request_id = request_id;
    x.call->credentials.address = std::move(address);
    x.call->read_level = machine::ReadLevel::linearizable();
    x.call->deadline = lab.clock.boot().plus_ms(30'000);
    auto wire = call::json_to_wire(*x.call->method->request, json);
    EXPECT_TRUE(wire) << (wire ? "" : wire.error().to_string());
    (*lab.handlers.find(x.call->method))(x.call, std::move(*wire));
    EXPECT_TRUE(lab.wait([&] { return x.done(); })) << rpc;
    lab.scheduler.run_for_ms(20);  // the directory follows
    return x;
  }
  void must(std::string_view rpc, const std::string& json, const call::Principal& who) {
    const auto x = ask(rpc, json, who);
    EXPECT_EQ(x.reason(), "") << rpc << " " << x.sink->status.to_string();
  }
  void make_acme() {
    must("CreateTenant", R"({"tenant":{"name":"acme"}})", operators());
    must("CreateUser", R"({"user":{"name":"ana","password":"four small words"}})", admin());
  }
  coordination::Exchange sign_in(const std::string& password = "four small words", const std::string& more = "",
                                 const std::string& address = "10.0.0.1:1") {
    return ask("SignIn", R"({"tenant":"acme","name":"ana","password":")" + password + "\"" + more + "}", {}, "",
               address);
  }

  IdentityState state;
  coordination::TestNode lab{{&state}};
  FakeCrypto crypto;
  ApiKeySecrets key_secrets{crypto};
  uint32_t feature_level = services::kAdministrationLevel;
  std::shared_ptr<IdentityDirectory> directory;
  std::unique_ptr<IdentityService> service;
  bool has_data = false;
};

TEST_F(IdentityServiceTest, ATenantIsMadeSuspendedAndGoneForGood) {
  make_acme();
  EXPECT_EQ(ask("CreateTenant", R"({"tenant":{"name":"acme"}})", operators()).reason(), "ALREADY_EXISTS");
  EXPECT_TRUE(directory->check_principal("acme", "ana").is_ok());
  must("UpdateTenant", R"({"tenant":{"name":"acme","status":"SUSPENDED"}})", operators());
  EXPECT_EQ(directory->check_principal("acme", "ana").reason(), "TENANT_SUSPENDED");
  has_data = true;
  EXPECT_EQ(ask("DeleteTenant", R"({"name":"acme"})", operators()).reason(), "TENANT_NOT_EMPTY");
  has_data = false;
  must("DeleteTenant", R"({"name":"acme"})", operators());
  EXPECT_EQ(directory->check_principal("acme", "ana").reason(), "TENANT_DELETED");
  EXPECT_FALSE(kUsers.contains(lab.node.view(kCoreGroup), tenant_scope("acme"), "ana")) << "its rows are erased";
  EXPECT_EQ(ask("CreateTenant", R"({"tenant":{"name":"acme"}})", operators()).reason(), "ALREADY_EXISTS");
  EXPECT_EQ(ask("CreateUser", R"({"user":{"name":"bob"},"tenant":"acme"})", operators()).reason(), "TENANT_NOT_FOUND");
}

TEST_F(IdentityServiceTest, OthersTenantsTakeAnOperator) {
  make_acme();
  must("CreateUser", R"({"user":{"name":"bob"},"tenant":"acme"})", operators());
  EXPECT_EQ(ask("GetUser", R"({"name":"x","tenant":"default"})", admin()).reason(), "TENANT_DENIED");
  EXPECT_EQ(ask("ListUsers", R"({"tenant":"default"})", admin()).reason(), "TENANT_DENIED");
}

TEST_F(IdentityServiceTest, ThePasswordIsNeitherStoredNorAnswered) {
  make_acme();
  const auto row = kUsers.get(lab.node.view(kCoreGroup), tenant_scope("acme"), "ana");
  ASSERT_TRUE(row);
  EXPECT_TRUE(row->user().has_password());
  EXPECT_EQ(row->SerializeAsString().find("four small words"), std::string::npos);
  EXPECT_TRUE(row->user().password().empty());
}

TEST_F(IdentityServiceTest, SignInRotatesAndAReusedRefreshTokenEndsTheSession) {
  make_acme();
  const auto first = sign_in().answer<v1::Tokens>();
  EXPECT_EQ(first.principal(), "ana");
  EXPECT_EQ(crypto.last.session.substr(0, 4), "ses_");
  const auto exchange = [&](const std::string& token) {
    return ask("ExchangeToken", R"({"refreshToken":")" + token + "\"}", {});
  };
  const auto second = exchange(first.refresh_token()).answer<v1::Tokens>();
  EXPECT_NE(second.refresh_token(), first.refresh_token());
  EXPECT_TRUE(directory->check_token("acme", "ana", "tok_1", crypto.last.session, lab.clock.wall().us).is_ok());
  EXPECT_EQ(exchange(first.refresh_token()).reason(), "REFRESH_REUSED");
  EXPECT_EQ(exchange(second.refresh_token()).reason(), "REFRESH_REFUSED");
  EXPECT_EQ(directory->check_token("acme", "ana", "tok_1", crypto.last.session, lab.clock.wall().us).reason(),
            "TOKEN_REVOKED");
}

TEST_F(IdentityServiceTest, GuessesLockTheUserForEverLongerTimes) {
  make_acme();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(sign_in("wrong", "", "10.0.0." + std::to_string(i) + ":1").reason(), "SIGN_IN_REFUSED") << i;
  }
  const auto locked = sign_in();
  EXPECT_EQ(locked.reason(), "SIGN_IN_THROTTLED");
  EXPECT_GT(locked.sink->status.detail().retry_after_ms, 0u);
  lab.scheduler.run_for_ms(1'100);
  // Time of the machine moves with what is committed.
  must("CreateUser", R"({"user":{"name":"tick"}})", admin());
  EXPECT_EQ(sign_in().reason(), "");
}

TEST_F(IdentityServiceTest, GuessesFromOneAddressAreSlowedWhateverTheName) {
  make_acme();
  std::string reason;
  for (int i = 0; i < 30 && reason != "SIGN_IN_THROTTLED"; ++i) {
    reason = ask("SignIn", R"({"tenant":"acme","name":"u)" + std::to_string(i) + R"(","password":"wrong"})", {}, "",
                 "10.9.9.9:1")
                 .reason();
  }
  EXPECT_EQ(reason, "SIGN_IN_THROTTLED");
  EXPECT_EQ(sign_in("four small words", "", "10.9.9.8:1").reason(), "") << "another address";
}

TEST_F(IdentityServiceTest, ACodeIsGoodOnce) {
  make_acme();
  const call::Principal ana = principal("ana");
  must("EnrollMfa", "{}", ana);
  const auto row = kUsers.get(lab.node.view(kCoreGroup), tenant_scope("acme"), "ana");
  const std::string secret = *crypto.open(row->totp_sealed(), "totp acme/ana");
  const auto step = static_cast<uint64_t>(lab.clock.wall().us / 30'000'000);
  EXPECT_EQ(ask("ConfirmMfa", R"({"code":")" + crypto.totp(secret, step) + "\"}", ana).reason(), "");
  EXPECT_EQ(sign_in().reason(), "MFA_REQUIRED");
  EXPECT_EQ(sign_in("four small words", R"(,"code":")" + crypto.totp(secret, step) + "\"").reason(), "MFA_CODE_USED");
  EXPECT_EQ(sign_in("four small words", R"(,"code":")" + crypto.totp(secret, step + 1) + "\"").reason(), "");
  EXPECT_EQ(ask("EnrollMfa", "{}", ana).reason(), "MFA_ENABLED");
}

TEST_F(IdentityServiceTest, ARepeatedKeyIsAnsweredWithoutItsSecret) {
  make_acme();
  const auto first = ask("CreateApiKey", R"({"apiKey":{"principal":"ana"},"requestId":"r1"})", admin(), "r1")
                         .answer<v1::CreateApiKeyResponse>();
  const auto again = ask("CreateApiKey", R"({"apiKey":{"principal":"ana"},"requestId":"r1"})", admin(), "r1")
                         .answer<v1::CreateApiKeyResponse>();
  EXPECT_EQ(first.api_key().id(), again.api_key().id());
  EXPECT_TRUE(again.key().empty());
  ASSERT_TRUE(directory->find_api_key(first.key()));
  EXPECT_FALSE(directory->find_api_key(first.key() + "x"));
  must("DeleteUser", R"({"name":"ana"})", admin());
  EXPECT_FALSE(directory->find_api_key(first.key())) << "keys go with their user";
}

TEST_F(IdentityServiceTest, AKeyIsHashedSlowlyOnceAndWrongOnesEachTime) {
  make_acme();
  const auto made =
      ask("CreateApiKey", R"({"apiKey":{"principal":"ana"}})", admin()).answer<v1::CreateApiKeyResponse>();
  const auto row = kApiKeys.get(lab.node.view(kCoreGroup), kNoScope, made.api_key().id());
  ASSERT_TRUE(row);
  EXPECT_TRUE(row->secret_hash().starts_with("h:")) << "stored as the slow hash says";
  crypto.checked = 0;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(directory->find_api_key(made.key()));
  EXPECT_EQ(crypto.checked, 1) << "what was right is remembered";
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(directory->find_api_key(made.key() + "x"));
  EXPECT_EQ(crypto.checked, 4) << "what was wrong is not";
  must("DeleteApiKey", R"({"id":")" + made.api_key().id() + "\"}", admin());
  EXPECT_FALSE(directory->find_api_key(made.key())) << "what is remembered outlives no key";
}

TEST_F(IdentityServiceTest, KeysOfOlderVersionsGoOnToCount) {
  feature_level = services::kAdministrationLevel - 1;
  make_acme();
  const auto made =
      ask("CreateApiKey", R"({"apiKey":{"principal":"ana"}})", admin()).answer<v1::CreateApiKeyResponse>();
  const auto row = kApiKeys.get(lab.node.view(kCoreGroup), kNoScope, made.api_key().id());
  ASSERT_TRUE(row);
  EXPECT_EQ(row->secret_hash().size(), sha256("").size());
  feature_level = services::kAdministrationLevel;
  crypto.checked = 0;
  EXPECT_TRUE(directory->find_api_key(made.key()));
  EXPECT_FALSE(directory->find_api_key(made.key() + "x"));
  EXPECT_EQ(crypto.checked, 0);
}

TEST_F(IdentityServiceTest, AUserOfTheSameNameInheritsNoTokens) {
  make_acme();
  const int64_t issued = lab.clock.wall().us;
  EXPECT_TRUE(directory->check_token("acme", "ana", "tok_1", "", issued).is_ok());
  must("DeleteUser", R"({"name":"ana"})", admin());
  lab.scheduler.run_for_ms(2'000);
  must("CreateUser", R"({"user":{"name":"ana"}})", admin());
  EXPECT_EQ(directory->check_token("acme", "ana", "tok_1", "", issued).reason(), "TOKEN_REVOKED");
  EXPECT_TRUE(directory->check_token("acme", "ana", "tok_2", "", lab.clock.wall().us).is_ok());
}

TEST_F(IdentityServiceTest, KeysVerifyUntilTheirOverlapIsOver) {
  make_acme();
  EXPECT_EQ(sign_in().answer<v1::Tokens>().access_token(), "token of private k1");
  must("RotateSigningKeys", R"({"overlap":"60s"})", operators());
  EXPECT_EQ(sign_in().answer<v1::Tokens>().access_token(), "token of private k2");
  EXPECT_TRUE(directory->signing_key("k1"));
  lab.scheduler.run_for_ms(61'000);
  EXPECT_FALSE(directory->signing_key("k1"));
  EXPECT_TRUE(directory->signing_key("k2"));
  EXPECT_FALSE(directory->signing_key("../pki/token.key"));
}

TEST_F(IdentityServiceTest, WhatIsGivenIsNoMoreThanWhatOneHas) {
  make_acme();
  must("CreateRole", R"({"role":{"name":"help","permissions":["identity.*","tasks.read"]}})", admin());
  must("CreateBinding", R"({"binding":{"role":"help","members":["hel"]}})", admin());
  must("CreateBinding", R"({"binding":{"role":"admin","members":["group:bosses"]}})", admin());
  const call::Principal hel = principal("hel");
  const std::pair<const char*, const char*> refused[] = {
      {"CreateBinding", R"({"binding":{"role":"admin","members":["hel"]}})"},
      {"CreateBinding", R"({"binding":{"role":"developer","members":["hel"],"namespaces":["x"]}})"},
      {"CreateRole", R"({"role":{"name":"r","permissions":["*.write"]}})"},
      {"CreateRole", R"({"role":{"name":"r","inherits":["operator"]}})"},
      {"CreateUser", R"({"user":{"name":"new","groups":["bosses"]}})"},
      {"UpdateUser", R"({"user":{"name":"ana","groups":["bosses"]}})"},
      {"SetPolicy", R"({"policy":{"name":"p","text":"permit (principal, action == \"ScheduleTask\", resource);"}})"}};
  for (const auto& [rpc, json] : refused)
    EXPECT_EQ(ask(rpc, json, hel).reason(), "PRIVILEGE_ESCALATION") << rpc << json;
  must("CreateBinding", R"({"binding":{"role":"help","members":["bob"]}})", hel);
  must("SetPolicy", R"({"policy":{"name":"p","text":"forbid (principal, action == \"ScheduleTask\", resource);"}})",
       hel);
  EXPECT_EQ(ask("CreateRole", R"({"role":{"name":"r","permissions":["task.read"]}})", hel).reason(),
            "PERMISSION_UNKNOWN");
}

TEST_F(IdentityServiceTest, ChangesNeedTheEtagAndOnlyNameWhatMayChange) {
  make_acme();
  EXPECT_EQ(ask("UpdateUser", R"({"user":{"name":"ana","displayName":"A"},"ifMatch":"1"})", admin()).reason(),
            "ETAG_MISMATCH");
  for (const char* path : {"name", "etag", "kind", "password", "createTime", "hasPassword"}) {
    EXPECT_EQ(
        ask("UpdateUser", R"({"user":{"name":"ana"},"updateMask":")" + std::string(path) + "\"}", admin()).reason(),
        "FIELD_INVALID")
        << path;
  }
  must("UpdateUser", R"({"user":{"name":"ana","displayName":"A","groups":["x"]}})", admin());
  must("UpdateUser", R"({"user":{"name":"ana"},"updateMask":"groups"})", admin());
  const auto user = ask("GetUser", R"({"name":"ana"})", admin()).answer<v1::User>();
  EXPECT_EQ(user.display_name(), "A");
  EXPECT_EQ(user.groups_size(), 0);
  EXPECT_TRUE(user.has_password());
}

}  // namespace
}  // namespace uccp::identity
