#include "sim/sim_file_system.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/check.h"

namespace uccp::sim {

// Disks write whole sectors; a torn write keeps some of them.
constexpr uint64_t kSectorBytes = 512;

struct SimFileSystem::Change {
  enum class Kind { kWrite, kTruncate, kAllocate };
  Kind kind = Kind::kWrite;
  uint64_t offset = 0;  // for kTruncate and kAllocate: the size
  std::string data;

  void apply(std::string& content) const {
    switch (kind) {
      case Kind::kWrite:
        if (content.size() < offset + data.size()) content.resize(offset + data.size());
        std::copy(data.begin(), data.end(), content.begin() + static_cast<ptrdiff_t>(offset));
        return;
      case Kind::kTruncate: content.resize(offset); return;
      case Kind::kAllocate:
        if (content.size() < offset) content.resize(offset);
        return;
    }
  }

  // The share of it that was kept: 0 nothing, 1 a part, 2 all.
  int apply_torn(std::string& content, Random& random) const {
    if (kind != Kind::kWrite) {
      if (!random.chance(0.5)) return 0;
      apply(content);
      return 2;
    }
    const uint64_t end = offset + data.size();
    bool kept = false;
    bool lost = false;
    for (uint64_t at = offset; at < end;) {
      const uint64_t next = std::min(end, (at / kSectorBytes + 1) * kSectorBytes);
      const bool keeps = random.chance(0.5);
      (keeps ? kept : lost) = true;
      if (keeps) Change{Kind::kWrite, at, data.substr(at - offset, next - at)}.apply(content);
      at = next;
    }
    return kept && lost ? 1 : kept ? 2 : 0;
  }
};

struct SimFileSystem::Inode {
  std::string current;
  std::string durable;
  std::vector<Change> unsynced;

  void change(Change change) {
    change.apply(current);
    unsynced.push_back(std::move(change));
  }

  void make_durable() {
    for (const Change& change : unsynced) change.apply(durable);
    unsynced.clear();
  }
};

// After it, `path` names `inode` (none: nothing), and `removed_path` names nothing. One rename is one change.
struct SimFileSystem::DirectoryChange {
  std::string path;
  std::shared_ptr<Inode> inode;
  std::string removed_path;

  void apply(Entries& entries) const {
    if (!removed_path.empty()) entries.erase(removed_path);
    if (inode) {
      entries[path] = inode;
    } else {
      entries.erase(path);
    }
  }
};

namespace {

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status io_error(const std::string& what, const std::string& path) {
  return Status(Code::kUnavailable, "IO_ERROR", what + " of " + path + " failed (simulated)");
}

Status no_space(const std::string& path) {
  return Status(Code::kExhausted, "NO_SPACE", "the disk is full; " + path + " cannot grow (simulated)");
}

}  // namespace

class SimFile final : public File {
 public:
  SimFile(SimFileSystem& files, std::string path, std::shared_ptr<SimFileSystem::Inode> inode, bool writable)
      : files_(files),
        path_(std::move(path)),
        inode_(std::move(inode)),
        generation_(files.generation_),
        writable_(writable) {}

  Status read_at(uint64_t offset, size_t size, std::string& out) override {
    UCCP_RETURN_IF_ERROR(files_.alive(generation_));
    if (SimFileSystem::take(files_.read_fault_, path_)) return io_error("reading", path_);
    const std::string& content = inode_->current;
    out = offset >= content.size() ? std::string() : content.substr(offset, size);
    return {};
  }

  Status write_at(uint64_t offset, std::string_view data) override {
    UCCP_RETURN_IF_ERROR(may_write());
    Status begun = files_.begin_operation();
    if (begun.is_ok() && SimFileSystem::take(files_.write_fault_, path_)) {
      begun = io_error("writing", path_);
      data = data.substr(0, files_.write_fault_.bytes);
    }
    const uint64_t room = room_to_grow();
    if (begun.is_ok() && offset + data.size() > room) {
      begun = no_space(path_);
      data = offset >= room ? std::string_view() : data.substr(0, room - offset);
    }
    if (!data.empty()) inode_->change({SimFileSystem::Change::Kind::kWrite, offset, std::string(data)});
    return begun;
  }

  Status sync() override {
    UCCP_RETURN_IF_ERROR(may_write());
    UCCP_RETURN_IF_ERROR(files_.begin_operation());
    ++files_.sync_count_;
    if (SimFileSystem::take(files_.sync_fault_, path_)) {
      inode_->unsynced.clear();
      return io_error("sync", path_);
    }
    inode_->make_durable();
    return {};
  }

