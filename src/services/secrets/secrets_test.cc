// The store on a node: versions, etags, limits, rotation of keys, and that nothing but sealed bytes is in log and
// state.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/bytes.h"
#include "services/coordination_test_node.h"
#include "services/secrets/embedded_store.h"
#include "services/secrets/secrets_service.h"

namespace uccp::secrets {
namespace {

using coordination::Exchange;
using coordination::TestNode;

class SecretsTest : public ::testing::Test {
 protected:
  SecretsTest() { start({}); }

  void start(SecretOptions options) {
    lab = std::make_unique<TestNode>(std::vector<machine::Domain*>{&state});
    lab->start();
    serve(options);
  }
  // A store on what is there, with the keys and the level of now.
  void serve(SecretOptions options) {
    store = std::make_unique<EmbeddedSecretStore>(
        options, SecretSeals(nodes_key, random),
        SecretsEnvironment{lab->node, lab->node, lab->work, lab->clock, lab->signer, [this] { return level; }});
    service = std::make_unique<SecretsService>(*store);
    lab->handlers = call::HandlerTable();
    service->add_handlers(lab->handlers);
  }
  Exchange ask(std::string_view rpc, std::string_view json, TestNode::Client client = {}) {
    return lab->ask("Secrets/" + std::string(rpc), json, std::move(client));
  }
  std::string put(std::string_view name, std::string_view value, std::string_view more = "",
                  TestNode::Client client = {}) {
    const auto x =
        ask("PutSecret",
            R"({"name":")" + std::string(name) + R"(","value":")" + std::string(value) + "\"" + std::string(more) + "}",
            std::move(client));
    return x.reason().empty() ? std::to_string(x.answer<v1::Secret>().version()) : x.reason();
  }
  std::string access(std::string_view name, uint32_t version = 0, std::string_view name_space = "n") {
    const auto x =
        ask("AccessSecret", R"({"name":")" + std::string(name) + R"(","version":)" + std::to_string(version) + "}",
            {.name_space = std::string(name_space)});
    return x.reason().empty() ? x.answer<v1::SecretValue>().value() : x.reason();
  }
  v1::Secret get(std::string_view name) {
    return ask("GetSecret", R"({"name":")" + std::string(name) + "\"}").answer<v1::Secret>();
  }
  v1::RotateSecretKeysResponse rotate(TestNode::Client client = {}) {
    return ask("RotateSecretKeys", "{}", std::move(client)).answer<v1::RotateSecretKeysResponse>();
  }
  machine::GroupView view() { return lab->node.view(kCoreGroup); }
  std::set<std::string> wrapping_keys() {
    std::set<std::string> ids;
    kWrappingKeys.scan(view(), {}, "", "", [&](std::string_view id, const auto&) { return ids.emplace(id), true; });
    return ids;
  }
  // Data keys by the key that wraps them, counted.
  std::map<std::string, uint64_t> uses() {
    std::map<std::string, uint64_t> out;
    kSecrets.scan_all(view(), [&](const machine::Scope&, std::string_view, const internal::v1::SecretRow& row) {
      for (const auto& value : row.values()) ++out[value.key_id()];
      return true;
    });
    return out;
  }
  std::map<std::string, uint64_t> kept_uses() {
    std::map<std::string, uint64_t> out;
    kKeyUses.scan(view(), {}, "", "", [&](std::string_view id, std::string_view bytes) {
      return out[std::string(id)] = ByteReader(bytes).u64(), true;
    });
    return out;
  }
  std::string propose(std::string_view verb, const google::protobuf::MessageLite& command) {
    machine::Envelope envelope;
    envelope.scope = {"t", "n"};
    envelope.command = "secrets." + std::string(verb);
    envelope.payload = command.SerializeAsString();
    std::optional<Result<machine::Applied>> done;
    lab->node.propose(kCoreGroup, std::move(envelope),
                      [&](Result<machine::Applied> applied) { done = std::move(applied); });
    EXPECT_TRUE(lab->wait([&] { return done.has_value(); }));
    return *done ? "" : std::string(done->error().reason());
  }

  SeededRandom random{7};
  SecretKey nodes_key = SecretKey::make(random);
  uint32_t level = 2;
  SecretsState state;
  std::unique_ptr<EmbeddedSecretStore> store;
  std::unique_ptr<SecretsService> service;
  std::unique_ptr<TestNode> lab;
};

TEST_F(SecretsTest, EachPutIsAVersionAndEachVersionIsReadable) {
  EXPECT_EQ(put("db/password", "one"), "1");
  EXPECT_EQ(put("db/password", "two", R"(,"labels":{"team":"a"})"), "2");
  EXPECT_EQ(access("db/password"), "two");
  EXPECT_EQ(access("db/password", 1), "one");
  EXPECT_EQ(access("db/password", 3), "SECRET_VERSION_NOT_FOUND");
  EXPECT_EQ(access("other"), "SECRET_NOT_FOUND");
  const v1::Secret shown = get("db/password");
  EXPECT_EQ(shown.version(), 2u);
  EXPECT_EQ(shown.versions_size(), 2);
  EXPECT_EQ(shown.labels().at("team"), "a");
  EXPECT_EQ(shown.namespace_(), "n");
  EXPECT_NE(shown.versions(0).key_id(), "");
  // Labels that are not named stay.
  EXPECT_EQ(put("db/password", "three"), "3");
  EXPECT_EQ(get("db/password").labels().at("team"), "a");
}

