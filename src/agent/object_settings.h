// What an operator says of shared objects, and the server that follows from it.
//
// Thread: one; reads the environment.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "agent/object_server.h"

namespace uccp::agent {

// The flags --objects-..., as docs/shared_memory.md has them.
struct ObjectSettings {
  std::optional<uint64_t> memory;
  uint64_t disk = 16ull << 30;
  std::string eviction = "s3-fifo";
  std::string ttl = "10m";
  int share = 100;
  uint64_t ready = 128ull << 20;
  std::string listen = "127.0.0.1:0";
  std::string advertise;
  std::string lease = "60s";
  std::string compression = "none";
  std::string tier;  // its secrets are in the environment
  std::string tier_compression = "zstd";
  std::string tier_ca;
};

// The machine that the objects are on.
struct ObjectMachine {
  std::string data_directory;
  std::string zone;
  std::string host_name;
  uint64_t memory_bytes = 0;
};

// Empty, or what is wrong with the flags and how they are right.
std::string wrong_settings(const ObjectSettings& settings);

// Null where no objects are shared: it was not wanted, or the machine lacks what it needs. Requires that nothing is
// wrong with the settings; the references must outlive the server.
std::unique_ptr<ObjectServer> share_objects(const ObjectSettings& settings, const ObjectMachine& machine,
                                            const Clock& clock, FileSystem& files);

}  // namespace uccp::agent
