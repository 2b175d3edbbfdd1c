// SPDX-License-Identifier: Apache-2.0
//
// Private copies of arguments (level full only). While the call lasts, the plugin reads the copy; when
// the lifetime that the header states has ended, its pages are made inaccessible. A plugin that kept a
// pointer faults at its next use, and the handler of crash.h finds out whose copy that was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernel/plugin/check/verdict.h"

namespace keyway::check {

// What a faulting address belonged to.
struct SealedOwner {
  const Subject* subject = nullptr;
  const Function* function = nullptr;
};
// Async-signal-safe. An owner without a subject: the address is none of a sealed copy.
SealedOwner FindSealed(const void* address);

// Pages from which copies are cut. Movable; sealed at its end at the latest.
class PoisonedCopy {
 public:
  PoisonedCopy() = default;
  // `bytes`: the sum of what will be taken, each rounded up with RoundUp().
  PoisonedCopy(const Subject& subject, const Function& function, size_t bytes);
  PoisonedCopy(PoisonedCopy&& other) noexcept { *this = static_cast<PoisonedCopy&&>(other); }
  PoisonedCopy& operator=(PoisonedCopy&& other) noexcept;
  ~PoisonedCopy() { Seal(); }

  static constexpr size_t RoundUp(size_t bytes) { return (bytes + 15) & ~size_t{15}; }

  // A copy of `count` objects, aligned to 16 bytes; NULL of NULL.
  template <typename T>
  T* Array(const T* from, size_t count) {
    if (from == nullptr) return nullptr;
    void* to = Take(count * sizeof(T));
    if (count != 0) std::memcpy(to, from, count * sizeof(T));
    return static_cast<T*>(to);
  }
  // Absent stays absent, empty stays empty.
  kw_slice Slice(kw_slice from) {
    if (from.ptr == nullptr) return from;
    return {Array(from.ptr, from.len), from.len};
  }
  const char* Text(const char* from) { return Array(from, std::strlen(from) + 1); }

  // Makes the copy inaccessible. Does nothing for an empty or a sealed one.
  void Seal();

 private:
  void* Take(size_t bytes);

  uint8_t* pages_ = nullptr;
  size_t bytes_ = 0, used_ = 0;
  const Subject* subject_ = nullptr;
  const Function* function_ = nullptr;
};

}  // namespace keyway::check
