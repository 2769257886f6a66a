#include "agent/ray_address.h"

#include <algorithm>
#include <string_view>

#include "services/ray_names.h"

namespace uccp::agent {
namespace {

constexpr size_t kAddressBytesMax = 1024;

// HOST:PORT, with a host in brackets if it has colons.
bool is_host_and_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.starts_with('[') && host.ends_with(']') && host.size() > 2;
  if (!bracketed && host.find_first_of(":[]") != std::string_view::npos) return false;
  if (port.empty() || port.size() > 5 || !std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; }))
    return false;
  int number = 0;
  for (const char c : port) number = number * 10 + (c - '0');
  return number > 0 && number <= 65535;
}

bool is_plain(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c < 127; });
}

}  // namespace

Result<RayAddress> parse_ray_address(const std::string& text) {
  if (text.empty()) return RayAddress{};
  RayAddress address{.door = RayDoor::kDriver, .text = text};
  while (address.text.ends_with('/')) address.text.pop_back();
  std::string_view rest = address.text;
  bool right = text.size() <= kAddressBytesMax && is_plain(text);
  if (rest.starts_with("ray://")) {
    address.door = RayDoor::kClient;
    right = right && is_host_and_port(rest.substr(6));
  } else if (rest.starts_with("http://") || rest.starts_with("https://")) {
    address.door = RayDoor::kJobs;
    rest.remove_prefix(rest.find("//") + 2);
    right = right && !rest.empty() && rest[0] != '/';
  } else {
    right = right && (rest == "auto" || is_host_and_port(rest));
  }
  if (right) return address;
  return fail(Code::kInvalid, "RAY_ADDRESS_INVALID",
              "RAY_ADDRESS " + text.substr(0, kAddressBytesMax) +
                  " is none of auto, HOST:PORT, ray://HOST:PORT, http://HOST:PORT and https://HOST:PORT");
}

std::string ray_label_of(RayDoor door) {
  switch (door) {
    case RayDoor::kDriver: return std::string(ray::kCluster);
    case RayDoor::kClient: return std::string(ray::kClient);
    case RayDoor::kJobs: return std::string(ray::kJobs);
    case RayDoor::kNone: break;
  }
  return {};
}

}  // namespace uccp::agent
