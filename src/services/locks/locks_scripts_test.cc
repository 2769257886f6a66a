// Runs tests/scripts/coordination/*.txt: commands, "----", what they resulted in.
// UCCP_REWRITE=1 writes the transcripts anew; the diff is what gets reviewed.
//
//   acquire OWNER NAME [shared] [try] [fifo] [preempt] [reentrant] [tree] [priority=N] [ttl=MS] [permits=N of=N]
//   [as=LABEL] release LABEL [all] | extend LABEL [ttl=MS] | transfer LABEL to=OWNER [as=LABEL] | abandon LABEL
//   [release] break NAME [token=LABEL] | advance MS | show NAME
// A name with permits= or of= is a semaphore. A label is the owner unless as= says otherwise.
#include <sstream>

#include "base/test_transcripts.h"
#include "services/locks/locks_test_lab.h"

namespace uccp::locks {
namespace {

using internal::v1::AcquireResult;
using internal::v1::PermitHolder;
using internal::v1::PermitKind;

class Script {
 public:
  std::string run(const std::string& line) {
    std::istringstream in(line);
    std::string verb;
    in >> verb;
    words_.clear();
    options_.clear();
    for (std::string word; in >> word;) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) words_.push_back(word);
      else options_[word.substr(0, equals)] = word.substr(equals + 1);
    }
    lab_.changes.clear();
    out_.clear();
    if (verb == "acquire") acquire();
    else if (verb == "release" || verb == "extend" || verb == "transfer") holder_command(verb);
    else if (verb == "abandon") abandon();
    else if (verb == "break") break_holders();
    else if (verb == "advance") lab_.advance(std::stoll(words_.at(0)));
    else if (verb == "show") show();
    else ADD_FAILURE() << "unknown command: " << line;
    for (const auto& change : lab_.changes) tell(change);
    for (const auto& [name, kind] : kinds_) lab_.check(kind, name);
    return out_;
  }

 private:
  struct Place {
    PermitKind kind;
    std::string name;
    uint64_t lease = 0, secret = 0, waiter = 0, token = 0;
    uint32_t rank = 0;
  };

  bool has(std::string_view word) const { return std::ranges::find(words_, word) != words_.end(); }
  int64_t number(const std::string& option, int64_t otherwise) const {
    const auto it = options_.find(option);
    return it == options_.end() ? otherwise : std::stoll(it->second);
  }
  std::string text(const std::string& option, std::string otherwise) const {
    const auto it = options_.find(option);
    return it == options_.end() ? otherwise : it->second;
  }
  static std::string token_text(uint64_t token) {
    return std::to_string(token >> 14) + "." + std::to_string(token & 0x3fff);
  }
  void say(const std::string& line) { out_ += line + "\n"; }
  void refuse(const Status& status) { say(std::string(status.reason())); }

  void note(const std::string& label, const PermitHolder& holder, PermitKind kind, const std::string& name) {
    places_[label] = {kind, name, holder.lease(), holder.secret(), holder.waiter(), holder.fencing_token(), 0};
  }

