#include "storage/planted.h"

#ifdef UCCP_PLANTED_BUGS

#include <set>

namespace uccp::storage {
namespace {

std::set<std::string, std::less<>>& bugs() {
  static std::set<std::string, std::less<>> names;
  return names;
}

}  // namespace

bool planted_bug(std::string_view name) { return bugs().contains(name); }
void plant_bug(std::string name) { bugs().insert(std::move(name)); }
void clear_planted_bugs() { bugs().clear(); }

}  // namespace uccp::storage

#endif
