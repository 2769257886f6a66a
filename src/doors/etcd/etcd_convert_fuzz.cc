// Requests of etcd clients and answers to them, from any bytes that are such messages at all.
#include <cstddef>
#include <cstdint>
#include <string>

#include "doors/etcd/etcd_convert.h"

namespace {

template <typename Message>
Message message_of(const std::string& bytes) {
  Message message;
  (void)message.ParseFromString(bytes);
  return message;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace uccp;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  (void)doors::from_etcd(message_of<etcd::RangeRequest>(bytes)).SerializeAsString();
  (void)doors::from_etcd(message_of<etcd::PutRequest>(bytes)).SerializeAsString();
  (void)doors::from_etcd(message_of<etcd::DeleteRangeRequest>(bytes)).SerializeAsString();
  (void)doors::from_etcd(message_of<etcd::WatchCreateRequest>(bytes)).SerializeAsString();
  if (const auto txn = doors::from_etcd(message_of<etcd::TxnRequest>(bytes))) (void)txn->SerializeAsString();
  (void)doors::to_etcd(message_of<v1::KeyValuePair>(bytes)).SerializeAsString();
  (void)doors::to_etcd(message_of<v1::RangeResponse>(bytes), true).SerializeAsString();
  (void)doors::to_etcd(message_of<v1::KeyEvent>(bytes)).SerializeAsString();
  return 0;
}
