// A directory that a test has to itself, removed at its end.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace uccp::storage {

class TestDirectory {
 public:
  TestDirectory() {
    std::string name = testing::TempDir() + "/uccp_storage_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~TestDirectory() { std::filesystem::remove_all(path_); }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Changes one byte of a file at the first place where `text` is. False if it is nowhere.
inline bool damage_file(const std::filesystem::path& path, std::string_view text) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const size_t at = bytes.find(text);
  if (at == std::string::npos) return false;
  std::fstream out(path, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(at));
  out.put(static_cast<char>(bytes[at] ^ 0x20));
  return true;
}

}  // namespace uccp::storage
