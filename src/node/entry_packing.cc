#include "node/entry_packing.h"

#include <utility>

#include "base/limits.h"

namespace uccp::node {

using storage::Encoding;

EntryPacking::EntryPacking(storage::CompressionOptions options, MetricsRegistry& metrics)
    : packer_(options), saved_bytes_(storage::saved_bytes_counter(metrics, "peers")) {}

std::shared_ptr<const PackedData> EntryPacking::pack(std::string_view data) {
  std::string bytes;
  const Encoding encoding = packer_.pack(data, bytes);
  if (encoding == Encoding::kRaw) return stays_;
  bytes.shrink_to_fit();
  return std::make_shared<const PackedData>(static_cast<uint8_t>(encoding), std::move(bytes));
}

void EntryPacking::count_sent(const raft::Message& message) {
  uint64_t saved = 0;
  for (const Entry& entry : message.entries) {
    if (entry.packed != nullptr && entry.packed->encoding != 0 && entry.packed->bytes.size() < entry.data.size()) {
      saved += entry.data.size() - entry.packed->bytes.size();
    }
  }
  if (saved > 0) saved_bytes_.add(saved);
}

Status unpack_entries(raft::Message& message) {
  for (Entry& entry : message.entries) {
    if (entry.packed == nullptr) continue;
    const auto encoding = static_cast<Encoding>(entry.packed->encoding);
    const bool fits = storage::unpacked_bytes(encoding, entry.packed->bytes) <= limits::kCommandBytesMax;
    auto data = fits ? storage::unpack(encoding, entry.packed->bytes) : std::nullopt;
    if (!data) {
      return Status(
          Code::kInvalid, "ENTRY_PACKED_INVALID",
          "unpacking entry " + std::to_string(entry.index.value) + " of a peer: its bytes are damaged or too many");
    }
    entry.data = std::move(*data);
  }
  return Status::ok();
}

}  // namespace uccp::node
