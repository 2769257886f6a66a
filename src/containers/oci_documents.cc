#include "containers/oci_documents.h"

#include <simdjson.h>

#include <algorithm>

namespace uccp::containers {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

std::unexpected<Status> invalid(std::string_view document, const std::string& what) {
  return fail(Code::kInvalid, "IMAGE_INVALID", "the image's " + std::string(document) + " " + what);
}

Result<element> parse(simdjson::dom::parser& parser, std::string_view document, std::string_view json) {
  element root;
  if (json.size() > kDocumentBytesMax)
    return invalid(document, "is larger than " + std::to_string(kDocumentBytesMax >> 20) + " MiB");
  if (parser.parse(simdjson::padded_string(json)).get(root) != simdjson::SUCCESS || !root.is_object())
    return invalid(document, "is not a JSON object");
  return root;
}

std::string text_at(const object& from, const char* key) {
  std::string_view text;
  return from[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

// A list of strings, or nothing of it.
std::vector<std::string> texts_at(const object& from, const char* key) {
  std::vector<std::string> texts;
  array items;
  if (from[key].get(items) != simdjson::SUCCESS) return texts;
  for (const element item : items) {
    std::string_view text;
    // What C strings end at cannot be given to a program.
    if (item.get(text) == simdjson::SUCCESS && text.find('\0') == std::string_view::npos) texts.emplace_back(text);
  }
  return texts;
}

bool is_digest(std::string_view digest) {
  constexpr std::string_view kPrefix = "sha256:";
  return digest.starts_with(kPrefix) && digest.size() == kPrefix.size() + 64 &&
         std::ranges::all_of(digest.substr(kPrefix.size()),
                             [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Result<Descriptor> descriptor_of(std::string_view document, const element& from) {
  object fields;
  if (from.get(fields) != simdjson::SUCCESS) return invalid(document, "has a descriptor that is no object");
  Descriptor out;
  out.media_type = text_at(fields, "mediaType");
  out.digest = text_at(fields, "digest");
  if (!is_digest(out.digest))
    return invalid(document, "has the digest \"" + out.digest + "\", which is not sha256:HEX");
  if (fields["size"].get(out.size) != simdjson::SUCCESS)
    return invalid(document, "does not say the size of " + out.digest);
  object inner;
  if (fields["annotations"].get(inner) == simdjson::SUCCESS)
    out.name = text_at(inner, "org.opencontainers.image.ref.name");
  if (fields["platform"].get(inner) == simdjson::SUCCESS) {
    out.os = text_at(inner, "os");
    out.architecture = text_at(inner, "architecture");
  }
  return out;
}

Result<std::vector<Descriptor>> descriptors_of(std::string_view document, const element& root, const char* key) {
  array items;
  if (root[key].get(items) != simdjson::SUCCESS) return invalid(document, "has no " + std::string(key));
  std::vector<Descriptor> out;
  for (const element item : items) {
    UCCP_TRY(Descriptor one, descriptor_of(document, item));
    out.push_back(std::move(one));
  }
  return out;
}

}  // namespace

bool Descriptor::is_index() const {
  return media_type == "application/vnd.oci.image.index.v1+json" ||
         media_type == "application/vnd.docker.distribution.manifest.list.v2+json";
}

Result<std::vector<Descriptor>> parse_index(std::string_view json) {
  simdjson::dom::parser parser;
  UCCP_TRY(const element root, parse(parser, "index", json));
  return descriptors_of("index", root, "manifests");
}

Result<Manifest> parse_manifest(std::string_view json) {
  simdjson::dom::parser parser;
  UCCP_TRY(const element root, parse(parser, "manifest", json));
  Manifest out;
  element config;
  if (root["config"].get(config) != simdjson::SUCCESS) return invalid("manifest", "has no config");
  UCCP_TRY(out.config, descriptor_of("manifest", config));
  UCCP_TRY(out.layers, descriptors_of("manifest", root, "layers"));
  if (out.layers.size() > kLayersMax)
    return invalid("manifest", "has " + std::to_string(out.layers.size()) + " layers; " + std::to_string(kLayersMax) +
                                   " are the most");
  return out;
}

Result<RunConfig> parse_image_config(std::string_view json) {
  simdjson::dom::parser parser;
  UCCP_TRY(const element root, parse(parser, "configuration", json));
  RunConfig out;
  object config;
  if (root["config"].get(config) != simdjson::SUCCESS) return out;
  out.entrypoint = texts_at(config, "Entrypoint");
  out.command = texts_at(config, "Cmd");
  out.env = texts_at(config, "Env");
  return out;
}

Result<RunConfig> parse_bundle_config(std::string_view json) {
  simdjson::dom::parser parser;
  UCCP_TRY(const element root, parse(parser, "config.json", json));
  RunConfig out;
  object inner;
  if (root["root"].get(inner) == simdjson::SUCCESS) out.root = text_at(inner, "path");
  if (out.root.empty()) return invalid("config.json", "has no root.path");
  if (root["process"].get(inner) != simdjson::SUCCESS) return out;
  out.command = texts_at(inner, "args");
  out.env = texts_at(inner, "env");
  return out;
}

}  // namespace uccp::containers
