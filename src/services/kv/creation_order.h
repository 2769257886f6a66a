// The keys below a prefix in the order of their creation, in memory: what the queues of etcd's clients ask for in each
// transaction (who came first, who just before me), and what a scan would have to sort all of them for.
//
// A cache beside the state, with the answers of a scan: a prefix is learned from the first scan that was made for such
// a question, and follows every change after that. Whoever changes a key tells; a command that fails takes back what it
// told. Prefixes end with '/'. Those with many keys or large rows are not kept. Loop thread.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "machine/envelope.h"

namespace uccp::kv {

class CreationOrder {
 public:
  static constexpr size_t kPrefixesMax = 1'024;
  static constexpr size_t kKeysOfPrefixMax = 10'000;
  static constexpr size_t kKeysMax = 100'000;
  // A scan may refuse to sort large rows; what is answered from here must not differ.
  static constexpr size_t kRowBytesMax = 64u << 10;

  // By revision of the creation.
  using Keys = std::set<std::pair<uint64_t, std::string>>;

  static bool takes(std::string_view prefix) { return prefix.ends_with('/'); }
  // nullptr: not known.
  const Keys* find(const machine::Scope& scope, std::string_view prefix);
  // All keys that begin so. Nothing is kept if they are too many.
  void learn(const machine::Scope& scope, std::string_view prefix, Keys keys);

  // A key has this row now, which it did not have before, or has no row any more.
  void put(const machine::Scope& scope, std::string_view key, uint64_t created, size_t row_bytes);
  void erase(const machine::Scope& scope, std::string_view key, uint64_t created);
  // The state is another one.
  void forget();

  size_t keys() const { return keys_; }

 private:
  using Name = std::pair<machine::Scope, std::string>;
  struct Known {
    Name name;
    Keys keys;
  };
  using Order = std::list<Known>;  // used last in front

  template <typename Visit>
  void each_above(const machine::Scope& scope, std::string_view key, const Visit& visit);
  void drop(Order::iterator known);

  Order known_;
  std::map<machine::Scope, std::map<std::string, Order::iterator, std::less<>>> by_name_;
  size_t keys_ = 0;
};

}  // namespace uccp::kv
