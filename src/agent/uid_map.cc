#include "agent/uid_map.h"

#include <set>
#include <sstream>

#include "base/hash.h"

namespace uccp::agent {
namespace {
constexpr uint64_t kFileBytesMax = 16u << 20;
}

Result<UidMap> UidMap::open(FileSystem& files, std::string path) {
  UidMap map(files, std::move(path));
  UCCP_TRY(bool exists, files.exists(map.path_));
  if (!exists) return map;
  UCCP_TRY(std::string text, read_file(files, map.path_, kFileBytesMax));
  std::istringstream lines(text);
  std::set<uint32_t> taken;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    uint32_t uid = 0;
    std::string name, more;
    const bool whole = (fields >> uid >> name) && !(fields >> more) && name.find('/') != std::string::npos;
    if (!whole || uid < kUidFirst || uid >= kUidFirst + kUidCount) {
      return fail(Code::kCorruption, "UID_MAP_INVALID",
                  map.path_ + ": \"" + line + "\" is not \"<uid> <tenant>/<namespace>\"");
    }
    if (!taken.insert(uid).second || !map.uids_.emplace(name, uid).second) {
      return fail(Code::kCorruption, "UID_MAP_INVALID",
                  map.path_ + ": \"" + line + "\": a user or a namespace is there twice");
    }
  }
  return map;
}

Result<uint32_t> UidMap::uid_of(const std::string& tenant, const std::string& namespace_name) {
  const std::string name = tenant + "/" + namespace_name;
  if (const auto found = uids_.find(name); found != uids_.end()) return found->second;
  std::set<uint32_t> taken;
  for (const auto& [other, uid] : uids_) taken.insert(uid);
  if (taken.size() >= kUidCount) {
    return fail(Code::kExhausted, "UIDS_EXHAUSTED",
                "all " + std::to_string(kUidCount) + " task users are taken on this worker");
  }
  // By hash, so that workers mostly agree on the number; the stored map decides.
  uint32_t slot = static_cast<uint32_t>(hash64(name) % kUidCount);
  while (taken.contains(kUidFirst + slot)) slot = (slot + 1) % kUidCount;
  uids_[name] = kUidFirst + slot;
  std::string text;
  for (const auto& [other, uid] : uids_) text += std::to_string(uid) + " " + other + "\n";
  if (Status status = write_file_atomically(*files_, path_, text); !status.is_ok()) {
    uids_.erase(name);
    return fail(std::move(status));
  }
  return kUidFirst + slot;
}

}  // namespace uccp::agent
