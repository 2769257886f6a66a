// Files of contexts and the text of a timeout, as somebody wrote them: a cluster to go to, or an error that is about
// it.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "cli/settings.h"

namespace {

// A machine that has one file, whatever its name, and nothing else.
uccp::cli::Io io_with(const std::string& content) {
  uccp::cli::Io io;
  io.env = [](const std::string&) { return std::nullopt; };
  io.file_exists = [](const std::string&) { return false; };
  io.list_folder = [](const std::string&) { return std::vector<std::string>(); };
  io.read_file = [content](const std::string&) { return content; };
  return io;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto timeout = cli::parse_timeout_ms(text)) {
    UCCP_CHECK(*timeout >= 0, "nobody waits for less than no time");
  } else {
    UCCP_CHECK(timeout.error().reason() == "USAGE", "every refusal has one reason");
  }
  cli::Settings settings;
  settings.context_file = "context.json";
  if (const auto context = cli::load_context(settings, io_with(text))) {
    UCCP_CHECK(!context->targets.empty(), "a context is a place to go to");
  } else {
    UCCP_CHECK(context.error().reason() == "CONTEXT_INVALID", "every refusal has one reason");
  }
  return 0;
}
