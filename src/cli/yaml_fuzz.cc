// Files that people write: as YAML of a request, as a template of JSONPath.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "call/contract.h"
#include "cli/json_path.h"
#include "cli/yaml.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  static const call::MessagePlan& plan = *call::Contract::get().find("uccp.v1.TaskScheduling/ScheduleTask")->request;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)cli::yaml_to_json(text, plan, "file");
  if (const auto path = cli::JsonPath::parse(text)) {
    (void)path->apply(R"({"items":[{"id":"a","n":1},{"id":"b","n":[1,2,{"x":null}]}],"a b":"c"})");
  }
  return 0;
}
