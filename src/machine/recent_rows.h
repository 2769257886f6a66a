// Rows of a group that were read lately, as the state has them now, also those that it does not have.
//
// A change reads what it replaces, and the next change of the same thing reads it again: a read of the store costs a
// microsecond, one of these a tenth. Only what is read is kept, since most rows are written once and not read again.
// Invariant: what is kept is what the state answers. Loop thread only.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

namespace uccp::machine {

class RecentRows {
 public:
  // Of all rows; those of groups at rest take nothing.
  static constexpr size_t kBytesMax = 512u << 10;
  // Larger rows are not kept.
  static constexpr size_t kRowBytesMax = 4u << 10;

  explicit RecentRows(size_t bytes_max = kBytesMax) : generation_bytes_max_(bytes_max / 2) {}

  // What the state has under the key; nullptr if that is not known here. Good until the next call.
  const std::optional<std::string>* find(std::string_view key);
  // The state was read.
  void add(std::string_view key, const std::optional<std::string>& value);
  // The state was changed.
  void update(std::string_view key, const std::optional<std::string>& value);
  // It is another state.
  void clear();

  size_t size() const { return young_.size() + old_.size(); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>()(key); }
  };
  using Rows = std::unordered_map<std::string, std::optional<std::string>, Hash, std::equal_to<>>;

  // When the young ones are too many they are the old ones, and those before them are forgotten. What is found among
  // the old ones is young again.
  void count(std::string_view key, const std::optional<std::string>& value);

  const size_t generation_bytes_max_;
  Rows young_, old_;
  size_t young_bytes_ = 0;
};

}  // namespace uccp::machine
