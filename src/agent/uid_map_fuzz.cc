// Any bytes as the file of task users: refused for one reason, or a map in which no two namespaces share a user, which
// takes one more and reads back the same.
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/uid_map.h"
#include "base/check.h"
#include "sim/sim_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  sim::SimFileSystem disk;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  UCCP_CHECK(disk.make_directories("/d").is_ok(), "a simulated directory");
  UCCP_CHECK(write_file_atomically(disk, "/d/uids", text).is_ok(), "a simulated file");
  auto map = agent::UidMap::open(disk, "/d/uids");
  if (!map) {
    UCCP_CHECK(map.error().reason() == "UID_MAP_INVALID", "every refusal has one reason");
    return 0;
  }
  const auto uid = map->uid_of("tenant", "namespace");
  const auto other = map->uid_of("tenant", "other");
  UCCP_CHECK(uid.has_value() && other.has_value() && *uid != *other, "namespaces have users of their own");
  auto again = agent::UidMap::open(disk, "/d/uids");
  UCCP_CHECK(again.has_value(), "what was written is read");
  UCCP_CHECK(*again->uid_of("tenant", "namespace") == *uid, "a namespace keeps its user");
  return 0;
}
