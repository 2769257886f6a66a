#include "server/port_chooser.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/test_support.h"

namespace uccp::server {
namespace {

namespace fs = std::filesystem;

// A host where nobody serves, so that every port is free.
constexpr const char* kHost = "127.0.0.77";

class PortChooserTest : public testing::Test {
 protected:
  std::string owner(const std::string& name) {
    fs::create_directories(directory_.at(name));
    return directory_.at(name);
  }
  PortChooserOptions options(const std::string& name, uint16_t count) {
    return {.host = kHost,
            .owner = owner(name),
            .notes = directory_.at("notes"),
            .first = 20'000,
            .end = static_cast<uint16_t>(20'000 + count)};
  }
  static std::set<uint16_t> take(PortChooserOptions options, size_t count) {
    PortChooser chooser(std::move(options));
    std::set<uint16_t> ports;
    for (size_t i = 0; i < count; ++i) {
      const auto port = chooser.next();
      EXPECT_TRUE(port) << port.error().to_string();
      if (port) ports.insert(*port);
    }
    EXPECT_EQ(ports.size(), count) << "each one once";
    return ports;
  }

  runtime::testing::TemporaryDirectory directory_;
};

TEST_F(PortChooserTest, WhatOneOwnerWasGivenNoOtherGetsThoughNobodyListensThere) {
  std::set<uint16_t> all = take(options("one", 60), 20);
  all.merge(take(options("two", 60), 20));
  // The same owner gets others, too: one of its nodes may be down.
  all.merge(take(options("one", 60), 20));
  EXPECT_EQ(all.size(), 60u);
  PortChooser fourth(options("three", 60));
  EXPECT_EQ(fourth.next().error().reason(), "PORTS_EXHAUSTED");
}

TEST_F(PortChooserTest, PortsOfAnOwnerThatIsGoneOrBeginsAnewAreFreeAgain) {
  take(options("one", 10), 10);
  fs::remove_all(directory_.at("one"));
  take(options("two", 10), 10);
  PortChooserOptions anew = options("two", 10);
  anew.anew = true;
  take(anew, 10);
}

TEST_F(PortChooserTest, WhereSomebodyListensIsNotChosen) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ASSERT_EQ(::inet_pton(AF_INET, kHost, &address.sin_addr), 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  PortChooserOptions one = options("one", 1);
  one.first = ntohs(address.sin_port);
  one.end = static_cast<uint16_t>(one.first + 1);
  EXPECT_EQ(PortChooser(one).next().error().reason(), "PORTS_EXHAUSTED");
  ::close(fd);
  EXPECT_TRUE(PortChooser(one).next());
}

TEST_F(PortChooserTest, WithoutAFolderForNotesPortsAreChosenByWhetherTheyAreFree) {
  std::ofstream(directory_.at("notes")) << "no folder";
  take(options("one", 10), 10);
  take(options("two", 10), 10);
  // One in which others may write is not believed.
  fs::remove(directory_.at("notes"));
  fs::create_directory(directory_.at("notes"));
  ASSERT_EQ(::chmod(directory_.at("notes").c_str(), 0777), 0);
  take(options("one", 10), 10);
  EXPECT_TRUE(fs::is_empty(directory_.at("notes")));
}

}  // namespace
}  // namespace uccp::server