TEST_F(SecretsTest, TheOldestVersionGoesWhenThereAreTooMany) {
  start({.versions_max = 2});
  for (const char* value : {"one", "two", "three"}) put("a", value);
  EXPECT_EQ(access("a", 1), "SECRET_VERSION_NOT_FOUND");
  EXPECT_EQ(access("a", 2), "two");
  EXPECT_EQ(get("a").versions_size(), 2);
  EXPECT_EQ(kept_uses(), uses());
}

TEST_F(SecretsTest, ANamespaceHasSoManySecretsAndAnotherOneItsOwn) {
  start({.secrets_max = 2});
  EXPECT_EQ(put("a", "x"), "1");
  EXPECT_EQ(put("b", "x"), "1");
  EXPECT_EQ(put("c", "x"), "SECRETS_EXHAUSTED");
  EXPECT_EQ(put("a", "y"), "2");
  EXPECT_EQ(put("c", "other", "", {.name_space = "m"}), "1");
  EXPECT_EQ(access("c"), "SECRET_NOT_FOUND");
  EXPECT_EQ(access("c", 0, "m"), "other");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"b"})").reason(), "");
  EXPECT_EQ(put("c", "x"), "1");
}

TEST_F(SecretsTest, AnEtagGuardsChanges) {
  EXPECT_EQ(put("a", "x", R"(,"ifMatch":"0")"), "1");
  EXPECT_EQ(put("a", "y", R"(,"ifMatch":"0")"), "ETAG_MISMATCH");
  const std::string etag = get("a").etag();
  EXPECT_EQ(put("a", "y", R"(,"ifMatch":")" + etag + "\""), "2");
  EXPECT_EQ(put("a", "z", R"(,"ifMatch":")" + etag + "\""), "ETAG_MISMATCH");
  EXPECT_EQ(put("b", "z", R"(,"ifMatch":"5")"), "ETAG_MISMATCH");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a","ifMatch":")" + etag + "\"}").reason(), "ETAG_MISMATCH");
  EXPECT_EQ(access("a"), "y");
  // Wrapping the keys anew is no change that a caller would see.
  const std::string before = get("a").etag();
  rotate();
  EXPECT_EQ(get("a").etag(), before);
}

TEST_F(SecretsTest, AVersionOrAllOfThemCanBeDeleted) {
  for (const char* value : {"one", "two", "three"}) put("a", value);
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a","version":3})").reason(), "SECRET_VERSION_NEWEST");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a","version":2})").reason(), "");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a","version":2})").reason(), "SECRET_VERSION_NOT_FOUND");
  EXPECT_EQ(access("a", 1), "one");
  EXPECT_EQ(access("a", 2), "SECRET_VERSION_NOT_FOUND");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a"})").reason(), "");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a"})").reason(), "SECRET_NOT_FOUND");
  EXPECT_EQ(access("a"), "SECRET_NOT_FOUND");
  EXPECT_TRUE(kept_uses().empty());
}

TEST_F(SecretsTest, ARepeatedPutStoresOnceAndTheSameIdWithAnotherValueIsAConflict) {
  EXPECT_EQ(put("a", "x", "", {.request_id = "r1"}), "1");
  EXPECT_EQ(put("a", "x", "", {.request_id = "r1"}), "1");
  EXPECT_EQ(get("a").version(), 1u);
  EXPECT_EQ(put("a", "y", "", {.request_id = "r1"}), "REQUEST_ID_REUSED");
}

TEST_F(SecretsTest, ListsByNameInPagesWithoutValues) {
  for (const char* name : {"b", "a", "c/d"}) put(name, "xyzzy");
  const auto first = ask("ListSecrets", R"({"pageSize":2})");
  const auto page = first.answer<v1::ListSecretsResponse>();
  ASSERT_EQ(page.secrets_size(), 2);
  EXPECT_EQ(page.secrets(0).name(), "a");
  EXPECT_EQ(page.secrets(1).name(), "b");
  EXPECT_EQ(first.sink->messages[0].find("xyzzy"), std::string::npos);
  const auto rest = ask("ListSecrets", R"({"pageSize":2,"pageToken":")" + page.next_page_token() + "\"}")
                        .answer<v1::ListSecretsResponse>();
  ASSERT_EQ(rest.secrets_size(), 1);
  EXPECT_EQ(rest.secrets(0).name(), "c/d");
  EXPECT_EQ(rest.next_page_token(), "");
}

