// SPDX-License-Identifier: Apache-2.0
//
// Snapshots between members: the logical contents of the engine's tables (not its files), so that
// members with different engines can exchange them. A frame carries one chunk:
//
//   u64 term of the leader | u64 chunk number | u8 last | bytes applied | u32 crc32c of the rest |
//   items: u8 table | bytes key | bytes value
//
// `applied` (store_format.h) names the point of the log that the snapshot stands for. Tables come in
// the order leases, members, revisions; keys ascend. The receiver writes each chunk and acknowledges
// it, and only kSnapshotChunksInflight are on their way: a slow receiver slows the sender. Those are kept
// until they are acknowledged, and sent again after a lost connection: the transfer resumes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "kernel/core/core_config.h"
#include "kernel/core/store_format.h"

namespace keyway::core {

inline constexpr uint64_t kSnapshotStallMs = 10'000;  // Without progress, both sides give up.
inline constexpr uint64_t kSnapshotResendMs = 1000;   // Without progress, chunks are sent again.

inline constexpr uint32_t kSnapshotTables[] = {kTableLeases, kTableMembers, kTableRevisions};

// Reads chunks off one view of the engine. Used by one read job at a time.
class SnapshotReader {
 public:
  SnapshotReader(const CoreDeps& deps, size_t chunk_bytes) : deps_(deps), chunk_bytes_(chunk_bytes) {}
  ~SnapshotReader();
  // [read] Opens the view and reads its applied point. False with error().
  bool Open();
  const Applied& applied() const { return applied_; }
  // [read] The next items, about chunk_bytes. False with error().
  bool Next(std::string* items, bool* last);
  const std::string& error() const { return error_; }

 private:
  bool Fill();

  const CoreDeps deps_;
  const size_t chunk_bytes_;
  kw_kv_view* view_ = nullptr;
  kw_kv_cursor* cursor_ = nullptr;
  size_t table_ = 0;               // Of kSnapshotTables.
  std::deque<std::string> items_;  // Read, not yet in a chunk.
  Applied applied_;
  std::string error_;
};

// The state of one transfer, on [core].
class SnapshotSender {
 public:
  SnapshotSender(const CoreDeps& deps, size_t chunk_bytes, uint64_t now_ms)
      : reader(std::make_shared<SnapshotReader>(deps, chunk_bytes)), progress_ms(now_ms) {}
  uint64_t index() const { return applied.index; }
  bool Stalled(uint64_t now_ms) const { return !reading && now_ms > progress_ms + kSnapshotStallMs; }
  bool ShouldResend(uint64_t now_ms) const {
    return !unacknowledged.empty() && now_ms > std::max(progress_ms, resent_ms) + kSnapshotResendMs;
  }
  struct Chunk {
    std::string head, items;
  };

  std::shared_ptr<SnapshotReader> reader;
  Applied applied;                            // index 0: not open yet.
  bool reading = false;                       // A job has the reader.
  bool done = false;                          // The last chunk was sent.
  uint64_t next_chunk = 0, acknowledged = 0;  // Chunks below are acknowledged.
  std::deque<Chunk> unacknowledged;  // From chunk `acknowledged` on; at most kSnapshotChunksInflight.
  uint64_t progress_ms = 0, resent_ms = 0;
  uint64_t id = 0;  // Tells a late job of an earlier transfer to the same peer.
};

}  // namespace keyway::core
