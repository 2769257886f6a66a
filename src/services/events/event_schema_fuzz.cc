// Schemas and events that somebody made up. The first byte says the language; a line break parts schema and event.
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>

#include "base/check.h"
#include "services/events/event_schema.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  if (size == 0) return 0;
  const std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = input.find('\n');
  v1::EventSchema schema;
  constexpr v1::SchemaFormat kFormats[] = {v1::SCHEMA_FORMAT_JSON, v1::SCHEMA_FORMAT_PROTOBUF, v1::SCHEMA_FORMAT_AVRO};
  schema.set_format(kFormats[data[0] % std::size(kFormats)]);
  schema.set_definition(input.substr(0, cut));
  schema.set_message_type("a.B");
  const auto compiled = events::CompiledSchema::make(schema);
  if (!compiled) {
    UCCP_CHECK(compiled.error().reason() == "SCHEMA_INVALID", "every refusal has one reason");
    return 0;
  }
  (void)(*compiled)->reads(**compiled);
  v1::Event event;
  const std::string content = cut == std::string::npos ? "" : input.substr(cut + 1);
  event.set_text(content);
  (void)(*compiled)->check(event);
  event.set_data(content);
  (void)(*compiled)->check(event);
  (void)(*compiled)->check(v1::Event());
  return 0;
}
