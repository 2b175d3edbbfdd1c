// SPDX-License-Identifier: Apache-2.0
//
// The rope of blocks behind a lane, and the order in which lanes reach the socket.
#include "outbox.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "keyway/crc32c.h"

namespace keyway::transport_tcp {

// One link of a rope. Uniform, so that they are used again and malloc never maps pages for them.
struct Outbox::Block {
  static constexpr size_t kBytes = (64u << 10) - 64;
  Block* next = nullptr;
  uint32_t begin = 0;  // Sent up to here.
  uint32_t end = 0;    // Filled up to here.
  char bytes[kBytes];
};

Outbox::Outbox(size_t control_bytes_max, size_t bulk_bytes_max, Counter* sent_bytes)
    : sent_bytes_(sent_bytes) {
  lanes_[KW_LANE_CONTROL].bytes_max = control_bytes_max;
  lanes_[KW_LANE_BULK].bytes_max = bulk_bytes_max;
}

Outbox::~Outbox() {
  DropAll();
  while (spare_ != nullptr) {
    Block* next = spare_->next;
    delete spare_;
    spare_ = next;
  }
}

void Outbox::Open(int epoll_fd, void* tag, Stream* stream) {
  std::scoped_lock lock(socket_mutex_, queue_mutex_);
  epoll_fd_ = epoll_fd;
  tag_ = tag;
  stream_ = stream;
  armed_ = false;
  broken_ = false;
}

size_t Outbox::Close() {
  std::scoped_lock lock(socket_mutex_, queue_mutex_);
  const size_t dropped = lanes_[0].frames.size() + lanes_[1].frames.size();
  stream_ = nullptr;
  epoll_fd_ = -1;
  DropAll();
  return dropped;
}

void Outbox::DropAll() {
  for (Lane& lane : lanes_) {
    while (lane.first != nullptr) {
      Block* next = lane.first->next;
      GiveBlock(lane.first);
      lane.first = next;
    }
    lane.last = nullptr;
    lane.bytes = 0;
    lane.front_sent = 0;
    lane.frames.clear();
  }
}

Outbox::Block* Outbox::TakeBlock() {
  if (spare_ == nullptr) return new Block;
  Block* block = spare_;
  spare_ = block->next;
  --spare_count_;
  block->next = nullptr;
  block->begin = block->end = 0;
  return block;
}

void Outbox::GiveBlock(Block* block) {
  if (spare_count_ >= kSpareBlocksMax) {
    delete block;
    return;
  }
  block->next = spare_;
  spare_ = block;
  ++spare_count_;
}

// Appends bytes to the rope; the caller accounts for them.
void Outbox::Put(Lane* lane, const void* bytes, size_t size) {
  const char* from = static_cast<const char*>(bytes);
  while (size > 0) {
    if (lane->last->end == Block::kBytes) {
      Block* block = TakeBlock();
      lane->last->next = block;
      lane->last = block;
    }
    const size_t part = std::min(size, Block::kBytes - lane->last->end);
    std::memcpy(lane->last->bytes + lane->last->end, from, part);
    lane->last->end += static_cast<uint32_t>(part);
    from += part;
    size -= part;
  }
}

Outbox::Taken Outbox::Append(Kind kind, uint32_t lane_index, kw_slice head, kw_slice body) {
  char header[kHeaderBytes];
  const size_t payload = head.len + body.len;
  WriteHeader({kVersion, kind, static_cast<uint8_t>(lane_index), static_cast<uint32_t>(payload)}, header);
  const bool sealed = payload <= kCoreSealBytesMax;
  if (sealed) {
    uint32_t checksum = kw_crc32c(0, header, 12);
    checksum = kw_crc32c(checksum, head.ptr, head.len);
    SetChecksum(header, kw_crc32c(checksum, body.ptr, body.len));
  }
  const size_t bytes = kHeaderBytes + payload;

  std::lock_guard lock(queue_mutex_);
  Lane& lane = lanes_[lane_index];
  if (stream_ == nullptr || broken_) return Taken::kClosed;
  if (lane.bytes > 0 && lane.bytes + bytes > lane.bytes_max) return Taken::kFull;
  if (lane.last == nullptr) {
    lane.first = lane.last = TakeBlock();
  } else if (Block::kBytes - lane.last->end < kHeaderBytes) {  // A header lies in one block.
    Block* block = TakeBlock();
    lane.last->next = block;
    lane.last = block;
  }
  lane.frames.push_back({lane.last, lane.last->end, static_cast<uint32_t>(bytes), sealed});
  Put(&lane, header, kHeaderBytes);
  Put(&lane, head.ptr, head.len);
  Put(&lane, body.ptr, body.len);
  lane.bytes += bytes;
  return Taken::kYes;
}

// Fills in the checksum of a frame that lies in its rope.
void Outbox::Seal(Frame* frame) {
  char* header = frame->block->bytes + frame->offset;
  uint32_t checksum = kw_crc32c(0, header, 12);
  const Block* block = frame->block;
  size_t at = frame->offset + kHeaderBytes;
  size_t left = frame->bytes - kHeaderBytes;
  while (left > 0) {
    // Only the block with the frame's end may still be growing; its part is complete.
    const size_t part = std::min(left, Block::kBytes - at);
    checksum = kw_crc32c(checksum, block->bytes + at, part);
    left -= part;
    if (left > 0) {
      block = block->next;
      at = 0;
    }
  }
  SetChecksum(header, checksum);
  frame->sealed = true;
}

// Plans up to `bytes` of the lane, from its front.
void Outbox::PlanLane(Lane* lane, size_t bytes, Plan* plan, size_t* left) {
  bytes = std::min(bytes, *left);
  if (bytes == 0) return;
  // Bytes of the rope before this call's are in the plan already: only the rest of a started frame is
  // ever planned ahead of the others, and then the lane comes a second time.
  size_t skip = 0;
  for (size_t i = 0; i < plan->span_count; ++i) {
    if (plan->spans[i].lane == lane) skip += plan->spans[i].bytes;
  }
  size_t planned = 0;
  for (Block* block = lane->first; block != nullptr && planned < bytes; block = block->next) {
    const size_t held = block->end - block->begin;
    if (skip >= held) {
      skip -= held;
      continue;
    }
    if (plan->piece_count == static_cast<int>(kPiecesMax)) break;
    const size_t part = std::min(held - skip, bytes - planned);
    plan->pieces[static_cast<size_t>(plan->piece_count++)] = {block->bytes + block->begin + skip, part};
    planned += part;
    skip = 0;
  }
  *left -= planned;
  if (planned > 0) plan->spans[plan->span_count++] = {lane, planned};
}

// The rest of a started bulk frame, then all control frames, then bulk frames.
void Outbox::MakePlan(Plan* plan) {
  Lane& control = lanes_[KW_LANE_CONTROL];
  Lane& bulk = lanes_[KW_LANE_BULK];
  size_t left = kWriteBytesMax;
  if (bulk.front_sent > 0) {
    const size_t rest = bulk.frames.front().bytes - bulk.front_sent;
    PlanLane(&bulk, rest, plan, &left);
    if (left == 0 || plan->spans[0].bytes < rest) return;
  }
  const size_t waiting = control.bytes;
  const size_t before = left;
  PlanLane(&control, waiting, plan, &left);
  if (before - left == waiting) PlanLane(&bulk, bulk.bytes, plan, &left);
}

int Outbox::WriteSome() {
  Plan plan;
  Stream* stream;
  {
    std::lock_guard lock(queue_mutex_);
    if (stream_ == nullptr || broken_) return 0;
    stream = stream_;
    MakePlan(&plan);
    // Every frame that the plan touches has to be complete. They are the front ones of each lane.
    for (Lane& lane : lanes_) {
      size_t planned = 0;
      for (size_t i = 0; i < plan.span_count; ++i) {
        if (plan.spans[i].lane == &lane) planned += plan.spans[i].bytes;
      }
      planned += lane.front_sent;
      for (Frame& frame : lane.frames) {
        if (planned == 0) break;
        if (!frame.sealed) plan.unsealed[plan.unsealed_count++] = &frame;
        planned -= std::min<size_t>(planned, frame.bytes);
      }
    }
  }
  // Unsealed frames are larger than 16 KiB and a plan holds 256 KiB: never more than the array holds.
  for (size_t i = 0; i < plan.unsealed_count; ++i) Seal(plan.unsealed[i]);
  const ssize_t sent = stream->Write(plan.pieces.data(), plan.piece_count);
  if (sent < 0) return static_cast<int>(sent);
  sent_bytes_->Add(static_cast<uint64_t>(sent));
  std::lock_guard lock(queue_mutex_);
  Consume(plan, static_cast<size_t>(sent));
  return WaitsLocked() || stream->has_pending() ? 1 : 0;
}

void Outbox::Consume(const Plan& plan, size_t bytes) {
  for (size_t i = 0; i < plan.span_count && bytes > 0; ++i) {
    const size_t part = std::min(bytes, plan.spans[i].bytes);
    ConsumeLane(plan.spans[i].lane, part);
    bytes -= part;
  }
}

void Outbox::ConsumeLane(Lane* lane, size_t bytes) {
  lane->bytes -= bytes;
  lane->front_sent += bytes;
  while (!lane->frames.empty() && lane->front_sent >= lane->frames.front().bytes) {
    lane->front_sent -= lane->frames.front().bytes;
    lane->frames.pop_front();
  }
  while (bytes > 0) {
    Block* block = lane->first;
    const size_t part = std::min<size_t>(bytes, block->end - block->begin);
    block->begin += static_cast<uint32_t>(part);
    bytes -= part;
    if (block->begin < block->end) break;
    if (block == lane->last) {
      block->begin = block->end = 0;
      break;
    }
    lane->first = block->next;
    GiveBlock(block);
  }
}

// Needs queue_mutex_. EPOLLOUT is level-triggered: asking for it is what wakes the I/O thread.
void Outbox::Arm(bool want_write) {
  if (armed_ == want_write || stream_ == nullptr) return;
  armed_ = want_write;
  epoll_event event = {};
  event.events = EPOLLIN | EPOLLRDHUP | (want_write ? EPOLLOUT : 0u);
  event.data.ptr = tag_;
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, stream_->fd(), &event);
}

