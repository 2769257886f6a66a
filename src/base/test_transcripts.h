// Tests by transcript: files of commands, a line "----", and what they resulted in. UCCP_REWRITE=1 writes what they
// result in now; the diff is what gets reviewed. The form: https://github.com/cockroachdb/datadriven
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace uccp::test {

// The *.txt of tests/scripts/FOLDER, below the working directory or the sources.
inline std::vector<std::string> transcripts(const std::string& folder) {
  const std::filesystem::path below = std::filesystem::path("tests/scripts") / folder;
  const auto sources = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
  std::vector<std::string> names;
  for (const std::filesystem::path& root : {below, sources / below}) {
    if (!std::filesystem::is_directory(root)) continue;
    for (const auto& file : std::filesystem::directory_iterator(root)) {
      if (file.path().extension() == ".txt") names.push_back(file.path().string());
    }
    break;
  }
  std::ranges::sort(names);
  return names;
}

// For INSTANTIATE_TEST_SUITE_P.
inline std::string transcript_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = std::filesystem::path(info.param).stem().string();
  std::ranges::replace(name, '-', '_');
  return name;
}

// The text with the transcripts that its commands produce now. `Script` has `std::string run(const std::string&
// command)`.
template <typename Script>
std::string replay(std::istream& text) {
  Script script;
  std::string result;
  std::vector<std::string> commands;
  bool in_transcript = false;
  for (std::string line; std::getline(text, line);) {
    if (in_transcript) {
      if (!line.empty()) continue;
      in_transcript = false;
    }
    result += line + "\n";
    if (line == "----") {
      std::string transcript;
      for (const std::string& command : commands) transcript += script.run(command);
      result += transcript.empty() ? "ok\n" : transcript;
      commands.clear();
      in_transcript = true;
    } else if (!line.empty() && line[0] != '#') {
      commands.push_back(line);
    }
  }
  return result;
}

template <typename Script>
void expect_transcript(const std::string& path) {
  std::ifstream file(path);
  std::stringstream expected;
  expected << file.rdbuf();
  std::istringstream in(expected.str());
  const std::string actual = replay<Script>(in);
  if (std::getenv("UCCP_REWRITE") != nullptr) {
    std::ofstream(path, std::ios::trunc) << actual;
    return;
  }
  EXPECT_EQ(actual, expected.str()) << "run with UCCP_REWRITE=1 and review the diff";
}

}  // namespace uccp::test
