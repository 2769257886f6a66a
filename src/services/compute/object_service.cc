#include "services/compute/object_service.h"

#include <algorithm>

#include "base/dotted_numbers.h"
#include "base/hash.h"
#include "call/command.h"
#include "services/compute/object_state.h"
#include "services/feature_types.h"
#include "services/objects/blob_stream.h"
#include "services/work_types.h"

namespace uccp::compute {
namespace {

using call::CallPtr;
using internal::v1::ObjectRow;
using machine::Applied;
using machine::GroupView;

std::string store_of(const std::string& name) { return name.empty() ? std::string(objectstores::kDefaultStore) : name; }

Status not_built(const std::string& field, const std::string& what) {
  return Status(Code::kInvalid, "OBJECT_FEATURE_UNIMPLEMENTED", what).with_field(field, "is not built");
}

Status check_store(v1::ObjectStore& store) {
  if (store.backend().empty()) store.set_backend("embedded");
  if (store.backend() != "embedded")
    return not_built("store.backend", "other backends than `embedded` are not built yet");
  if (store.compression() > v1::COMPRESSION_NONE)
    return not_built("store.compression", "compression at rest is not built yet");
  if (store.eviction() != v1::EVICTION_POLICY_UNSPECIFIED && store.eviction() != v1::EVICTION_POLICY_NONE)
    return not_built("store.eviction",
                     "eviction is not built yet: a full store refuses, `NONE`; objects end by their TTL");
  if (store.replicas() > 1)
    return not_built("store.replicas", "copies are kept by every node of the cluster, not by choice");
  return Status::ok();
}

Status check_object(v1::Object& object) {
  if (object.store().empty()) object.set_store(std::string(objectstores::kDefaultStore));
  if (object.store() == functions::kTaskValueStore) {
    return Status(Code::kInvalid, "FIELD_INVALID", "the store `tasks` holds the values of tasks and cannot be written")
        .with_field("object.store", "must not be tasks");
  }
  if (object.compression() > v1::COMPRESSION_NONE)
    return not_built("object.compression", "compression at rest is not built yet");
  if (object.content_type().empty()) object.set_content_type("application/octet-stream");
  if (object.serialization().empty()) object.set_serialization("raw");
  return Status::ok();
}

Status disk_full() {
  return Status(Code::kExhausted, "NO_SPACE",
                "the disk of this node is nearly full: objects are not stored; free disk space. Nothing was changed")
      .with_retry_after_ms(5000)
      .with_help("runbooks.md#disk-full");
}

Status wrong_digest(const v1::Object& object, const std::string& found) {
  return Status(Code::kInvalid, "OBJECT_DIGEST_MISMATCH",
                "the content of object " + object.key() + " has the digest " + found + ", not " + object.sha256() +
                    "; nothing was stored")
      .with_field("object.sha256", "must be the digest of the content");
}

}  // namespace

// Content of one object on its way in. Messages come one at a time, from a door's thread; what they hold is written
// there, so that a disk that is slow slows down the client.
class ObjectService::Upload {
 public:
  Upload(CallPtr call, ObjectService& service) : call_(std::move(call)), service_(service) {}

  void take(const std::string& bytes) {
    if (call_->finished()) return;
    v1::UploadObjectRequest request;
    if (!request.ParseFromString(bytes))
      return end(Status(Code::kInvalid, "WIRE_INVALID", "malformed UploadObjectRequest"));
    if (Status status = request.has_header() ? begin(request.header()) : append(request.data()); !status.is_ok())
      end(std::move(status));
  }

  void finish() {
    if (call_->finished()) return;
    if (!writer_) return end(header_missing());
    auto info = writer_->finish();
    if (!info) return end(info.error());
    const std::string& wanted = header_.object().sha256();
    if (!wanted.empty() && wanted != info->sha256) return end(wrong_digest(header_.object(), info->sha256));
    service_.propose_object(call_, header_.SerializeAsString(), header_.object(), *info, header_.if_match());
  }

