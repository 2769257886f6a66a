// Rows of secrets that somebody made up: nothing opens, and what was sealed opens in its place alone.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "base/random.h"
#include "services/secrets/secret_seals.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  static SeededRandom random(1);
  static const secrets::SecretSeals seals(SecretKey::make(random), random);
  static const auto key = seals.make_key(WallTime{1});
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  internal::v1::SecretValueRow value;
  internal::v1::WrappingKeyRow made_up;
  (void)value.ParseFromString(bytes);
  (void)made_up.ParseFromString(bytes);
  UCCP_CHECK(!seals.open(key, {"t", "n"}, "a", value), "nobody makes up a sealed value");
  UCCP_CHECK(!seals.open(made_up, {"t", "n"}, "a", value), "nobody makes up a key");
  UCCP_CHECK(!seals.rewrap(key, key, {"t", "n"}, "a", value), "nor one to be wrapped anew");
  const auto sealed = seals.seal(key, {"t", bytes}, "a", bytes);
  UCCP_CHECK(sealed && *seals.open(key, {"t", bytes}, "a", *sealed) == bytes, "what was sealed opens");
  UCCP_CHECK(!seals.open(key, {"t", bytes + "x"}, "a", *sealed), "but not elsewhere");
  return 0;
}
