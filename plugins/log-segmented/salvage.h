// SPDX-License-Identifier: Apache-2.0
//
// What a damaged log still proves, and a new log in its place.
//
// Some flush does not check out, though a later one does (case 3 of segment_format.h). What was lost with it
// may have been acknowledged, and a vote may have been given on the strength of it. The newest flush that
// checks out says what had been promised: its COMMIT the term and the vote, its LAST the last entry. Entries
// that the kv-store holds need no log. So the log is built anew behind them: with the entries that follow, if
// the run of flushes after the damage has them all; else without any, and the member gets them from its leader
// (Protocol-Aware Recovery, FAST '18, is the idea: never to take a damaged record for the end of the log).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "file_system.h"
#include "keyway/log.hpp"
#include "keyway/log_store.h"
#include "log_index.h"
#include "segment_format.h"
#include "segment_pool.h"

namespace keyway::log_segmented {

// More than this is rather fetched from the leader.
inline constexpr uint64_t kSalvageBytesMax = 256 << 20;

struct Salvage {
  // As in keyway/log_store.h.
  kw_log_salvage result = {sizeof(kw_log_salvage), 0, {}, 0, 0, {}};
  struct Entry {
    SegmentRef segment;
    ScannedRecord record;
  };
  std::vector<Entry> entries;  // Of result.bounds.
  Chain chain;                 // After the newest flush.
  uint64_t next_number = 0;    // Of a new segment.
};

// Reads all segments in `directory`; changes nothing. The base is what the kv-store has applied. DATA_LOSS if
// it cannot be known which flush was the newest, or what it was.
Status FindSalvage(FileSystem& file_system, const std::string& directory, uint64_t base_index,
                   uint64_t base_term, Salvage* out);

// Writes `salvage` as one flush of a new segment, which makes all older ones useless, and removes them. After
// a crash meanwhile the log is damaged as before or rebuilt; FindSalvage then finds the same.
Status Rebuild(FileSystem& file_system, const std::string& directory, uint64_t segment_bytes,
               const SegmentIds& ids, const Salvage& salvage);

}  // namespace keyway::log_segmented
