// Unary calls a second through door and pipeline, client in the same process: door_bench [grpc|rest] [in flight]
// [threads].
#include <cstdio>
#include <cstring>
#include <vector>

#include "doors/test_support.h"

using namespace uccp;
using namespace uccp::doors;
using namespace uccp::doors::testing;

namespace {

constexpr char kMethod[] = "uccp.v1.Administration/GetVersion";
constexpr auto kDuration = std::chrono::seconds(4);

struct GrpcLoad {
  GrpcChannel& channel;
  std::atomic<bool>& stop;
  std::atomic<size_t>& done;
  std::atomic<size_t>& open;
  void next() {
    channel.unary_async(kMethod, {}, [this](Result<std::string> result) {
      if (!result) std::printf("error: %s\n", result.error().to_string().c_str());
      done.fetch_add(1);
      if (stop.load() || !result) open.fetch_sub(1);
      else next();
    });
  }
};

size_t run_grpc(Doors& doors, size_t in_flight) {
  std::atomic<bool> stop{false};
  std::atomic<size_t> done{0};
  std::atomic<size_t> open{in_flight};
  auto channel = doors.channel();
  GrpcLoad load{*channel, stop, done, open};
  for (size_t i = 0; i < in_flight; ++i) load.next();
  std::this_thread::sleep_for(kDuration);
  stop = true;
  const size_t total = done.load();
  while (open.load() > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return total;
}

size_t run_rest(Doors& doors, size_t connections) {
  std::atomic<bool> stop{false};
  std::atomic<size_t> done{0};
  std::vector<std::thread> threads;
  for (size_t i = 0; i < connections; ++i) {
    threads.emplace_back([&] {
      HttpsClient client(doors.rest_port);
      while (!stop.load()) {
        if (client.ask("GET", "/api/v1/version").status != 200) return std::puts("bad reply"), void();
        done.fetch_add(1);
      }
    });
  }
  std::this_thread::sleep_for(kDuration);
  stop = true;
  const size_t total = done.load();
  for (auto& thread : threads) thread.join();
  return total;
}

}  // namespace

int main(int argc, char** argv) {
  const char* door = argc > 1 ? argv[1] : "grpc";
  const size_t in_flight = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 64;
  Doors doors;
  if (argc > 3) doors.grpc_options.io_threads = doors.rest_options.http.io_threads = std::strtoul(argv[3], nullptr, 10);
  doors.handlers.add(kMethod, [](const call::CallPtr& call, std::string) {
    call->reply(
        std::string("\x0a\x05"
                    "1.2.3",
                    7));
  });
  doors.open();
  const size_t total = std::strcmp(door, "rest") == 0 ? run_rest(doors, in_flight) : run_grpc(doors, in_flight);
  std::printf("%s: %zu in flight, %.0f calls/s\n", door, in_flight,
              static_cast<double>(total) / std::chrono::duration<double>(kDuration).count());
  return 0;
}
