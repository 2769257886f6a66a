#include "services/events/event_schema.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>

#include <set>

#include "base/bytes.h"
#include "services/events/avro_schema.h"
#include "services/events/json_schema.h"
#include "services/events/json_value.h"

namespace uccp::events {
namespace {

namespace pb = google::protobuf;

Status invalid(const std::string& why) { return Status(Code::kInvalid, "SCHEMA_INVALID", why); }
Status mismatch(const std::string& why) { return Status(Code::kInvalid, "SCHEMA_MISMATCH", why); }
Status incompatible(const std::string& why) { return Status(Code::kFailedPrecondition, "SCHEMA_INCOMPATIBLE", why); }

class OfJson final : public CompiledSchema {
 public:
  explicit OfJson(std::shared_ptr<const JsonSchema> schema) : schema_(std::move(schema)) {}

  Status check(const v1::Event& event) const override {
    if (event.has_json()) return schema_->check(event.json());
    if (!event.has_text() && !event.has_data()) return mismatch("the event has no content");
    auto value = parse_json(event.has_text() ? event.text() : event.data());
    return value ? schema_->check(*value) : mismatch(std::string(value.error().message()));
  }
  Status reads(const CompiledSchema& writer) const override {
    const auto* other = dynamic_cast<const OfJson*>(&writer);
    return other == nullptr ? incompatible("the format is another one") : accepts_all(*schema_, *other->schema_);
  }

 private:
  const std::shared_ptr<const JsonSchema> schema_;
};

class OfAvro final : public CompiledSchema {
 public:
  explicit OfAvro(std::shared_ptr<const AvroSchema> schema) : schema_(std::move(schema)) {}

  Status check(const v1::Event& event) const override {
    return event.has_data() ? schema_->check(event.data())
                            : mismatch("the content of an Avro event is in data, in the binary encoding");
  }
  Status reads(const CompiledSchema& writer) const override {
    const auto* other = dynamic_cast<const OfAvro*>(&writer);
    return other == nullptr ? incompatible("the format is another one") : schema_->reads(*other->schema_);
  }

 private:
  const std::shared_ptr<const AvroSchema> schema_;
};

class Errors final : public pb::DescriptorPool::ErrorCollector {
 public:
  void AddError(const std::string& file, const std::string& element, const pb::Message*, ErrorLocation,
                const std::string& message) override {
    if (first.empty()) first = file + ", " + element + ": " + message;
  }
  std::string first;
};

class OfProtobuf final : public CompiledSchema {
 public:
  static Result<std::shared_ptr<const CompiledSchema>> make(const v1::EventSchema& schema) {
    const auto bytes = from_base64(schema.definition());
    pb::FileDescriptorSet files;
    if (!bytes || !files.ParseFromString(*bytes) || files.file().empty()) {
      return std::unexpected(
          invalid("the definition is no descriptor set in base64 (protoc --descriptor_set_out "
                  "--include_imports)"));
    }
    auto out = std::make_shared<OfProtobuf>();
    Errors errors;
    for (const pb::FileDescriptorProto& file : files.file()) {
      if (out->pool_.BuildFileCollectingErrors(file, &errors) == nullptr) {
        return std::unexpected(invalid("the descriptor set cannot be used: " + errors.first +
                                       "; files come behind those that they import"));
      }
    }
    out->type_ = out->pool_.FindMessageTypeByName(schema.message_type());
    if (out->type_ == nullptr) {
      return std::unexpected(invalid("the descriptor set has no message type '" + schema.message_type() +
                                     "'; name one in schema.messageType"));
    }
    out->prototype_ = out->factory_.GetPrototype(out->type_);
    return out;
  }

  Status check(const v1::Event& event) const override {
    if (!event.has_data()) return mismatch("the content of a Protobuf event is in data");
    const std::unique_ptr<pb::Message> message(prototype_->New());
    if (!message->ParsePartialFromString(event.data())) return mismatch("data is no " + type_->full_name());
    if (!message->IsInitialized()) return mismatch("data lacks " + message->InitializationErrorString());
    return Status::ok();
  }
  Status reads(const CompiledSchema& writer) const override {
    const auto* other = dynamic_cast<const OfProtobuf*>(&writer);
    if (other == nullptr) return incompatible("the format is another one");
    std::set<std::pair<const pb::Descriptor*, const pb::Descriptor*>> seen;
    const std::string why = differ(*type_, *other->type_, seen);
    return why.empty() ? Status::ok() : incompatible(why);
  }

 private:
  using Seen = std::set<std::pair<const pb::Descriptor*, const pb::Descriptor*>>;

