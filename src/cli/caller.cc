#include "cli/caller.h"

#include <algorithm>

#include "cli/login.h"

namespace uccp::cli {
namespace {

// True if the call did nothing, or doing it again does nothing more.
bool may_repeat(const call::Method& method, const Status& status, bool has_key) {
  switch (status.code()) {
    case Code::kUnavailable:
    case Code::kNotLeader: return true;
    case Code::kOutcomeUnknown: return !method.mutating || method.naturally_idempotent || has_key;
    default: return false;
  }
}

std::string end_text(const call::Method& method, std::string_view item, std::string_view field) {
  if (method.end.empty()) return {};
  Result<call::FieldPath> path =
      call::FieldPath::compile(*method.response, method.end.text() + "." + std::string(field));
  if (!path) return {};
  return call::get_text(*path, item).value_or("");
}

}  // namespace

std::string end_reason(const call::Method& method, std::string_view item) { return end_text(method, item, "reason"); }

const Result<Context>& Caller::context() {
  if (!context_) context_ = load_context(settings_, io_);
  return *context_;
}

Result<Transport*> Caller::transport() {
  if (!transport_) {
    if (!context()) return std::unexpected(context().error());
    UCCP_RETURN_IF_ERROR(refresh_session(io_, connect_, **context_));
    UCCP_TRY(transport_, connect_(*context()));
  }
  return transport_.get();
}

CallOptions Caller::options_for(const call::Method& method) const {
  CallOptions options;
  const bool waits = method.server_streaming || (method.cli && method.cli->long_running);
  options.timeout_ms = settings_.timeout_ms >= 0 ? settings_.timeout_ms : waits ? 0 : kTimeoutMs;
  if (!settings_.consistency.empty()) options.metadata.emplace_back("uccp-consistency", settings_.consistency);
  if (settings_.dry_run && method.mutating) options.metadata.emplace_back("uccp-dry-run", "true");
  return options;
}

std::string Caller::prepared(const call::Method& method, std::string request) {
  if (!method.name_space.empty() && !call::has_field(method.name_space, request)) {
    const std::string& own = settings_.name_space;
    // A context that cannot be read is told when it is used.
    const std::string& chosen = own.empty() && context() ? context()->name_space : own;
    if (!chosen.empty()) call::set_string(method.name_space, request, chosen);
  }
  if (method.request_id.empty()) return request;
  if (!settings_.request_id.empty()) {
    call::set_string(method.request_id, request, settings_.request_id);
  } else if (!call::has_field(method.request_id, request)) {
    call::set_string(method.request_id, request, io_.make_request_id());
  }
  request_id_ = std::string(call::get_string(method.request_id, request).value_or(""));
  return request;
}

Result<std::string> Caller::unary(const call::Method& method, const std::string& request) {
  UCCP_TRY(Transport * transport, this->transport());
  const bool has_key = !method.request_id.empty() && call::has_field(method.request_id, request);
  const bool noted = method.mutating && has_key;
  if (noted) {
    io_.set_interrupt_note(
        "interrupted; whether the change was made is not known. Repeat the command with --request-id " + request_id_ +
        " to make it once");
  }
  const CallOptions options = options_for(method);
  int64_t backoff_ms = kBackoffMs;
  Result<std::string> answer = fail(Code::kInternal, "NOT_CALLED", "no call was made");
  for (int round = 0; round < kTriesMax; ++round) {
    for (size_t node = 0; node < transport->node_count(); ++node) {
      answer = transport->unary(method.grpc_path, request, options);
      if (answer || !may_repeat(method, answer.error(), has_key)) {
        if (noted) io_.set_interrupt_note("");
        return answer;
      }
      transport->next_node();
    }
    if (round + 1 == kTriesMax) break;
    io_.sleep_ms(std::max<int64_t>(backoff_ms, answer.error().detail().retry_after_ms));
    backoff_ms *= 2;
  }
  if (noted) io_.set_interrupt_note("");
  return answer;
}

Caller::StreamRun Caller::run_stream(const call::Method& method, const std::string& request, const OnItem& on_item,
                                     std::string& cursor) {
  StreamRun run;
  Result<std::unique_ptr<ResponseStream>> stream =
      transport_->open_stream(method.grpc_path, request, options_for(method));
  if (!stream) {
    run.status = std::move(stream.error());
    return run;
  }
  for (;;) {
    Result<std::optional<std::string>> item = (*stream)->read();
    if (!item) {
      run.status = std::move(item.error());
      return run;
    }
    if (!*item) {
      run.finished = true;
      return run;
    }
    run.progressed = true;
    if (!method.cursor.empty()) {
      const std::string_view at = call::get_string(method.cursor, **item).value_or("");
      if (!at.empty()) cursor = std::string(at);
    }
    const std::string reason = end_reason(method, **item);
    // The server asks to come back: nothing that a reader has to know.
    if ((reason == "RECONNECT" || reason == "TOO_SLOW") && !method.resume.empty()) return run;
    if (!on_item(**item)) {
      run.finished = true;
      return run;
    }
    if (reason == "COMPACTED") {
      run.status = Status(Code::kFailedPrecondition, "STREAM_COMPACTED", end_text(method, **item, "message"));
    } else if (reason == "REVOKED") {
      run.status = Status(Code::kPermission, "STREAM_REVOKED", end_text(method, **item, "message"));
    }
    if (!reason.empty()) {
      run.finished = true;
      return run;
    }
  }
}

Status Caller::stream(const call::Method& method, std::string request, const OnItem& on_item) {
  UCCP_RETURN_IF_ERROR(transport());
  std::string cursor;
  int failures = 0;
  for (;;) {
    std::string behind = request;
    if (!cursor.empty() && !method.resume.empty()) call::set_string(method.resume, behind, cursor);
    StreamRun run = run_stream(method, behind, on_item, cursor);
    if (run.finished) return run.status;
    const bool lost = run.status.is_ok() || may_repeat(method, run.status, true);
    // Without a cursor the items that were already printed would come again.
    const bool can_resume = !run.progressed || (!method.resume.empty() && !cursor.empty());
    failures = run.progressed ? 1 : failures + 1;
    const int failures_max =
        cursor.empty() ? kTriesMax * static_cast<int>(transport_->node_count()) : kStreamFailuresMax;
    if (!lost || !can_resume || failures >= failures_max) {
      return run.status.is_ok() ? Status(Code::kUnavailable, "STREAM_LOST", "the stream ended early") : run.status;
    }
    if (!run.status.is_ok()) {
      transport_->next_node();
      io_.sleep_ms(std::min<int64_t>(kBackoffMs << std::min(failures, 4), 2000));
    }
  }
}

Result<std::string> Caller::pages(const call::Method& method, PageRequest wanted, const OnPage& on_page) {
  const call::PagingRule& rule = *method.paging;
  UCCP_TRY(const call::FieldPath items, call::FieldPath::compile(*method.response, method.items->name));
  uint64_t seen = 0;
  std::string token(call::get_string(rule.page_token, wanted.request).value_or(""));
  for (;;) {
    std::string request = wanted.request;
    if (!wanted.has_page_size) {
      const uint64_t left = wanted.limit == 0 ? rule.page_size_max : wanted.limit - seen;
      call::set_uint(rule.page_size, request, std::min<uint64_t>(left, rule.page_size_max));
    }
    if (!token.empty()) call::set_string(rule.page_token, request, token);
    UCCP_TRY(const std::string response, unary(method, request));
    seen += call::get_items(items, response).size();
    std::string next(call::get_string(rule.next_page_token, response).value_or(""));
    on_page(response);
    if (next.empty()) return std::string();
    if (wanted.limit != 0 && seen >= wanted.limit) return next;
    if (next == token)
      return fail(Code::kInternal, "PAGE_TOKEN_REPEATED", "the server answered the same page token twice");
    token = std::move(next);
  }
}

}  // namespace uccp::cli
