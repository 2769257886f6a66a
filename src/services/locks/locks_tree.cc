#include "services/locks/locks_tree.h"

#include "base/bytes.h"
#include "machine/table.h"
#include "services/locks/locks_state.h"

namespace uccp::locks {
namespace {

using internal::v1::PermitHolder;
using internal::v1::PermitWaiter;
using machine::KeyReader;
using machine::Scope;

constexpr auto kLock = internal::v1::PERMIT_KIND_LOCK;

bool shared(const PermitHolder& h) { return h.permits() < kLockPermits; }
bool conflict(const PermitHolder& a, const PermitHolder& b) {
  if (shared(a) && shared(b)) return false;
  return !(a.reentrant() && b.reentrant() && a.owner() == b.owner());
}

// Keys of the rows of all names below begin so: names have no byte that a key escapes.
std::string below_prefix(std::string_view name) {
  return ByteWriter().u8(static_cast<uint8_t>(kLock)).raw(name).raw("/").take();
}

}  // namespace

std::vector<std::string> names_above(std::string_view name) {
  std::vector<std::string> names;
  for (size_t at = name.find('/'); at != std::string_view::npos; at = name.find('/', at + 1)) {
    names.emplace_back(name.substr(0, at));
  }
  return names;
}

void owners_across(const KeyReader& state, const Scope& scope, const std::string& name, const PermitHolder& wanted,
                   Place place, const std::function<bool(const std::string&)>& visit) {
  bool go_on = true;
  const auto holds = [&](const PermitHolder& h) {
    if (conflict(h, wanted)) go_on = visit(h.owner());
    return go_on;
  };
  const auto waits = [&](const PermitWaiter& w) {
    if (Place(w.rank(), w.id()) < place && conflict(w.holder(), wanted)) go_on = visit(w.holder().owner());
    return go_on;
  };
  for (const std::string& above : names_above(name)) {
    const auto row = find_permits(state, scope, kLock, above);
    if (!row) continue;
    if (row->trees() > 0)
      scan_holders(state, scope, *row, [&](const PermitHolder& h) { return !h.tree() || holds(h); });
    if (!go_on) return;
    if (row->tree_waiters() > 0) {
      scan_waiters(state, scope, *row, [&](const PermitWaiter& w) { return !w.holder().tree() || waits(w); });
    }
    if (!go_on) return;
  }
  if (!wanted.tree()) return;
  const std::string below = below_prefix(name);
  kHolders.scan(state, scope, below, "", [&](std::string_view, const PermitHolder& h) { return holds(h); });
  if (go_on) kWaiters.scan(state, scope, below, "", [&](std::string_view, const PermitWaiter& w) { return waits(w); });
}

std::optional<std::string> hindered(const KeyReader& state, const Scope& scope, const std::string& name,
                                    const PermitHolder& wanted, Place place) {
  std::optional<std::string> found;
  owners_across(state, scope, name, wanted, place, [&](const std::string& owner) {
    found = owner;
    return false;
  });
  return found;
}

std::optional<std::string> next_waited_below(const KeyReader& state, const Scope& scope, const std::string& name,
                                             const std::string& after) {
  const std::string from = after.empty() ? std::string() : machine::prefix_end(permit_key(kLock, after));
  std::optional<std::string> found;
  kWaiters.scan(state, scope, below_prefix(name), from, [&](std::string_view key, const PermitWaiter&) {
    ByteReader in(key);
    in.u8();
    found = in.key_part();
    return false;
  });
  return found;
}

}  // namespace uccp::locks
