// SPDX-License-Identifier: Apache-2.0
//
// What a stream still has to send: encoded bytes, and for big replies the records of the kernel
// themselves, which are copied only once, straight into the connection's output when flow control
// lets them go.
#pragma once

#include <cstdint>
#include <deque>

#include "buffer.h"
#include "keyway/kernel.h"
#include "pool.h"
#include "wire.h"

namespace keyway::api_etcd {

// Belongs to one I/O thread.
class Body {
 public:
  Body() = default;
  // Takes its memory from the pool of its thread, and gives it back.
  explicit Body(Pool* pool) : maybe_pool_(pool), flat_(pool->TakeBuffer()) {}
  ~Body() {
    Clear(kBufferKeptBytes);
    if (maybe_pool_ != nullptr) maybe_pool_->GiveBuffer(std::move(flat_));
  }
  Body(const Body&) = delete;
  Body& operator=(const Body&) = delete;

  size_t pending_bytes() const { return pending_bytes_; }
  uint64_t appended_bytes() const { return consumed_bytes_ + pending_bytes_; }
  uint64_t consumed_bytes() const { return consumed_bytes_; }

  // `count` bytes at the end, which the caller fills before the next call.
  uint8_t* Extend(size_t count);
  // Each record as a field `field` of wire type bytes. They must live until Hold()'s release.
  void AppendRecords(uint32_t field, const kw_slice* records, size_t count, size_t total_bytes);
  // Releases `reply` once all that was appended before is copied out, or with Clear().
  void Hold(kw_reply* reply);
  // Copies the next `count` bytes (<= pending_bytes()) to `out`.
  void CopyOut(uint8_t* out, size_t count);
  void Clear(size_t keep_bytes);

 private:
  struct Chunk {
    Buffer bytes;
    const kw_slice* records = nullptr;
    size_t record_count = 0;
    size_t record_index = 0;
    size_t record_offset = 0;  // within the head and the bytes of the current record
    uint32_t field = 0;
    kw_reply* reply = nullptr;
  };
  static bool Finished(const Chunk& chunk);
  static size_t CopyRecords(Chunk& chunk, uint8_t* out, size_t count);
  void DropFinished();

  static constexpr size_t kBufferKeptBytes = 4096;

  Pool* const maybe_pool_ = nullptr;
  Buffer flat_;  // what comes before chunks_
  std::deque<Chunk>* chunks_ = nullptr;
  size_t pending_bytes_ = 0;
  uint64_t consumed_bytes_ = 0;
};

}  // namespace keyway::api_etcd
