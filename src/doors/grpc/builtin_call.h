// The calls that the gRPC door answers itself: reflection and health. Private to the door.
#pragma once

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace uccp::doors {

// The health watches that are open, told of changes by the door's sweep.
class HealthWatch;
class HealthWatchList {
 public:
  void add(HealthWatch* watch);
  void remove(HealthWatch* watch);
  // Sends the state to all watches that have not seen it yet.
  void publish(bool ready);
  // Ends all watches, those that come later too.
  void close();

 private:
  std::mutex mutex_;
  std::set<HealthWatch*> watches_;
  bool closed_ = false;
};

// A reactor if `method` is one of the built-in ones, else null.
grpc::ServerGenericBidiReactor* start_builtin(std::string_view method, const std::function<bool()>& ready,
                                              HealthWatchList& watches);

}  // namespace uccp::doors
