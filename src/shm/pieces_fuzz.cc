// Any bytes in place of a piece: none of them are taken for content.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "shm/pieces.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  shm::Pieces pieces(SecretKey(), shm::Compression::kZstd);
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  std::string out(64, '\0');
  UCCP_CHECK(pieces.open({1}, 0, input, out).reason() == "PIECE_DAMAGED", "nobody makes a piece without its key");
  const std::string sealed = pieces.seal({1}, 0, input.substr(0, shm::kPieceBytes));
  std::string back(std::min(size, shm::kPieceBytes), '\0');
  UCCP_CHECK(pieces.open({1}, 0, sealed, back).is_ok() && input.starts_with(back), "content comes back");
  return 0;
}
