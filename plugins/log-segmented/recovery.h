// SPDX-License-Identifier: Apache-2.0
//
// Reads a log directory back after a stop or a crash, and makes it ready for appends.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "file_system.h"
#include "keyway/log.hpp"
#include "log_index.h"
#include "segment_format.h"
#include "segment_pool.h"

namespace keyway::log_segmented {

struct RecoveredLog {
  kw_hard_state hard_state = {};
  kw_log_bounds bounds = {1, 0, 0};
  LogIndex index;
  TermRuns terms;
  SegmentSpans spans;
  std::vector<SegmentRef> segments;   // Of the log, in order; the last one is appended to,
  uint64_t write_offset = 0;          // from here on,
  Chain chain;                        // continuing this.
  SegmentRef spare;                   // The prepared next segment, or null.
  std::vector<SegmentRef> leftovers;  // Dropped ones that a crash left behind.
  uint64_t torn_bytes = 0;            // Of an unacknowledged flush, dropped.
};

// Recovers the log in `directory`, which exists and is locked; an empty one gets a first segment of
// `segment_bytes`, with an id of `ids`. On DATA_LOSS nothing has been changed.
Status Recover(FileSystem& file_system, const std::string& directory, uint64_t segment_bytes,
               const SegmentIds& ids, const Logger& log, RecoveredLog* out);

}  // namespace keyway::log_segmented
