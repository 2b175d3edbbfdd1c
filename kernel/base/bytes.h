// SPDX-License-Identifier: Apache-2.0
//
// SharedBytes: immutable, reference-counted bytes. One allocation holds the count, the length and the
// bytes. Any thread may copy and drop a handle; the bytes never change after Freeze().
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "kernel/base/check.h"
#include "keyway/abi.h"

namespace keyway {

inline kw_slice ToSlice(std::string_view bytes) {
  return {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
}
inline std::string_view ToView(kw_slice slice) {
  return {reinterpret_cast<const char*>(slice.ptr), slice.len};
}

class SharedBytes {
 public:
  SharedBytes() = default;
  // A copy of `bytes`.
  static SharedBytes Copy(std::string_view bytes);
  // `size` bytes to be filled through mutable_data() before the handle is copied.
  static SharedBytes Allocate(size_t size);

  SharedBytes(const SharedBytes& other) : block_(other.block_) { Ref(); }
  SharedBytes(SharedBytes&& other) noexcept : block_(std::exchange(other.block_, nullptr)) {}
  SharedBytes& operator=(SharedBytes other) noexcept {
    std::swap(block_, other.block_);
    return *this;
  }
  ~SharedBytes() { Unref(); }

  bool has_value() const { return block_ != nullptr; }
  size_t size() const { return block_ == nullptr ? 0 : block_->size; }
  const char* data() const { return block_ == nullptr ? nullptr : block_->bytes(); }
  char* mutable_data() {
    KW_DCHECK(block_->references.load(std::memory_order_relaxed) == 1);
    return block_->bytes();
  }
  std::string_view view() const { return {data(), size()}; }
  kw_slice slice() const { return ToSlice(view()); }
  // What one handle's block costs of memory, for byte-bounded caches.
  static constexpr size_t kOverheadBytes = 16;

 private:
  struct Block {
    std::atomic<uint32_t> references{1};
    uint32_t size = 0;
    char* bytes() { return reinterpret_cast<char*>(this + 1); }
  };
  void Ref() {
    if (block_ != nullptr) block_->references.fetch_add(1, std::memory_order_relaxed);
  }
  void Unref();

  Block* block_ = nullptr;
};

}  // namespace keyway
