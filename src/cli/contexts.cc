#include "cli/contexts.h"

#include <algorithm>

#include "cli/text.h"

namespace uccp::cli {
namespace {

constexpr std::string_view kSuffix = ".json";
constexpr size_t kNameBytesMax = 64;

std::string folder_of_contexts(const Io& io) { return config_folder(io) + "/contexts"; }
std::string current_file(const Io& io) { return config_folder(io) + "/current"; }

Status invalid(std::string message) { return {Code::kInvalid, "CONTEXT_INVALID", std::move(message)}; }

Result<std::string> path_of(const Io& io, std::string_view name) {
  if (config_folder(io).empty()) {
    return std::unexpected(invalid("there is no place for contexts: none of $UCCP_CONFIG_DIR, $HOME is set"));
  }
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.';
  };
  if (name.empty() || name.size() > kNameBytesMax || name.front() == '.' || !std::ranges::all_of(name, allowed)) {
    return std::unexpected(invalid("\"" + printable(name) +
                                   "\" is no name for a context: it takes 1 to 64 letters, digits, '-', '_' and '.'"));
  }
  return folder_of_contexts(io) + "/" + std::string(name) + std::string(kSuffix);
}

}  // namespace

std::string config_folder(const Io& io) {
  if (const auto own = io.env("UCCP_CONFIG_DIR"); own && !own->empty()) return *own;
  if (const auto base = io.env("XDG_CONFIG_HOME"); base && !base->empty()) return *base + "/uccp";
  if (const auto home = io.env("HOME"); home && !home->empty()) return *home + "/.config/uccp";
  return {};
}

std::vector<std::string> context_names(const Io& io) {
  std::vector<std::string> names;
  if (config_folder(io).empty()) return names;
  for (const std::string& file : io.list_folder(folder_of_contexts(io))) {
    if (file.ends_with(kSuffix) && !file.starts_with('.'))
      names.push_back(file.substr(0, file.size() - kSuffix.size()));
  }
  std::ranges::sort(names);
  return names;
}

std::string current_context(const Io& io) {
  if (config_folder(io).empty() || !io.file_exists(current_file(io))) return {};
  std::string name = io.read_file(current_file(io)).value_or("");
  while (name.ends_with('\n')) name.pop_back();
  return name;
}

Result<std::string> context_path(const Io& io, std::string_view name) {
  UCCP_TRY(std::string path, path_of(io, name));
  if (io.file_exists(path)) return path;
  const std::vector<std::string> names = context_names(io);
  const std::string near = nearest(name, names);
  std::string message = "there is no context \"" + printable(name) + "\"";
  message += !near.empty()   ? "; did you mean \"" + near + "\"?"
             : names.empty() ? "; `uccp-cli context set NAME` makes one"
                             : "; there is: " + join(names, ", ");
  return std::unexpected(invalid(std::move(message)));
}

Status write_context(const Io& io, std::string_view name, std::string_view json) {
  UCCP_TRY(const std::string path, path_of(io, name));
  return io.write_file(path, json);
}

Status use_context(const Io& io, std::string_view name) {
  UCCP_RETURN_IF_ERROR(context_path(io, name));
  return io.write_file(current_file(io), std::string(name) + "\n");
}

Status delete_context(const Io& io, std::string_view name) {
  UCCP_TRY(const std::string path, context_path(io, name));
  UCCP_RETURN_IF_ERROR(io.remove_file(path));
  return current_context(io) == name ? io.remove_file(current_file(io)) : Status::ok();
}

}  // namespace uccp::cli
