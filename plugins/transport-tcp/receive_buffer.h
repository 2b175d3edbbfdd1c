// SPDX-License-Identifier: Apache-2.0
//
// Bytes received and not yet handed over. Grows with what has really come, never with what a header
// promises, up to one message of the largest size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>

namespace keyway::transport_tcp {

class ReceiveBuffer {
 public:
  explicit ReceiveBuffer(size_t capacity) : capacity_(capacity), storage_(new char[capacity]) {}

  std::string_view bytes() const { return {storage_.get() + begin_, end_ - begin_}; }
  size_t capacity() const { return capacity_; }

  // Free space behind the bytes, at least `room` of it; moves and grows the storage as needed.
  char* Room(size_t room, size_t* size) {
    if (begin_ == end_) begin_ = end_ = 0;
    if (capacity_ - end_ < room) {
      const size_t held = end_ - begin_;
      if (capacity_ - held < room) {
        const size_t grown = std::max(capacity_ * 2, held + room);
        std::unique_ptr<char[]> next(new char[grown]);
        std::memcpy(next.get(), storage_.get() + begin_, held);
        storage_ = std::move(next);
        capacity_ = grown;
      } else {
        std::memmove(storage_.get(), storage_.get() + begin_, held);
      }
      begin_ = 0;
      end_ = held;
    }
    *size = capacity_ - end_;
    return storage_.get() + end_;
  }
  void Filled(size_t size) { end_ += size; }
  void Consume(size_t size) { begin_ += size; }

  // Gives memory back once a large message has passed.
  void ShrinkTo(size_t capacity) {
    if (begin_ != end_ || capacity_ <= capacity) return;
    storage_.reset(new char[capacity]);
    capacity_ = capacity;
    begin_ = end_ = 0;
  }

 private:
  size_t capacity_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::unique_ptr<char[]> storage_;
};

}  // namespace keyway::transport_tcp
