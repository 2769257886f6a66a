// Any bytes as an inventory: refused for one reason, or devices that are numbered once each and amounts that add up.
#include <cmath>
#include <cstdint>
#include <set>
#include <string_view>

#include "agent/devices.h"
#include "base/check.h"
#include "sim/sim_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  sim::SimFileSystem disk;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  UCCP_CHECK(disk.make_directories("/d").is_ok(), "a simulated directory");
  UCCP_CHECK(write_file_atomically(disk, "/d/f", text).is_ok(), "a simulated file");
  const auto found = agent::inventory_file(disk, "/d/f")->find();
  if (!found) {
    UCCP_CHECK(found.error().reason() == "INVENTORY_INVALID", "every refusal has one reason");
    return 0;
  }
  std::set<int> indexes;
  for (const auto& gpu : found->gpus) {
    UCCP_CHECK(gpu.count() == gpu.devices_size() && gpu.count() > 0, "as many devices as are counted");
    UCCP_CHECK(agent::device_type(gpu.type()) == gpu.type(), "a type is one word");
    for (const auto& device : gpu.devices()) UCCP_CHECK(indexes.insert(device.index()).second, "one number a device");
  }
  for (const auto& [name, amount] : found->extended)
    UCCP_CHECK(std::isfinite(amount) && amount > 0, "an amount can be counted");
  // What nobody healthy has is given to nobody.
  agent::DevicePool pool(found->gpus);
  agent::api::GpuRequest request;
  request.set_count(1);
  const auto taken = pool.take("a", request, "owner");
  UCCP_CHECK(taken.has_value() == (pool.count() > 0), "a healthy device is there to be taken");
  if (taken) UCCP_CHECK(pool.give_back("a"), "and is given back");
  return 0;
}
