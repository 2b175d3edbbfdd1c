// SPDX-License-Identifier: Apache-2.0
#include "kernel/base/reply.h"

#include <cstring>

namespace keyway {

void* Arena::Allocate(size_t bytes) {
  bytes = (bytes + 15) & ~size_t{15};
  if (bytes > left_) {
    size_t block_bytes = bytes > kBlockBytes / 4 ? bytes : kBlockBytes;
    blocks_.push_back(std::unique_ptr<char[]>(new char[block_bytes]));
    if (block_bytes == bytes) return blocks_.back().get();
    at_ = blocks_.back().get();
    left_ = block_bytes;
  }
  void* result = at_;
  at_ += bytes;
  left_ -= bytes;
  return result;
}

kw_slice Arena::CopyOf(std::string_view bytes) {
  if (bytes.empty()) return {reinterpret_cast<const uint8_t*>(""), 0};
  auto* copy = static_cast<uint8_t*>(Allocate(bytes.size()));
  std::memcpy(copy, bytes.data(), bytes.size());
  return {copy, bytes.size()};
}

}  // namespace keyway
