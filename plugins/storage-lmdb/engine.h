// SPDX-License-Identifier: Apache-2.0
//
// One LMDB environment with a named database for each table.
//
// Durability. A commit syncs its pages before it writes the meta page that refers to them, and the
// next commit's sync covers that meta page before the other one is overwritten (MDB_NOMETASYNC). So a
// power loss brings back the last batch or the one before, whole; Sync() makes the last one certain.
//
// The map. LMDB maps the file at a fixed size and can change that only when no transaction is open.
// The default is far larger than most stores get. When it is half full it grows at a moment without
// views; when it is full, the writer holds new views back for short turns until there is none, grows
// it, and applies the batch again. Every use of the map counts as a view: see Gate.
#pragma once

#include <lmdb.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "keyway/directory.hpp"
#include "keyway/kv_store.h"
#include "keyway/plugin.hpp"

namespace keyway::storage_lmdb {

inline constexpr uint32_t kKeyBytesMax = 511;  // Of Debian's LMDB; checked in Open.
inline constexpr uint64_t kValueBytesMax = 1 << 30;
inline constexpr uint64_t kMapBytesMin = 1 << 20;
inline constexpr uint64_t kMapBytesMax = uint64_t{1} << 46;
inline constexpr uint64_t kTouchedBytesMax = 64 << 20;  // Then the map's pages are given back.
inline constexpr size_t kIdleReadersMax = 64;
inline constexpr size_t kCheckpointsMax = 8;

struct Options {
  std::string directory;
  uint64_t map_bytes = uint64_t{64} << 30;
  uint32_t readers_max = 1024;
};

// Whether that much address space can be had. LMDB unmaps the old map before it maps a new one and
// cannot go back, so this is asked first.
bool AddressSpaceIsThere(uint64_t bytes);

// Counts the uses of the map, and closes for a change of it.
class Gate {
 public:
  void Enter();
  void Leave();
  // Holds new uses back and waits up to `wait_ms` until there are none. If that comes true, runs
  // `change` and returns true. A user that needs a second use to end its first one is let in after
  // that time, so there is no deadlock.
  template <typename Change>
  bool TryExclusive(int wait_ms, Change&& change) {
    std::unique_lock lock(mutex_);
    closed_ = true;
    const bool alone =
        changed_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] { return users_ == 0; });
    if (alone) change();
    closed_ = false;
    changed_.notify_all();
    return alone;
  }
  uint64_t users() const { return users_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<uint64_t> users_ = 0;  // Changed with the mutex held.
  bool closed_ = false;
};

struct ReadView {
  MDB_txn* transaction = nullptr;
};
struct Cursor {
  ReadView* view = nullptr;
  MDB_cursor* cursor = nullptr;
  std::string begin, end;
  bool descending = false;
  bool started = false;
  bool done = false;
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

  // For tests.
  uint64_t map_bytes() const { return map_bytes_; }
  uint64_t map_releases() const { return map_releases_; }

 private:
  struct CheckpointJob {
    std::string directory;
    kw_completion* completion;
  };

  // open.cc
  int32_t OpenEnvironment(kw_error* error);
  int32_t OpenTables(kw_error* error);
  int32_t CheckFileSize(kw_error* error);
  uint8_t* MapAddress() const;
  // write.cc
  int Apply(MDB_txn* transaction, std::span<const kw_kv_op> ops) const;
  int DeleteRange(MDB_txn* transaction, MDB_cursor* cursor, const kw_kv_op& op) const;
  int TryBatch(std::span<const kw_kv_op> ops);
  bool DiskIsFull(std::span<const kw_kv_op> ops) const;
  int32_t CheckOps(std::span<const kw_kv_op> ops, kw_error* error) const;
  int32_t GrowMap(kw_error* error);
  bool TryGrowMap(int wait_ms, int* result);
  void RefreshStats(MDB_txn* transaction);
  void RefreshDiskBytes();
  // read.cc
  void Touched(uint64_t bytes);
  void RunWorker();
  int32_t RunCheckpoint(const std::string& directory, kw_error* error);
  void ReleaseMap();

  // Fills `error` from a result of LMDB or an errno.
  int32_t Failed(kw_error* error, const char* call, int result) const;
  std::string DataPath() const { return options_.directory + "/data.mdb"; }

  const Options options_;  // Constant after Open.
  Logger log_;
  Clock clock_;
  Histogram commit_seconds_;
  LockedDirectory lock_;
  int data_file_ = -1;  // For its size.
  MDB_env* environment_ = nullptr;
  MDB_dbi tables_[KW_KV_TABLE_COUNT] = {};
  uint32_t page_bytes_ = 4096;

  Gate gate_;
  std::atomic<uint64_t> map_bytes_ = 0;
  std::atomic<uint64_t> disk_bytes_ = 0, live_bytes_ = 0, views_open_ = 0;
  std::atomic<uint64_t> touched_bytes_ = 0;
  std::atomic<uint64_t> map_releases_ = 0;

  int broken_ = 0;  // [store] The result that ended all writing.

  std::mutex idle_mutex_;
  std::vector<MDB_txn*> idle_;  // Reset read transactions.

  std::mutex worker_mutex_;  // Guards what follows.
  std::condition_variable work_;
  std::deque<CheckpointJob> checkpoints_;
  bool release_wanted_ = false;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace keyway::storage_lmdb
