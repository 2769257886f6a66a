#include "machine/planted.h"

#ifdef UCCP_PLANTED_BUGS

#include <set>

namespace uccp::machine {
namespace {

std::set<std::string, std::less<>>& bugs() {
  static std::set<std::string, std::less<>> names;
  return names;
}

}  // namespace

bool planted_bug(std::string_view name) { return bugs().contains(name); }
void plant_bug(std::string name) { bugs().insert(std::move(name)); }

}  // namespace uccp::machine

#endif