  void acquire() {
    const std::string owner = words_.at(0), name = words_.at(1), label = text("as", owner);
    internal::v1::AcquireCommand command;
    const bool semaphore = options_.contains("permits") || options_.contains("of");
    const PermitKind kind = semaphore ? kSemaphore : kLock;
    kinds_[name] = kind;
    command.set_kind(kind);
    command.set_name(name);
    auto& holder = *command.mutable_holder();
    holder.set_owner(owner);
    holder.set_secret(++secrets_);
    holder.set_permits(static_cast<int32_t>(semaphore ? number("permits", 1) : has("shared") ? 1 : kLockPermits));
    holder.set_priority(static_cast<int32_t>(number("priority", 0)));
    holder.set_reentrant(has("reentrant"));
    holder.set_tree(has("tree"));
    holder.set_ttl_ms(number("ttl", 30'000));
    command.set_capacity(static_cast<int32_t>(number("of", 0)));
    command.set_wait(!has("try"));
    command.set_fifo(has("fifo"));
    command.set_preempt(has("preempt"));
    command.set_waiter_ttl_ms(number("wait", 600'000));
    const auto result = lab_.apply("permits.acquire", command.SerializeAsString(), text("id", ""));
    if (!result) {
      refuse(result.error());
      if (result.error().reason() == "DEADLOCK") {
        internal::v1::BreakCommand counted;
        counted.set_kind(kind);
        counted.set_name(name);
        EXPECT_TRUE(lab_.apply("permits.deadlock", counted.SerializeAsString()).has_value());
      }
      return;
    }
    AcquireResult got;
    EXPECT_TRUE(got.ParseFromString(*result));
    if (got.has_holder()) {
      note(label, got.holder(), kind, name);
      if (got.holder().hold_count() > 1)
        say(owner + " holds " + name + " " + std::to_string(got.holder().hold_count()) + " times");
      return;
    }
    places_[label] = {kind, name, 0, holder.secret(), got.waiter().id(), 0, got.waiter().rank()};
    say(owner + " waits for " + name);
  }

  // A label that waited holds now if it was granted meanwhile.
  Place& place(const std::string& label) {
    Place& at = places_[label];
    for (const auto& holder : lab_.holders(at.kind, at.name)) {
      if (at.waiter != 0 && holder.waiter() == at.waiter) note(label, holder, at.kind, std::string(at.name));
    }
    return at;
  }

  void holder_command(const std::string& verb) {
    const Place at = place(words_.at(0));
    internal::v1::HolderCommand command;
    command.set_kind(at.kind);
    command.set_name(at.name);
    command.set_lease(at.lease);
    command.set_secret(at.secret);
    command.set_all(has("all"));
    command.set_ttl_ms(number("ttl", 0));
    command.set_new_owner(text("to", ""));
    command.set_new_secret(++secrets_);
    const auto result = lab_.apply("permits." + verb, command.SerializeAsString());
    if (!result) return refuse(result.error());
    AcquireResult got;
    if (verb == "transfer" && got.ParseFromString(*result))
      note(text("as", text("to", "")), got.holder(), at.kind, at.name);
  }

  void abandon() {
    const Place at = places_[words_.at(0)];
    internal::v1::AbandonCommand command;
    command.set_kind(at.kind);
    command.set_name(at.name);
    command.set_waiter(at.waiter);
    command.set_rank(at.rank);
    command.set_release(has("release"));
    const auto result = lab_.apply("permits.abandon", command.SerializeAsString());
    AcquireResult got;
    EXPECT_TRUE(result && got.ParseFromString(*result));
    if (got.has_holder()) say("was granted already: token=" + token_text(got.holder().fencing_token()));
  }

  void break_holders() {
    internal::v1::BreakCommand command;
    command.set_name(words_.at(0));
    command.set_kind(kinds_[words_.at(0)]);
    if (options_.contains("token")) command.set_fencing_token(places_[options_["token"]].token);
    const auto result = lab_.apply("permits.break", command.SerializeAsString());
    if (!result) refuse(result.error());
  }

  void show() {
    const std::string name = words_.at(0);
    const PermitKind kind = kinds_[name];
    const auto row = lab_.row(kind, name);
    if (!row) return say("there is no " + name);
    for (const auto& h : lab_.holders(kind, name)) {
      say("  holds: " + h.owner() + (h.tree() ? " tree" : "") + " token=" + token_text(h.fencing_token()) + " count=" +
          std::to_string(h.hold_count()) + (h.waited_ms() > 0 ? " waited=" + std::to_string(h.waited_ms()) : ""));
    }
    for (const auto& w : lab_.waiters(kind, name)) {
      say("  waits: " + w.holder().owner() + (w.holder().tree() ? " tree" : "") +
          " priority=" + std::to_string(w.holder().priority()));
    }
    const auto& n = row->counts();
    say("  grants=" + std::to_string(n.acquisitions()) + " contended=" + std::to_string(n.contended()) +
        " gave-up=" + std::to_string(n.wait_timeouts()) + " expired=" + std::to_string(n.expirations()) +
        " deadlocks=" + std::to_string(n.deadlocks()) + " waited=" + std::to_string(n.wait_ms()) +
        " held=" + std::to_string(n.hold_ms()));
  }

  void tell(const machine::Change& change) {
    static constexpr std::string_view kNames[] = {"",       "acquired",  "released", "expired", "handed over",
                                                  "broken", "wait ended"};
    internal::v1::PermitChange c;
    EXPECT_TRUE(c.ParseFromString(change.payload));
    const bool granted = change.kind == static_cast<uint8_t>(ChangeKind::kAcquired);
    say(c.row().name() + " " + std::string(kNames[change.kind]) + ": " + c.holder().owner() +
        (granted ? " token=" + token_text(c.holder().fencing_token()) : ""));
  }

  LockLab lab_;
  std::map<std::string, PermitKind> kinds_;
  std::map<std::string, Place> places_;
  std::vector<std::string> words_;
  std::map<std::string, std::string> options_;
  uint64_t secrets_ = 0;
  std::string out_;
};

class CoordinationScriptTest : public testing::TestWithParam<std::string> {};

TEST_P(CoordinationScriptTest, ProducesItsTranscript) { test::expect_transcript<Script>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(All, CoordinationScriptTest, testing::ValuesIn(test::transcripts("coordination")),
                         test::transcript_name);

}  // namespace
}  // namespace uccp::locks
