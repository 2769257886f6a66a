#include "node/identity.h"

#include "base/bytes.h"

namespace uccp::node {
namespace {

constexpr std::string_view kMagic = "UCCPID";
constexpr uint8_t kVersion = 1;

std::string encode(const storage::StoreIdentity& identity) {
  ByteWriter out;
  out.raw(kMagic).u8(kVersion).bytes(identity.cluster_id).u64(identity.node.value).u64(identity.incarnation.value);
  return out.u32(crc32c(out.data())).take();
}

Result<storage::StoreIdentity> decode(const std::string& path, std::string_view data) {
  const std::string damaged = path + " is damaged; the data directory cannot be told apart from others, restore a backup";
  if (data.size() < 4) return fail(Code::kCorruption, "IDENTITY_INVALID", damaged);
  ByteReader tail(data.substr(data.size() - 4));
  ByteReader in(data.substr(0, data.size() - 4));
  storage::StoreIdentity identity;
  const bool known = in.raw(kMagic.size()) == kMagic && in.u8() == kVersion;
  identity.cluster_id = in.bytes();
  identity.node = NodeId(in.u64());
  identity.incarnation = Incarnation(in.u64());
  if (!known || !in.at_end() || tail.u32() != crc32c(data.substr(0, data.size() - 4))) {
    return fail(Code::kCorruption, "IDENTITY_INVALID", damaged);
  }
  return identity;
}

}  // namespace

Result<storage::StoreIdentity> open_identity(FileSystem& files, const std::string& directory, NodeId node,
                                             const std::string& cluster_id, Random& random) {
  const std::string path = directory + "/identity";
  UCCP_RETURN_IF_ERROR(files.make_directories(directory));
  UCCP_TRY(const bool exists, files.exists(path));
  if (!exists) {
    storage::StoreIdentity made{cluster_id, node, Incarnation(random.next())};
    if (made.cluster_id.empty()) made.cluster_id = to_hex(ByteWriter().u64(random.next()).data());
    UCCP_RETURN_IF_ERROR(write_file_atomically(files, path, encode(made)));
    return made;
  }
  UCCP_TRY(const std::string data, read_file(files, path, 4096));
  UCCP_TRY(storage::StoreIdentity found, decode(path, data));
  if (found.node != node || (!cluster_id.empty() && found.cluster_id != cluster_id)) {
    return fail(Code::kFailedPrecondition, "IDENTITY_MISMATCH",
                directory + " belongs to node " + std::to_string(found.node.value) + " of cluster " + found.cluster_id +
                    " and this is node " + std::to_string(node.value) +
                    (cluster_id.empty() ? "" : " of cluster " + cluster_id) + "; use the right directory or an empty one");
  }
  return found;
}

}  // namespace uccp::node
