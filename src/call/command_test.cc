#include "call/command.h"

#include <gtest/gtest.h>

#include "base/aead.h"
#include "base/hash.h"
#include "call/contract.h"
#include "call/json_codec.h"

namespace uccp::call {
namespace {

uint64_t hash_of(std::string_view method, std::string_view json, const SecretKey* key) {
  Call call;
  call.method = Contract::get().find(method);
  call.request_id = "r";
  call.hash_key = key;
  const auto request = json_to_wire(*call.method->request, json);
  EXPECT_TRUE(request.has_value());
  return make_envelope(call, *request, "x.y", "").dedup.request_hash;
}

TEST(RequestHash, OfARequestWithASecretNeedsTheKey) {
  SeededRandom random(1);
  const SecretKey one = SecretKey::make(random), two = SecretKey::make(random);
  for (const auto& [method, json] : {std::pair{"uccp.v1.Secrets/PutSecret", R"({"name":"a","value":"x"})"},
                                     {"uccp.v1.Identity/SetPassword", R"({"name":"a","password":"x"})"},
                                     {"uccp.v1.Identity/CreateUser", R"({"user":{"name":"a","password":"x"}})"}}) {
    EXPECT_EQ(hash_of(method, json, &one), hash_of(method, json, &one));
    EXPECT_NE(hash_of(method, json, &one), hash_of(method, json, &two)) << method;
    EXPECT_NE(hash_of(method, json, &one), hash_of(method, json, nullptr)) << method;
  }
  EXPECT_NE(hash_of("uccp.v1.Secrets/PutSecret", R"({"name":"a","value":"x"})", &one),
            hash_of("uccp.v1.Secrets/PutSecret", R"({"name":"a","value":"y"})", &one));
}

TEST(RequestHash, OfAnyOtherRequestIsThePlainOne) {
  SeededRandom random(1);
  const SecretKey key = SecretKey::make(random);
  const std::string_view method = "uccp.v1.ServiceDiscovery/Deregister";
  EXPECT_EQ(hash_of(method, R"({"id":"a"})", &key), hash_of(method, R"({"id":"a"})", nullptr));
}

}  // namespace
}  // namespace uccp::call