  // Fields are the same by their number. What one has and the other has not is passed over, unless it is required.
  static std::string differ(const pb::Descriptor& mine, const pb::Descriptor& other, Seen& seen) {
    if (!seen.emplace(&mine, &other).second) return "";
    for (int i = 0; i < mine.field_count(); ++i) {
      const pb::FieldDescriptor& field = *mine.field(i);
      const pb::FieldDescriptor* same = other.FindFieldByNumber(field.number());
      const std::string name = "field " + std::to_string(field.number()) + " of " + mine.full_name();
      if (same == nullptr) {
        if (field.is_required()) return name + " is required in one and not in the other";
        continue;
      }
      if (field.is_required() && !same->is_required()) return name + " is required in one and not in the other";
      if (field.type() != same->type()) return name + " has another type";
      if (field.is_repeated() != same->is_repeated()) return name + " is repeated in one only";
      if (field.message_type() == nullptr) continue;
      if (std::string why = differ(*field.message_type(), *same->message_type(), seen); !why.empty()) return why;
    }
    return "";
  }

  pb::DescriptorPool pool_;
  pb::DynamicMessageFactory factory_{&pool_};
  const pb::Descriptor* type_ = nullptr;
  const pb::Message* prototype_ = nullptr;
};

}  // namespace

Result<std::shared_ptr<const CompiledSchema>> CompiledSchema::make(const v1::EventSchema& schema) {
  switch (schema.format()) {
    case v1::SCHEMA_FORMAT_JSON: {
      UCCP_TRY(auto json, JsonSchema::parse(schema.definition()));
      return std::make_shared<const OfJson>(std::move(json));
    }
    case v1::SCHEMA_FORMAT_PROTOBUF: return OfProtobuf::make(schema);
    case v1::SCHEMA_FORMAT_AVRO: {
      UCCP_TRY(auto avro, AvroSchema::parse(schema.definition()));
      return std::make_shared<const OfAvro>(std::move(avro));
    }
    default: return std::unexpected(invalid("the schema has no format"));
  }
}

namespace {

// What a level of compatibility asks for.
struct Compatibility {
  bool backward;  // the new one reads events of those before
  bool forward;   // those before read events of the new one
  bool all;       // with all before, not the newest of them alone
};

Compatibility compatibility_of(v1::SchemaCompatibility level) {
  switch (level) {
    case v1::SCHEMA_COMPATIBILITY_NONE: return {};
    case v1::SCHEMA_COMPATIBILITY_FORWARD: return {.backward = false, .forward = true, .all = false};
    case v1::SCHEMA_COMPATIBILITY_FULL: return {.backward = true, .forward = true, .all = false};
    case v1::SCHEMA_COMPATIBILITY_BACKWARD_TRANSITIVE: return {.backward = true, .forward = false, .all = true};
    case v1::SCHEMA_COMPATIBILITY_FORWARD_TRANSITIVE: return {.backward = false, .forward = true, .all = true};
    case v1::SCHEMA_COMPATIBILITY_FULL_TRANSITIVE: return {.backward = true, .forward = true, .all = true};
    default: return {.backward = true, .forward = false, .all = false};
  }
}

Status explain(const Status& status, const std::string& what) {
  return Status(status.code(), std::string(status.reason()),
                what + ": " + std::string(status.message()) +
                    ". Change it otherwise, or publish to another topic; with compatibility NONE anything goes")
      .with_field("topic.schema.definition", std::string(status.message()));
}

}  // namespace

Status may_follow(const std::vector<v1::EventSchema>& before, const v1::EventSchema& after) {
  const Compatibility wanted = compatibility_of(after.compatibility());
  if (before.empty() || (!wanted.backward && !wanted.forward)) return Status::ok();
  UCCP_TRY(const auto new_one, CompiledSchema::make(after));
  // The newest first: that is what who changes a schema has in mind.
  for (auto old = before.rbegin(); old != before.rend(); ++old) {
    UCCP_TRY(const auto old_one, CompiledSchema::make(*old));
    const std::string version = "version " + std::to_string(old->version());
    if (wanted.backward) {
      if (Status status = new_one->reads(*old_one); !status.is_ok()) {
        return explain(status, "the new schema does not read events of " + version);
      }
    }
    if (wanted.forward) {
      if (Status status = old_one->reads(*new_one); !status.is_ok()) {
        return explain(status, version + " does not read events of the new schema");
      }
    }
    if (!wanted.all) break;
  }
  return Status::ok();
}

Result<std::shared_ptr<const CompiledSchema>> SchemaCache::find(uint64_t topic, const v1::EventSchema& schema) {
  const std::pair key(topic, schema.version());
  {
    const std::lock_guard lock(mutex_);
    if (const auto at = compiled_.find(key); at != compiled_.end()) return at->second;
  }
  UCCP_TRY(auto compiled, CompiledSchema::make(schema));
  const std::lock_guard lock(mutex_);
  if (compiled_.size() >= kKept) compiled_.erase(compiled_.begin());
  return compiled_.try_emplace(key, std::move(compiled)).first->second;
}

}  // namespace uccp::events
