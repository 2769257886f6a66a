// Which changes a group takes on, so that what is under way stays bounded and no tenant can fill it alone.
//
// Entries and bytes count from the proposal until the entry is applied here, so a state that lags behind its log slows
// proposals down as well. Of both a tenant may have at most kTenantShare times what is free: one alone gets four
// fifths, two that want all they can get have equal parts, and a newcomer always finds room. The system's own changes
// have a reserve on top and no share. Loop thread only.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace uccp::node {

struct AdmissionLimits {
  size_t entries_max = 0;
  size_t bytes_max = 0;
  // Of both, on top, for the system's own changes.
  size_t system_reserve_percent = 0;
};

class Admission {
 private:
  struct Use {
    size_t entries = 0;
    size_t bytes = 0;
  };
  using Tenants = std::map<std::string, Use, std::less<>>;

 public:
  static constexpr size_t kTenantShare = 4;

  // A change that was taken on; gives its room back when it is destroyed. Must not outlive the Admission.
  class Room {
   public:
    Room() = default;
    Room(Room&& other) noexcept : owner_(std::exchange(other.owner_, nullptr)), at_(other.at_), bytes_(other.bytes_) {}
    Room& operator=(Room&& other) noexcept {
      Room taken(std::move(other));
      std::swap(owner_, taken.owner_);
      std::swap(at_, taken.at_);
      std::swap(bytes_, taken.bytes_);
      return *this;
    }
    ~Room() {
      if (owner_ != nullptr) owner_->leave(at_, bytes_);
    }

   private:
    friend class Admission;
    Room(Admission& owner, Tenants::iterator at, size_t bytes) : owner_(&owner), at_(at), bytes_(bytes) {}

    Admission* owner_ = nullptr;
    Tenants::iterator at_;
    size_t bytes_ = 0;
  };

  explicit Admission(AdmissionLimits limits) : limits_(limits) {}
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

  // Nothing if there is no room. `late`: what is under way takes long; then only tenants with less than an equal part
  // of it get more. An empty tenant is the system.
  std::optional<Room> admit(std::string_view tenant, size_t bytes, bool late);
  size_t entries() const { return all_.entries; }

 private:
  bool has_room(std::string_view tenant, bool late) const;
  void leave(Tenants::iterator at, size_t bytes);

  const AdmissionLimits limits_;
  Use all_;
  Tenants tenants_;  // those that have something under way
};

}  // namespace uccp::node
