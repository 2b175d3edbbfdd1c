// SPDX-License-Identifier: Apache-2.0
//
// Outbox: what waits to be sent to one peer, in two lanes, and the writing of it.
//
// Two locks. `queue_mutex_` guards the queues and is held for copies only. `socket_mutex_` is held while
// the socket is written; the core only ever tries it. Whoever leaves `socket_mutex_` looks at the queue
// once more, so frames that came meanwhile are never left behind. The blocks that are being written are
// read without `queue_mutex_`: a flush is the only one to remove, and Append() only adds behind.
//
// Why the core writes at all: three members on one machine of two cores, 300-byte frames to two
// peers, time to the first answer: 40 us (median) and 73 us of processor time a round, against 62 us
// and 103 us when every frame is handed to the I/O thread. send() itself takes 21 us instead of 4 us.
#pragma once

#include <sys/uio.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "keyway/transport.h"
#include "stream.h"
#include "wire.h"

namespace keyway::transport_tcp {

// A counter with a metrics cell that follows it. Any thread.
class Counter {
 public:
  void set_cell(uint64_t* maybe_cell) { maybe_cell_ = maybe_cell; }  // Before the first Add().
  void Add(uint64_t n) {
    value_.fetch_add(n, std::memory_order_relaxed);
    if (maybe_cell_ != nullptr) __atomic_fetch_add(maybe_cell_, n, __ATOMIC_RELAXED);
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
  uint64_t* maybe_cell_ = nullptr;
};

class Outbox {
 public:
  static constexpr size_t kLaneCount = 2;

  Outbox(size_t control_bytes_max, size_t bulk_bytes_max, Counter* sent_bytes);
  ~Outbox();

  // [io] Frames are taken from now on and written to `stream`, whose epoll registration carries `tag`.
  void Open(int epoll_fd, void* tag, Stream* stream);
  // [io] Drops what waits and lets go of the stream. Returns the count of dropped messages.
  size_t Close();

  enum class Taken { kYes, kFull, kClosed };
  // Any thread. Copies one message into its lane. A lane takes a message if it is empty or the message
  // fits within its bound.
  Taken Append(Kind kind, uint32_t lane, kw_slice head, kw_slice body);

  // [core] Writes a small queue to the socket at once; leaves the rest to the I/O thread.
  void FlushFromCore();
  // [io] Writes until the queue is empty or the socket is full; then asks epoll for EPOLLOUT.
  // Returns 0, or the -errno that broke the connection.
  int FlushFromIo();
  // [io] Reads from the stream; the two directions of a TLS connection are not independent.
  ssize_t Read(char* to, size_t size);

 private:
  struct Block;
  struct Frame {
    Block* block;  // Where the header lies, whole.
    uint32_t offset;
    uint32_t bytes;  // Header and payload.
    bool sealed;     // The checksum is in the header.
  };
  struct Lane {
    size_t bytes_max = 0;
    size_t bytes = 0;
    size_t front_sent = 0;  // Of frames.front().
    Block* first = nullptr;
    Block* last = nullptr;
    std::deque<Frame> frames;
  };
  static constexpr size_t kPiecesMax = 32;
  static constexpr size_t kWriteBytesMax = 256u << 10;    // In one system call.
  static constexpr int kWritesMax = 16;                   // In one turn of the I/O thread.
  static constexpr size_t kCoreBytesMax = 64u << 10;      // More than this is the I/O thread's.
  static constexpr size_t kCoreSealBytesMax = 16u << 10;  // Larger frames get their checksum on [io].
  static constexpr size_t kSpareBlocksMax = 32;
  struct Plan {
    std::array<iovec, kPiecesMax> pieces;
    int piece_count = 0;
    struct Span {
      Lane* lane;
      size_t bytes;
    };
    std::array<Span, 3> spans;
    size_t span_count = 0;
    std::array<Frame*, kPiecesMax * 2> unsealed;
    size_t unsealed_count = 0;
  };

  Block* TakeBlock();
  void GiveBlock(Block* block);
  void Put(Lane* lane, const void* bytes, size_t size);
  void MakePlan(Plan* plan);
  void PlanLane(Lane* lane, size_t bytes, Plan* plan, size_t* left);
  void Consume(const Plan& plan, size_t bytes);
  void ConsumeLane(Lane* lane, size_t bytes);
  void DropAll();
  bool WaitsLocked() const { return lanes_[0].bytes + lanes_[1].bytes > 0; }
  void Arm(bool want_write);
  int WriteSome();
  static void Seal(Frame* frame);

  Counter* const sent_bytes_;
  std::mutex socket_mutex_;
  std::mutex queue_mutex_;
  // Guarded by queue_mutex_; changed under both.
  Stream* stream_ = nullptr;
  int epoll_fd_ = -1;
  void* tag_ = nullptr;
  // Guarded by queue_mutex_.
  bool armed_ = false;
  bool broken_ = false;
  std::array<Lane, kLaneCount> lanes_;
  Block* spare_ = nullptr;
  size_t spare_count_ = 0;
};

}  // namespace keyway::transport_tcp
