// Any bytes as a file under EncryptedFileSystem: refused, read as it is, or read, written and read again.
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "sim/sim_file_system.h"
#include "storage/encrypted_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const storage::KeyRing keys({{"11111111", 0, *SecretKey::parse(std::string(64, 'a'))}});
  SeededRandom random(1);
  sim::SimFileSystem disk;
  storage::EncryptedFileSystem files(disk, keys, random);
  UCCP_CHECK(disk.make_directories("/d").is_ok(), "a simulated directory");
  // As it is, and behind a right header with any padding.
  ByteWriter header;
  header.raw("UCCPENC\n").u32(1).raw("11111111").raw(std::string(32, 's')).u8(size > 0 ? data[0] : 0);
  header.u32(crc32c(header.data()));
  const std::string page = header.data() + std::string(4096 - header.data().size(), '\0');
  for (const std::string& content : {std::string(bytes), page + std::string(bytes)}) {
    UCCP_CHECK(write_file_atomically(disk, "/d/f", content).is_ok(), "a simulated file");
    auto file = files.open("/d/f", OpenMode::kReadWrite);
    if (!file) continue;
    std::string read;
    UCCP_CHECK((*file)->read_at(0, 1 << 20, read).is_ok(), "what was opened is read");
    UCCP_CHECK((*file)->write_at(read.size(), "more").is_ok(), "and written to");
    std::string again;
    UCCP_CHECK((*file)->read_at(0, 1 << 20, again).is_ok() && again == read + "more", "and read again");
  }
  return 0;
}
