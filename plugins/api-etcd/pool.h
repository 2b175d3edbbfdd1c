// SPDX-License-Identifier: Apache-2.0
//
// Memory of one I/O thread for small objects that come and go with each request: streams, and what
// nghttp2 keeps for them. Free lists by size class, so that a burst of requests does not walk through
// malloc's slow paths.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "buffer.h"

namespace keyway::api_etcd {

// Belongs to one thread. What was taken must be given back before it is destroyed.
class Pool {
 public:
  Pool() {
    mem_ = {this, [](size_t bytes, void* self) { return Of(self)->Take(bytes); },
            [](void* memory, void* self) { Of(self)->Give(memory); },
            [](size_t count, size_t bytes, void* self) -> void* {
              if (bytes != 0 && count > SIZE_MAX / 2 / bytes) return nullptr;
              void* const memory = Of(self)->Take(count * bytes);
              if (memory != nullptr) std::memset(memory, 0, count * bytes);
              return memory;
            },
            [](void* memory, size_t bytes, void* self) { return Of(self)->Resize(memory, bytes); }};
  }
  ~Pool() {
    for (Head* head : free_) {
      while (head != nullptr) {
        Head* const next = head->next;
        std::free(head);
        head = next;
      }
    }
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // NULL without memory.
  void* Take(size_t bytes) {
    const size_t size_class = (bytes + kStepBytes - 1) / kStepBytes;
    if (size_class < kClassCount && free_[size_class] != nullptr) {
      Head* const head = free_[size_class];
      free_[size_class] = head->next;
      --free_count_[size_class];
      head->bytes = size_class * kStepBytes;
      return head + 1;
    }
    const size_t rounded = size_class < kClassCount ? size_class * kStepBytes : bytes;
    auto* const head = static_cast<Head*>(std::malloc(sizeof(Head) + rounded));
    if (head == nullptr) return nullptr;
    head->size_class = size_class;
    head->bytes = rounded;
    return head + 1;
  }
  void Give(void* memory) {
    if (memory == nullptr) return;
    Head* const head = static_cast<Head*>(memory) - 1;
    const size_t size_class = head->size_class;
    if (size_class >= kClassCount || free_count_[size_class] >= kFreeMax) {
      std::free(head);
      return;
    }
    head->next = free_[size_class];
    free_[size_class] = head;
    ++free_count_[size_class];
  }
  nghttp2_mem* nghttp2_memory() { return &mem_; }

  Buffer TakeBuffer() {
    if (buffers_.empty()) return Buffer();
    Buffer buffer = std::move(buffers_.back());
    buffers_.pop_back();
    return buffer;
  }
  void GiveBuffer(Buffer&& buffer) {
    if (buffer.capacity() == 0 || buffer.capacity() > kBufferBytesMax) return;
    if (buffers_.size() >= kFreeMax) return;
    buffer.Reset(kBufferBytesMax);
    buffers_.push_back(std::move(buffer));
  }

 private:
  static constexpr size_t kStepBytes = 64;
  static constexpr size_t kClassCount = 33;  // up to 2 KiB
  static constexpr size_t kFreeMax = 1024;
  static constexpr size_t kBufferBytesMax = 4096;

  struct alignas(16) Head {
    union {
      Head* next;  // while free
      size_t bytes;
    };
    size_t size_class = 0;
  };
  static Pool* Of(void* self) { return static_cast<Pool*>(self); }

  void* Resize(void* memory, size_t bytes) {
    if (memory == nullptr) return Take(bytes);
    const size_t old_bytes = (static_cast<Head*>(memory) - 1)->bytes;
    if (bytes <= old_bytes) return memory;
    void* const bigger = Take(bytes);
    if (bigger == nullptr) return nullptr;
    std::memcpy(bigger, memory, old_bytes);
    Give(memory);
    return bigger;
  }

  std::array<Head*, kClassCount> free_ = {};
  std::array<size_t, kClassCount> free_count_ = {};
  std::vector<Buffer> buffers_;
  nghttp2_mem mem_ = {};
};

}  // namespace keyway::api_etcd
