// The port of the gRPC door: takes connections and deals them out to the loops. Private to the door.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "doors/grpc/io_loop.h"

namespace uccp::doors {

class Listener final : public IoSource {
 public:
  // `address` of the client, "127.0.0.1:4711" or "[::1]:4711". The descriptor belongs to the callee.
  using OnConnection = std::function<void(int fd, std::string address)>;

  ~Listener() override { close(); }
  // Errors: failed_precondition PORT_UNAVAILABLE.
  Status listen(const std::string& host, uint16_t port);
  uint16_t port() const { return port_; }
  int fd() const { return fd_; }
  void on_connection(OnConnection callback) { on_connection_ = std::move(callback); }
  // Called at each tick of the loop.
  void also_tick(std::function<void()> callback) { also_tick_ = std::move(callback); }
  void close();

  void on_ready(uint32_t epoll_events) override;
  void on_tick(BootTime now) override;

 private:
  int fd_ = -1;
  uint16_t port_ = 0;
  OnConnection on_connection_;
  std::function<void()> also_tick_;
};

}  // namespace uccp::doors
