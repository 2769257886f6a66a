// JSONPath templates from arbitrary text, applied to documents of all shapes. What is behind the first line is a
// document too, if it is one.
#include <simdjson.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/check.h"
#include "cli/json_path.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = input.find('\n');
  const auto path = uccp::cli::JsonPath::parse(input.substr(0, cut));
  if (!path) {
    UCCP_CHECK(path.error().reason() == "USAGE", "every refusal has one reason");
    return 0;
  }
  for (const std::string_view document :
       {R"({"id":"a","status":"RUNNING","labels":{"team":"x"},"n":[1,-2.5,null,true]})",
        R"([{"id":"a","healthy":true},{"id":"b","healthy":false},[],"text",7])", R"("text")", "null"}) {
    (void)path->apply(document);
  }
  if (cut == std::string_view::npos) return 0;
  const std::string rest(input.substr(cut + 1));
  simdjson::dom::parser parser;
  if (parser.parse(rest).error() == simdjson::SUCCESS) (void)path->apply(rest);
  return 0;
}
