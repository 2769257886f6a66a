// Any bytes in place of a file of spilled objects: what is read back is right, or is said to be damaged.
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "shm/spill.h"
#include "sim/sim_file_system.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  sim::SimFileSystem files;
  auto spill = shm::Spill::open(files, "/spill", 1u << 20, shm::Pieces(SecretKey(), shm::Compression::kLz4));
  UCCP_CHECK(spill.has_value(), "an empty directory is opened");
  const std::array<shm::SpillObject, 2> objects = {shm::SpillObject{.id = {1}, .content = "the first"},
                                                   shm::SpillObject{.id = {2}, .content = "and another"}};
  const auto places = spill->write(objects);
  UCCP_CHECK(places.has_value(), "there is room");
  UCCP_CHECK(
      write_file_atomically(files, spill->path_of((*places)[0].file), {reinterpret_cast<const char*>(data), size})
          .is_ok(),
      "the file is another one now");
  for (size_t i = 0; i < objects.size(); ++i) {
    std::string content((*places)[i].size, '\0');
    const Status status = spill->read((*places)[i], objects[i].id, content);
    UCCP_CHECK(status.is_ok() || status.reason() == "SPILL_DAMAGED" || status.reason() == "IO_ERROR",
               "what cannot be read has one of two reasons");
  }
  return 0;
}
