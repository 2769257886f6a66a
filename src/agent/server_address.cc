#include "agent/server_address.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace uccp::agent {
namespace {

using google::protobuf::Struct;

Result<std::string> read_text(const std::string& path, const std::string& what) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (file) return text.str();
  return fail(Code::kFailedPrecondition, "CONTEXT_UNAVAILABLE",
              "cannot read " + what + " " + path + "; is the server running?");
}

std::string text_of(const Struct& object, const std::string& key) {
  const auto found = object.fields().find(key);
  return found == object.fields().end() ? "" : found->second.string_value();
}

void add_target(std::vector<std::string>& targets, const std::string& target) {
  if (!target.empty() && std::find(targets.begin(), targets.end(), target) == targets.end()) targets.push_back(target);
}

std::string resolve(const std::string& directory, const std::string& path) {
  if (path.starts_with('/')) return path;
  std::error_code error;
  const std::string beside = directory + "/" + path;
  return std::filesystem::exists(beside, error) ? beside : path;
}

// `value` is PEM, or a path.
Result<std::string> pem_of(const std::string& directory, const std::string& value, const std::string& what) {
  if (value.empty() || value.starts_with("-----BEGIN")) return value;
  return read_text(resolve(directory, value), what);
}

Status read_context(const std::string& path, ServerAddress& address) {
  UCCP_TRY(std::string text, read_text(path, "the context file"));
  auto context = parse_context(text);
  if (!context) return Status(Code::kInvalid, "CONTEXT_INVALID", path + " " + std::string(context.error().message()));
  address.targets = context->targets;
  const std::string directory =
      std::filesystem::path(path).parent_path().empty() ? "." : std::filesystem::path(path).parent_path().string();
  const std::string& ca = context->ca;
  UCCP_TRY(address.ca_pem, pem_of(directory, ca, "the authority's certificate"));
  std::string cert = context->agent_cert;
  std::string key = context->agent_key;
  if (cert.empty() && !ca.empty() && !ca.starts_with("-----BEGIN")) {
    const std::string keys = std::filesystem::path(resolve(directory, ca)).parent_path().string();
    cert = std::filesystem::absolute(keys + "/agent.crt").string();
    key = std::filesystem::absolute(keys + "/agent.key").string();
  }
  // A file written for the agent alone names its keys like any client's.
  std::error_code missing;
  if (cert.empty() || (cert.starts_with('/') && !std::filesystem::exists(cert, missing))) {
    cert = context->cert;
    key = context->key;
  }
  UCCP_TRY(address.cert_pem, pem_of(directory, cert, "the agent's certificate"));
  UCCP_TRY(address.key_pem, pem_of(directory, key, "the agent's key"));
  return {};
}

}  // namespace

Result<ServerContext> parse_context(const std::string& text) {
  Struct json;
  if (!google::protobuf::util::JsonStringToMessage(text, &json).ok()) {
    return fail(Code::kInvalid, "CONTEXT_INVALID", "is not a JSON object");
  }
  ServerContext context{.ca = text_of(json, "ca"),
                        .agent_cert = text_of(json, "agentCert"),
                        .agent_key = text_of(json, "agentKey"),
                        .cert = text_of(json, "cert"),
                        .key = text_of(json, "key")};
  add_target(context.targets, text_of(json, "grpc"));
  if (const auto nodes = json.fields().find("nodes"); nodes != json.fields().end()) {
    for (const auto& node : nodes->second.list_value().values()) {
      add_target(context.targets, node.has_struct_value() ? text_of(node.struct_value(), "grpc") : node.string_value());
    }
  }
  return context;
}

Result<ServerAddress> find_server(const ServerAddressOptions& options) {
  ServerAddress address;
  if (!options.context_file.empty()) UCCP_RETURN_IF_ERROR(read_context(options.context_file, address));
  if (!options.server.empty()) {
    address.targets.clear();
    std::istringstream targets(options.server);
    for (std::string target; std::getline(targets, target, ',');) add_target(address.targets, target);
  }
  if (!options.ca_file.empty()) {
    UCCP_TRY(address.ca_pem, read_text(options.ca_file, "the authority's certificate"));
  }
  if (!options.cert_file.empty()) {
    UCCP_TRY(address.cert_pem, read_text(options.cert_file, "the agent's certificate"));
  }
  if (!options.key_file.empty()) {
    UCCP_TRY(address.key_pem, read_text(options.key_file, "the agent's key"));
  }
  if (address.targets.empty()) {
    return fail(Code::kInvalid, "CONTEXT_INVALID",
                "no server is named: give --server HOST:PORT, or a --context-file with \"grpc\"");
  }
  if (address.ca_pem.empty() || address.cert_pem.empty() || address.key_pem.empty()) {
    return fail(Code::kInvalid, "CONTEXT_INVALID",
                "the agent needs a certificate: give --ca, --cert and --key, or a --context-file that names them");
  }
  return address;
}

}  // namespace uccp::agent
