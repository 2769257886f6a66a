// Memory in huge pages, for what is large and read in no order: there each look would cost a walk of the page tables
// as well, which in a virtual machine takes longer than the look. Only advice: where the kernel has no huge pages, it
// is memory like any other.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace uccp {

inline constexpr size_t kHugePageBytes = 2u << 20;

// What is smaller than a huge page comes from the heap as usual.
template <typename T>
struct HugeAllocator {
  using value_type = T;
  HugeAllocator() = default;
  template <typename Other>
  HugeAllocator(const HugeAllocator<Other>&) {}

  T* allocate(size_t count) {
    const size_t bytes = bytes_of(count);
    if (bytes < kHugePageBytes) return static_cast<T*>(::operator new(bytes, std::align_val_t(alignof(T))));
    void* memory = ::operator new(bytes, kAlignment);
    (void)::madvise(memory, bytes, MADV_HUGEPAGE);
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t count) {
    if (bytes_of(count) < kHugePageBytes) ::operator delete(memory, std::align_val_t(alignof(T)));
    else ::operator delete(memory, kAlignment);
  }
  bool operator==(const HugeAllocator&) const { return true; }

 private:
  static constexpr std::align_val_t kAlignment{kHugePageBytes};
  // Nearly a huge page is made one; what is larger ends with a whole one.
  static size_t bytes_of(size_t count) {
    const size_t bytes = count * sizeof(T);
    if (bytes < kHugePageBytes - kHugePageBytes / 64) return bytes;
    return (bytes + kHugePageBytes - 1) / kHugePageBytes * kHugePageBytes;
  }
};

}  // namespace uccp
