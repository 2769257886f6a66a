#include "raft/planted.h"

#if defined(UCCP_PLANTED_BUGS)
#include <string>

namespace uccp::raft {
namespace {

std::string& active() {
  static std::string name;
  return name;
}

}  // namespace

bool planted_bug(const char* name) { return active() == name; }
void plant_bug(const char* name) { active() = name == nullptr ? "" : name; }

}  // namespace uccp::raft
#endif
