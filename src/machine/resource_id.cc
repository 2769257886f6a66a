#include "machine/resource_id.h"

namespace uccp::machine {
namespace {

constexpr char kCrockford[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

}  // namespace

std::string make_id(std::string_view prefix, WallTime wall, Random& random) {
  using u128 = unsigned __int128;
  const uint64_t ms = wall.us < 0 ? 0 : static_cast<uint64_t>(wall.us / 1000);
  u128 value = static_cast<u128>(ms & 0xffff'ffff'ffff) << 80;
  value |= static_cast<u128>(random.next() & 0xffff) << 64;
  value |= random.next();
  std::string id(prefix.size() + 1 + kResourceIdSuffixBytes, '_');
  id.replace(0, prefix.size(), prefix);
  for (size_t i = id.size(); i-- > prefix.size() + 1; value >>= 5) id[i] = kCrockford[static_cast<size_t>(value & 31)];
  return id;
}

}  // namespace uccp::machine
