// SPDX-License-Identifier: Apache-2.0
//
// The allocator of keyway-sim, which is one thread and allocates some hundred times for each operation of a
// client: free lists by size over one reserved range of addresses, without a lock and without a header.
// Large blocks are malloc()'s. Not with a sanitizer, which must see every block.
#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {

constexpr size_t kGrain = 16;
constexpr size_t kSmallMax = 1024;
constexpr size_t kClasses = kSmallMax / kGrain + 1;
constexpr size_t kPageBytes = size_t{1} << 16;  // All blocks of a page are of one class.
constexpr size_t kPages = size_t{1} << 17;      // Of address space; memory comes when it is touched.

struct FreeBlock {
  FreeBlock* next;
};

constinit std::array<FreeBlock*, kClasses> free_blocks{};
constinit std::array<uint8_t, kPages> class_of_page{};
constinit char* range = nullptr;
constinit size_t pages_used = 0;

// A page of blocks of this class, or nullptr if there is no more address space.
FreeBlock* NewPage(size_t size_class) {
  if (range == nullptr) {
    void* const found = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    range = static_cast<char*>(found);
    (void)madvise(range, kPages * kPageBytes, MADV_HUGEPAGE);  // Fewer misses of the TLB: 3 %.
  }
  if (pages_used == kPages) return nullptr;
  class_of_page[pages_used] = static_cast<uint8_t>(size_class);
  char* const page = range + pages_used++ * kPageBytes;
  const size_t bytes = size_class * kGrain;
  FreeBlock* first = nullptr;
  for (size_t at = kPageBytes / bytes; at-- > 0;) {
    first = new (page + at * bytes) FreeBlock{first};
  }
  return first;
}

bool IsOurs(const void* block) {
  return static_cast<size_t>(static_cast<const char*>(block) - range) < pages_used * kPageBytes;
}

void* Large(size_t bytes) {
  void* const block = std::malloc(bytes);
  if (block == nullptr) std::abort();
  return block;
}

}  // namespace

void* operator new(size_t bytes) {
  if (bytes > kSmallMax) return Large(bytes);
  const size_t size_class = bytes == 0 ? 1 : (bytes + kGrain - 1) / kGrain;
  FreeBlock* block = free_blocks[size_class];
  if (block == nullptr) {
    block = NewPage(size_class);
    if (block == nullptr) return Large(bytes);
  }
  free_blocks[size_class] = block->next;
  return block;
}

void operator delete(void* block) noexcept {
  if (block == nullptr) return;
  if (!IsOurs(block)) return std::free(block);
  const size_t page = static_cast<size_t>(static_cast<char*>(block) - range) / kPageBytes;
  FreeBlock*& first = free_blocks[class_of_page[page]];
  first = new (block) FreeBlock{first};
}

void operator delete(void* block, size_t) noexcept { operator delete(block); }
void* operator new[](size_t bytes) { return operator new(bytes); }
void operator delete[](void* block) noexcept { operator delete(block); }
void operator delete[](void* block, size_t) noexcept { operator delete(block); }

#endif
