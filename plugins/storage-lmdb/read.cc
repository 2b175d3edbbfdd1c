// SPDX-License-Identifier: Apache-2.0
//
// Views, gets and cursors; and the worker thread: copies of the store, and giving memory back.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "engine.h"

namespace keyway::storage_lmdb {
namespace {

MDB_val ToVal(std::string_view bytes) { return {bytes.size(), const_cast<char*>(bytes.data())}; }
kw_slice ToSlice(const MDB_val& value) { return {static_cast<const uint8_t*>(value.mv_data), value.mv_size}; }

int SyncPath(const std::string& path, int flags) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags);
  if (file < 0) return errno;
  const int result = ::fsync(file) == 0 ? 0 : errno;
  ::close(file);
  return result;
}

}  // namespace

int32_t Engine::OpenView(ReadView** out, kw_error* error) {
  auto view = std::make_unique<ReadView>();
  gate_.Enter();
  {
    std::lock_guard lock(idle_mutex_);
    if (!idle_.empty()) {
      view->transaction = idle_.back();
      idle_.pop_back();
    }
  }
  int result = 0;
  if (view->transaction != nullptr) {
    result = mdb_txn_renew(view->transaction);
    if (result != 0) mdb_txn_abort(view->transaction);
  } else {
    result = mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &view->transaction);
  }
  if (result != 0) {
    gate_.Leave();
    return Failed(error, "opening a view", result);
  }
  views_open_ += 1;
  *out = view.release();
  return KW_OK;
}

void Engine::CloseView(ReadView* view) {
  mdb_txn_reset(view->transaction);
  {
    std::lock_guard lock(idle_mutex_);
    if (idle_.size() < kIdleReadersMax) {
      idle_.push_back(view->transaction);
      view->transaction = nullptr;
    }
  }
  if (view->transaction != nullptr) mdb_txn_abort(view->transaction);
  delete view;
  views_open_ -= 1;
  gate_.Leave();
}

int32_t Engine::Get(ReadView* view, uint32_t table, std::span<const kw_slice> keys, kw_slice* values,
                    kw_error* error) {
  if (table >= KW_KV_TABLE_COUNT) return Fail(error, KW_INVALID_ARGUMENT, "get: table ", table);
  for (size_t i = 0; i < keys.size(); ++i) {
    values[i] = {nullptr, 0};
    if (keys[i].len == 0 || keys[i].len > kKeyBytesMax) continue;  // Cannot exist.
    MDB_val key = ToVal(View(keys[i]));
    MDB_val value;
    const int result = mdb_get(view->transaction, tables_[table], &key, &value);
    if (result == MDB_NOTFOUND) continue;
    if (result != 0) return Failed(error, "mdb_get", result);
    values[i] = ToSlice(value);
  }
  return KW_OK;
}

int32_t Engine::OpenCursor(ReadView* view, uint32_t table, kw_slice begin, kw_slice end, bool descending,
                           Cursor** out, kw_error* error) {
  if (table >= KW_KV_TABLE_COUNT) return Fail(error, KW_INVALID_ARGUMENT, "cursor: table ", table);
  auto cursor = std::make_unique<Cursor>();
  cursor->view = view;
  cursor->begin = View(begin);
  cursor->end = View(end);
  cursor->descending = descending;
  const int result = mdb_cursor_open(view->transaction, tables_[table], &cursor->cursor);
  if (result != 0) return Failed(error, "mdb_cursor_open", result);
  *out = cursor.release();
  return KW_OK;
}

void Engine::CloseCursor(Cursor* cursor) {
  mdb_cursor_close(cursor->cursor);
  delete cursor;
}

namespace {

// Moves to the first pair of the cursor's order.
int First(const Cursor& cursor, MDB_val* key, MDB_val* value) {
  if (!cursor.descending) {
    *key = ToVal(cursor.begin);
    return mdb_cursor_get(cursor.cursor, key, value, cursor.begin.empty() ? MDB_FIRST : MDB_SET_RANGE);
  }
  if (cursor.end.empty()) return mdb_cursor_get(cursor.cursor, key, value, MDB_LAST);
  *key = ToVal(cursor.end);
  const int result = mdb_cursor_get(cursor.cursor, key, value, MDB_SET_RANGE);
  if (result == MDB_NOTFOUND) return mdb_cursor_get(cursor.cursor, key, value, MDB_LAST);
  if (result != 0) return result;
  return mdb_cursor_get(cursor.cursor, key, value, MDB_PREV);
}

}  // namespace

