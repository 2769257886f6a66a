#include "agent/ray_address.h"

#include <gtest/gtest.h>

namespace uccp::agent {
namespace {

TEST(RayAddress, EachFormOpensItsDoor) {
  const std::pair<const char*, RayDoor> forms[] = {
      {"", RayDoor::kNone},
      {"auto", RayDoor::kDriver},
      {"10.0.0.1:6379", RayDoor::kDriver},
      {"[fe80::1]:6379", RayDoor::kDriver},
      {"ray://head:10001", RayDoor::kClient},
      {"ray://head:10001/", RayDoor::kClient},
      {"http://head:8265", RayDoor::kJobs},
      {"https://ray.example/prefix/", RayDoor::kJobs},
  };
  for (const auto& [text, door] : forms) {
    const auto address = parse_ray_address(text);
    ASSERT_TRUE(address.has_value()) << text;
    EXPECT_EQ(address->door, door) << text;
    EXPECT_FALSE(address->text.ends_with('/')) << text;
  }
}

TEST(RayAddress, AnythingElseIsNamed) {
  for (const char* text : {"head", "head:", ":6379", "head:0", "head:65536", "head:6379x", "ray://", "ray://head",
                           "http://", "https:///x", "ftp://head:1", "head:1 2", "fe80::1:6379", "h\nx:1"}) {
    const auto address = parse_ray_address(text);
    ASSERT_FALSE(address.has_value()) << text;
    EXPECT_EQ(address.error().reason(), "RAY_ADDRESS_INVALID");
    EXPECT_NE(address.error().message().find(text), std::string::npos);
  }
}

}  // namespace
}  // namespace uccp::agent
