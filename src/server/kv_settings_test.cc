// Limits of the key-value store: what is taken, what is refused and how it is said.
#include "server/kv_settings.h"

#include <gtest/gtest.h>

namespace uccp::server {
namespace {

Result<kv::KvOptions> settings(const std::string& yaml) {
  const auto config = Config::load(yaml, "c.yaml", {}, {});
  if (!config) return std::unexpected(config.error());
  return kv_settings(*config);
}

TEST(KvSettings, DefaultsAreThoseOfEtcd) {
  const auto options = settings("");
  ASSERT_TRUE(options.has_value());
  EXPECT_EQ(options->request_bytes_max, 3u << 19);
  EXPECT_EQ(options->bytes_max, 2ull << 30);
  EXPECT_EQ(options->txn_operations_max, 128u);
}

TEST(KvSettings, WhatTheLogCannotCarryIsRefused) {
  EXPECT_EQ(settings("kv_request_bytes_max: 4096")->request_bytes_max, 4096u);
  for (const char* wrong : {"kv_request_bytes_max: 2097152", "kv_request_bytes_max: 10", "kv_bytes_max: 5",
                            "kv_keys_max: 0", "kv_txn_operations_max: 100000"}) {
    const auto refused = settings(wrong);
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_EQ(refused.error().reason(), "CONFIG_INVALID");
    EXPECT_NE(refused.error().message().find("out of range"), std::string::npos) << refused.error().message();
  }
}

}  // namespace
}  // namespace uccp::server
