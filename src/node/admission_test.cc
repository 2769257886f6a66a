#include "node/admission.h"

#include <gtest/gtest.h>

#include <vector>

namespace uccp::node {
namespace {

constexpr AdmissionLimits kLimits{.entries_max = 100, .bytes_max = 1000, .system_reserve_percent = 10};

// Takes all that it gets, at most `wanted`.
size_t fill(Admission& admission, std::vector<Admission::Room>& rooms, std::string_view tenant, size_t bytes,
            size_t wanted = SIZE_MAX, bool late = false) {
  size_t got = 0;
  for (; got < wanted; ++got) {
    auto room = admission.admit(tenant, bytes, late);
    if (!room) break;
    rooms.push_back(std::move(*room));
  }
  return got;
}

TEST(Admission, ATenantAloneLeavesRoomForTheNext) {
  Admission admission(kLimits);
  std::vector<Admission::Room> first, second;
  EXPECT_EQ(fill(admission, first, "a", 1), 80u);
  EXPECT_EQ(fill(admission, second, "b", 1), 16u) << "four times what is free after it";
  first.clear();
  EXPECT_EQ(fill(admission, second, "b", 1), 80u - 16u);
}

TEST(Admission, TenantsThatWantAllTheyCanGetHaveEqualParts) {
  Admission admission(kLimits);
  std::vector<std::vector<Admission::Room>> of(3);
  (void)fill(admission, of[0], "a", 1);
  // Each has one done at a time and asks for more.
  for (int round = 0; round < 200; ++round) {
    for (size_t tenant = 0; tenant < of.size(); ++tenant) {
      if (!of[tenant].empty()) of[tenant].pop_back();
      (void)fill(admission, of[tenant], std::string(1, static_cast<char>('a' + tenant)), 1, 3);
    }
  }
  for (const auto& rooms : of) EXPECT_NEAR(static_cast<double>(rooms.size()), 4.0 / 13 * 100, 3);
}

TEST(Admission, BytesAreSharedLikeEntries) {
  Admission admission(kLimits);
  std::vector<Admission::Room> first, second;
  EXPECT_EQ(fill(admission, first, "a", 100), 8u);
  EXPECT_GE(fill(admission, second, "b", 100), 1u);
  EXPECT_EQ(fill(admission, second, "b", 100), 0u);
}

TEST(Admission, TheSystemHasAReserveOnTop) {
  Admission admission(kLimits);
  std::vector<Admission::Room> rooms;
  EXPECT_EQ(fill(admission, rooms, "", 0), 110u);
  EXPECT_EQ(fill(admission, rooms, "a", 0), 0u);
  rooms.resize(99);
  EXPECT_EQ(fill(admission, rooms, "a", 0), 1u);
  rooms.clear();
  EXPECT_EQ(fill(admission, rooms, "", 100), 11u) << "and of the bytes";
}

TEST(Admission, WhenAllIsLateOnlyWhoHasLessThanAPartGetsMore) {
  Admission admission(kLimits);
  std::vector<Admission::Room> first, second;
  (void)fill(admission, first, "a", 1, 40);
  EXPECT_EQ(fill(admission, first, "a", 1, 1, true), 0u);
  EXPECT_EQ(fill(admission, second, "b", 1, SIZE_MAX, true), 40u);
}

TEST(Admission, ARoomGivesBackOnce) {
  Admission admission(kLimits);
  auto room = admission.admit("a", 10, false);
  Admission::Room moved = std::move(*room);
  room.reset();
  EXPECT_EQ(admission.entries(), 1u);
  moved = Admission::Room();
  EXPECT_EQ(admission.entries(), 0u);
  moved = std::move(*admission.admit("a", 10, false));
  moved = std::move(*admission.admit("b", 10, false));
  EXPECT_EQ(admission.entries(), 1u);
}

}  // namespace
}  // namespace uccp::node
