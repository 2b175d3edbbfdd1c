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
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "file_system.h"
#include "keyway/log.hpp"
#include "log_index.h"

namespace keyway::log_segmented {

inline constexpr char kSpareName[] = "spare.tmp";

// Gives the random id of a new segment.
using SegmentIds = std::function<uint64_t()>;

class SegmentPool {
 public:
  struct Options {
    std::string directory;
    uint64_t segment_bytes = 0;
    SegmentIds ids;
    bool has_thread = true;  // Else Take() makes what it needs, and RunOnce() does the rest.
  };
  // `next_number` is the number of the next segment; `maybe_spare` one that is ready under it.
  SegmentPool(FileSystem& file_system, Options options, uint64_t next_number, SegmentRef maybe_spare,
              const Logger& log);
  ~SegmentPool();

  // [log] The next segment, of at least `file_bytes_min` bytes. Waits until it is ready. On an error
  // (RESOURCE_EXHAUSTED: no space) nothing has changed; the next call tries again.
  Status Take(uint64_t file_bytes_min, SegmentRef* segment);

  // [any] Segments that the durable log does not need any more.
  void Retire(std::vector<SegmentRef> segments);

  // Without a thread: makes the next segment and removes dropped ones, if there is a wish for that.
  void RunOnce();

  // [control] Blocks until a segment is ready and nothing is left to remove, or that has failed.
  Status WaitIdle();

 private:
  void Run();
  bool HasWork() const;
  void Step(std::unique_lock<std::mutex>& lock);
  Status Remove(const std::vector<SegmentRef>& segments);
  Status Make(uint64_t number, uint64_t file_bytes, SegmentRef maybe_old, SegmentRef* segment);
  std::string Path(const std::string& name) const { return options_.directory + "/" + name; }

  FileSystem& file_system_;  // Constant after construction.
  const Options options_;
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
Status CreateSegment(FileSystem& file_system, const std::string& directory, const SegmentIds& ids,
                     uint64_t number, uint64_t file_bytes, SegmentRef* segment);

// Ids from the system's source of randomness.
uint64_t RandomSegmentId();

}  // namespace keyway::log_segmented