int32_t Engine::Next(Cursor* cursor, std::span<kw_kv_pair> pairs, size_t* count, kw_error* error) {
  *count = 0;
  uint64_t bytes = 0;
  while (*count < pairs.size() && !cursor->done) {
    MDB_val key, value;
    const MDB_cursor_op step = cursor->descending ? MDB_PREV : MDB_NEXT;
    const int result =
        cursor->started ? mdb_cursor_get(cursor->cursor, &key, &value, step) : First(*cursor, &key, &value);
    cursor->started = true;
    if (result == MDB_NOTFOUND) {
      cursor->done = true;
      break;
    }
    if (result != 0) return Failed(error, "mdb_cursor_get", result);
    const std::string_view at(static_cast<const char*>(key.mv_data), key.mv_size);
    cursor->done = cursor->descending ? at < cursor->begin : !cursor->end.empty() && at >= cursor->end;
    if (cursor->done) break;
    pairs[*count] = {ToSlice(key), ToSlice(value)};
    bytes += key.mv_size + value.mv_size;
    *count += 1;
  }
  Touched(bytes);
  return KW_OK;
}

void Engine::Stats(kw_kv_stats* out) const {
  kw_kv_stats stats = {};
  stats.disk_bytes = disk_bytes_;
  stats.live_bytes = std::min(live_bytes_.load(), stats.disk_bytes);
  stats.views_open = views_open_;
  // The caller's struct may be an older, shorter one.
  stats.size = out->size;
  std::copy_n(reinterpret_cast<const char*>(&stats), std::min<size_t>(out->size, sizeof stats),
              reinterpret_cast<char*>(out));
}

// Pages that were read or written through the map count as resident memory until they are given back;
// after a long scan that would be the whole store.
void Engine::Touched(uint64_t bytes) {
  const uint64_t before = touched_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  if (before + bytes < kTouchedBytesMax) return;
  touched_bytes_.store(0, std::memory_order_relaxed);
  std::lock_guard lock(worker_mutex_);
  release_wanted_ = true;
  work_.notify_one();
}

int32_t Engine::Checkpoint(const char* directory, kw_completion* completion) {
  std::lock_guard lock(worker_mutex_);
  if (stopping_) return KW_UNAVAILABLE;
  if (checkpoints_.size() >= kCheckpointsMax) return KW_RESOURCE_EXHAUSTED;
  checkpoints_.push_back({directory, completion});
  work_.notify_one();
  return KW_PENDING;
}

void Engine::RunWorker() {
  std::unique_lock lock(worker_mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || release_wanted_ || !checkpoints_.empty(); });
    if (!checkpoints_.empty()) {
      const CheckpointJob job = std::move(checkpoints_.front());
      checkpoints_.pop_front();
      const bool cancelled = stopping_;
      lock.unlock();
      kw_error error = NoError();
      const int32_t code = cancelled ? Fail(&error, KW_CANCELLED, "the store was stopped")
                                     : RunCheckpoint(job.directory, &error);
      Complete(job.completion, code, &error);
      lock.lock();
      continue;
    }
    if (stopping_) return;
    release_wanted_ = false;
    lock.unlock();
    ReleaseMap();
    lock.lock();
  }
}

int32_t Engine::RunCheckpoint(const std::string& directory, kw_error* error) {
  gate_.Enter();
  int result = mdb_env_copy2(environment_, directory.c_str(), MDB_CP_COMPACT);
  gate_.Leave();
  if (result == 0) result = SyncPath(directory + "/data.mdb", 0);
  if (result == 0) result = SyncPath(directory, O_DIRECTORY);
  if (result == 0) return KW_OK;
  Failed(error, "", result);  // For the code.
  return Fail(error, error->code, directory, ": mdb_env_copy2: ", std::string_view(mdb_strerror(result)),
              " (", result, ")");
}

// The pages stay in the page cache; only this process's references to them go. A page that is used
// again, by an open view too, is mapped again.
void Engine::ReleaseMap() {
  gate_.Enter();
  uint8_t* address = MapAddress();
  const uint64_t bytes = disk_bytes_ / page_bytes_ * page_bytes_;
  if (address != nullptr && bytes != 0 && bytes <= map_bytes_ &&
      ::madvise(address, bytes, MADV_DONTNEED) == 0) {
    map_releases_ += 1;
  }
  gate_.Leave();
}

}  // namespace keyway::storage_lmdb
