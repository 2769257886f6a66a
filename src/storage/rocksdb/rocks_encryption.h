// RocksDB's files encrypted with the data keys of a KeyRing. docs/formats/encryption.md is the format.
#pragma once

#include <rocksdb/env.h>

#include <memory>
#include <string>

#include "base/random.h"
#include "storage/key_ring.h"

namespace uccp::storage {

// What a database needs to be encrypted. All of it must outlive the database.
struct RocksEncryption {
  const KeyRing* keys = nullptr;  // none: not encrypted
  Random* random = nullptr;       // the system's, callable from any thread
};

// The environment of an encrypted database, which must outlive it.
std::unique_ptr<rocksdb::Env> encrypted_env(const RocksEncryption& encryption);

}  // namespace uccp::storage
