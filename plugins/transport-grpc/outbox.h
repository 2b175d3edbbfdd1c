// SPDX-License-Identifier: Apache-2.0
//
// Outbox: what waits to be sent to one peer, in two lanes. The core fills it, the I/O thread takes
// gRPC messages off it. The mutex is held for the copy of a small frame or for pointer moves only; the
// bytes of a large frame are copied, and its checksum computed, outside.
//
// A frame is copied once, into a slice that gRPC writes from. Small frames share a slice.
#pragma once

#include <grpc/byte_buffer.h>
#include <grpc/slice.h>

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>

#include "keyway/transport.h"
#include "wire.h"

namespace keyway::transport_grpc {

class Outbox {
 public:
  static constexpr size_t kLaneCount = 2;

  Outbox(size_t control_bytes_max, size_t bulk_bytes_max);
  ~Outbox();

  // [io] Frames are taken from now on.
  void Open();
  // [io] Drops what waits. Returns the count of dropped frames, those on their way included.
  size_t Close();

  enum class Taken { kYes, kFull, kClosed };
  // Any thread; for one lane serial. Copies one frame into its lane. A lane takes a frame if it is empty
  // or the frame fits within its bound. `*must_wake`: the I/O thread does not know yet that the lane has
  // something.
  Taken Append(Kind kind, uint32_t lane, kw_slice head, kw_slice body, bool* must_wake);

  // [io] The next message of the lane, NULL if it is empty or one is on its way. Owned by the caller.
  grpc_byte_buffer* Take(uint32_t lane);
  // [io] The message last taken was written. Returns its bytes.
  size_t Sent(uint32_t lane);

 private:
  struct Block {
    grpc_slice slice;
    size_t used = 0;
    size_t capacity = 0;
    uint32_t frames = 0;
    bool is_sealed = true;  // False: one large frame without its checksum.
  };
  struct Lane {
    size_t bytes_max = 0;
    size_t bytes = 0;  // Those on their way included.
    size_t bytes_on_way = 0;
    uint32_t frames_on_way = 0;
    bool is_on_way = false;
    bool is_signalled = false;
    std::deque<Block> blocks;
  };
  static constexpr size_t kBlockBytes = 16u << 10;
  static constexpr size_t kSharedFrameBytesMax = 4u << 10;  // A larger frame has a block of its own.
  static constexpr size_t kCoreSealBytesMax = 16u << 10;    // Larger ones get their checksum on [io].
  static constexpr size_t kBlocksOfMessageMax = 64;

  static void Fill(uint8_t* to, const Header& header, kw_slice head, kw_slice body, bool seal);
  static void Seal(Block* block);

  std::mutex mutex_;
  // Guarded by mutex_.
  bool is_open_ = false;
  std::array<Lane, kLaneCount> lanes_;
};

}  // namespace keyway::transport_grpc