  Result<uint64_t> size() override {
    UCCP_RETURN_IF_ERROR(files_.alive(generation_));
    return inode_->current.size();
  }

  Status truncate(uint64_t size) override {
    UCCP_RETURN_IF_ERROR(may_write());
    if (size > room_to_grow()) return no_space(path_);
    const Status begun = files_.begin_operation();
    inode_->change({SimFileSystem::Change::Kind::kTruncate, size, ""});
    return begun;
  }

  void prepare(uint64_t, uint64_t size) override { files_.prepared_bytes_ += size; }

  Status allocate(uint64_t size) override {
    UCCP_RETURN_IF_ERROR(may_write());
    if (size > room_to_grow()) return no_space(path_);
    const Status begun = files_.begin_operation();
    inode_->change({SimFileSystem::Change::Kind::kAllocate, size, ""});
    return begun;
  }

 private:
  Status may_write() const {
    UCCP_RETURN_IF_ERROR(files_.alive(generation_));
    if (!writable_) return Status(Code::kInvalid, "FILE_READ_ONLY", path_ + " was opened for reading");
    return {};
  }

  // The size that this file may have.
  uint64_t room_to_grow() const {
    if (files_.capacity_ == 0) return UINT64_MAX;
    const uint64_t used = files_.used_bytes();
    const uint64_t free = files_.capacity_ > used ? files_.capacity_ - used : 0;
    return inode_->current.size() + free;
  }

  SimFileSystem& files_;
  const std::string path_;
  const std::shared_ptr<SimFileSystem::Inode> inode_;
  const uint64_t generation_;
  const bool writable_;
};

SimFileSystem::SimFileSystem() : directories_{"/", "."} {}
SimFileSystem::~SimFileSystem() = default;

Status SimFileSystem::begin_operation() {
  if (failed_) return io_error("an operation", "the crashed disk");
  if (operations_until_failure_ == 0) {
    failed_ = true;
    return io_error("an operation", "the crashing disk");
  }
  --operations_until_failure_;
  ++operations_;
  return {};
}

Status SimFileSystem::alive(uint64_t generation) const {
  if (failed_ || generation != generation_) return io_error("an operation", "a file of a process that crashed");
  return {};
}

bool SimFileSystem::take(Fault& fault, const std::string& path) {
  if (!fault.armed || path.find(fault.path_part) == std::string::npos) return false;
  fault.armed = false;
  return true;
}

void SimFileSystem::link(const std::string& path, std::shared_ptr<Inode> inode) {
  DirectoryChange change{path, std::move(inode), ""};
  change.apply(current_);
  changes_[parent_of(path)].push_back(std::move(change));
}

Result<std::unique_ptr<File>> SimFileSystem::open(const std::string& path, OpenMode mode) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  const auto it = current_.find(path);
  const bool found = it != current_.end();
  const bool writable = mode != OpenMode::kRead;
  if (found && mode == OpenMode::kCreate) return fail(Code::kAlreadyExists, "FILE_EXISTS", path + " exists already");
  if (found) return std::make_unique<SimFile>(*this, path, it->second, writable);
  if (mode == OpenMode::kRead || mode == OpenMode::kReadWrite) {
    return fail(Code::kNotFound, "FILE_NOT_FOUND", path + " does not exist");
  }
  if (!directories_.contains(parent_of(path))) {
    return fail(Code::kNotFound, "FILE_NOT_FOUND", "the directory of " + path + " does not exist");
  }
  const Status begun = begin_operation();
  auto inode = std::make_shared<Inode>();
  link(path, inode);
  if (!begun.is_ok()) return fail(begun);
  return std::make_unique<SimFile>(*this, path, std::move(inode), writable);
}

Result<std::vector<std::string>> SimFileSystem::list(const std::string& directory) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  if (!directories_.contains(directory)) {
    return fail(Code::kNotFound, "FILE_NOT_FOUND", directory + " does not exist");
  }
  std::vector<std::string> names;
  const std::string prefix = directory == "/" ? directory : directory + "/";
  const auto add = [&](const std::string& path) {
    if (path != directory && path != "/" && parent_of(path) == directory) names.push_back(path.substr(prefix.size()));
  };
  for (const auto& [path, inode] : current_) add(path);
  for (const std::string& path : directories_) add(path);
  std::ranges::sort(names);
  return names;
}

