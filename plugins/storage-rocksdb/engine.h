// SPDX-License-Identifier: Apache-2.0
//
// One RocksDB database. A key is the table's number as one byte, then the key: with all tables in one
// key space a batch lies in one memtable, and a memtable reaches the disk as one file that the MANIFEST
// names in one record. So a crash brings back whole batches, in order, without RocksDB's own log.
//
// Files. DIR/LOCK is ours, DIR/db is RocksDB's. A checkpoint is a directory DIR with `db` in it.
//
// Durability. Sync() writes the memtable to a file and syncs file, directory and MANIFEST. The kernel
// syncs each batch, which makes many small files; they are merged by size (universal compaction), so that
// a small file is never merged into a large one, which levels would do for every few of them. With
// `use_log` RocksDB's log is written and Sync() syncs that instead.
//
// Full disk. A batch goes to memory, so it is Sync() that finds the disk full, and Write() that refuses
// from then on. RocksDB looks for room every five seconds, and then goes on with what it has in memory.
#pragma once

#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "keyway/directory.hpp"
#include "keyway/kv_store.h"
#include "keyway/plugin.hpp"

namespace keyway::storage_rocksdb {

inline constexpr uint32_t kKeyBytesMax = 511;  // As storage-lmdb: either's data fits into the other.
inline constexpr uint64_t kValueBytesMax = 1 << 30;
inline constexpr uint64_t kNextBytesMax = 1 << 20;    // Copied by one Next(), but for its first pair.
inline constexpr size_t kCopiedValueBytesMax = 4096;  // A longer one is not copied by Get().
inline constexpr size_t kJobsMax = 8;

struct Options {
  std::string directory;
  rocksdb::CompressionType compression = rocksdb::kLZ4Compression;
  uint64_t block_cache_bytes = 32 << 20;
  uint64_t write_buffer_bytes = 16 << 20;
  int background_jobs_max = 2;
  int open_files_max = 512;
  bool use_log = false;
};

struct ReadView {
  const rocksdb::Snapshot* snapshot = nullptr;
  // What the last Get() gave out: copies of short values, and the blocks of the others.
  std::string copies;
  std::deque<rocksdb::PinnableSlice> pinned;
};
struct Cursor {
  std::string begin, end;  // With the table's byte; the iterator's bounds point here.
  rocksdb::Slice begin_slice, end_slice;
  std::unique_ptr<rocksdb::Iterator> iterator;
  bool descending = false;
  bool started = false;
  std::string copies;  // What the last Next() gave out.
};

// All functions return a code and fill `error`. Threads as in keyway/kv_store.h.
class Engine {
 public:
  explicit Engine(Options options) : options_(std::move(options)) {}
  ~Engine() { Close(); }

  int32_t Open(const kw_host* maybe_host, kw_error* error);
  void Close();

  int32_t Write(std::span<const kw_kv_op> ops, kw_error* error);
  int32_t Sync(kw_error* error);

  int32_t OpenView(ReadView** out, kw_error* error);
  void CloseView(ReadView* view);
  int32_t Get(ReadView* view, uint32_t table, std::span<const kw_slice> keys, kw_slice* values,
              kw_error* error);
  int32_t OpenCursor(ReadView* view, uint32_t table, kw_slice begin, kw_slice end, bool descending,
                     Cursor** out, kw_error* error);
  int32_t Next(Cursor* cursor, std::span<kw_kv_pair> pairs, size_t* count, kw_error* error);
  void CloseCursor(Cursor* cursor);

  void Stats(kw_kv_stats* out) const;
  int32_t Checkpoint(const char* directory, kw_completion* completion);
  int32_t Reclaim(kw_completion* completion);

 private:
  class Events;
  struct Job {
    std::string directory;  // Of a checkpoint; empty: reclaim.
    kw_completion* completion;
  };

  // open.cc
  rocksdb::Options DatabaseOptions();
  // write.cc
  int32_t CheckOps(std::span<const kw_kv_op> ops, kw_error* error) const;
  void RefreshStats(rocksdb::DB* database);
  int32_t FailForGood(kw_error* error, const char* call, const rocksdb::Status& status);
  int32_t FailAgain(kw_error* error) const;
  // jobs.cc
  int32_t Enqueue(Job job);
  void RunWorker();
  int32_t RunJob(const Job& job, kw_error* error);
  int32_t RunCheckpoint(const std::string& directory, kw_error* error);

  // Fills `error` from a status that is not OK.
  int32_t Failed(kw_error* error, const char* call, const rocksdb::Status& status) const;
  std::string DatabasePath() const { return options_.directory + "/db"; }

  const Options options_;
  Logger log_;
  Clock clock_;
  Histogram commit_seconds_;
  LockedDirectory lock_;
  std::unique_ptr<rocksdb::Env> environment_;  // Has the background threads; outlives the database.
  std::unique_ptr<rocksdb::DB> database_;
  kw_error failure_ = {};  // [store] The first failed write or sync: all later ones fail with it.

  std::atomic<uint64_t> disk_bytes_ = 0, live_bytes_ = 0, views_open_ = 0;

  std::mutex worker_mutex_;  // Guards what follows.
  std::condition_variable work_;
  std::deque<Job> jobs_;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace keyway::storage_rocksdb