 private:
  static Status header_missing() {
    return Status(Code::kInvalid, "OBJECT_HEADER_MISSING", "the first message must be the header")
        .with_field("header", "must come first");
  }
  Status begin(const v1::UploadObjectHeader& header) {
    if (writer_) return Status(Code::kInvalid, "OBJECT_HEADER_TWICE", "a stream has one header");
    header_ = header;
    if (header.object().key().empty()) {
      return Status(Code::kInvalid, "FIELD_INVALID", "header.object.key must name the object")
          .with_field("header.object.key", "must not be empty", "features/2024-05.arrow");
    }
    UCCP_RETURN_IF_ERROR(check_object(*header_.mutable_object()));
    if (service_.env_.disk_is_full()) return disk_full();
    UCCP_TRY(writer_, service_.env_.blobs.begin_put());
    return Status::ok();
  }
  Status append(const std::string& data) {
    if (!writer_) return header_missing();
    received_ += data.size();
    if (received_ > kObjectBytesMax) {
      return Status(Code::kInvalid, "OBJECT_TOO_LARGE",
                    "an object has at most " + std::to_string(kObjectBytesMax) + " bytes; store it in parts");
    }
    return writer_->append(data);
  }
  void end(Status status) {
    writer_.reset();
    call_->finish(std::move(status));
  }

