// Ports that a node is to keep over its restarts: free ones that no other cluster of this user has been given here.
//
// That a port is free now does not say that nobody owns it: its node may be down. So what was given away is noted in a
// folder of the user, TMPDIR/uccp-ports-UID: a symbolic link named after each port, to the directory it was chosen for.
// It counts as long as that directory exists. Without such a folder (it cannot be made, or belongs to somebody else)
// ports are chosen by whether they are free alone. One process chooses at a time.
#pragma once

#include <cstdint>
#include <set>
#include <string>

#include "base/status.h"
#include "runtime/os_random.h"

namespace uccp::server {

struct PortChooserOptions {
  std::string host;   // where the ports are to be free; a name: on every address
  std::string owner;  // the absolute path of the directory that they are for
  // What the owner was given before is void: it has no nodes.
  bool anew = false;
  std::string notes;  // the folder of the notes; empty: the user's
  // Below the range from which the kernel takes ports for outgoing connections: a port stays free while its node is
  // down.
  uint16_t first = 20'000;
  uint16_t end = 32'000;
};

class PortChooser {
 public:
  explicit PortChooser(PortChooserOptions options);
  ~PortChooser();
  PortChooser(const PortChooser&) = delete;
  PortChooser& operator=(const PortChooser&) = delete;

  // Another port, each one once. Errors: exhausted PORTS_EXHAUSTED.
  Result<uint16_t> next();

 private:
  void open_notes();
  void read_notes();

  const PortChooserOptions options_;
  runtime::SystemRandom random_;
  std::set<uint16_t> taken_;
  int notes_ = -1;  // the folder, locked while this lives; -1: there is none
};

}  // namespace uccp::server