void Outbox::FlushFromCore() {
  while (true) {
    {
      std::lock_guard lock(queue_mutex_);
      if (stream_ == nullptr || broken_ || armed_ || !WaitsLocked()) return;
      if (stream_->is_tls() || lanes_[0].bytes + lanes_[1].bytes > kCoreBytesMax) {
        Arm(true);
        return;
      }
    }
    if (!socket_mutex_.try_lock()) return;  // The I/O thread looks at the queue after its unlock.
    const int result = WriteSome();
    if (result != 0) {
      std::lock_guard lock(queue_mutex_);
      if (result < 0 && result != -EAGAIN && stream_ != nullptr) {
        broken_ = true;
        shutdown(stream_->fd(), SHUT_RDWR);  // Epoll tells the I/O thread, which closes.
      } else {
        Arm(true);
      }
    }
    socket_mutex_.unlock();
  }
}

int Outbox::FlushFromIo() {
  while (true) {
    int result;
    {
      std::lock_guard socket_lock(socket_mutex_);
      int writes = 0;
      do {
        result = WriteSome();
      } while (result > 0 && ++writes < kWritesMax);
      std::lock_guard lock(queue_mutex_);
      if (result < 0 && result != -EAGAIN) {
        broken_ = true;
        return result;
      }
      Arm(result != 0);  // Full, or the turn of other connections.
    }
    std::lock_guard lock(queue_mutex_);
    if (armed_ || stream_ == nullptr || broken_ || !WaitsLocked()) return 0;
  }
}

ssize_t Outbox::Read(char* to, size_t size) {
  ssize_t got;
  {
    std::lock_guard lock(socket_mutex_);
    if (stream_ == nullptr) return -ENOTCONN;
    got = stream_->Read(to, size);
  }
  bool waits;
  {
    std::lock_guard lock(queue_mutex_);
    waits = WaitsLocked() && !armed_;
  }
  if (waits) FlushFromIo();
  return got;
}

}  // namespace keyway::transport_tcp
