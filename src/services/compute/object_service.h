// Object stores and objects of ComputeExecution: descriptions in the replicated state, content as blobs. Handlers run
// on door threads; must outlive every call.
#pragma once

#include "call/handler.h"
#include "services/compute/compute_service.h"

namespace uccp::compute {

// Limits that are not configured.
inline constexpr uint64_t kStoresMax = 1'000;       // in a namespace
inline constexpr uint64_t kObjectsMax = 1'000'000;  // in a store
inline constexpr uint64_t kObjectBytesMax = 8ull << 30;
inline constexpr uint64_t kObjectPieceBytes = 4u << 20;  // stored by PutObject, answered by GetObject

class ObjectService {
 public:
  explicit ObjectService(ComputeEnvironment environment) : env_(std::move(environment)) {}
  void add_handlers(call::HandlerTable& handlers);

 private:
  class Upload;

  void create_store(const call::CallPtr& call, std::string bytes);
  void get_store(const call::CallPtr& call, const v1::GetObjectStoreRequest& request);
  void list_stores(const call::CallPtr& call, std::string bytes);
  void remove_store(const call::CallPtr& call, std::string bytes);
  void put(const call::CallPtr& call, std::string bytes);
  void upload(const call::CallPtr& call);
  void get(const call::CallPtr& call, const v1::GetObjectRequest& request);
  void download(const call::CallPtr& call, const v1::DownloadObjectRequest& request);
  void remove(const call::CallPtr& call, std::string bytes);
  void list(const call::CallPtr& call, std::string bytes);

  // Stores the description of content that is stored.
  void propose_object(const call::CallPtr& call, std::string_view request, v1::Object object,
                      const objects::BlobInfo& blob, const std::string& if_match);
  // A present row, read at the call's level.
  using OnRow = std::function<void(const internal::v1::ObjectRow&)>;
  void read_row(const call::CallPtr& call, const std::string& store, const std::string& key, const std::string& version,
                OnRow done);

  ComputeEnvironment env_;
};

}  // namespace uccp::compute
