// Random operations against a naive model of the same rules: the same grants in the same order, and the invariants
// after every step.
#include <algorithm>

#include "base/random.h"
#include "services/locks/locks_test_lab.h"

namespace uccp::locks {
namespace {

struct ModelUser {
  uint64_t secret = 0;
  std::string owner;
  int32_t permits = 0;
  int32_t priority = 0;
  bool reentrant = false;
  int holds = 1;
};

// One lock or semaphore as two lists.
struct Model {
  int32_t capacity = 0;
  std::vector<ModelUser> holders, queue;

  int32_t free() const {
    int32_t left = capacity;
    for (const auto& h : holders) left -= h.permits;
    return left;
  }
  void serve() {
    while (!queue.empty() && queue.front().permits <= free()) {
      holders.push_back(queue.front());
      queue.erase(queue.begin());
    }
  }
  // Two readers that both want to write wait for each other. (Cycles over several locks have scripts of their own.)
  bool closes_cycle(const std::string& owner) const {
    if (capacity != kLockPermits) return false;
    const auto owned_by = [](const std::string& name) { return [&](const ModelUser& u) { return u.owner == name; }; };
    return std::ranges::any_of(holders, owned_by(owner)) && std::ranges::any_of(holders, [&](const ModelUser& h) {
             return h.owner != owner && std::ranges::any_of(queue, owned_by(h.owner));
           });
  }
  // 'h'eld, 'w'aits, 'r'efused, 'd'eadlock.
  char acquire(ModelUser user, bool wait, bool preempt) {
    for (auto& h : holders) {
      if (user.reentrant && h.reentrant && h.owner == user.owner && h.permits >= user.permits) {
        h.holds += 1;
        return 'h';
      }
    }
    const bool ahead = queue.empty() || user.priority > queue.front().priority;
    if (ahead && preempt) take_away(user);
    if (ahead && user.permits <= free()) {
      holders.push_back(user);
      if (preempt) serve();
      return 'h';
    }
    if (!wait) return 'r';
    if (closes_cycle(user.owner)) return 'd';
    const auto at = std::ranges::find_if(queue, [&](const auto& w) { return w.priority < user.priority; });
    queue.insert(at, user);
    return 'w';
  }
  void take_away(const ModelUser& user) {
    std::vector<ModelUser> lower;
    int32_t room = free();
    for (const auto& h : holders) {
      if (h.priority < user.priority) {
        lower.push_back(h);
        room += h.permits;
      }
    }
    if (room < user.permits) return;
    while (free() < user.permits) {
      auto lowest = holders.begin();
      for (auto it = holders.begin(); it != holders.end(); ++it) {
        if (it->priority < lowest->priority) lowest = it;
      }
      holders.erase(lowest);
    }
  }
};

internal::v1::PermitKind kind_of(const std::string& name) { return name[0] == 'l' ? kLock : kSemaphore; }

class Trial {
 public:
  explicit Trial(uint64_t seed) : random_(seed) {
    for (const char* name : {"l1", "l2", "s1", "s2"}) models_[name].capacity = name[0] == 'l' ? kLockPermits : 5;
  }

  void step() {
    const std::string name = std::next(models_.begin(), static_cast<long>(random_.below(models_.size())))->first;
    Model& model = models_[name];
    switch (random_.below(8)) {
      case 0:
      case 1:
      case 2: acquire(name, model); break;
      case 3:
      case 4: release(name, model); break;
      case 5: abandon(name, model); break;
      case 6: expire(name, model); break;
      default:
        if (random_.below(4) == 0) break_all(name, model);
        break;
    }
    for (const auto& [n, m] : models_) compare(n, m);
  }

