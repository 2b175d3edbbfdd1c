// SPDX-License-Identifier: Apache-2.0
//
// The durable log of one member: see segment_format.h for what is on disk.
//
// An append is encoded on the caller's thread into the flush that is forming, and returns. The flush
// thread takes what has formed, writes it with one write and one fdatasync, publishes it to readers
// and completes it; what comes meanwhile forms the next flush. No timer holds a flush back.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "file_system.h"
#include "keyway/plugin.hpp"
#include "log_index.h"
#include "recovery.h"
#include "salvage.h"
#include "segment_pool.h"

namespace keyway::log_segmented {

inline constexpr uint64_t kFlushBytesMax = 4 << 20;     // A flush is closed at this size.
inline constexpr uint64_t kQueuedBytesMax = 32 << 20;   // Append waits above this.
inline constexpr uint64_t kAppendBytesMax = 1 << 30;    // In one append; it must fit one segment.
inline constexpr uint64_t kReadEntriesMax = 16384;      // In one read.
inline constexpr uint64_t kSectorBytes = 512;           // What a disk may lose at once.
inline constexpr uint64_t kReadGapBytesMax = 64 << 10;  // Dead bytes read along between two entries.

struct Options {
  std::string directory;
  uint64_t segment_bytes = 64 << 20;
  SegmentIds ids = RandomSegmentId;
  // Else the owner drives the log with BeginFlush(), EndFlush(), Mark() and MakeSegments(), from one
  // thread: for a simulator.
  bool has_threads = true;
};

class LogStore {
 public:
  // `file_system` outlives the store.
  LogStore(FileSystem& file_system, Options options);
  ~LogStore();  // Stops.

  // [control] Makes and locks the directory.
  Status Open(const kw_host* maybe_host);
  // [control] Once, after Open. Starts the threads.
  Status Recover(kw_hard_state* hard_state, kw_log_bounds* bounds);
  // [control] After Recover answered DATA_LOSS. See salvage and rebuild in keyway/log_store.h.
  Status FindSalvage(uint64_t base_index, uint64_t base_term, kw_log_salvage* out);
  Status Rebuild();
  // [control] Everything appended is durable or has failed, and its completion has fired.
  void Stop();

  // [log] KW_PENDING, or a final code whose text is logged. See keyway/log_store.h.
  int32_t Append(std::span<const kw_log_entry> entries, const kw_hard_state* maybe_hard_state,
                 kw_completion* completion);
  // [core] See try_append in keyway/log_store.h.
  int32_t TryAppend(std::span<const kw_log_entry> entries, const kw_hard_state* maybe_hard_state,
                    kw_completion* completion);
  int32_t TruncatePrefix(uint64_t first_kept, kw_completion* completion);
  int32_t Reset(uint64_t base_index, uint64_t base_term, kw_completion* completion);

  // [read]
  Status Read(uint64_t begin, uint64_t end, uint64_t bytes_max, kw_log_batch** out);

  // ---- without threads: a step of the flush thread, and of the one that makes segments ----
  // Takes the next flush, if there is one and none is begun; EndFlush() writes it and completes it.
  bool BeginFlush();
  void EndFlush();
  // What the flush thread does when it has been idle for a while: proves the last flush with an empty
  // one. Returns whether there is now something to flush.
  bool Mark();
  void MakeSegments() { pool_->RunOnce(); }

  // For tests: a segment is ready and dropped ones are gone, or that has failed.
  Status WaitPoolIdle() { return pool_->WaitIdle(); }
  uint64_t torn_bytes() const { return torn_bytes_; }

 private:
  // A flush that forms, waits or is being written.
  struct Flush {
    Flush(SegmentRef on, uint64_t offset, Chain chain, std::vector<uint8_t> buffer)
        : segment(std::move(on)), encoder(segment->header, offset, chain, std::move(buffer)) {}
    SegmentRef segment;
    FlushEncoder encoder;
    std::vector<kw_completion*> completions;
  };
  // The state after everything that was ever submitted; also what is not durable yet.
  struct Pending {
    kw_hard_state hard_state = {};
    uint64_t first = 1, last = 0;
    TermRuns terms;
    SegmentSpans spans;
    SegmentRef segment;       // Where the next record goes:
    uint64_t end_offset = 0;  // only when no flush is forming.
    Chain chain;
  };

  int32_t Refuse(int32_t code, const std::string& text) const;
  Status CheckEntries(std::span<const kw_log_entry> entries, uint64_t* bytes) const;
  bool HasRoom(uint64_t record_bytes);
  Status MakeRoom(uint64_t record_bytes);
  Flush& FormingFlush(uint64_t record_bytes);
  void StartFlush();
  void CloseFlush(Flush& flush);
  void Submit(Flush& flush, kw_completion* completion);
  void RunFlusher();
  bool WaitForWork(std::unique_lock<std::mutex>& lock);
  bool AddMark();
  std::unique_ptr<Flush> TakeFlush();
  void FinishFlush(std::unique_ptr<Flush> flush, std::unique_lock<std::mutex>& lock);
  void WriteFlush(Flush& flush);
  void Publish(const Flush& flush);

  FileSystem& file_system_;  // Constant after Open or Recover.
  const Options options_;
  Logger log_;
  Clock clock_;
  Histogram fsync_seconds_;
  Counter write_bytes_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<SegmentPool> pool_;
  uint64_t torn_bytes_ = 0;
  std::unique_ptr<Salvage> maybe_salvage_;  // Between FindSalvage and Rebuild.

  std::mutex mutex_;  // Guards the queue.
  std::condition_variable work_;
  std::condition_variable space_;
  Pending pending_;
  std::deque<std::unique_ptr<Flush>> queue_;   // The last one may be forming.
  uint64_t queued_bytes_ = 0;                  // In queue_ and in the flush being written.
  std::vector<std::vector<uint8_t>> buffers_;  // To be used again.
  bool needs_mark_ = false;                    // The last flush is not proven by a later one.
  bool flusher_sleeps_ = false;
  bool stopping_ = false;

  std::unique_ptr<Flush> begun_;  // By BeginFlush().
  Status failure_;                // [flusher] The first failed write or sync: all that follows fails with it.

  std::mutex index_mutex_;  // Guards what is durable.
  LogIndex index_;
  std::deque<SegmentRef> segments_;

  std::thread flusher_;
};

}  // namespace keyway::log_segmented
