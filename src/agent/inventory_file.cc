// An inventory that an operator wrote.
#include <cmath>

#include "agent/devices.h"
#include "call/contract.h"
#include "call/json_codec.h"

namespace uccp::agent {
namespace {

constexpr uint64_t kFileBytesMax = 1u << 20;

Status invalid(const std::string& path, const std::string& what) {
  return Status(Code::kInvalid, "INVENTORY_INVALID", "the inventory " + path + ": " + what);
}

class InventoryFile final : public DeviceSource {
 public:
  InventoryFile(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}

  Result<DeviceInventory> find() override {
    UCCP_TRY(const std::string text, read_file(files_, path_, kFileBytesMax));
    const auto wire =
        call::json_to_wire(call::Contract::get().plan("uccp.v1.Worker"), text, {.keep_output_only = true});
    if (!wire) return fail(invalid(path_, std::string(wire.error().message())));
    api::Worker worker;
    if (!worker.ParseFromString(*wire)) return fail(invalid(path_, "cannot be read"));
    UCCP_RETURN_IF_ERROR(check_fields(worker));
    const api::Resources& total = worker.resources().total();
    DeviceInventory inventory;
    inventory.gpus.assign(worker.gpus().begin(), worker.gpus().end());
    inventory.accelerators.assign(total.accelerators().begin(), total.accelerators().end());
    inventory.network_bps = total.network_bps();
    inventory.extended.insert(total.extended().begin(), total.extended().end());
    if (Status status = number_devices(inventory); !status.is_ok()) return fail(invalid(path_, status.message()));
    return inventory;
  }

 private:
  // What would have no effect is an error, not a surprise later.
  Status check_fields(const api::Worker& worker) const {
    api::Worker rest = worker;
    rest.clear_gpus();
    rest.mutable_resources()->mutable_total()->clear_accelerators();
    rest.mutable_resources()->mutable_total()->clear_network_bps();
    rest.mutable_resources()->mutable_total()->clear_extended();
    if (rest.resources().total().ByteSizeLong() > 0) {
      return invalid(path_,
                     "of resources.total it may have accelerators, networkBps and extended; cpu, memory and disk are "
                     "flags of the agent");
    }
    rest.clear_resources();
    if (rest.ByteSizeLong() > 0) return invalid(path_, "it may have gpus and resources.total only");
    for (const api::AcceleratorRequest& one : worker.resources().total().accelerators()) {
      if (one.kind().empty() || one.count() < 1)
        return invalid(path_, "an accelerator has a kind and a count of at least 1");
    }
    for (const auto& [name, amount] : worker.resources().total().extended()) {
      if (name.empty() || name.find(' ') != std::string::npos || !(amount > 0) || std::isinf(amount)) {
        return invalid(path_, "the resource \"" + name + "\" needs a name without blanks and an amount above 0");
      }
    }
    return {};
  }

  FileSystem& files_;
  const std::string path_;
};

}  // namespace

std::unique_ptr<DeviceSource> inventory_file(FileSystem& files, std::string path) {
  return std::make_unique<InventoryFile>(files, std::move(path));
}

}  // namespace uccp::agent
