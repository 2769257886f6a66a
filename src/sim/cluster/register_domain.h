// A domain of the simulation only: registers for linearizability, and how often each operation had an effect.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "machine/domain.h"
#include "machine/key_reader.h"

namespace uccp::sim {

inline constexpr std::string_view kRegisterTopic = "registers";

// Values below this belong to the first client, and so on: the effects of one are one row.
inline constexpr uint64_t kValuesOfAClient = 1'000'000;

struct RegisterCommand {
  std::string key;
  uint64_t expected = 0;  // compare-and-set only
  uint64_t value = 0;     // unique in a run, so it names the operation
};
std::string encode_command(const RegisterCommand& command);
RegisterCommand decode_command(std::string_view payload);

class RegisterDomain final : public machine::Domain {
 public:
  std::string_view name() const override { return "registers"; }
  // put answers nothing, set (compare-and-set) "1" if it set the value, else "0".
  std::map<std::string, machine::ApplyFunction, std::less<>> commands() override;
};

// 0: empty.
uint64_t read_register(const machine::KeyReader& state, std::string_view key);
// How often the operation of `value` took effect.
uint64_t count_effects(const machine::KeyReader& state, uint64_t value);

}  // namespace uccp::sim
