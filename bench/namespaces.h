// Network namespaces of a benchmark: one a node, joined by a bridge, so that a node can be cut off. Needs root, the
// programs ip and nft.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"

namespace uccp::bench {

// Where a node of a cluster runs: its address, and the words before its command.
struct Place {
  std::string host;
  std::vector<std::string> prefix;
};

class Namespaces {
 public:
  // Errors: failed_precondition NAMESPACES_UNAVAILABLE.
  static Result<std::unique_ptr<Namespaces>> make(size_t count);
  ~Namespaces();

  const std::vector<Place>& places() const { return places_; }
  // Drops everything between the node and the other nodes, not between it and the benchmark.
  void isolate(size_t node);
  void heal();

 private:
  explicit Namespaces(size_t count);
  std::string name(size_t node) const;
  // Runs lines of sh; the first that fails ends them. False if one did.
  static bool shell(const std::string& lines);

  std::string id_;
  std::vector<Place> places_;
};

}  // namespace uccp::bench
