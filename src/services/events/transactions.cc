#include "services/events/transactions.h"

#include "base/bytes.h"
#include "base/log.h"
#include "call/command.h"
#include "services/events/join.h"
#include "services/events/row_scan.h"
#include "services/events/transactions_state.h"
#include "services/feature_types.h"
#include "services/message_types.h"

namespace uccp::events {
namespace {

using call::CallPtr;
using machine::GroupView;
using machine::ReadLevel;
using machine::Scope;

std::string method_name(std::string_view rpc) { return "uccp.v1.EventBus/" + std::string(rpc); }

Scope scope_of(const call::Call& call) { return {call.principal.tenant, call.name_space}; }

std::string command_name(std::string_view verb) { return std::string(kTransactionsDomain) + "." + std::string(verb); }

machine::Envelope system_envelope(const Scope& scope, std::string_view verb,
                                  const google::protobuf::MessageLite& command) {
  machine::Envelope envelope;
  envelope.scope = scope;
  envelope.principal = "system";
  envelope.command = command_name(verb);
  envelope.payload = command.SerializeAsString();
  return envelope;
}

template <typename Answer>
Result<Answer> answer_of(Result<machine::Applied> applied) {
  if (!applied) return std::unexpected(std::move(applied.error()));
  Answer answer;
  if (answer.ParseFromString(applied->response)) return answer;
  return fail(Code::kInternal, "TRANSACTION_ANSWER", "a bus group answered what is none to a command of transactions");
}

Status settling(const Status& why) {
  return Status(Code::kUnavailable, "TRANSACTION_SETTLING",
                "it is decided, and not all groups know it yet: " + std::string(why.message()) + "; repeat the call")
      .with_retry_after_ms(200);
}

}  // namespace

Transactions::Transactions(TransactionOptions options, Environment environment)
    : options_(options),
      env_(std::move(environment)),
      begun_(env_.metrics.counter("uccp_transactions_begun_total", "Transactions over topics begun at this node")),
      committed_(env_.metrics.counter("uccp_transactions_committed_total", "Of them and others, committed here")),
      aborted_(env_.metrics.counter("uccp_transactions_aborted_total", "Of them and others, aborted here on request")) {
}

void Transactions::add_handlers(call::HandlerTable& handlers) {
  handlers.add(method_name("BeginTransaction"),
               [this](const CallPtr& call, std::string bytes) { begin(call, std::move(bytes)); });
  const auto add_end = [&]<typename Request>(std::string_view rpc, bool commit) {
    handlers.add(method_name(rpc), [this, commit](const CallPtr& call, const std::string& bytes) {
      const auto request = call::parse_request<Request>(bytes);
      if (!request) return call->finish(request.error());
      end(call, bytes, request->id(), commit);
    });
  };
  add_end.operator()<v1::CommitTransactionRequest>("CommitTransaction", true);
  add_end.operator()<v1::AbortTransactionRequest>("AbortTransaction", false);
  handlers.add_parsed<v1::GetTransactionRequest>(
      method_name("GetTransaction"),
      [this](const CallPtr& call, const v1::GetTransactionRequest& request) { get(call, request); });
  handlers.add(method_name("ListTransactions"),
               [this](const CallPtr& call, std::string bytes) { list(call, std::move(bytes)); });
}

// --- begin and end --------------------------------------------------------------------------------------------------

void Transactions::begin(const CallPtr& call, std::string bytes) {
  if (Status level = services::check_feature_level(env_.feature_level(), services::kTransactionsLevel);
      !level.is_ok()) {
    return call->finish(std::move(level));
  }
  const auto request = call::parse_request<v1::BeginTransactionRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::TransactionBeginCommand command;
  command.set_producer_id(request->producer_id());
  command.set_epoch(request->producer_epoch());
  command.set_timeout_ms(request->has_timeout() ? services::ms_of(request->timeout()) : options_.timeout_default_ms);
  command.set_open_max(options_.open_max);
  if (!request->has_timeout()) command.set_timeout_ms(std::min(command.timeout_ms(), options_.timeout_max_ms));
  if (command.timeout_ms() > options_.timeout_max_ms) {
    return call->finish(
        Status(Code::kInvalid, "FIELD_INVALID", "a transaction may not take so long")
            .with_field("timeout", "is more than " + std::to_string(options_.timeout_max_ms) + " ms", "60s")
            .with_help("events.md#limits"));
  }
  propose_begin(call, bytes, std::move(command), false);
}

// Once more behind the end of the transaction before, which the first command may have brought about.
void Transactions::propose_begin(const CallPtr& call, const std::string& bytes,
                                 internal::v1::TransactionBeginCommand command, bool again) {
  auto envelope = call::make_envelope(*call, bytes, command_name("begin"), command.SerializeAsString());
  // The first answer under this id is that the one before has to be settled.
  if (again && !envelope.dedup.request_id.empty()) envelope.dedup.request_id += " again";
  env_.local.propose(
      kTransactionGroup, std::move(envelope),
      [this, call, bytes, command = std::move(command), again](Result<machine::Applied> applied) mutable {
        auto result = answer_of<internal::v1::TransactionBeginResult>(std::move(applied));
        if (!result) return call->finish(std::move(result.error()));
        const Scope scope = scope_of(*call);
        if (result->begun()) {
          begun_.add();
          return call->reply(shown_transaction(scope, result->row()).SerializeAsString());
        }
        if (again) {
          return call->finish(settling(Status(Code::kUnavailable, "BUSY", "another one began and ended meanwhile")));
        }
        command.set_epoch(result->epoch());
        settle(scope, result->row(), [this, call, bytes, command = std::move(command)](const Status& status) mutable {
          if (!status.is_ok()) return call->finish(settling(status));
          propose_begin(call, bytes, std::move(command), true);
        });
      });
}

void Transactions::end(const CallPtr& call, std::string_view bytes, const std::string& id, bool commit) {
  const auto number = transaction_number(id);
  if (!number) return call->finish(transaction_not_found(id));
  internal::v1::TransactionEndCommand command;
  command.set_number(*number);
  command.set_commit(commit);
  auto envelope = call::make_envelope(*call, bytes, command_name("end"), command.SerializeAsString());
  // A repeat finds out what became of it, and goes on.
  envelope.dedup = {};
  env_.local.propose(kTransactionGroup, std::move(envelope), [this, call, commit](Result<machine::Applied> applied) {
    auto row = answer_of<TransactionRow>(std::move(applied));
    if (!row) return call->finish(std::move(row.error()));
    (commit ? committed_ : aborted_).add();
    const Scope scope = scope_of(*call);
    const auto reply = [call, scope](TransactionRow ended, bool committed) {
      ended.set_state(committed ? TransactionRow::STATE_COMMITTED : TransactionRow::STATE_ABORTED);
      call->reply(shown_transaction(scope, ended).SerializeAsString());
    };
    if (!is_unsettled(*row)) return reply(std::move(*row), commit);
    settle(scope, *row, [call, reply, row = *row, commit](const Status& status) mutable {
      if (!status.is_ok()) return call->finish(settling(status));
      reply(std::move(row), commit);
    });
  });
}

void Transactions::join(const CallPtr& call, std::string_view wire, const std::string& id, const Part& part,
                        Joined done) {
  const auto number = transaction_number(id);
  if (!number) return done(fail(transaction_not_found(id)));
  internal::v1::TransactionJoinCommand command;
  command.set_number(*number);
  for (const uint32_t group : part.groups) command.add_groups(group);
  command.set_events(part.events);
  command.set_bytes(part.bytes);
  command.set_acks(part.acks);
  command.set_events_max(options_.events_max);
  command.set_bytes_max(options_.bytes_max);
  auto envelope = call::make_envelope(*call, wire, command_name("join"), command.SerializeAsString());
  envelope.audited = false;
  // The call has other commands under its request id, perhaps in the same group.
  if (!envelope.dedup.request_id.empty()) envelope.dedup.request_id += " join";
  env_.anywhere.propose(kTransactionGroup, std::move(envelope),
                        [done = std::move(done)](Result<machine::Applied> applied) mutable {
                          done(answer_of<TransactionRow>(std::move(applied)));
                        });
}

// --- settling -------------------------------------------------------------------------------------------------------

void Transactions::settle(const Scope& scope, const TransactionRow& row, Done done) {
  env_.loop.post([this, scope, row, done = std::move(done)]() mutable {
    std::vector<Done>& waiting = settling_[row.number()];
    waiting.push_back(std::move(done));
    if (waiting.size() > 1) return;
    internal::v1::TransactionSettleCommand command;
    command.set_number(row.number());
    command.set_producer_id(row.producer_id());
    command.set_commit(row.state() == TransactionRow::STATE_COMMITTING);
    command.set_events_max(options_.events_per_settle);
    const auto join = Join::make(static_cast<size_t>(row.groups_size()), [this, scope, row](const Status& status) {
      if (status.is_ok()) return note_settled(scope, row.number());
      finish(row.number(), status);
    });
    for (const uint32_t group : row.groups()) {
      settle_in(scope, bus_group(group), command, [join](Status status) { join->arrive(std::move(status)); });
    }
  });
}

// Step by step until nothing is left.
void Transactions::settle_in(const Scope& scope, GroupId group, internal::v1::TransactionSettleCommand command,
                             Done done) {
  auto envelope = system_envelope(scope, "settle", command);
  env_.anywhere.propose(group, std::move(envelope),
                        [this, scope, group, command = std::move(command),
                         done = std::move(done)](Result<machine::Applied> applied) mutable {
                          const auto progress = answer_of<internal::v1::BusProgress>(std::move(applied));
                          if (!progress) return done(progress.error());
                          if (progress->done()) return done(Status::ok());
                          settle_in(scope, group, std::move(command), std::move(done));
                        });
}

void Transactions::look_for_strays(GroupId group, const GroupView& view) {
  Named named;
  const auto add = [&named](const Scope& scope, std::string_view key, const auto&) {
    named.emplace(scope, ByteReader(key).u64());
    return true;
  };
  kStaged.scan_all(view, add);
  kHeld.scan_all(view, add);
  if (named.empty()) return;
  // What the group has was announced to the coordinator before, which is read behind it.
  env_.reader.read(kTransactionGroup, ReadLevel::linearizable(), [this, group, named](Result<GroupView> coordinator) {
    if (!coordinator) return;
    Named strays;
    for (const auto& [scope, number] : named) {
      const auto row = kTransactions.get(*coordinator, scope, transaction_key(number));
      if (!row || is_settled(*row)) strays.emplace(scope, number);
    }
    if (!strays.empty()) settle_strays(group, strays, *coordinator);
  });
}

// Most were settled between the two looks: then nothing is left of them here.
void Transactions::settle_strays(GroupId group, const Named& strays, const GroupView& coordinator) {
  env_.reader.read(
      group, {.kind = ReadLevel::Kind::kSession}, [this, group, strays, coordinator](Result<GroupView> view) {
        if (!view) return;
        for (const auto& [scope, number] : strays) {
          bool left = false;
          const auto found = [&left](std::string_view, const auto&) { return !(left = true); };
          kStaged.scan(*view, scope, transaction_key(number), "", found);
          kHeld.scan(*view, scope, transaction_key(number), "", found);
          if (!left) continue;
          const auto row = kTransactions.get(coordinator, scope, transaction_key(number));
          internal::v1::TransactionSettleCommand command;
          command.set_number(number);
          command.set_commit(row && row->state() == TransactionRow::STATE_COMMITTED);
          command.set_events_max(options_.events_per_settle);
          command.set_stray(true);
          log::warn("a group had something of a transaction that is settled or not known, as after a restore",
                    {{"group", group.value},
                     {"transaction", transaction_id(number)},
                     {"outcome", command.commit() ? "committed" : "aborted"}});
          settle_in(scope, group, std::move(command), [](const Status&) {});
        }
      });
}

void Transactions::note_settled(const Scope& scope, uint64_t number) {
  internal::v1::TransactionSettledCommand command;
  command.set_number(number);
  env_.anywhere.propose(kTransactionGroup, system_envelope(scope, "settled", command),
                        [this, number](const Result<machine::Applied>& applied) {
                          finish(number, applied ? Status::ok() : applied.error());
                        });
}

void Transactions::finish(uint64_t number, const Status& status) {
  env_.loop.post([this, number, status] {
    auto node = settling_.extract(number);
    if (node.empty()) return;
    for (Done& done : node.mapped()) done(status);
  });
}

void Transactions::on_leadership(bool leads) {
  leads_ = leads;
  ++round_;
  if (leads) look(round_);
}

void Transactions::look(uint64_t round) {
  if (!leads_ || round != round_) return;
  env_.loop.post_after(options_.settle_interval_ms, [this, round] { look(round); });
  env_.reader.read(kTransactionGroup, {.kind = ReadLevel::Kind::kSession}, [this](Result<GroupView> view) {
    if (!view) return;
    kUnsettled.scan(*view, {}, "", "", [&](std::string_view key, const internal::v1::TransactionUnsettledRow& at) {
      const Scope scope{at.tenant(), at.name_space()};
      const auto row = kTransactions.get(*view, scope, key);
      if (row && is_unsettled(*row)) settle(scope, *row, [](const Status&) {});
      return true;
    });
  });
}

// --- reads ----------------------------------------------------------------------------------------------------------

void Transactions::get(const CallPtr& call, const v1::GetTransactionRequest& request) {
  const auto number = transaction_number(request.id());
  if (!number) return call->finish(transaction_not_found(request.id()));
  env_.reader.read(kTransactionGroup, call->read_level,
                   [call, id = request.id(), number = *number](const Result<GroupView>& view) {
                     if (!view) return call->finish(view.error());
                     const auto row = kTransactions.get(*view, scope_of(*call), transaction_key(number));
                     if (!row) return call->finish(transaction_not_found(id));
                     call->reply(shown_transaction(scope_of(*call), *row).SerializeAsString());
                   });
}

void Transactions::list(const CallPtr& call, std::string bytes) {
  auto query = call::compile_list(
      *call->method, bytes,
      {.signer = &env_.page_tokens, .now = env_.clock.wall(), .scope = scope_of(*call), .key_order = ""});
  if (!query) return call->finish(std::move(query.error()));
  env_.reader.read(
      kTransactionGroup, call->read_level, [this, call, query = std::move(*query)](Result<GroupView> view) mutable {
        if (!view) return call->finish(std::move(view.error()));
        env_.work.post([call, query = std::move(query), view = std::move(*view)] {
          auto page = call::paginate(query, [&](std::string_view after, const call::VisitRow& visit) {
            scan_rows<TransactionRow>(view, kTransactionTable, scope_of(*call), after,
                                      [&](std::string_view position, const Scope& at, const TransactionRow& row) {
                                        return visit(position, shown_transaction(at, row).SerializeAsString());
                                      });
          });
          if (!page) return call->finish(std::move(page.error()));
          call->reply(call::encode_page(*call->method, *page));
        });
      });
}

}  // namespace uccp::events
