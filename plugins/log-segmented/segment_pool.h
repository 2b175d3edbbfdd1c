// SPDX-License-Identifier: Apache-2.0
//
// Makes segments before they are needed, and gets rid of those that are not needed any more, on a
// thread of its own: the append path only ever takes one that is ready.
//
// At most one segment is ready at a time. It is a dropped one used again (two are kept for that), or a
// new file filled with zeros: real writes, since blocks that are only reserved cost a journal commit
// at each first use.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "file_system.h"
#include "keyway/log.hpp"
#include "log_index.h"

namespace keyway::log_segmented {

inline constexpr char kSpareName[] = "spare.tmp";

class SegmentPool {
 public:
  // `next_number` is the number of the next segment; `maybe_spare` one that is ready under it.
  SegmentPool(FileSystem& file_system, std::string directory, uint64_t segment_bytes, uint64_t next_number,
              SegmentRef maybe_spare, const Logger& log);
  ~SegmentPool();

  // [log] The next segment, of at least `file_bytes_min` bytes. Waits until it is ready. On an error
  // (RESOURCE_EXHAUSTED: no space) nothing has changed; the next call tries again.
  Status Take(uint64_t file_bytes_min, SegmentRef* segment);

  // [any] Segments that the durable log does not need any more.
  void Retire(std::vector<SegmentRef> segments);

  // [control] Blocks until a segment is ready and nothing is left to remove, or that has failed.
  Status WaitIdle();

 private:
  void Run();
  Status Remove(const std::vector<SegmentRef>& segments);
  Status Make(uint64_t number, uint64_t file_bytes, SegmentRef maybe_old, SegmentRef* segment);
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  FileSystem& file_system_;  // Constant after construction.
  const std::string directory_;
  const uint64_t segment_bytes_;
  const Logger log_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable work_;
  std::condition_variable ready_;
  uint64_t next_number_;
  uint64_t wanted_bytes_;  // The least size of the next segment.
  SegmentRef spare_;
  Status failure_;  // Of the last try; cleared by the next wish.
  std::vector<SegmentRef> retired_;
  std::vector<SegmentRef> reserve_;  // Dropped ones, still under their old names, for next spares.
  bool busy_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

// A new segment file, durable under its own name. Also for the very first one.
Status CreateSegment(FileSystem& file_system, const std::string& directory, uint64_t number,
                     uint64_t file_bytes, SegmentRef* segment);

}  // namespace keyway::log_segmented
