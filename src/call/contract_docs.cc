#include "call/contract_docs.h"

#include <google/protobuf/descriptor.pb.h>

namespace uccp::call {
namespace {

namespace pb = google::protobuf;

// Comment lines come with the space behind "//" and a line end.
std::string clean(const std::string& raw) {
  std::string text;
  for (size_t at = 0; at < raw.size();) {
    size_t end = raw.find('\n', at);
    if (end == std::string::npos) end = raw.size();
    std::string_view line(raw.data() + at, end - at);
    if (line.starts_with(' ')) line.remove_prefix(1);
    text.append(line).push_back('\n');
    at = end + 1;
  }
  while (text.ends_with('\n') || text.ends_with(' ')) text.pop_back();
  return text;
}

using Comments = std::map<std::string, std::string, std::less<>>;

// Finds the full names of the descriptors that the paths of SourceCodeInfo lead to. Field numbers of descriptor.proto:
// file: 4 message, 5 enum, 6 service; message: 2 field, 3 nested, 4 enum; enum: 2 value; service: 2 method.
std::string name_at(const pb::FileDescriptorProto& file, const pb::SourceCodeInfo::Location& location) {
  std::string name = file.package();
  const pb::DescriptorProto* message = nullptr;
  const pb::EnumDescriptorProto* enumeration = nullptr;
  const pb::ServiceDescriptorProto* service = nullptr;
  for (int i = 0; i + 1 < location.path_size(); i += 2) {
    const int kind = location.path(i), at = location.path(i + 1);
    const bool top = message == nullptr && enumeration == nullptr && service == nullptr;
    if (top && kind == 4) {
      message = &file.message_type(at);
      name += "." + message->name();
    } else if (top && kind == 6) {
      service = &file.service(at);
      name += "." + service->name();
    } else if (kind == (top ? 5 : 4) && enumeration == nullptr && service == nullptr) {
      enumeration = top ? &file.enum_type(at) : &message->enum_type(at);
      name += "." + enumeration->name();
    } else if (enumeration != nullptr && kind == 2) {
      name += "." + enumeration->value(at).name();
    } else if (service != nullptr && kind == 2) {
      name += "." + service->method(at).name();
    } else if (message != nullptr && kind == 2) {
      name += "." + message->field(at).name();
    } else if (message != nullptr && kind == 3) {
      message = &message->nested_type(at);
      name += "." + message->name();
    } else {
      return {};
    }
  }
  return location.path_size() % 2 == 0 && location.path_size() > 0 ? name : std::string();
}

}  // namespace

Result<ContractDocs> ContractDocs::parse(std::string_view image) {
  pb::FileDescriptorSet set;
  if (!set.ParseFromArray(image.data(), static_cast<int>(image.size())) || set.file_size() == 0) {
    return fail(Code::kInvalid, "IMAGE_INVALID",
                "the contract image is not a FileDescriptorSet; rebuild uccp_contract.binpb");
  }
  ContractDocs docs;
  for (const pb::FileDescriptorProto& file : set.file()) {
    if (file.package() != "uccp.v1") continue;
    for (const pb::SourceCodeInfo::Location& location : file.source_code_info().location()) {
      if (location.leading_comments().empty()) continue;
      std::string name = name_at(file, location);
      if (!name.empty()) docs.comments_.emplace(std::move(name), clean(location.leading_comments()));
    }
  }
  return docs;
}

std::string_view ContractDocs::comment(std::string_view full_name) const {
  const auto at = comments_.find(full_name);
  return at == comments_.end() ? std::string_view() : std::string_view(at->second);
}

std::string ContractDocs::sentence(std::string_view full_name) const {
  std::string text;
  for (const char c : comment(full_name)) {
    if (c == '\n' && text.ends_with('.')) break;
    if (c == ' ' && text.ends_with('.')) break;
    text.push_back(c == '\n' ? ' ' : c);
  }
  if (text.ends_with('.')) text.pop_back();
  return text;
}

}  // namespace uccp::call
