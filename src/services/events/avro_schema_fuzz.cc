// Avro schemas and data, as clients send them: the definition up to the first zero byte, then the datum.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "services/events/avro_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t cut = std::min(input.find('\0'), input.size());
  const auto schema = events::AvroSchema::parse(std::string(input.substr(0, cut)));
  if (!schema) return 0;
  if (cut < size) (void)(*schema)->check(input.substr(cut + 1));
  // What is too large to be compared is said so.
  const Status status = (*schema)->reads(**schema);
  UCCP_CHECK(status.is_ok() || status.message().find("reasonable time") != std::string_view::npos,
             "a schema reads what it has written");
  return 0;
}
