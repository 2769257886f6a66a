#include "services/events/silent_producers.h"

#include <algorithm>

#include "services/events/bus_state.h"
#include "services/events/transaction_rows.h"
#include "services/events/transactions_state.h"

namespace uccp::events {
namespace {

using internal::v1::BusRetireCommand;
using internal::v1::TransactionRetireCommand;
using machine::GroupView;
using machine::Scope;

constexpr int64_t kLookMsMin = 1'000;
constexpr int64_t kLookMsMax = 600'000;

// Commands of one kind, each of one scope and with a bounded number of rows.
template <typename Command>
class Commands {
 public:
  Commands(int64_t idle_ms, int rows_max) : idle_ms_(idle_ms), rows_max_(rows_max) {}

  template <typename Add>
  void add(const Scope& scope, const Add& add_to) {
    std::vector<std::pair<Command, int>>& commands = commands_[scope];
    if (commands.empty() || commands.back().second == rows_max_) {
      commands.emplace_back();
      commands.back().first.set_idle_ms(idle_ms_);
    }
    add_to(commands.back().first);
    ++commands.back().second;
  }
  // `take`(envelope, rows)
  template <typename Take>
  void give(std::string_view domain, const Take& take) const {
    for (const auto& [scope, commands] : commands_) {
      for (const auto& [command, rows] : commands) {
        machine::Envelope envelope;
        envelope.scope = scope;
        envelope.principal = "system";
        envelope.command = std::string(domain) + ".retire";
        envelope.payload = command.SerializeAsString();
        take(std::move(envelope), static_cast<uint64_t>(rows));
      }
    }
  }

 private:
  const int64_t idle_ms_;
  const int rows_max_;
  std::map<Scope, std::vector<std::pair<Command, int>>> commands_;
};

}  // namespace

// What is proposed, one after the other.
struct SilentProducers::Pass {
  struct Proposal {
    machine::Envelope envelope;
    uint64_t rows = 0;
  };
  GroupId group;
  std::function<bool()> leads;
  std::vector<Proposal> proposals;
  size_t at = 0;
};

SilentProducers::SilentProducers(SilentProducersOptions options, const LogWorkEnvironment& environment,
                                 const Clock& clock)
    : options_(options),
      env_(environment),
      clock_(clock),
      forgotten_(env_.metrics.counter("uccp_bus_producers_forgotten_total",
                                      "Rows of producers of which nobody has heard for bus_producer_idle")) {}

void SilentProducers::look(GroupId group, const GroupView& view, int64_t now_ms, std::function<bool()> leads) {
  // The command is one of the level at which these bytes are counted.
  if (log_bytes_ever(view) == 0) return;
  const BootTime now = clock_.boot();
  const auto [at, first] = looked_at_.try_emplace(group, now);
  if (!first && now.ms_since(at->second) < std::clamp(options_.idle_ms / 10, kLookMsMin, kLookMsMax)) return;
  at->second = now;
  auto pass = std::make_shared<Pass>();
  pass->group = group;
  pass->leads = std::move(leads);
  env_.work.post([this, pass, view, before_ms = now_ms - options_.idle_ms] { collect(pass, view, before_ms); });
}

void SilentProducers::collect(const PassPtr& pass, const GroupView& view, int64_t before_ms) {
  Commands<BusRetireCommand> bus(options_.idle_ms, options_.rows_per_command);
  Commands<TransactionRetireCommand> transactions(options_.idle_ms, options_.rows_per_command);
  size_t rows = 0;
  // True: go on.
  const auto add = [&](auto& commands, const Scope& scope, const auto& row, const auto& add_to) {
    if (row.seen_ms() > before_ms) return true;
    commands.add(scope, add_to);
    return ++rows < options_.rows_per_look;
  };
  kProducers.scan_all(view, [&](const Scope& scope, std::string_view key, const internal::v1::BusProducerRow& row) {
    return add(bus, scope, row, [&](BusRetireCommand& to) { to.add_producers(std::string(key)); });
  });
  kGuards.scan_all(view, [&](const Scope& scope, std::string_view key, const TransactionGuardRow& row) {
    return add(transactions, scope, row, [&](TransactionRetireCommand& to) { to.add_guards(std::string(key)); });
  });
  kTransactionProducers.scan_all(
      view, [&](const Scope& scope, std::string_view key, const internal::v1::TransactionProducerRow& row) {
        return add(transactions, scope, row, [&](TransactionRetireCommand& to) { to.add_producers(std::string(key)); });
      });
  const auto take = [&](machine::Envelope envelope, uint64_t count) {
    pass->proposals.push_back({std::move(envelope), count});
  };
  bus.give(kBusDomain, take);
  transactions.give(kTransactionsDomain, take);
  env_.loop.post([this, pass] { propose(pass); });
}

void SilentProducers::propose(const PassPtr& pass) {
  if (pass->at == pass->proposals.size() || !pass->leads()) return;
  Pass::Proposal& next = pass->proposals[pass->at++];
  env_.local.propose(pass->group, std::move(next.envelope),
                     [this, pass, rows = next.rows](const Result<machine::Applied>& applied) {
                       if (!applied) return;
                       forgotten_.add(rows);
                       env_.loop.post([this, pass] { propose(pass); });
                     });
}

}  // namespace uccp::events
