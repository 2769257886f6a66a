#include "services/events/transaction_idle.h"

#include "base/bytes.h"
#include "services/events/transaction_rows.h"

namespace uccp::events {
namespace {

using machine::ApplyContext;
using machine::Scope;

// Rows that one call names: more than it adds.
constexpr size_t kForgottenMax = 2;

std::string idle_key(IdleKind kind, int64_t ms, const Scope& scope, std::string_view producer) {
  ByteWriter out;
  out.u8(static_cast<uint8_t>(kind)).u64(static_cast<uint64_t>(ms));
  return out.key_part(scope.tenant).key_part(scope.name_space).raw(producer).take();
}

}  // namespace

std::vector<std::pair<Scope, std::string>> touch(ApplyContext& context, IdleKind kind, std::string_view producer,
                                                 int64_t before_ms) {
  if (before_ms > 0) kIdle.erase(context.state(), {}, idle_key(kind, before_ms, context.scope(), producer));
  kIdle.put(context.state(), {}, idle_key(kind, context.now_ms(), context.scope(), producer), "");
  std::vector<std::pair<Scope, std::string>> idle;
  std::vector<std::string> keys;
  kIdle.scan(context.state(), {}, ByteWriter().u8(static_cast<uint8_t>(kind)).take(), "",
             [&](std::string_view key, std::string_view) {
               ByteReader in(key);
               in.u8();
               if (static_cast<int64_t>(in.u64()) + kIdleKeptMs > context.now_ms()) return false;
               Scope scope;
               scope.tenant = in.key_part();
               scope.name_space = in.key_part();
               idle.emplace_back(std::move(scope), in.rest());
               keys.emplace_back(key);
               return idle.size() < kForgottenMax;
             });
  for (const std::string& key : keys) kIdle.erase(context.state(), {}, key);
  return idle;
}

}  // namespace uccp::events
