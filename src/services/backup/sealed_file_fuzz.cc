// Any bytes as a file of a backup: refused, or read to its end. A fuzzer cannot make a right tag, so the header,
// lengths and ends are what it finds.
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "services/backup/sealed_file.h"
#include "sim/sim_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const SecretKey key = *SecretKey::parse(std::string(64, 'a'));
  sim::SimFileSystem files;
  UCCP_CHECK(files.make_directories("/d").is_ok(), "a simulated directory");
  // As it is, and behind a right header, whose salt is the first bytes.
  ByteWriter header;
  header.raw("UCCPBAK\n").u32(1).u8(3).raw(key.id()).raw(std::string(32, 's'));
  header.u32(crc32c(header.data()));
  for (const std::string& content : {std::string(bytes), header.data() + std::string(bytes)}) {
    UCCP_CHECK(write_file_atomically(files, "/d/f", content).is_ok(), "a simulated file");
    auto reader = backup::SealedReader::open(files, "/d/f", backup::SealedKind::kBlob, key);
    while (reader) {
      const auto piece = (*reader)->next();
      if (!piece || !*piece) break;
    }
  }
  return 0;
}
