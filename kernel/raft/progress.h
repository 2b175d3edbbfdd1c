// SPDX-License-Identifier: Apache-2.0
//
// What a leader knows of one other member, and how fast it may send to it.
//
//   kProbe      one append at a time, until a position that matches is found;
//   kReplicate  appends are sent ahead of their acknowledgements, within the window;
//   kSnapshot   nothing but heartbeats: the peer needs a snapshot, which core transfers.
//
// (Raft paper, section 5.3; the three states as in etcd/raft.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernel/raft/types.h"

namespace keyway::raft {

// Append messages with entries that were sent and not acknowledged. Bounded by count and by bytes; one
// message always fits an empty window.
class Inflights {
 public:
  Inflights(size_t count_max, size_t bytes_max) : count_max_(count_max), bytes_max_(bytes_max) {}

  bool Full() const { return count_ >= count_max_ || bytes_ >= bytes_max_; }
  size_t count() const { return count_; }
  size_t bytes() const { return bytes_; }

  // Not full. `last_index` is above that of the message added before.
  void Add(uint64_t last_index, size_t bytes);
  // Acknowledges all messages up to `index`.
  void FreeTo(uint64_t index);
  void Clear();

 private:
  struct Sent {
    uint64_t last_index;
    size_t bytes;
  };
  void Grow();

  size_t count_max_;
  size_t bytes_max_;
  std::vector<Sent> ring_;  // Its size is 0 or a power of two.
  size_t begin_ = 0;
  size_t count_ = 0;
  size_t bytes_ = 0;
};

enum class ProgressState : uint8_t { kProbe, kReplicate, kSnapshot };

struct Progress {
  Progress(NodeId peer, uint64_t next_index, size_t inflight_messages_max, size_t inflight_bytes_max)
      : id(peer), next(next_index), inflights(inflight_messages_max, inflight_bytes_max) {}

  NodeId id;
  ProgressState state = ProgressState::kProbe;
  uint64_t match = 0;        // Durable on the peer and equal to our log.
  uint64_t next;             // The entry to send next; match < next.
  uint64_t sent_commit = 0;  // The highest commit index in a message since the last loss.
  uint64_t read_round = 0;   // Latest read round that the peer has confirmed.
  bool is_learner = false;
  bool recently_active = false;  // Heard of since the last check of the quorum, ...
  bool was_active = false;       // ... or between the two before that.
  bool paused = false;           // kProbe: wait for an answer (or a heartbeat's) before sending more.
  bool probe_now = false;        // Send an append even without entries: something may have been lost.
  bool log_read_pending = false;
  uint64_t log_read_begin = 0;
  Inflights inflights;

  // Each begins anew after match, which must be known: 0 would ask for the log from its beginning.
  void BecomeProbe();
  void BecomeReplicate();
  void BecomeSnapshot();
  // The peer has everything up to `index`. Returns whether match grew.
  bool OnMatch(uint64_t index);
  // The peer refused an append after `rejected`, and `hint` is the last position that may match.
  // Returns false for a stale answer.
  bool OnReject(uint64_t rejected, uint64_t hint);
  // The peer lost part of its log, and with it what it acknowledged: begins anew after `hint`.
  void OnLostLog(uint64_t hint);
};

}  // namespace keyway::raft
