// Arbitrary bytes as a segment file: opening it must refuse or succeed, never crash, and what opens must be readable
// and writable. Checksums would stop nearly every input, so the first byte chooses how many of them are made right.
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "sim/sim_file_system.h"
#include "storage/wal/wal_log_store.h"

namespace {

using namespace uccp;
using namespace uccp::storage;

const StoreIdentity kIdentity{"fuzz", NodeId(1), Incarnation(7)};

// Input as (type, group, size, payload)* in one right frame.
std::string frame_of_records(std::string_view input) {
  std::string frame(wal::kFrameHeaderBytes, '\0');
  uint32_t records = 0;
  while (input.size() >= 3) {
    const size_t size = std::min<size_t>(static_cast<uint8_t>(input[2]), input.size() - 3);
    const std::string rest = ByteWriter()
                                 .u32(static_cast<uint32_t>(size))
                                 .u8(static_cast<uint8_t>(input[0]))
                                 .u64(static_cast<uint8_t>(input[1]))
                                 .raw(input.substr(3, size))
                                 .take();
    frame += ByteWriter().u32(crc32c(rest)).take() + rest;
    input.remove_prefix(3 + size);
    ++records;
  }
  const auto body = static_cast<uint32_t>(frame.size() - wal::kFrameHeaderBytes);
  const uint32_t seed = wal::frame_seed(kIdentity.incarnation, 1, wal::kSegmentHeaderBytes);
  wal::write_frame_header(frame, {body, records, 1}, seed);
  return frame;
}

std::string segment_from(std::string_view input) {
  if (input.empty()) return "";
  const char mode = input.front();
  input.remove_prefix(1);
  const std::string header = wal::encode(wal::SegmentHeader{kIdentity, 1, 1});
  if (mode % 3 == 0) return std::string(input);
  if (mode % 3 == 1) return header + std::string(input);
  return header + frame_of_records(input);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sim::SimFileSystem files;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  UCCP_CHECK(files.make_directories("/wal").is_ok(), "the simulated disk works");
  UCCP_CHECK(write_file_atomically(files, "/wal/" + wal::segment_name(1), segment_from(input)).is_ok(),
             "the simulated disk works");
  WalLogStore::Options options;
  options.segment_bytes = 4096;
  RecoveryReport report;
  auto store = WalLogStore::open(files, "/wal", kIdentity, options, report);
  if (!store) return 0;
  for (const GroupId group : (*store)->groups()) {
    const auto log = (*store)->load(group);
    UCCP_CHECK(log.has_value(), "a group of an open log loads");
    const auto entries = (*store)->read(group, log->start.index.next(), log->last.index.next(), 1 << 20);
    // Packed data is looked into only when it is read: a checksum holds for a writer that packed wrongly, too.
    if (!entries) {
      UCCP_CHECK(entries.error().reason() == "WAL_DAMAGED", "the entries of an open log are readable or damaged");
      return 0;
    }
  }
  const Status written = (*store)->set_hard_state(GroupId(1), {Term(1), NodeId(1), LogIndex(0)});
  UCCP_CHECK(written.is_ok(), "an open log is writable");
  UCCP_CHECK((*store)->close().is_ok(), "an open log is writable");
  UCCP_CHECK(WalLogStore::open(files, "/wal", kIdentity, options, report).has_value(), "a closed log opens again");
  return 0;
}
