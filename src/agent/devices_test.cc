#include "agent/devices.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "runtime/posix_file_system.h"

namespace uccp::agent {
namespace {

class DevicesTest : public ::testing::Test {
 protected:
  DevicesTest() {
    std::string name = "/tmp/uccp_devices_XXXXXX";
    root_ = mkdtemp(name.data());
  }
  ~DevicesTest() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path full = root_ + "/" + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }
  Result<DeviceInventory> inventory(const std::string& json) {
    write("inventory.json", json);
    return inventory_file(files_, root_ + "/inventory.json")->find();
  }
  std::string refusal(const std::string& json) {
    const auto found = inventory(json);
    return found ? "accepted" : std::string(found.error().message());
  }

  runtime::PosixFileSystem files_;
  std::string root_;
};

TEST_F(DevicesTest, AnInventoryFileIsWrittenLikeAWorker) {
  const auto found = inventory(R"({
    "gpus": [{"type": "nvidia-h100", "count": 2, "memory": "80Gi", "driverVersion": "535.104", "computeCapability": "9.0"},
             {"type": "amd-mi300", "devices": [{"uuid": "a"}, {"uuid": "b", "health": "UNHEALTHY"}]}],
    "resources": {"total": {"accelerators": [{"kind": "tpu", "type": "v5e-8", "count": 8}], "networkBps": 25000000000,
                            "extended": {"licence/matlab": 3}}}})");
  ASSERT_TRUE(found) << found.error().message();
  ASSERT_EQ(found->gpus.size(), 2u);
  EXPECT_EQ(found->gpus[0].devices_size(), 2);
  EXPECT_EQ(found->gpus[0].memory(), uint64_t{80} << 30);
  EXPECT_EQ(found->gpus[1].count(), 2);
  EXPECT_EQ(found->gpus[1].devices(1).index(), 3);
  EXPECT_EQ(found->accelerators.at(0).kind(), "tpu");
  EXPECT_EQ(found->network_bps, 25'000'000'000u);
  EXPECT_EQ(found->extended.at("licence/matlab"), 3);
}

TEST_F(DevicesTest, AnInventoryThatWouldSurpriseIsRefused) {
  EXPECT_NE(refusal("{").find("inventory.json"), std::string::npos);
  EXPECT_NE(refusal(R"({"gpu": []})").find("gpu"), std::string::npos);
  EXPECT_NE(refusal(R"({"gpus": [{"type": "a", "count": 1}, {"type": "b", "count": 2147483647}]})").find("1 to 1024"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"resources": {"total": {"extended": {"a": "NaN"}}}})").find("above 0"), std::string::npos);
  EXPECT_NE(refusal(R"({"gpus": [{"type": "NVIDIA H100", "count": 1}]})").find("lower case"), std::string::npos);
  EXPECT_NE(refusal(R"({"gpus": [{"type": "nvidia-h100"}]})").find("name a count"), std::string::npos);
  EXPECT_NE(refusal(R"({"gpus": [{"type": "nvidia-h100", "count": 3, "devices": [{}]}]})").find("1 devices are listed"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"resources": {"total": {"cpu": 4}}})").find("flags of the agent"), std::string::npos);
  EXPECT_NE(refusal(R"({"labels": {"a": "b"}})").find("gpus and resources.total only"), std::string::npos);
  EXPECT_NE(refusal(R"({"resources": {"total": {"extended": {"x": 0}}}})").find("above 0"), std::string::npos);
  EXPECT_EQ(inventory_file(files_, root_ + "/none")->find().error().code(), Code::kNotFound);
}

TEST_F(DevicesTest, SysfsShowsCardsAcceleratorsAndTheFastestInterface) {
  for (const char* card : {"card0", "card1"}) {
    const std::string device = std::string("class/drm/") + card + "/device/";
    write(device + "vendor", "0x1002\n");
    write(device + "device", "0x740f\n");
    write(device + "mem_info_vram_total", "68702699520\n");
    write(device + "unique_id", std::string("id-") + card + "\n");
  }
  write("class/drm/card0-HDMI-A-1/status", "connected\n");
  write("class/drm/card2/device/vendor", "0x8086\n");  // part of the processor: no memory of its own
  write("class/drm/card2/device/device", "0x9a49\n");
  write("class/accel/accel0/device/vendor", "0x1ae0\n");
  write("class/accel/accel1/device/vendor", "0x1ae0\n");
  for (const auto& [name, speed, state] :
       {std::tuple{"eth0", "10000\n", "up\n"}, {"eth1", "100000\n", "down\n"}, {"eth2", "25000\n", "up\n"}}) {
    write(std::string("class/net/") + name + "/speed", speed);
    write(std::string("class/net/") + name + "/operstate", state);
    write(std::string("class/net/") + name + "/device/vendor", "0x8086\n");
  }
  write("class/net/veth0/speed", "400000\n");
  write("class/net/veth0/operstate", "up\n");
  const auto found = sysfs_devices(files_, root_)->find();
  ASSERT_TRUE(found);
  ASSERT_EQ(found->gpus.size(), 1u);
  EXPECT_EQ(found->gpus[0].type(), "amd-740f");
  EXPECT_EQ(found->gpus[0].count(), 2);
  EXPECT_EQ(found->gpus[0].devices(1).uuid(), "id-card1");
  ASSERT_EQ(found->accelerators.size(), 1u);
  EXPECT_EQ(found->accelerators[0].kind(), "tpu");
  EXPECT_EQ(found->accelerators[0].count(), 2);
  EXPECT_EQ(found->network_bps, 25'000'000'000u);
}

TEST_F(DevicesTest, NvmlIsReadThroughItsOwnInterface) {
  // A library that answers what nvml.h promises, for a machine with four devices, one of which does not answer.
  const auto found = nvml_devices(FAKE_NVML)->find();
  ASSERT_TRUE(found) << found.error().message();
  ASSERT_EQ(found->gpus.size(), 3u);
  EXPECT_EQ(found->gpus[0].type(), "nvidia-h100-80gb-hbm3");
  EXPECT_EQ(found->gpus[0].memory(), uint64_t{80} << 30);
  EXPECT_EQ(found->gpus[0].driver_version(), "535.104.05");
  EXPECT_EQ(found->gpus[0].compute_capability(), "9.0");
  EXPECT_EQ(found->gpus[0].devices(0).uuid(), "GPU-0");
  EXPECT_EQ(found->gpus[0].devices(0).temperature(), 41);
  EXPECT_EQ(found->gpus[1].devices(0).health(), api::HEALTH_STATUS_UNHEALTHY);
  EXPECT_EQ(found->gpus[0].topology(), api::GPU_TOPOLOGY_UNSPECIFIED) << "one device is connected with none";
  EXPECT_EQ(found->gpus[2].topology(), api::GPU_TOPOLOGY_NVLINK);
  EXPECT_EQ(found->gpus[2].devices(0).mig_profiles_size(), 0);
  ASSERT_EQ(found->gpus[2].devices(1).mig_profiles_size(), 2);
  EXPECT_EQ(found->gpus[2].devices(1).mig_profiles(0), "1g.10gb");
  EXPECT_TRUE(nvml_devices("/no/such/library.so")->find()->gpus.empty());
}

std::vector<api::WorkerGpu> gpus(const std::vector<std::pair<std::string, int>>& kinds) {
  DeviceInventory inventory;
  for (const auto& [type, count] : kinds) {
    inventory.gpus.emplace_back().set_type(type);
    inventory.gpus.back().set_count(count);
    inventory.gpus.back().set_memory(uint64_t{40} << 30);
  }
  EXPECT_TRUE(number_devices(inventory).is_ok());
  return inventory.gpus;
}

api::GpuRequest request(double count, const std::string& type = "", uint64_t memory = 0) {
  api::GpuRequest r;
  r.set_count(count);
  r.set_type(type);
  r.set_memory(memory);
  return r;
}

TEST(DevicePool, ALookTakesOverWhatChangesAndLeavesWhatIsTaken) {
  auto known = gpus({{"nvidia-a100", 2}, {"amd-mi300", 1}});
  known[0].mutable_devices(0)->set_uuid("GPU-a");
  known[0].mutable_devices(1)->set_uuid("GPU-b");
  DevicePool pool(known);
  ASSERT_TRUE(pool.take("a", request(1, "nvidia"), "t/n"));
  // The first fell off the bus, so the second is the first that the driver shows.
  auto seen = gpus({{"nvidia-a100", 1}, {"amd-mi300", 2}});
  seen[0].mutable_devices(0)->set_uuid("GPU-b");
  seen[0].mutable_devices(0)->set_memory_used(1000);
  seen[0].mutable_devices(0)->set_temperature(70);
  seen[1].mutable_devices(1)->set_utilization(0.5);  // number 2, as the only one of AMD was
  pool.refresh(seen);
  const auto& devices = pool.gpus()[0].devices();
  EXPECT_EQ(devices[0].health(), api::HEALTH_STATUS_UNHEALTHY);
  EXPECT_EQ(devices[0].allocated(), 1);
  EXPECT_EQ(devices[1].memory_used(), 1000u);
  EXPECT_EQ(devices[1].temperature(), 70);
  EXPECT_EQ(pool.gpus()[1].devices(0).utilization(), 0.5);
  EXPECT_EQ(pool.gpus()[1].devices_size(), 1);
  EXPECT_EQ(pool.count(), 2u);
  pool.refresh(known);
  EXPECT_EQ(pool.count(), 3u);
}

TEST(DevicePool, ADeviceBelongsToOneAttemptUntilItIsGivenBack) {
  DevicePool pool(gpus({{"nvidia-a100", 3}}));
  EXPECT_EQ(*pool.take("a", request(2), "t/n"), (std::vector<int>{0, 1}));
  EXPECT_FALSE(pool.take("b", request(2), "t/n"));
  EXPECT_EQ(*pool.take("c", request(1), "t/n"), (std::vector<int>{2}));
  EXPECT_EQ(pool.gpus()[0].devices(1).allocated(), 1);
  EXPECT_TRUE(pool.give_back("a"));
  EXPECT_FALSE(pool.give_back("a"));
  EXPECT_EQ(*pool.take("b", request(2), "t/n"), (std::vector<int>{0, 1}));
  EXPECT_TRUE(pool.take("none", request(0), "t/n")->empty());
}

TEST(DevicePool, TypeMemoryAndHealthDecide) {
  auto kinds = gpus({{"nvidia-a100", 2}, {"amd-mi300", 1}});
  kinds[0].mutable_devices(0)->set_health(api::HEALTH_STATUS_UNHEALTHY);
  DevicePool pool(kinds);
  EXPECT_EQ(pool.count(), 2u);
  EXPECT_FALSE(pool.take("a", request(2), "t/n"));  // of one kind, and healthy
  EXPECT_FALSE(pool.take("a", request(1, "nvidia-h100"), "t/n"));
  EXPECT_FALSE(pool.take("a", request(1, "", uint64_t{80} << 30), "t/n"));
  EXPECT_EQ(*pool.take("a", request(1, "nvidia"), "t/n"), (std::vector<int>{1}));
  EXPECT_EQ(*pool.take("b", request(1, "amd"), "t/n"), (std::vector<int>{2}));
}

TEST(DevicePool, SharesOfOneOwnerFillADeviceBeforeTheyOpenAnother) {
  DevicePool pool(gpus({{"nvidia-a100", 2}}));
  EXPECT_EQ(*pool.take("a", request(0.5), "t/n"), (std::vector<int>{0}));
  EXPECT_EQ(*pool.take("b", request(0.25), "t/n"), (std::vector<int>{0}));
  EXPECT_EQ(*pool.take("c", request(0.5), "t/n"), (std::vector<int>{1}));
  EXPECT_EQ(*pool.take("d", request(0.25), "t/n"), (std::vector<int>{0}));  // where the least is left
  EXPECT_DOUBLE_EQ(pool.gpus()[0].devices(0).allocated(), 1);
  EXPECT_FALSE(pool.take("e", request(0.75), "t/n"));
  EXPECT_FALSE(pool.take("e", request(1), "t/n")) << "a device of which a share is taken is nobody's own";
  EXPECT_TRUE(pool.give_back("c"));
  EXPECT_EQ(*pool.take("e", request(1), "t/n"), (std::vector<int>{1}));
  EXPECT_FALSE(pool.take("f", request(0.25), "t/n"));
  EXPECT_TRUE(pool.give_back("b"));
  EXPECT_EQ(*pool.take("f", request(0.25), "t/n"), (std::vector<int>{0}));
}

TEST(DevicePool, OwnersNeverShareADevice) {
  DevicePool pool(gpus({{"nvidia-a100", 1}}));
  EXPECT_TRUE(pool.take("a", request(0.1), "t/n"));
  EXPECT_FALSE(pool.take("b", request(0.1), "t/other"));
  EXPECT_TRUE(pool.give_back("a"));
  EXPECT_TRUE(pool.take("b", request(0.1), "t/other"));
}

TEST(DevicePool, ConnectionAndDriverDecide) {
  auto kinds = gpus({{"nvidia-a100", 2}, {"nvidia-h100", 2}});
  kinds[0].set_driver_version("535.104.05");
  kinds[1].set_driver_version("525.9");
  kinds[1].set_topology(api::GPU_TOPOLOGY_NVLINK);
  DevicePool pool(kinds);
  EXPECT_EQ(*pool.take("a", request(1), "t/n"), (std::vector<int>{0}));
  EXPECT_EQ(*pool.take("b", request(2), "t/n"), (std::vector<int>{2, 3})) << "the better connected ones";
  pool.give_back("b");
  auto nvlink = request(1);
  nvlink.set_topology(api::GPU_TOPOLOGY_PCIE);
  EXPECT_EQ(*pool.take("b", nvlink, "t/n"), (std::vector<int>{2})) << "NVLink is more than was asked for";
  auto driver = request(1);
  driver.set_driver_version_min("535.9");
  EXPECT_EQ(*pool.take("c", driver, "t/n"), (std::vector<int>{1}));
  driver.set_driver_version_min("536");
  EXPECT_FALSE(pool.take("d", driver, "t/n"));
}

TEST(DevicePool, TheEnvironmentNamesDevicesAsTheVendorsLibrariesCountThem) {
  DevicePool pool(gpus({{"nvidia-a100", 2}, {"amd-mi300", 2}}));
  auto env = pool.environment({1});
  EXPECT_EQ(env["CUDA_VISIBLE_DEVICES"], "1");
  EXPECT_EQ(env["CUDA_DEVICE_ORDER"], "PCI_BUS_ID");
  EXPECT_EQ(env["ROCR_VISIBLE_DEVICES"], "");
  env = pool.environment({2, 3});
  EXPECT_EQ(env["CUDA_VISIBLE_DEVICES"], "");
  EXPECT_EQ(env["ROCR_VISIBLE_DEVICES"], "0,1");
  EXPECT_TRUE(DevicePool({}).environment({}).empty());
}

}  // namespace
}  // namespace uccp::agent
