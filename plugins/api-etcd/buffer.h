// SPDX-License-Identifier: Apache-2.0
//
// A growable byte buffer that never zeroes: appended at the end, consumed at the front.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include "keyway/abi.h"

namespace keyway::api_etcd {

class Buffer {
 public:
  Buffer() = default;
  ~Buffer() { std::free(data_); }
  Buffer(Buffer&& other) noexcept { Swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void Swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
  }

  uint8_t* data() { return data_ + begin_; }
  const uint8_t* data() const { return data_ + begin_; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }
  size_t capacity() const { return capacity_; }
  kw_slice slice() const { return {data(), size()}; }

  // `count` uninitialised bytes at the end, to be filled by the caller.
  uint8_t* Extend(size_t count) {
    if (capacity_ - end_ < count) Grow(count);
    uint8_t* const at = data_ + end_;
    end_ += count;
    return at;
  }
  void Append(const void* bytes, size_t count) {
    if (count != 0) std::memcpy(Extend(count), bytes, count);
  }
  void Append(std::string_view text) { Append(text.data(), text.size()); }
  // Gives back the last `count` bytes of the newest Extend().
  void Shorten(size_t count) { end_ -= count; }
  void Consume(size_t count) {
    begin_ += count;
    if (begin_ == end_) begin_ = end_ = 0;
  }
  // Empties it; memory above `keep_bytes` is freed.
  void Reset(size_t keep_bytes) {
    begin_ = end_ = 0;
    if (capacity_ > keep_bytes) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
    }
  }

 private:
  void Grow(size_t count) {
    const size_t used = size();
    if (begin_ != 0 && used != 0 && used <= begin_ && capacity_ - used >= count) {
      std::memcpy(data_, data_ + begin_, used);
    } else {
      size_t capacity = capacity_ < 256 ? 256 : capacity_ * 2;
      if (capacity < used + count) capacity = used + count;
      auto* const data = static_cast<uint8_t*>(std::malloc(capacity));
      if (data == nullptr) throw std::bad_alloc();
      if (used != 0) std::memcpy(data, data_ + begin_, used);
      std::free(data_);
      data_ = data;
      capacity_ = capacity;
    }
    begin_ = 0;
    end_ = used;
  }

  uint8_t* data_ = nullptr;
  size_t capacity_ = 0;
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace keyway::api_etcd