 private:
  void acquire(const std::string& name, Model& model) {
    ModelUser user;
    user.secret = ++secrets_;
    // Owners are not shared between locks: see closes_cycle.
    user.owner = name + "-" + std::to_string(random_.below(4));
    user.priority = static_cast<int32_t>(random_.below(3));
    user.reentrant = name[0] == 'l' && random_.below(2) == 0;
    user.permits = name[0] == 's'          ? 1 + static_cast<int32_t>(random_.below(5))
                   : random_.below(2) == 0 ? 1
                                           : kLockPermits;
    const bool wait = random_.below(4) != 0;
    const bool preempt = random_.below(5) == 0;
    internal::v1::AcquireCommand command;
    command.set_kind(kind_of(name));
    command.set_name(name);
    auto& holder = *command.mutable_holder();
    holder.set_owner(user.owner);
    holder.set_secret(user.secret);
    holder.set_permits(user.permits);
    holder.set_priority(user.priority);
    holder.set_reentrant(user.reentrant);
    holder.set_ttl_ms(3600'000);
    command.set_capacity(name[0] == 's' ? 5 : 0);
    command.set_wait(wait);
    command.set_preempt(preempt);
    command.set_waiter_ttl_ms(3600'000);
    const char expected = model.acquire(user, wait, preempt);
    const auto result = lab_.apply("permits.acquire", command.SerializeAsString());
    if (expected == 'r' || expected == 'd') {
      ASSERT_FALSE(result.has_value());
      EXPECT_EQ(result.error().reason(), expected == 'r' ? "LOCK_HELD" : "DEADLOCK");
      return;
    }
    ASSERT_TRUE(result.has_value()) << result.error().to_string();
    internal::v1::AcquireResult got;
    ASSERT_TRUE(got.ParseFromString(*result));
    EXPECT_EQ(got.has_holder(), expected == 'h');
  }

  void release(const std::string& name, Model& model) {
    if (model.holders.empty()) return;
    const size_t at = random_.below(model.holders.size());
    ModelUser& user = model.holders[at];
    internal::v1::HolderCommand command;
    command.set_kind(kind_of(name));
    command.set_name(name);
    command.set_lease(lease_of(name, user.secret));
    command.set_secret(user.secret);
    ASSERT_TRUE(lab_.apply("permits.release", command.SerializeAsString()).has_value());
    if (--user.holds > 0) return;
    model.holders.erase(model.holders.begin() + static_cast<long>(at));
    model.serve();
  }

  void abandon(const std::string& name, Model& model) {
    if (model.queue.empty()) return;
    const size_t at = random_.below(model.queue.size());
    for (const auto& waiter : lab_.waiters(kind_of(name), name)) {
      if (waiter.holder().secret() != model.queue[at].secret) continue;
      internal::v1::AbandonCommand command;
      command.set_kind(kind_of(name));
      command.set_name(name);
      command.set_waiter(waiter.id());
      command.set_rank(waiter.rank());
      ASSERT_TRUE(lab_.apply("permits.abandon", command.SerializeAsString()).has_value());
    }
    model.queue.erase(model.queue.begin() + static_cast<long>(at));
    model.serve();
  }

  void expire(const std::string& name, Model& model) {
    if (model.holders.empty()) return;
    const size_t at = random_.below(model.holders.size());
    const uint64_t lease = lease_of(name, model.holders[at].secret);
    const uint64_t generation = lab_.machine().leases().at(lease).generation;
    ASSERT_TRUE(lab_.apply("machine.expire", machine::encode_expire(lease, generation, Term(1))).has_value());
    model.holders.erase(model.holders.begin() + static_cast<long>(at));
    model.serve();
  }

  void break_all(const std::string& name, Model& model) {
    internal::v1::BreakCommand command;
    command.set_kind(kind_of(name));
    command.set_name(name);
    EXPECT_EQ(lab_.apply("permits.break", command.SerializeAsString()).has_value(), !model.holders.empty());
    model.holders.clear();
    model.serve();
  }

  uint64_t lease_of(const std::string& name, uint64_t secret) {
    for (const auto& holder : lab_.holders(kind_of(name), name)) {
      if (holder.secret() == secret) return holder.lease();
    }
    return 0;
  }

  void compare(const std::string& name, const Model& model) {
    std::vector<std::pair<uint64_t, int>> held, held_model;
    for (const auto& h : lab_.holders(kind_of(name), name)) held.emplace_back(h.secret(), h.hold_count());
    for (const auto& h : model.holders) held_model.emplace_back(h.secret, h.holds);
    std::ranges::sort(held);
    std::ranges::sort(held_model);
    ASSERT_EQ(held, held_model) << name;
    std::vector<uint64_t> queue, queue_model;
    for (const auto& w : lab_.waiters(kind_of(name), name)) queue.push_back(w.holder().secret());
    for (const auto& w : model.queue) queue_model.push_back(w.secret);
    ASSERT_EQ(queue, queue_model) << name;
    lab_.check(kind_of(name), name);
  }

  SeededRandom random_;
  LockLab lab_;
  std::map<std::string, Model> models_;
  uint64_t secrets_ = 0;
};

class LocksPropertyTest : public testing::TestWithParam<uint64_t> {};

TEST_P(LocksPropertyTest, BehavesAsTheModelAndKeepsItsInvariants) {
  Trial trial(GetParam());
  for (int i = 0; i < 1500 && !HasFatalFailure() && !HasFailure(); ++i) {
    SCOPED_TRACE("step " + std::to_string(i));
    trial.step();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, LocksPropertyTest, testing::Range<uint64_t>(1, 9));

}  // namespace
}  // namespace uccp::locks
