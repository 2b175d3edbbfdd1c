// SPDX-License-Identifier: Apache-2.0
#include "kernel/base/bytes.h"

#include <cstdlib>
#include <limits>
#include <new>

namespace keyway {

SharedBytes SharedBytes::Allocate(size_t size) {
  KW_CHECK(size <= std::numeric_limits<uint32_t>::max());
  void* memory = std::malloc(sizeof(Block) + size);
  KW_CHECK(memory != nullptr);
  SharedBytes result;
  result.block_ = new (memory) Block;
  result.block_->size = static_cast<uint32_t>(size);
  return result;
}

SharedBytes SharedBytes::Copy(std::string_view bytes) {
  SharedBytes result = Allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(result.mutable_data(), bytes.data(), bytes.size());
  return result;
}

void SharedBytes::Unref() {
  if (block_ == nullptr) return;
  if (block_->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    block_->~Block();
    std::free(block_);
  }
}

}  // namespace keyway
