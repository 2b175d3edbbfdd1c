// SPDX-License-Identifier: Apache-2.0
//
// Memory of one call: taken piece by piece, given back at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

namespace keyway::api_etcd {

class Arena {
 public:
  // `count` zeroed elements; NULL for 0.
  template <typename T>
  T* Array(size_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    static_assert(alignof(T) <= 16);
    if (count == 0) return nullptr;
    void* const memory = Take(count * sizeof(T));
    return new (memory) T[count]();
  }
  // Keeps one block for the next call.
  void Reset() {
    if (blocks_.size() > 1) blocks_.resize(1);
    if (!blocks_.empty() && block_bytes_[0] > kBlockBytes) blocks_.clear();
    block_bytes_.resize(blocks_.size());
    used_ = 0;
  }

 private:
  static constexpr size_t kBlockBytes = 2048;

  void* Take(size_t bytes) {
    bytes = (bytes + 15) & ~size_t{15};
    if (blocks_.empty() || block_bytes_.back() - used_ < bytes) {
      const size_t block = bytes < kBlockBytes ? kBlockBytes : bytes;
      blocks_.push_back(std::make_unique_for_overwrite<std::max_align_t[]>(
          (block + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t)));
      block_bytes_.push_back(block);
      used_ = 0;
    }
    auto* const at = reinterpret_cast<uint8_t*>(blocks_.back().get()) + used_;
    used_ += bytes;
    return at;
  }

  std::vector<std::unique_ptr<std::max_align_t[]>> blocks_;
  std::vector<size_t> block_bytes_;
  size_t used_ = 0;  // of the last block
};

}  // namespace keyway::api_etcd
