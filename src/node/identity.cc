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
  const std::string damaged =
      path + " is damaged; the data directory cannot be told apart from others, restore a backup";
  if (data.size() < 4) return fail(Code::kCorruption, "IDENTITY_INVALID", damaged);
  ByteReader tail(data.substr(data.size() - 4));
  ByteReader in(data.substr(0, data.size() - 4));
  storage::StoreIdentity identity;
  const bool ours = in.raw(kMagic.size()) == kMagic;
  const uint8_t version = in.u8();
  const bool whole = tail.u32() == crc32c(data.substr(0, data.size() - 4));
  if (ours && whole && version != kVersion) {
    return fail(Code::kFailedPrecondition, "IDENTITY_VERSION",
                path + " has format " + std::to_string(version) + ", this program reads format " +
                    std::to_string(kVersion) + "; start the version of the program that wrote the data directory");
  }
  identity.cluster_id = in.bytes();
  identity.node = NodeId(in.u64());
  identity.incarnation = Incarnation(in.u64());
  if (!ours || !whole || !in.at_end()) {
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
                    (cluster_id.empty() ? "" : " of cluster " + cluster_id) +
                    "; use the right directory or an empty one");
  }
  return found;
}

Status claim_state(storage::Kv& kv, const std::string& path, const storage::StoreIdentity& identity) {
  // No group has the number 0.
  const std::string key = ByteWriter().u64(0).raw("identity").take();
  UCCP_TRY(const std::optional<std::string> row, kv.view()->get(key));
  if (!row) {
    storage::KvBatch batch;
    batch.put(key, encode(identity));
    return kv.write(batch);
  }
  UCCP_TRY(const storage::StoreIdentity found, decode(path, *row));
  if (found == identity) return Status::ok();
  return Status(Code::kFailedPrecondition, "STATE_OF_ANOTHER_NODE",
                "the state in " + path + " belongs to node " + std::to_string(found.node.value) + " of cluster " +
                    found.cluster_id + " and this is node " + std::to_string(identity.node.value) + " of cluster " +
                    identity.cluster_id + ", or to an earlier directory of it; restore the directory as a whole");
}

}  // namespace uccp::node
