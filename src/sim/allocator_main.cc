// Memory for the simulator: a fifth of its time went into the general allocator. Everything runs in one thread, so free
// blocks of one size are a list without locks. Not part of sanitized builds, which have allocators of their own.
#include <sys/mman.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <new>

#if !defined(__has_feature)
#define __has_feature(x) 0
#endif
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)

namespace {

constexpr size_t kArenaBytes = size_t{64} << 30;  // of addresses, not of memory
constexpr size_t kChunkBytes = size_t{1} << 16;   // holds blocks of one size
// Sizes are rounded up, large ones to fewer different ones.
constexpr size_t kStepBytes = 16;
constexpr size_t kSmallBytesMax = 1024;
constexpr size_t kLargeStepBytes = 512;
constexpr size_t kLargeBytesMax = 8192;
constexpr size_t kSmallKinds = kSmallBytesMax / kStepBytes + 1;
constexpr size_t kKinds = kSmallKinds + kLargeBytesMax / kLargeStepBytes + 1;

struct Block {
  Block* next;
};

struct Arena {
  char* begin = nullptr;
  size_t chunks = 0;
  std::array<uint8_t, kArenaBytes / kChunkBytes> kind_of_chunk;
  std::array<Block*, kKinds> free;
};
Arena arena;

constexpr size_t bytes_of(size_t kind) {
  return kind < kSmallKinds ? kind * kStepBytes : (kind - kSmallKinds) * kLargeStepBytes;
}

void* refill(size_t kind) {
  if (arena.begin == nullptr) {
    void* at = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return std::malloc(bytes_of(kind));
    madvise(at, kArenaBytes, MADV_HUGEPAGE);  // where there are none, small ones do
    arena.begin = static_cast<char*>(at);
  }
  if (arena.chunks == arena.kind_of_chunk.size()) return std::malloc(bytes_of(kind));
  char* const chunk = arena.begin + arena.chunks * kChunkBytes;
  arena.kind_of_chunk[arena.chunks++] = static_cast<uint8_t>(kind);
  const size_t bytes = bytes_of(kind);
  Block* list = nullptr;
  for (size_t at = kChunkBytes / bytes; at-- > 1;) list = new (chunk + at * bytes) Block{list};
  arena.free[kind] = list;
  return chunk;
}

void* allocate(size_t bytes) {
  if (bytes > kLargeBytesMax) return std::malloc(bytes);
  const size_t kind = bytes > kSmallBytesMax ? kSmallKinds + (bytes + kLargeStepBytes - 1) / kLargeStepBytes
                      : bytes == 0           ? 1
                                             : (bytes + kStepBytes - 1) / kStepBytes;
  Block* const block = arena.free[kind];
  if (block == nullptr) return refill(kind);
  arena.free[kind] = block->next;
  __builtin_prefetch(block->next);  // the next of this size is mostly asked for soon
  return block;
}

void release(void* at) {
  const size_t offset = static_cast<size_t>(static_cast<char*>(at) - arena.begin);
  if (arena.begin == nullptr || offset >= kArenaBytes) return std::free(at);
  Block*& list = arena.free[arena.kind_of_chunk[offset / kChunkBytes]];
  list = new (at) Block{list};
}

}  // namespace

void* operator new(size_t bytes) {
  void* const at = allocate(bytes);
  if (at == nullptr) std::abort();
  return at;
}
void operator delete(void* at) noexcept { release(at); }
void operator delete(void* at, size_t) noexcept { release(at); }

#endif
