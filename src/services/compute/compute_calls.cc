#include "services/compute/compute_calls.h"

#include "call/command.h"
#include "machine/resource_id.h"
#include "services/compute/compute_state.h"
#include "services/feature_types.h"
#include "services/work_types.h"

namespace uccp::compute {

using call::CallPtr;
using machine::GroupView;

machine::Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

void put_session(const CallPtr& call, LogIndex index) {
  call->set_header("Uccp-Session", machine::session_token({{kWorkGroup, index}}));
}

void propose_command(const ComputeEnvironment& env, const CallPtr& call, std::string_view request,
                     std::string_view command, const std::string& payload, std::optional<std::string> answer) {
  if (Status level = services::check_feature_level(env.feature_level(), functions::kLevel); !level.is_ok())
    return call->finish(std::move(level));
  env.proposer.propose(kWorkGroup, call::make_envelope(*call, request, std::string(command), payload),
                       [call, answer = std::move(answer)](Result<machine::Applied> applied) mutable {
                         if (!applied) return call->finish(std::move(applied.error()));
                         put_session(call, applied->index);
                         call->reply(answer ? std::move(*answer) : std::move(applied->response));
                       });
}

void list_rows(const ComputeEnvironment& env, const CallPtr& call, std::string_view request, std::string_view key,
               ScanView scan) {
  auto query = call::compile_list(
      *call->method, request,
      {.signer = &env.page_tokens, .now = env.clock.wall(), .scope = scope_of(*call), .key_order = key});
  if (!query) return call->finish(std::move(query.error()));
  env.reader.read(
      kWorkGroup, call->read_level, [call, query = std::move(*query), scan = std::move(scan)](Result<GroupView> view) {
        if (!view) return call->finish(std::move(view.error()));
        Status scanned;
        auto page = call::paginate(
            query, [&](std::string_view after, const call::VisitRow& visit) { scanned = scan(*view, after, visit); });
        if (!scanned.is_ok()) return call->finish(std::move(scanned));
        if (!page) return call->finish(std::move(page.error()));
        put_session(call, view->applied());
        call->reply(call::encode_page(*call->method, *page));
      });
}

}  // namespace uccp::compute
