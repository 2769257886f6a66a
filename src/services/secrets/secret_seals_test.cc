// What is sealed opens only where it belongs, and the bytes are those of docs/formats/secrets.md.
#include "services/secrets/secret_seals.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace uccp::secrets {
namespace {

constexpr const char* kNodesKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const machine::Scope kScope{"acme", "blue"};

// 1, 2, 3, ...: what is drawn is seen in the golden bytes.
class Counter final : public Random {
 public:
  uint64_t next() override { return ++last_; }

 private:
  uint64_t last_ = 0;
};

struct Lab {
  Counter random;
  SecretSeals seals{*SecretKey::parse(kNodesKey), random};
};

TEST(SecretSeals, OpensWhatItSealed) {
  Lab lab;
  const auto key = lab.seals.make_key({5});
  for (const std::string& value : {std::string(), std::string("hunter2"), std::string(65'536, '\xff')}) {
    const auto sealed = lab.seals.seal(key, kScope, "db/password", value);
    ASSERT_TRUE(sealed.has_value());
    if (!value.empty()) EXPECT_EQ(sealed->SerializeAsString().find(value), std::string::npos);
    EXPECT_EQ(*lab.seals.open(key, kScope, "db/password", *sealed), value);
  }
}

TEST(SecretSeals, EachValueHasADataKeyOfItsOwn) {
  Lab lab;
  const auto key = lab.seals.make_key({5});
  const auto one = *lab.seals.seal(key, kScope, "a", "same");
  const auto two = *lab.seals.seal(key, kScope, "a", "same");
  EXPECT_NE(one.sealed(), two.sealed());
  EXPECT_NE(one.wrapped_key(), two.wrapped_key());
}

TEST(SecretSeals, AnotherPlaceKeyOrByteDoesNotOpen) {
  Lab lab;
  const auto key = lab.seals.make_key({5});
  const auto sealed = *lab.seals.seal(key, kScope, "a", "value");
  const auto reason = [&](const SecretSeals& seals, const auto& k, const machine::Scope& scope, std::string_view name,
                          const auto& row) {
    const auto opened = seals.open(k, scope, name, row);
    return opened ? std::string(*opened) : std::string(opened.error().reason());
  };
  EXPECT_EQ(reason(lab.seals, key, kScope, "a", sealed), "value");
  EXPECT_EQ(reason(lab.seals, key, kScope, "b", sealed), "SECRET_UNREADABLE");
  EXPECT_EQ(reason(lab.seals, key, {"acme", "red"}, "a", sealed), "SECRET_UNREADABLE");
  EXPECT_EQ(reason(lab.seals, key, {"rival", "blue"}, "a", sealed), "SECRET_UNREADABLE");
  // The parts of the place cannot be shifted into each other.
  EXPECT_EQ(reason(lab.seals, key, {"acmeb", "lue"}, "a", sealed), "SECRET_UNREADABLE");
  EXPECT_EQ(reason(lab.seals, lab.seals.make_key({6}), kScope, "a", sealed), "SECRET_UNREADABLE");
  auto renamed = key;
  renamed.set_id("0000000000000000");
  EXPECT_EQ(reason(lab.seals, renamed, kScope, "a", sealed), "SECRET_UNREADABLE");
  EXPECT_EQ(reason(lab.seals, internal::v1::WrappingKeyRow(), kScope, "a", sealed), "SECRET_UNREADABLE");
  const SecretSeals strange(*SecretKey::parse(std::string(64, 'f')), lab.random);
  EXPECT_EQ(reason(strange, key, kScope, "a", sealed), "SECRET_UNREADABLE");
  for (std::string* const bytes :
       {const_cast<std::string*>(&sealed.sealed()), const_cast<std::string*>(&sealed.wrapped_key())}) {
    for (char& byte : *bytes) {
      byte = static_cast<char>(byte ^ 1);
      EXPECT_EQ(reason(lab.seals, key, kScope, "a", sealed), "SECRET_UNREADABLE");
      byte = static_cast<char>(byte ^ 1);
    }
    const std::string whole = *bytes;
    for (size_t size = 0; size < whole.size(); ++size) {
      *bytes = whole.substr(0, size);
      EXPECT_EQ(reason(lab.seals, key, kScope, "a", sealed), "SECRET_UNREADABLE") << size;
    }
    *bytes = whole;
  }
  EXPECT_EQ(reason(lab.seals, key, kScope, "a", sealed), "value");
}

TEST(SecretSeals, WrappedAnewTheValueOpensByTheNewKeyAlone) {
  Lab lab;
  const auto from = lab.seals.make_key({5});
  const auto to = lab.seals.make_key({6});
  auto sealed = *lab.seals.seal(from, kScope, "a", "value");
  const auto wrapped = lab.seals.rewrap(from, to, kScope, "a", sealed);
  ASSERT_TRUE(wrapped.has_value());
  EXPECT_TRUE(sealed.sealed().ends_with(wrapped->sealed()));
  EXPECT_EQ(wrapped->sealed().size(), Aead::kTagBytes);
  EXPECT_EQ(wrapped->key_id(), to.id());
  sealed.set_wrapped_key(wrapped->wrapped_key());
  EXPECT_EQ(*lab.seals.open(to, kScope, "a", sealed), "value");
  EXPECT_FALSE(lab.seals.open(from, kScope, "a", sealed).has_value());
  EXPECT_FALSE(lab.seals.rewrap(from, to, kScope, "b", sealed).has_value());
}

TEST(SecretSeals, BytesAreThoseOfTheFormat) {
  Lab lab;
  const auto key = lab.seals.make_key({5});
  const auto sealed = *lab.seals.seal(key, kScope, "db/password", "hunter2");
  EXPECT_EQ(key.id(), "f1aecc54ab82a0d3");
  EXPECT_EQ(to_hex(key.sealed()),
            "010000000000000005000000000000000639c2ebdeab49bb2097dd2db05ea9cce7d485e769265d6214eade6d61ca74e099a484f574"
            "0553eca0bd8fa632ec9cbd44");
  EXPECT_EQ(to_hex(sealed.wrapped_key()),
            "01000000000000000b000000000000000c6f77b2e7053d8deb3d6eb4d95c981f4d8d4b4771df7578edc2850ea46b463fffb8cb681f"
            "08fa1c59068bf64244cfb085");
  EXPECT_EQ(to_hex(sealed.sealed()), "01832556056f25c2d69dfdd649279a2636adb2dbc6166341");
}

}  // namespace
}  // namespace uccp::secrets
