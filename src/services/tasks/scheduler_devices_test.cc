// Devices: shares by turns, connections and drivers, gangs over several workers.
#include <gtest/gtest.h>

#include "services/tasks/scheduler.h"

namespace uccp::tasks {
namespace {

class SchedulerDevicesTest : public ::testing::Test {
 protected:
  void worker(const std::string& id, int64_t gpus, GpuLink link = GpuLink::kAny, const char* driver = "535.104") {
    WorkerView view{.id = id, .capacity = {.cpu_milli = 64'000, .gpus = gpus}, .slots = 100};
    view.gpus = {{"nvidia-h100", gpus, int64_t{80} << 30, link, dotted_version(driver)}};
    view.capacity.counted[kGpuShare] = gpus * SharedDevices::kWhole;
    scheduler_.set_worker(view);
  }
  QueuedTask task(const std::string& id, const std::string& name_space = "n") {
    QueuedTask task{.ref = {"t", name_space, id}};
    task.demand.shape.cpu_milli = 100;
    task.order = ++order_;
    return task;
  }
  TaskRef share(const std::string& id, int64_t thousandths, const std::string& name_space = "n") {
    QueuedTask one = task(id, name_space);
    one.demand.shape.counted[kGpuShare] = thousandths;
    one.demand.tenant = "t";
    one.demand.name_space = name_space;
    scheduler_.add_task(one);
    return one.ref;
  }
  TaskRef whole(const std::string& id, int64_t gpus, GpuLink link = GpuLink::kAny, const char* driver = "") {
    QueuedTask one = task(id);
    one.demand.shape.gpus = gpus;
    one.demand.gpu.link = link;
    one.demand.gpu.driver = dotted_version(driver);
    scheduler_.add_task(one);
    return one.ref;
  }
  // "task worker" of what is placed, in order.
  std::vector<std::string> placed() {
    std::vector<std::string> out;
    for (const Assignment& one : scheduler_.assign(now_ms_ += 1'000, 100))
      out.push_back(one.task.id + " " + one.worker);
    return out;
  }
  int64_t used(const std::string& worker) { return scheduler_.usage(worker).used.gpus; }
  using Placed = std::vector<std::string>;

  Scheduler scheduler_;
  int64_t now_ms_ = 0;
  uint64_t order_ = 0;
};

TEST_F(SchedulerDevicesTest, SharesFillADeviceBeforeTheyOpenAnother) {
  worker("a", 1);
  worker("b", 2);
  for (int i = 0; i < 4; ++i) share("s" + std::to_string(i), 250);
  const auto first = placed();
  ASSERT_EQ(first.size(), 4u);
  EXPECT_EQ(used("a") + used("b"), 1) << "one device holds them all";
  whole("w", 2);
  EXPECT_EQ(placed(), Placed{"w b"}) << "two whole ones are left together";
  share("one more", 10);
  EXPECT_EQ(placed(), Placed{}) << "nothing is left of any device";
  EXPECT_EQ(scheduler_.explain({"t", "n", "one more"})->reasons.front().obstacle, Obstacle::kBusy);
  scheduler_.release({"t", "n", "s2"});
  EXPECT_EQ(placed(), Placed{"one more a"});
}

TEST_F(SchedulerDevicesTest, TheLastShareGivesTheDeviceBack) {
  worker("a", 1);
  share("s", 500);
  EXPECT_EQ(placed(), Placed{"s a"});
  whole("w", 1);
  EXPECT_EQ(placed(), Placed{}) << "what is shared is nobody's own";
  scheduler_.release({"t", "n", "s"});
  EXPECT_EQ(placed(), Placed{"w a"});
  share("s2", 500);
  EXPECT_EQ(placed(), Placed{});
  scheduler_.release({"t", "n", "w"});
  EXPECT_EQ(placed(), Placed{"s2 a"});
}

TEST_F(SchedulerDevicesTest, NamespacesNeverShareADevice) {
  worker("a", 1);
  share("mine", 100);
  EXPECT_EQ(placed(), Placed{"mine a"});
  share("theirs", 100, "other");
  EXPECT_EQ(placed(), Placed{});
  scheduler_.release({"t", "n", "mine"});
  EXPECT_EQ(placed(), Placed{"theirs a"});
}

TEST_F(SchedulerDevicesTest, SharesThatAreFoundRunningAreCounted) {
  worker("a", 2);
  for (int i = 0; i < 3; ++i) {
    QueuedTask one = task("s" + std::to_string(i));
    one.demand.shape.counted[kGpuShare] = 500;
    one.demand.tenant = "t";
    one.demand.name_space = "n";
    scheduler_.occupy("a", one);
  }
  EXPECT_EQ(used("a"), 2);
  share("fits", 500);
  share("does not", 500);
  EXPECT_EQ(placed(), Placed{"fits a"});
  scheduler_.remove_worker("a");
  worker("a", 2);
  whole("w", 2);
  EXPECT_EQ(placed().size(), 1u) << "nothing is left of what ran on a worker that was lost";
}

TEST_F(SchedulerDevicesTest, ConnectionAndDriverAreConditions) {
  worker("plain", 4, GpuLink::kAny, "550.1");
  worker("nvlink", 4, GpuLink::kNvlink, "525.60");
  whole("wants", 2, GpuLink::kPcie);
  whole("prefers", 2);
  EXPECT_EQ(placed(), (Placed{"wants nvlink", "prefers nvlink"})) << "several devices go where they are connected best";
  whole("driver", 1, GpuLink::kAny, "535");
  EXPECT_EQ(placed(), Placed{"driver plain"});
  whole("never", 1, GpuLink::kNvlink, "535");
  EXPECT_EQ(placed(), Placed{});
  EXPECT_EQ(scheduler_.explain({"t", "n", "never"})->reasons.front().obstacle, Obstacle::kTooSmall);
}

TEST_F(SchedulerDevicesTest, AGangTakesTheDevicesOfSeveralWorkersAtOnceOrNone) {
  for (const char* id : {"a", "b", "c"}) worker(id, 8);
  whole("busy", 1);
  ASSERT_EQ(placed().size(), 1u);
  for (int i = 0; i < 3; ++i) {
    QueuedTask one = task("g" + std::to_string(i));
    one.demand.shape.gpus = 8;
    one.gang = "training";
    one.gang_size = 3;
    scheduler_.add_task(one);
  }
  EXPECT_EQ(placed(), Placed{}) << "two of three workers are free";
  EXPECT_EQ(used("a") + used("b") + used("c"), 1);
  scheduler_.release({"t", "n", "busy"});
  EXPECT_EQ(placed().size(), 3u);
  EXPECT_EQ(used("a") + used("b") + used("c"), 24);
}

TEST_F(SchedulerDevicesTest, FragmentationIsWhatIsFreeBesideWhatIsUsed) {
  EXPECT_EQ(scheduler_.gpu_fragmentation(), 0);
  worker("a", 4);
  worker("b", 4);
  EXPECT_EQ(scheduler_.gpu_fragmentation(), 0);
  whole("w", 2);
  ASSERT_EQ(placed().size(), 1u);
  EXPECT_DOUBLE_EQ(scheduler_.gpu_fragmentation(), 2.0 / 6);
  share("s", 500);
  ASSERT_EQ(placed().size(), 1u);
  EXPECT_DOUBLE_EQ(scheduler_.gpu_fragmentation(), 1.5 / 5.5) << "it went beside what is used already";
}

}  // namespace
}  // namespace uccp::tasks