Result<bool> SimFileSystem::exists(const std::string& path) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  return current_.contains(path) || directories_.contains(path);
}

Status SimFileSystem::make_directories(const std::string& path) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  for (std::string at = path; directories_.insert(at).second;) at = parent_of(at);
  return {};
}

Status SimFileSystem::remove(const std::string& path) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  if (!current_.contains(path)) return {};
  const Status begun = begin_operation();
  link(path, nullptr);
  return begun;
}

Status SimFileSystem::rename(const std::string& from, const std::string& to) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  const auto it = current_.find(from);
  if (it == current_.end()) return Status(Code::kNotFound, "FILE_NOT_FOUND", from + " does not exist");
  const Status begun = begin_operation();
  DirectoryChange change{to, it->second, from};
  change.apply(current_);
  changes_[parent_of(to)].push_back(std::move(change));
  return begun;
}

Status SimFileSystem::sync_directory(const std::string& path) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  if (!directories_.contains(path)) {
    return Status(Code::kNotFound, "FILE_NOT_FOUND", "directory '" + path + "' does not exist");
  }
  UCCP_RETURN_IF_ERROR(begin_operation());
  if (take(sync_fault_, path)) return io_error("sync", path);
  for (const DirectoryChange& change : changes_[path]) change.apply(durable_);
  changes_.erase(path);
  return {};
}

Result<uint64_t> SimFileSystem::free_bytes(const std::string&) {
  UCCP_RETURN_IF_ERROR(alive(generation_));
  const uint64_t used = used_bytes();
  if (capacity_ == 0) return uint64_t{1} << 40;
  return capacity_ > used ? capacity_ - used : 0;
}

uint64_t SimFileSystem::used_bytes() const {
  uint64_t used = 0;
  for (const auto& [path, inode] : current_) used += inode->current.size();
  return used;
}

void SimFileSystem::end_processes() {
  ++generation_;
  failed_ = false;
  clear_faults();
}

void SimFileSystem::clear_faults() {
  operations_until_failure_ = UINT64_MAX;
  sync_fault_ = write_fault_ = read_fault_ = {};
}

void SimFileSystem::crash(Random& random) {
  for (auto& [directory, changes] : changes_) {
    const uint64_t kept = random.below(changes.size() + 1);
    for (uint64_t i = 0; i < kept; ++i) changes[i].apply(durable_);
  }
  for (auto& [path, inode] : durable_) {
    // All of it, nothing, or each change on its own: the clean cases are as likely to be handled wrongly as the torn.
    const uint64_t mode = random.below(4);
    if (mode == 0) inode->make_durable();
    if (mode >= 2) {
      for (const Change& change : inode->unsynced) {
        const int share = change.apply_torn(inode->durable, random);
        crash_counts_.lost += share == 0;
        crash_counts_.torn += share == 1;
      }
    } else if (mode == 1) {
      crash_counts_.lost += inode->unsynced.size();
    }
    inode->unsynced.clear();
  }
  crash_losing_unsynced();
}

void SimFileSystem::crash_losing_unsynced() {
  changes_.clear();
  current_ = durable_;
  for (auto& [path, inode] : durable_) {
    crash_counts_.lost += inode->unsynced.size();
    inode->unsynced.clear();
    inode->current = inode->durable;
  }
  end_processes();
}

void SimFileSystem::crash_keeping_all() { end_processes(); }

void SimFileSystem::fail_next_sync(std::string path_part) { sync_fault_ = {true, std::move(path_part), 0}; }

void SimFileSystem::short_write(uint64_t bytes, std::string path_part) {
  write_fault_ = {true, std::move(path_part), bytes};
}

void SimFileSystem::fail_next_read(std::string path_part) { read_fault_ = {true, std::move(path_part), 0}; }

void SimFileSystem::fail_after(uint64_t operations) { operations_until_failure_ = operations; }

void SimFileSystem::flip_bit(const std::string& path, uint64_t offset, int bit) {
  const auto it = current_.find(path);
  UCCP_CHECK(it != current_.end() && offset < it->second->current.size(), "a bit is flipped in a byte that exists");
  const char mask = static_cast<char>(1 << bit);
  it->second->current[offset] ^= mask;
  if (offset < it->second->durable.size()) it->second->durable[offset] ^= mask;
}

}  // namespace uccp::sim
