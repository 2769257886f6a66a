#include "sim/cluster/register_domain.h"

#include "base/bytes.h"
#include "machine/table.h"

namespace uccp::sim {
namespace {

constexpr machine::BytesTable kRegisters(60'000);
constexpr machine::BytesTable kEffects(60'001);

std::string number(uint64_t value) { return ByteWriter().u64(value).take(); }

uint64_t parse_number(const std::optional<std::string>& bytes) { return bytes ? ByteReader(*bytes).u64() : 0; }

machine::ApplyResult write(machine::ApplyContext& c, const RegisterCommand& command) {
  kRegisters.put(c.state(), {}, command.key, number(command.value));
  std::string effects = kEffects.get(c.state(), {}, number(command.value / kValuesOfAClient)).value_or("");
  const uint64_t place = command.value % kValuesOfAClient;
  if (effects.size() <= place) effects.resize(place + 1);
  ++effects[place];
  kEffects.put(c.state(), {}, number(command.value / kValuesOfAClient), std::move(effects));
  c.emit(kRegisterTopic, command.key, 1, number(command.value));
  return "1";
}

}  // namespace

std::string encode_command(const RegisterCommand& command) {
  return ByteWriter().bytes(command.key).u64(command.expected).u64(command.value).take();
}

RegisterCommand decode_command(std::string_view payload) {
  ByteReader in(payload);
  RegisterCommand command;
  command.key = in.bytes();
  command.expected = in.u64();
  command.value = in.u64();
  UCCP_CHECK(in.at_end(), "a register command is readable");
  return command;
}

std::map<std::string, machine::ApplyFunction, std::less<>> RegisterDomain::commands() {
  return {{"put", [](machine::ApplyContext& c, std::string_view payload) { return write(c, decode_command(payload)); }},
          {"set", [](machine::ApplyContext& c, std::string_view payload) -> machine::ApplyResult {
             const RegisterCommand command = decode_command(payload);
             if (read_register(c.state(), command.key) != command.expected) return "0";
             return write(c, command);
           }}};
}

uint64_t read_register(const machine::KeyReader& state, std::string_view key) {
  return parse_number(kRegisters.get(state, {}, key));
}

uint64_t count_effects(const machine::KeyReader& state, uint64_t value) {
  const std::string effects = kEffects.get(state, {}, number(value / kValuesOfAClient)).value_or("");
  const uint64_t place = value % kValuesOfAClient;
  return place < effects.size() ? static_cast<uint8_t>(effects[place]) : 0;
}

}  // namespace uccp::sim