  const CallPtr call_;
  ObjectService& service_;
  v1::UploadObjectHeader header_;
  std::unique_ptr<objects::BlobWriter> writer_;
  uint64_t received_ = 0;
};

void ObjectService::add_handlers(call::HandlerTable& handlers) {
  const std::string service = "uccp.v1.ComputeExecution/";
  const auto raw = [&](const char* name, void (ObjectService::*member)(const CallPtr&, std::string)) {
    handlers.add(service + name,
                 [this, member](const CallPtr& call, std::string bytes) { (this->*member)(call, std::move(bytes)); });
  };
  raw("CreateObjectStore", &ObjectService::create_store);
  raw("ListObjectStores", &ObjectService::list_stores);
  raw("DeleteObjectStore", &ObjectService::remove_store);
  raw("PutObject", &ObjectService::put);
  raw("DeleteObject", &ObjectService::remove);
  raw("ListObjects", &ObjectService::list);
  handlers.add(service + "UploadObject", [this](const CallPtr& call, const std::string&) { upload(call); });
  handlers.add_parsed<v1::GetObjectStoreRequest>(service + "GetObjectStore",
                                                 [this](const CallPtr& c, const auto& r) { get_store(c, r); });
  handlers.add_parsed<v1::GetObjectRequest>(service + "GetObject",
                                            [this](const CallPtr& c, const auto& r) { get(c, r); });
  handlers.add_parsed<v1::DownloadObjectRequest>(service + "DownloadObject",
                                                 [this](const CallPtr& c, const auto& r) { download(c, r); });
}

void ObjectService::create_store(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::CreateObjectStoreRequest>(bytes);
  if (!request) return call->finish(request.error());
  v1::ObjectStore& store = *request->mutable_store();
  if (Status status = check_store(store); !status.is_ok()) return call->finish(std::move(status));
  store.set_namespace_(call->name_space);
  if (request->validate_only()) return call->reply(store.SerializeAsString());
  internal::v1::PutObjectStoreCommand command;
  *command.mutable_store() = store;
  command.set_stores_max(kStoresMax);
  propose_command(env_, call, bytes, "compute.put_store", command.SerializeAsString());
}

void ObjectService::get_store(const CallPtr& call, const v1::GetObjectStoreRequest& request) {
  env_.reader.read(kWorkGroup, call->read_level, [call, request](Result<GroupView> view) {
    if (!view) return call->finish(std::move(view.error()));
    auto store = find_store(*view, scope_of(*call), request.name());
    if (!store) return call->finish(std::move(store.error()));
    put_session(call, view->applied());
    call->reply(store->SerializeAsString());
  });
}

void ObjectService::list_stores(const CallPtr& call, std::string bytes) {
  list_rows(env_, call, bytes, "name",
            [scope = scope_of(*call)](const GroupView& view, std::string_view after, const call::VisitRow& visit) {
              bool default_seen = std::string(after) >= objectstores::kDefaultStore;
              const auto show_default = [&] {
                const auto store = find_store(view, scope, std::string(objectstores::kDefaultStore));
                return default_seen || (default_seen = true, visit(store->name(), store->SerializeAsString()));
              };
              const std::string from = after.empty() ? std::string() : std::string(after) + '\0';
              bool more = true;
              objectstores::kStores.scan(view, scope, "", from, [&](std::string_view name, const auto& row) {
                if (name >= objectstores::kDefaultStore) more = show_default();
                if (more && name != objectstores::kDefaultStore) more = visit(name, row.store().SerializeAsString());
                return more;
              });
              if (more) show_default();
              return Status::ok();
            });
}

void ObjectService::remove_store(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DeleteObjectStoreRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::RemoveObjectStoreCommand command;
  command.set_name(request->name());
  command.set_force(request->force());
  command.set_if_match(request->if_match());
  propose_command(env_, call, bytes, "compute.remove_store", command.SerializeAsString(),
                  v1::DeleteObjectStoreResponse().SerializeAsString());
}

void ObjectService::propose_object(const CallPtr& call, std::string_view request, v1::Object object,
                                   const objects::BlobInfo& blob, const std::string& if_match) {
  object.set_namespace_(call->name_space);
  object.set_size(blob.size);
  object.set_sha256(blob.sha256);
  object.set_tier("disk");
  internal::v1::PutObjectCommand command;
  *command.mutable_object() = std::move(object);
  command.mutable_blob()->set_sha256(blob.sha256);
  command.mutable_blob()->set_size(blob.size);
  command.set_if_match(if_match);
  command.set_objects_max(kObjectsMax);
  propose_command(env_, call, request, "compute.put_object", command.SerializeAsString());
}

void ObjectService::put(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::PutObjectRequest>(bytes);
  if (!request) return call->finish(request.error());
  if (Status status = check_object(*request->mutable_object()); !status.is_ok()) return call->finish(std::move(status));
  const std::string digest = to_hex(sha256(request->data()));
  if (!request->object().sha256().empty() && request->object().sha256() != digest)
    return call->finish(wrong_digest(request->object(), digest));
  env_.blob_io.post([this, call, bytes = std::move(bytes), request = std::move(*request)] {
    if (env_.disk_is_full()) return call->finish(disk_full());
    auto info = env_.blobs.put(request.data());
    if (!info) return call->finish(std::move(info.error()));
    propose_object(call, bytes, request.object(), *info, request.if_match());
  });
}

void ObjectService::upload(const CallPtr& call) {
  auto upload = std::make_shared<Upload>(call, *this);
  call->on_half_close([upload] { upload->finish(); });
  call->on_message([upload](const std::string& bytes) { upload->take(bytes); });
}

void ObjectService::read_row(const CallPtr& call, const std::string& store, const std::string& key,
                             const std::string& version, OnRow done) {
  env_.reader.read(kWorkGroup, call->read_level,
                   [call, store = store_of(store), key, version, done = std::move(done)](Result<GroupView> view) {
                     if (!view) return call->finish(std::move(view.error()));
                     if (auto found = find_store(*view, scope_of(*call), store); !found)
                       return call->finish(std::move(found.error()));
                     const auto row = objectstores::find_object(*view, scope_of(*call), store, key, version,
                                                                view->machine_time_ms());
                     if (!row) return call->finish(objectstores::no_such_object(store, key, version));
                     put_session(call, view->applied());
                     done(*row);
                   });
}

void ObjectService::get(const CallPtr& call, const v1::GetObjectRequest& request) {
  read_row(call, request.store(), request.key(), request.version(), [this, call, request](const ObjectRow& row) {
    v1::GetObjectResponse response;
    *response.mutable_object() = row.object();
    if (request.metadata_only()) return call->reply(response.SerializeAsString());
    const uint64_t size = row.blob().size();
    if (request.offset() > size) {
      return call->finish(Status(Code::kInvalid, "OFFSET_INVALID",
                                 "the object has " + std::to_string(size) + " bytes, and the offset is behind them")
                              .with_field("offset", "must be at most the size"));
    }
    const uint64_t most = request.length() == 0 ? kObjectPieceBytes : std::min(request.length(), kObjectPieceBytes);
    // A response holds the description beside the content.
    const uint64_t room = kObjectPieceBytes - std::min<uint64_t>(kObjectPieceBytes / 2, response.ByteSizeLong() + 64);
    const uint64_t length = std::min({most, room, size - request.offset()});
    env_.blob_io.post([this, call, response = std::move(response), blob = row.blob(), offset = request.offset(),
                       length]() mutable {
      auto content = env_.blobs.read(blob.sha256(), offset, length);
      if (!content) return call->finish(std::move(content.error()));
      if (length == blob.size() && to_hex(sha256(*content)) != blob.sha256()) {
        return call->finish(Status(
            Code::kCorruption, "OBJECT_DAMAGED",
            "the stored content of object " + response.object().key() + " has not its digest any more on this node"));
      }
      response.set_data(std::move(*content));
      call->reply(response.SerializeAsString());
    });
  });
}

void ObjectService::download(const CallPtr& call, const v1::DownloadObjectRequest& request) {
  read_row(call, request.store(), request.key(), request.version(), [this, call, request](const ObjectRow& row) {
    uint64_t offset = request.offset();
    if (!request.since().empty() && !parse_dotted_numbers(request.since(), std::span(&offset, 1))) {
      return call->finish(
          Status(Code::kInvalid, "CURSOR_INVALID", "the cursor is not one of this stream")
              .with_field("since", "is not a cursor of DownloadObject", "the cursor of the last chunk"));
    }
    if (offset > row.blob().size()) {
      return call->finish(
          Status(Code::kInvalid, "OFFSET_INVALID",
                 "the object has " + std::to_string(row.blob().size()) + " bytes, and the offset is behind them")
              .with_field("offset", "must be at most the size"));
    }
    objects::stream_blob(env_.blob_io, env_.blobs,
                         {.call = call,
                          .sha256 = row.blob().sha256(),
                          .offset = offset,
                          .size = row.blob().size(),
                          .item = [object = row.object(), offset](uint64_t at, std::string data) {
                            v1::ObjectChunk chunk;
                            chunk.set_cursor(std::to_string(at + data.size()));
                            chunk.set_offset(at);
                            if (data.empty()) chunk.mutable_end()->set_reason(v1::STREAM_END_REASON_COMPLETED);
                            else if (at == offset) *chunk.mutable_object() = object;
                            chunk.set_data(std::move(data));
                            return chunk.SerializeAsString();
                          }});
  });
}

void ObjectService::remove(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::DeleteObjectRequest>(bytes);
  if (!request) return call->finish(request.error());
  internal::v1::RemoveObjectCommand command;
  command.set_store(store_of(request->store()));
  command.set_key(request->key());
  command.set_version(request->version());
  command.set_if_match(request->if_match());
  propose_command(env_, call, bytes, "compute.remove_object", command.SerializeAsString(),
                  v1::DeleteObjectResponse().SerializeAsString());
}

void ObjectService::list(const CallPtr& call, std::string bytes) {
  auto request = call::parse_request<v1::ListObjectsRequest>(bytes);
  if (!request) return call->finish(request.error());
  list_rows(env_, call, bytes, "key",
            [scope = scope_of(*call), store = store_of(request->store()), prefix = request->prefix()](
                const GroupView& view, std::string_view after, const call::VisitRow& visit) {
              if (auto found = find_store(view, scope, store); !found) return std::move(found.error());
              const std::string from =
                  after.empty() ? std::string() : objectstores::object_key(store, std::string(after) + '\0');
              objectstores::kObjects.scan(view, scope, objectstores::object_key(store, prefix), from,
                                          [&](std::string_view, const ObjectRow& row) {
                                            return objectstores::is_over(row, view.machine_time_ms()) ||
                                                   visit(row.object().key(), row.object().SerializeAsString());
                                          });
              return Status::ok();
            });
}

}  // namespace uccp::compute
