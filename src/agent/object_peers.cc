#include "agent/object_peers.h"

#include <sys/socket.h>

#include <algorithm>

#include "agent/function_wire.h"
#include "base/bytes.h"
#include "base/log.h"

namespace uccp::agent {
namespace {

constexpr const char* kServerName = "uccp-objects";
constexpr size_t kPeerIdBytes = 16;
constexpr size_t kCopiesMax = 8;
constexpr size_t kLeasesPerFrame = 10'000;

Status send_frame(runtime::BlockingStream& stream, char kind, std::string_view body) {
  return stream.write(encode_frame(kind, body));
}

Result<PeerFrame> receive_frame(runtime::BlockingStream& stream) {
  char head[kFrameHeadBytes];
  UCCP_RETURN_IF_ERROR(stream.read(head, sizeof head));
  UCCP_TRY(const FrameHead found, parse_frame_head({head, sizeof head}));
  PeerFrame frame{.kind = found.kind, .body = std::string(found.body_bytes, '\0')};
  UCCP_RETURN_IF_ERROR(stream.read(frame.body.data(), frame.body.size()));
  return frame;
}

// An answer of the kind that was asked for.
Result<std::string> receive(runtime::BlockingStream& stream, char kind) {
  UCCP_TRY(PeerFrame frame, receive_frame(stream));
  if (frame.kind == 'E') return std::unexpected(error_of(frame.body));
  if (frame.kind == kind) return std::move(frame.body);
  return fail(Code::kCorruption, "FRAME_INVALID", "the other agent answered something else than it was asked");
}

Result<std::string> ask(runtime::BlockingStream& stream, char kind, std::string_view body) {
  UCCP_RETURN_IF_ERROR(send_frame(stream, kind, body));
  return receive(stream, kind);
}

std::string_view view(const shm::ObjectId& id) { return {reinterpret_cast<const char*>(id.data()), id.size()}; }

std::string wish_body(const std::string& grant, const shm::ObjectId& id) {
  std::string body;
  append_field(body, 'x', grant);
  append_field(body, 'i', view(id));
  return body;
}

Result<PeerWish> wish_of(std::string_view body) {
  UCCP_TRY(const shm::ObjectId id, id_of(find_field(body, 'i')));
  return PeerWish{.grant = std::string(find_field(body, 'x')), .id = id};
}

Result<std::vector<shm::ObjectId>> ids_of(std::string_view bytes) {
  std::vector<shm::ObjectId> found;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), sizeof(shm::ObjectId)))) {
    UCCP_TRY(found.emplace_back(), id_of(bytes.substr(0, sizeof(shm::ObjectId))));
  }
  return found;
}

std::string host_of(const std::string& address) { return address.substr(0, address.rfind(':')); }

// 0: on the same machine, 1: in the same zone, 2: elsewhere.
int distance(const ObjectLocation& here, const ObjectLocation& there) {
  if (host_of(here.address) == host_of(there.address)) return 0;
  return !here.zone.empty() && here.zone == there.zone ? 1 : 2;
}

std::vector<ObjectLocation> copies_in(std::string_view body) {
  std::vector<ObjectLocation> found;
  for (const auto& [tag, content] : fields_of(body)) {
    if (tag != 'l') continue;
    if (auto location = parse_location(content)) found.push_back(std::move(*location));
  }
  return found;
}

// Reads all chunks of an object that has been asked for.
Status read_content(runtime::BlockingStream& stream, std::span<char> out) {
  for (uint64_t at = 0; at < out.size();) {
    UCCP_TRY(const std::string chunk, receive(stream, 'C'));
    UCCP_TRY(const size_t taken, take_chunk(chunk, at, out.subspan(at)));
    at += taken;
  }
  return {};
}

}  // namespace

// The door
// -------------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<ObjectDoor>> ObjectDoor::open(ObjectDoorOptions options, WallTime now, ObjectHouse& house) {
  std::unique_ptr<ObjectDoor> door(new ObjectDoor(std::move(options), house));
  UCCP_TRY(door->listener_, runtime::listen_tcp(door->options_.listen));
  UCCP_TRY(const auto authority, runtime::create_ca("uccp objects", 1, now));
  runtime::CertificateRequest request{.common_name = kServerName, .dns_names = {kServerName}};
  request.use = runtime::CertificateUse::kServer;
  UCCP_TRY(auto identity, runtime::issue_certificate(authority, request, now));
  UCCP_TRY(door->tls_, runtime::make_server_context({.identity = std::move(identity),
                                                     .ca_pem = authority.certificate_pem,
                                                     .client_certificate = runtime::PeerCertificate::kNotAsked}));
  door->authority_ = authority.certificate_pem;
  const runtime::HostPort& bound = door->listener_.address;
  std::string host = door->options_.advertised.empty() ? bound.host : door->options_.advertised;
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  door->address_ = host + ":" + bound.port;
  return door;
}