TEST_F(SecretsTest, ARotationWrapsEverythingByTheNewKeyAndDropsTheOldOne) {
  put("a", "one");
  put("a", "two");
  put("b", "three", "", {.name_space = "m"});
  const auto before = wrapping_keys();
  ASSERT_EQ(before.size(), 1u);
  const auto rotated = rotate();
  EXPECT_EQ(rotated.rewrapped(), 3u);
  EXPECT_EQ(wrapping_keys(), std::set<std::string>{rotated.key_id()});
  EXPECT_FALSE(before.contains(rotated.key_id()));
  EXPECT_EQ(uses(), (std::map<std::string, uint64_t>{{rotated.key_id(), 3}}));
  EXPECT_EQ(kept_uses(), uses());
  EXPECT_EQ(access("a", 1), "one");
  EXPECT_EQ(access("a"), "two");
  EXPECT_EQ(access("b", 0, "m"), "three");
  for (const auto& version : get("a").versions()) EXPECT_EQ(version.key_id(), rotated.key_id());
}

TEST_F(SecretsTest, ARepeatedRotationMakesNoOtherKey) {
  put("a", "one");
  const auto first = rotate({.request_id = "r"});
  const auto again = rotate({.request_id = "r"});
  EXPECT_EQ(again.key_id(), first.key_id());
  EXPECT_EQ(again.rewrapped(), 0u);
}

TEST_F(SecretsTest, RotationsAndPutsAtTheSameTimeLoseNothing) {
  for (int i = 0; i < 20; ++i) put("s" + std::to_string(i), "v" + std::to_string(i));
  std::vector<Exchange> running;
  for (int i = 0; i < 4; ++i) {
    running.push_back(lab->begin("Secrets/RotateSecretKeys", "{}"));
    for (int k = 0; k < 5; ++k) {
      const std::string name = "s" + std::to_string(i * 5 + k);
      running.push_back(lab->begin("Secrets/PutSecret", R"({"name":")" + name + R"(","value":"new-)" + name + "\"}",
                                   {.request_id = "put-" + name}));
    }
  }
  EXPECT_TRUE(lab->wait([&] { return std::ranges::all_of(running, [](const auto& x) { return x.done(); }); }));
  for (const auto& x : running) EXPECT_EQ(x.reason(), "");
  for (int i = 0; i < 20; ++i) {
    const std::string name = "s" + std::to_string(i);
    EXPECT_EQ(access(name, 1), "v" + std::to_string(i));
    EXPECT_EQ(access(name), "new-" + name);
    // A repeat finds its result, through as many tries as the first one took.
    EXPECT_EQ(put(name, "new-" + name, "", {.request_id = "put-" + name}), "2");
  }
  EXPECT_EQ(kept_uses(), uses());
  rotate();
  EXPECT_EQ(wrapping_keys().size(), 1u);
}

TEST_F(SecretsTest, ApplyTakesNoOtherKeyThanTheOneInForceAndDropsNoneThatIsUsed) {
  put("a", "one");
  const std::string key = *wrapping_keys().begin();
  internal::v1::PutSecretCommand command;
  command.mutable_secret()->set_name("b");
  command.mutable_value()->set_key_id("other");
  command.mutable_key()->set_id("other");
  command.set_secrets_max(10);
  EXPECT_EQ(propose("put", command), kKeyChanged);
  internal::v1::RewrapSecretCommand wrap;
  wrap.set_tenant("t");
  wrap.set_name_space("n");
  wrap.set_name("a");
  wrap.add_values()->set_key_id("other");
  EXPECT_EQ(propose("rewrap", wrap), kKeyChanged);
  internal::v1::AddWrappingKeyCommand add;
  add.mutable_key()->set_id("next");
  EXPECT_EQ(propose("add_key", add), "");
  internal::v1::DropWrappingKeysCommand drop;
  drop.add_ids(key);
  drop.add_ids("next");
  EXPECT_EQ(propose("drop_keys", drop), "");
  EXPECT_EQ(wrapping_keys(), (std::set<std::string>{key, "next"}));
}

TEST_F(SecretsTest, NodesWithAnotherKeyCannotOpenAndSaySo) {
  put("a", "one");
  nodes_key = SecretKey::make(random);
  serve({});
  EXPECT_EQ(access("a"), "SECRET_UNREADABLE");
  EXPECT_EQ(put("a", "two"), "SECRET_UNREADABLE");
  EXPECT_EQ(ask("RotateSecretKeys", "{}").reason(), "SECRET_UNREADABLE");
}

TEST_F(SecretsTest, AnOlderClusterIsNotGivenCommandsThatItDoesNotKnow) {
  level = 1;
  EXPECT_EQ(put("a", "one"), "FEATURE_LEVEL");
  EXPECT_EQ(access("a"), "FEATURE_LEVEL");
  EXPECT_EQ(ask("DeleteSecret", R"({"name":"a"})").reason(), "FEATURE_LEVEL");
  EXPECT_EQ(ask("RotateSecretKeys", "{}").reason(), "FEATURE_LEVEL");
  EXPECT_EQ(ask("ListSecrets", "{}").reason(), "");
}

}  // namespace
}  // namespace uccp::secrets
