// SPDX-License-Identifier: Apache-2.0
//
// Blocks of frames, and how they become messages.
#include "outbox.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "keyway/crc32c.h"

namespace keyway::transport_grpc {

Outbox::Outbox(size_t control_bytes_max, size_t bulk_bytes_max) {
  lanes_[KW_LANE_CONTROL].bytes_max = control_bytes_max;
  lanes_[KW_LANE_BULK].bytes_max = bulk_bytes_max;
}

Outbox::~Outbox() { Close(); }

void Outbox::Open() {
  std::lock_guard lock(mutex_);
  is_open_ = true;
}

size_t Outbox::Close() {
  std::lock_guard lock(mutex_);
  is_open_ = false;
  size_t dropped = 0;
  for (Lane& lane : lanes_) {
    dropped += lane.frames_on_way;
    for (Block& block : lane.blocks) {
      dropped += block.frames;
      grpc_slice_unref(block.slice);
    }
    lane.blocks.clear();
    lane.bytes = lane.bytes_on_way = 0;
    lane.frames_on_way = 0;
    lane.is_on_way = lane.is_signalled = false;
  }
  return dropped;
}

void Outbox::Fill(uint8_t* to, const Header& header, kw_slice head, kw_slice body, bool seal) {
  WriteHeader(header, to);
  if (seal) {
    uint32_t checksum = kw_crc32c(0, to, 8);
    checksum = kw_crc32c(checksum, head.ptr, head.len);
    SetChecksum(to, kw_crc32c(checksum, body.ptr, body.len));
  }
  to += kHeaderBytes;
  if (head.len > 0) std::memcpy(to, head.ptr, head.len);
  if (body.len > 0) std::memcpy(to + head.len, body.ptr, body.len);
}

Outbox::Taken Outbox::Append(Kind kind, uint32_t lane_index, kw_slice head, kw_slice body, bool* must_wake) {
  *must_wake = false;
  const size_t payload = head.len + body.len;
  const size_t bytes = kHeaderBytes + payload;
  const Header header = {kind, static_cast<uint8_t>(lane_index), static_cast<uint32_t>(payload)};
  Lane& lane = lanes_[lane_index];
  const auto refused = [&]() -> Taken {
    if (!is_open_) return Taken::kClosed;
    return lane.bytes > 0 && lane.bytes + bytes > lane.bytes_max ? Taken::kFull : Taken::kYes;
  };
  Block own;
  if (bytes > kSharedFrameBytesMax) {
    {
      std::lock_guard lock(mutex_);
      const Taken result = refused();
      if (result != Taken::kYes) return result;
    }
    own.slice = grpc_slice_malloc_large(bytes);
    own.used = own.capacity = bytes;
    own.is_sealed = payload <= kCoreSealBytesMax;
    Fill(GRPC_SLICE_START_PTR(own.slice), header, head, body, own.is_sealed);
  }
  std::lock_guard lock(mutex_);
  const Taken result = refused();
  if (result != Taken::kYes) {
    if (own.used > 0) grpc_slice_unref(own.slice);
    return result;
  }
  if (own.used > 0) {
    lane.blocks.push_back(own);
  } else {
    if (lane.blocks.empty() || lane.blocks.back().capacity - lane.blocks.back().used < bytes) {
      Block next;
      // The first frame after a pause is mostly the only one: a small block for it.
      next.capacity = lane.blocks.empty() ? std::max<size_t>(bytes, 1024) : kBlockBytes;
      next.slice = grpc_slice_malloc_large(next.capacity);
      lane.blocks.push_back(next);
    }
    Block& block = lane.blocks.back();
    Fill(GRPC_SLICE_START_PTR(block.slice) + block.used, header, head, body, true);
    block.used += bytes;
  }
  ++lane.blocks.back().frames;
  lane.bytes += bytes;
  if (!lane.is_on_way && !lane.is_signalled) *must_wake = lane.is_signalled = true;
  return Taken::kYes;
}

void Outbox::Seal(Block* block) {
  uint8_t* header = GRPC_SLICE_START_PTR(block->slice);
  const uint32_t checksum = kw_crc32c(0, header, 8);
  SetChecksum(header, kw_crc32c(checksum, header + kHeaderBytes, block->used - kHeaderBytes));
}

grpc_byte_buffer* Outbox::Take(uint32_t lane_index) {
  std::array<Block, kBlocksOfMessageMax> blocks;
  size_t count = 0;
  {
    std::lock_guard lock(mutex_);
    Lane& lane = lanes_[lane_index];
    lane.is_signalled = false;
    if (!is_open_ || lane.is_on_way || lane.blocks.empty()) return nullptr;
    size_t bytes = 0;
    while (!lane.blocks.empty() && count < blocks.size() && bytes < kMessageBytesWanted) {
      blocks[count] = lane.blocks.front();
      lane.blocks.pop_front();
      bytes += blocks[count].used;
      lane.frames_on_way += blocks[count].frames;
      ++count;
    }
    lane.bytes_on_way = bytes;
    lane.is_on_way = true;
  }
  std::array<grpc_slice, kBlocksOfMessageMax> slices;
  for (size_t i = 0; i < count; ++i) {
    if (!blocks[i].is_sealed) Seal(&blocks[i]);
    slices[i] = blocks[i].slice;
    GRPC_SLICE_SET_LENGTH(slices[i], blocks[i].used);
  }
  grpc_byte_buffer* message = grpc_raw_byte_buffer_create(slices.data(), count);  // Takes references.
  for (size_t i = 0; i < count; ++i) grpc_slice_unref(slices[i]);
  return message;
}

size_t Outbox::Sent(uint32_t lane_index) {
  std::lock_guard lock(mutex_);
  Lane& lane = lanes_[lane_index];
  const size_t bytes = std::exchange(lane.bytes_on_way, 0);
  lane.bytes -= bytes;
  lane.frames_on_way = 0;
  lane.is_on_way = false;
  return bytes;
}

}  // namespace keyway::transport_grpc