void ObjectDoor::stop() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    for (const auto& [number, guest] : guests_) {
      if (guest.stream) guest.stream->end();
    }
  }
  for (auto& [number, guest] : guests_) {
    if (guest.thread.joinable()) guest.thread.join();
  }
}

void ObjectDoor::join_ended() {
  for (auto one = guests_.begin(); one != guests_.end();) {
    if (one->second.over) {
      one->second.thread.join();
      one = guests_.erase(one);
    } else {
      ++one;
    }
  }
}

void ObjectDoor::accept_one() {
  runtime::OwnedFd socket(accept4(listener_.socket.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) return;
  const std::lock_guard lock(mutex_);
  join_ended();
  if (guests_.size() >= options_.connections_max) {
    log::warn("another agent asks for objects, and too many do", {{"connections", guests_.size()}});
    return;
  }
  const uint64_t number = next_guest_++;
  guests_[number].thread =
      std::thread([this, number, socket = std::move(socket)]() mutable { serve(number, std::move(socket)); });
}

void ObjectDoor::serve(uint64_t number, runtime::OwnedFd socket) {
  auto accepted = runtime::BlockingStream::serve(std::move(socket), {.timeout_ms = options_.timeout_ms, .tls = tls_});
  if (accepted) {
    const auto stream = std::make_shared<runtime::BlockingStream>(std::move(*accepted));
    bool ending = false;
    {
      const std::lock_guard lock(mutex_);
      guests_.at(number).stream = stream;
      ending = ending_;
    }
    while (!ending && talk(*stream).is_ok()) continue;
  }
  const std::lock_guard lock(mutex_);
  guests_.at(number).stream.reset();
  guests_.at(number).over = true;
}

// One request. An error ends the connection; what can be said to the peer is said.
Status ObjectDoor::talk(runtime::BlockingStream& stream) {
  UCCP_TRY(const PeerFrame frame, receive_frame(stream));
  const auto answer = [&]() -> Status {
    if (frame.kind == 'L') {
      UCCP_TRY(auto taken, ids_of(find_field(frame.body, 'a')));
      UCCP_TRY(auto released, ids_of(find_field(frame.body, 'r')));
      PeerId peer(find_field(frame.body, 'p'));
      if (peer.size() != kPeerIdBytes) return Status(Code::kInvalid, "REQUEST_INVALID", "an agent says who it is");
      UCCP_RETURN_IF_ERROR(house_.lease({.peer = std::move(peer),
                                         .grant = std::string(find_field(frame.body, 'x')),
                                         .taken = std::move(taken),
                                         .released = std::move(released)}));
      return send_frame(stream, 'L', {});
    }
    UCCP_TRY(const PeerWish wish, wish_of(frame.body));
    switch (frame.kind) {
      case 'W': {
        std::string body;
        for (const ObjectLocation& one : house_.copies(wish)) append_field(body, 'l', encode(one));
        return send_frame(stream, 'W', body);
      }
      case 'H': {
        UCCP_TRY(const ObjectLocation where, parse_location(find_field(frame.body, 'l')));
        house_.has_copy(wish, where);
        return send_frame(stream, 'H', {});
      }
      case 'G': {
        UCCP_TRY(const auto opened, house_.open(wish));
        const std::string_view content = opened->content();
        UCCP_RETURN_IF_ERROR(send_frame(stream, 'G', number_field('s', content.size())));
        for (size_t at = 0; at < content.size(); at += kChunkBytes)
          UCCP_RETURN_IF_ERROR(send_frame(stream, 'C', encode_chunk(at, content.substr(at, kChunkBytes))));
        house_.has_served(wish, content.size());
        return {};
      }
      default: return Status(Code::kInvalid, "REQUEST_INVALID", "there is no such request");
    }
  };
  Status status = answer();
  if (status.is_ok()) return {};
  return send_frame(stream, 'E', error_body(status));
}

// The reader
// -----------------------------------------------------------------------------------------------------------

Result<std::shared_ptr<runtime::BlockingStream>> PeerStreams::connect(const ObjectLocation& where, int64_t timeout_ms) {
  const auto stopped = [&] {
    const std::lock_guard lock(mutex_);
    return stopped_;
  };
  if (stopped()) return fail(Code::kUnavailable, "STOPPED", "the agent ends");
  UCCP_TRY(const auto tls, runtime::make_client_context({.ca_pem = where.authority}));
  UCCP_TRY(auto connected, runtime::BlockingStream::connect(
                               where.address, {.timeout_ms = timeout_ms, .tls = tls, .server_name = kServerName}));
  const auto stream = std::make_shared<runtime::BlockingStream>(std::move(connected));
  const std::lock_guard lock(mutex_);
  if (stopped_) return fail(Code::kUnavailable, "STOPPED", "the agent ends");
  std::erase_if(streams_, [](const auto& one) { return one.expired(); });
  streams_.push_back(stream);
  return stream;
}

void PeerStreams::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (const auto& one : streams_) {
    if (const auto stream = one.lock()) stream->end();
  }
}

