// SPDX-License-Identifier: Apache-2.0
//
// The words of Raft: entries, hard state, configuration, messages (Raft paper, figures 2 and 13;
// dissertation, chapters 3, 4, 6 and 9.6 for PreVote).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kernel/base/bytes.h"

namespace keyway::raft {

using NodeId = uint64_t;  // 0: none.

enum class EntryKind : uint32_t { kNormal = 0, kConfiguration = 1 };

struct Entry {
  uint64_t index = 0;
  uint64_t term = 0;
  EntryKind kind = EntryKind::kNormal;
  uint32_t crc32c = 0;  // Of data.
  SharedBytes data;     // Without a value: the empty entry of a new leader.
};

struct HardState {
  uint64_t term = 0;
  NodeId vote = 0;
  uint64_t commit = 0;
  friend bool operator==(const HardState&, const HardState&) = default;
};

// Voters and learners, sorted, disjoint.
struct Configuration {
  std::vector<NodeId> voters;
  std::vector<NodeId> learners;
  friend bool operator==(const Configuration&, const Configuration&) = default;
};

enum class MessageKind : uint8_t {
  kPreVote = 1,
  kPreVoteResponse = 2,
  kVote = 3,
  kVoteResponse = 4,
  kAppend = 5,
  kAppendResponse = 6,
  kHeartbeat = 7,
  kHeartbeatResponse = 8,
  kReadIndex = 9,
  kReadIndexResponse = 10,
  kTimeoutNow = 11,
};

struct Message {
  MessageKind kind = MessageKind::kHeartbeat;
  NodeId from = 0;
  NodeId to = 0;
  uint64_t term = 0;
  uint64_t index = 0;     // Vote: last log index. Append: prev_log_index. AppendResponse: the last index
                          // that matches now, or (reject) the prev_log_index that did not.
                          // ReadIndexResponse: the read index.
  uint64_t log_term = 0;  // Term of `index`; AppendResponse with reject: term of hint.
  uint64_t commit = 0;    // Append, Heartbeat: leader's commit index (Heartbeat: bounded by the match).
  uint64_t hint = 0;      // AppendResponse with reject: where the leader should probe next.
  uint64_t context = 0;   // Heartbeat and response: read round. ReadIndex and response: caller's number.
  bool reject = false;
  bool needs_snapshot = false;  // AppendResponse: the state machine of the sender is incomplete.
  bool lost_log = false;        // AppendResponse with reject: less is left than was acknowledged before.
  bool forced = false;          // Vote: leadership transfer, do not refuse because of a live leader.
  std::vector<Entry> entries;   // Append.
};

}  // namespace keyway::raft
