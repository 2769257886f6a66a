// A file system in memory that forgets and tears what was not synced, as a disk may.
//
// Every file has the content that the program sees and the content that is durable, with the changes between them in
// order; every directory likewise. crash() lets each unsynced change survive, vanish or, for a write, survive in part.
// Simplified: directories themselves are durable at once; changes of one directory survive as a prefix, as in a
// journal.
//
// One thread. Handles opened before a crash fail after it, as those of a dead process.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"

namespace uccp::sim {

class SimFileSystem final : public FileSystem {
 public:
  SimFileSystem();
  ~SimFileSystem() override;

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<std::vector<std::string>> list(const std::string& directory) override;
  Result<bool> exists(const std::string& path) override;
  Status make_directories(const std::string& path) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status sync_directory(const std::string& path) override;
  Result<uint64_t> free_bytes(const std::string& path) override;

  // The machine loses power: unsynced changes survive as `random` says.
  void crash(Random& random);
  // The worst clean case: nothing unsynced survives.
  void crash_losing_unsynced();
  // The process dies, the machine does not: everything survives, but handles are dead.
  void crash_keeping_all();

  // Faults. Each hits the next matching operation once; paths match if they contain `path_part`.
  // The sync fails, and what it should have written will never be durable although it can be read (as on Linux).
  void fail_next_sync(std::string path_part = "");
  // The next write keeps only its first `bytes` bytes and fails.
  void short_write(uint64_t bytes, std::string path_part = "");
  void fail_next_read(std::string path_part = "");
  // Damages a stored byte, durably. Requires that the file has it.
  void flip_bit(const std::string& path, uint64_t offset, int bit = 0);
  // Bytes that all files together may have; 0 for no limit. What does not fit fails with NO_SPACE.
  void set_capacity(uint64_t bytes) { capacity_ = bytes; }
  // Of all operations that change something, syncs included, `operations` more succeed; the one after them is begun but
  // not finished, and everything fails from there on, until a crash. For trying every crash point of a test.
  void fail_after(uint64_t operations);

  // Of File::prepare(), which changes nothing here.
  uint64_t prepared_bytes() const { return prepared_bytes_; }

  // Changes that crashes have lost, and writes of which they kept a part.
  struct CrashCounts {
    uint64_t lost = 0;
    uint64_t torn = 0;
  };
  const CrashCounts& crash_counts() const { return crash_counts_; }
  // Faults that were asked for and have not hit anything yet are off.
  void clear_faults();
  bool has_failed() const { return failed_; }
  // Operations so far that change something, syncs included.
  uint64_t operations() const { return operations_; }
  uint64_t sync_count() const { return sync_count_; }
  uint64_t used_bytes() const;

 private:
  friend class SimFile;
  struct Change;
  struct Inode;
  struct DirectoryChange;
  using Entries = std::map<std::string, std::shared_ptr<Inode>>;
  struct Fault {
    bool armed = false;
    std::string path_part;
    uint64_t bytes = 0;
  };

  // Counts an operation; an error if it is the one that a planned crash interrupts, or comes after it.
  Status begin_operation();
  Status alive(uint64_t generation) const;
  static bool take(Fault& fault, const std::string& path);
  void link(const std::string& path, std::shared_ptr<Inode> inode);
  void end_processes();

  Entries current_;
  Entries durable_;
  std::set<std::string> directories_;
  // Unsynced changes of entries, by directory.
  std::map<std::string, std::vector<DirectoryChange>> changes_;
  Fault sync_fault_;
  Fault write_fault_;
  Fault read_fault_;
  uint64_t prepared_bytes_ = 0;
  uint64_t capacity_ = 0;
  uint64_t operations_ = 0;
  uint64_t operations_until_failure_ = UINT64_MAX;
  uint64_t generation_ = 0;
  uint64_t sync_count_ = 0;
  CrashCounts crash_counts_;
  bool failed_ = false;
};

}  // namespace uccp::sim