Status fetch_object(PeerStreams& streams, const PeerReader& reader, const ObjectLocation& owner,
                    const shm::ObjectId& id, const std::function<Result<std::span<char>>(uint64_t)>& begin) {
  std::vector<ObjectLocation> sources;
  UCCP_TRY(const auto to_owner, streams.connect(owner, reader.timeout_ms));
  UCCP_TRY(const std::string known, ask(*to_owner, 'W', wish_body(owner.grant, id)));
  for (ObjectLocation& one : copies_in(known)) {
    if (one.address != reader.here.address && sources.size() < kCopiesMax) sources.push_back(std::move(one));
  }
  sources.push_back(owner);
  // The owner last among equals.
  std::ranges::sort(sources, {},
                    [&](const ObjectLocation& one) { return std::pair(distance(reader.here, one), one == owner); });

  std::span<char> out;
  const auto fetch_from = [&](const ObjectLocation& source) -> Status {
    // What was asked first may have waited for others for too long.
    const bool first = &source == sources.data();
    std::shared_ptr<runtime::BlockingStream> stream = to_owner;
    if (!first || source != owner) {
      UCCP_TRY(stream, streams.connect(source, reader.timeout_ms));
    }
    UCCP_TRY(const std::string answer, ask(*stream, 'G', wish_body(source.grant, id)));
    UCCP_TRY(const uint64_t size, number_of(answer, 's'));
    if (out.empty()) {
      UCCP_TRY(out, begin(size));
    }
    if (size != out.size()) return Status(Code::kCorruption, "CHUNK_DAMAGED", "copies of an object differ in size");
    return read_content(*stream, out);
  };
  Status status;
  for (const ObjectLocation& source : sources) {
    status = fetch_from(source);
    if (status.is_ok() || (out.empty() && status.code() == Code::kExhausted)) break;
    log::info("an object is not read from where it was", {{"address", source.address}, {"error", status.message()}});
  }
  UCCP_RETURN_IF_ERROR(status);
  std::string copy = wish_body(owner.grant, id);
  append_field(copy, 'l', encode(reader.here));
  (void)ask(*to_owner, 'H', copy);  // it is only news
  return {};
}

Status send_leases(PeerStreams& streams, const ObjectLocation& owner, const PeerLeases& leases, int64_t timeout_ms) {
  UCCP_TRY(const auto stream, streams.connect(owner, timeout_ms));
  size_t taken = 0, released = 0;
  do {
    std::string body, ids;
    append_field(body, 'x', owner.grant);
    append_field(body, 'p', leases.peer);
    for (size_t room = kLeasesPerFrame; room > 0 && taken < leases.taken.size(); --room)
      ids += view(leases.taken[taken++]);
    append_field(body, 'a', ids);
    ids.clear();
    // Not before all that is taken: what is in both consumes what was handed over.
    for (size_t room = kLeasesPerFrame; taken == leases.taken.size() && room > 0 && released < leases.released.size();
         --room)
      ids += view(leases.released[released++]);
    append_field(body, 'r', ids);
    UCCP_RETURN_IF_ERROR(ask(*stream, 'L', body));
  } while (taken < leases.taken.size() || released < leases.released.size());
  return {};
}

}  // namespace uccp::agent
