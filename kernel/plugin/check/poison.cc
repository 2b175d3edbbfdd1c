// SPDX-License-Identifier: Apache-2.0
#include "kernel/plugin/check/poison.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <mutex>
#include <utility>

#include "kernel/base/check.h"

namespace keyway::check {
namespace {

constexpr size_t kPage = 4096;
// Sealed pages hold no memory, only addresses; the oldest are given back.
constexpr size_t kSealedMax = 4096;

struct Sealed {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<const Subject*> subject{nullptr};
  std::atomic<const Function*> function{nullptr};
};
std::array<Sealed, kSealedMax> sealed;
std::mutex sealed_mutex;
size_t sealed_next = 0;  // Guarded by it.

}  // namespace

SealedOwner FindSealed(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const Sealed& each : sealed) {
    if (at >= each.begin.load(std::memory_order_relaxed) && at < each.end.load(std::memory_order_relaxed)) {
      return {each.subject.load(std::memory_order_relaxed), each.function.load(std::memory_order_relaxed)};
    }
  }
  return {};
}

PoisonedCopy::PoisonedCopy(const Subject& subject, const Function& function, size_t bytes)
    : subject_(&subject), function_(&function) {
  bytes_ = (bytes + kPage) / kPage * kPage;
  void* pages = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  KW_CHECK(pages != MAP_FAILED);
  pages_ = static_cast<uint8_t*>(pages);
}

PoisonedCopy& PoisonedCopy::operator=(PoisonedCopy&& other) noexcept {
  Seal();
  pages_ = std::exchange(other.pages_, nullptr);
  bytes_ = other.bytes_;
  used_ = other.used_;
  subject_ = other.subject_;
  function_ = other.function_;
  return *this;
}

void* PoisonedCopy::Take(size_t bytes) {
  KW_CHECK(pages_ != nullptr && used_ + bytes <= bytes_);
  void* taken = pages_ + used_;
  used_ += RoundUp(bytes);
  return taken;
}

void PoisonedCopy::Seal() {
  if (pages_ == nullptr) return;
  // What is still mapped elsewhere of the same address range would be a stranger's: protect, then enter.
  KW_CHECK(mprotect(pages_, bytes_, PROT_NONE) == 0);
  madvise(pages_, bytes_, MADV_DONTNEED);
  std::lock_guard lock(sealed_mutex);
  Sealed& slot = sealed[sealed_next++ % kSealedMax];
  const uintptr_t old = slot.begin.load(std::memory_order_relaxed);
  const uintptr_t old_end = slot.end.load(std::memory_order_relaxed);
  slot.end.store(0, std::memory_order_relaxed);
  if (old != 0) munmap(reinterpret_cast<void*>(old), old_end - old);
  slot.subject.store(subject_, std::memory_order_relaxed);
  slot.function.store(function_, std::memory_order_relaxed);
  slot.begin.store(reinterpret_cast<uintptr_t>(pages_), std::memory_order_relaxed);
  slot.end.store(reinterpret_cast<uintptr_t>(pages_) + bytes_, std::memory_order_relaxed);
  pages_ = nullptr;
}

}  // namespace keyway::check
