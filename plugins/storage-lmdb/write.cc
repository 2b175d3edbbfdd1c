// SPDX-License-Identifier: Apache-2.0
//
// Batches: all or nothing, and the growth of the map.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "engine.h"

namespace keyway::storage_lmdb {
namespace {

constexpr int kGrowTurnMs = 50;      // How long new views are held back at a time,
constexpr int kGrowPauseMs = 10;     // and let in in between,
constexpr int kGrowTurnsMax = 5000;  // about 5 minutes in all.

MDB_val ToVal(kw_slice slice) { return {slice.len, const_cast<uint8_t*>(slice.ptr)}; }
std::string_view ToView(const MDB_val& value) {
  return {static_cast<const char*>(value.mv_data), value.mv_size};
}

}  // namespace

int32_t Engine::CheckOps(std::span<const kw_kv_op> ops, kw_error* error) const {
  for (size_t i = 0; i < ops.size(); ++i) {
    const kw_kv_op& op = ops[i];
    if (op.table >= KW_KV_TABLE_COUNT || op.kind > KW_KV_DELETE_RANGE) {
      return Fail(error, KW_INVALID_ARGUMENT, "write: op ", i, ": kind ", op.kind, ", table ", op.table);
    }
    if (op.key.len == 0 || op.key.len > kKeyBytesMax) {
      return Fail(error, KW_INVALID_ARGUMENT, "write: op ", i, ": a key of ", op.key.len, " bytes; 1 to ",
                  kKeyBytesMax, " are possible");
    }
    if (op.value.len > kValueBytesMax) {
      return Fail(error, KW_INVALID_ARGUMENT, "write: op ", i, ": a value of ", op.value.len, " bytes; ",
                  kValueBytesMax, " are possible");
    }
  }
  return KW_OK;
}

int32_t Engine::Write(std::span<const kw_kv_op> ops, kw_error* error) {
  if (const int32_t code = CheckOps(ops, error); code != KW_OK) return code;
  if (broken_ != 0) return Failed(error, "write after a failure", broken_);
  int result = TryBatch(ops);
  while (result == MDB_MAP_FULL) {
    if (const int32_t code = GrowMap(error); code != KW_OK) return code;
    result = TryBatch(ops);
  }
  // LMDB takes a write that was cut short by a full disk for an I/O error.
  if (result == EIO && DiskIsFull(ops)) result = ENOSPC;
  switch (result) {
    case 0:
      break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case MDB_TXN_FULL:
      return Failed(error, "write", result);  // Nothing was applied; it may go better later.
    default:
      broken_ = result;  // What the file holds beyond the last sync is unknown.
      return Failed(error, "write", result);
  }
  RefreshDiskBytes();
  uint64_t bytes = 0;
  for (const kw_kv_op& op : ops) bytes += op.key.len + op.value.len;
  Touched(bytes);
  // Half full: a good moment, if no view is open, to grow without anybody waiting.
  MDB_envinfo environment;
  mdb_env_info(environment_, &environment);
  if ((environment.me_last_pgno + 1) * page_bytes_ > map_bytes_ / 2) {
    (void)TryGrowMap(0, &result);
  }
  return KW_OK;
}

// Whether the file cannot grow by what `ops` may take at most, found out by trying.
bool Engine::DiskIsFull(std::span<const kw_kv_op> ops) const {
  uint64_t bytes = 64 * page_bytes_;
  for (const kw_kv_op& op : ops) bytes += op.key.len + op.value.len + 4 * page_bytes_;
  struct stat info;
  if (::fstat(data_file_, &info) != 0) return false;
  const int result = ::fallocate(data_file_, 0, info.st_size, static_cast<off_t>(bytes));
  const int number = errno;
  if (result != 0) return number == ENOSPC || number == EDQUOT || number == EFBIG;
  return ::ftruncate(data_file_, info.st_size) != 0;
}

// Returns a result of LMDB. Unless it is 0, nothing has changed.
int Engine::TryBatch(std::span<const kw_kv_op> ops) {
  MDB_txn* transaction = nullptr;
  int result = mdb_txn_begin(environment_, nullptr, 0, &transaction);
  if (result != 0) return result;
  result = Apply(transaction, ops);
  if (result != 0) {
    mdb_txn_abort(transaction);
    return result;
  }
  RefreshStats(transaction);
  const uint64_t before_ns = clock_.MonoNs();
  result = mdb_txn_commit(transaction);
  commit_seconds_.ObserveNs(clock_.MonoNs() - before_ns);
  return result;
}

int Engine::Apply(MDB_txn* transaction, std::span<const kw_kv_op> ops) const {
  // One cursor a table: it remembers its place, and the transaction frees it.
  MDB_cursor* cursors[KW_KV_TABLE_COUNT] = {};
  // Ascending keys fill pages to the brim and need no search. Whether a key is above all others is
  // cheap to find out; a table that shows otherwise is taken for one with keys in any order.
  bool appends[KW_KV_TABLE_COUNT];
  for (bool& one : appends) one = true;

  for (const kw_kv_op& op : ops) {
    MDB_cursor*& cursor = cursors[op.table];
    if (cursor == nullptr) {
      const int result = mdb_cursor_open(transaction, tables_[op.table], &cursor);
      if (result != 0) return result;
    }
    MDB_val key = ToVal(op.key);
    MDB_val value = ToVal(op.value);
    int result = 0;
    switch (op.kind) {
      case KW_KV_PUT:
        result = MDB_KEYEXIST;
        if (appends[op.table]) result = mdb_cursor_put(cursor, &key, &value, MDB_APPEND);
        if (result == MDB_KEYEXIST) {
          appends[op.table] = false;
          value = ToVal(op.value);
          result = mdb_cursor_put(cursor, &key, &value, 0);
        }
        break;
      case KW_KV_DELETE:
        result = mdb_cursor_get(cursor, &key, nullptr, MDB_SET);
        if (result == 0) result = mdb_cursor_del(cursor, 0);
        if (result == MDB_NOTFOUND) result = 0;
        break;
      case KW_KV_DELETE_RANGE:
        result = DeleteRange(transaction, cursor, op);
        break;
      default:
        return EINVAL;  // CheckOps has seen to that.
    }
    if (result != 0) return result;
  }
  return 0;
}

int Engine::DeleteRange(MDB_txn* transaction, MDB_cursor* cursor, const kw_kv_op& op) const {
  MDB_val key, value;
  if (op.value.len == 0) {
    // To the end; and if nothing is below the beginning, all of it, page by page.
    const int result = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    if (result == MDB_NOTFOUND) return 0;
    if (result != 0) return result;
    if (ToView(key) >= View(op.key)) return mdb_drop(transaction, tables_[op.table], 0);
  }
  key = ToVal(op.key);
  int result = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  while (result == 0) {
    if (op.value.len != 0 && ToView(key) >= View(op.value)) return 0;
    result = mdb_cursor_del(cursor, 0);
    if (result == 0) result = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
  }
  return result == MDB_NOTFOUND ? 0 : result;
}

// One try to double the map. False if there was a view.
bool Engine::TryGrowMap(int wait_ms, int* result) {
  const uint64_t bytes = map_bytes_ * 2;
  if (bytes > kMapBytesMax || !AddressSpaceIsThere(bytes)) {
    *result = ENOMEM;
    return true;
  }
  return gate_.TryExclusive(wait_ms, [&] {
    *result = mdb_env_set_mapsize(environment_, bytes);
    if (*result == 0) {
      map_bytes_ = bytes;
      return;
    }
    // There is no map any more, and the next view would crash without saying why.
    log_.Error("map_lost", {{"bytes", bytes}, {"error", mdb_strerror(*result)}});
    std::abort();
  });
}

int32_t Engine::GrowMap(kw_error* error) {
  for (int turn = 0; turn < kGrowTurnsMax; ++turn) {
    int result = 0;
    if (TryGrowMap(kGrowTurnMs, &result)) {
      if (result != 0) return Failed(error, "growing the map", result);
      log_.Info("map_grown", {{"bytes", map_bytes_.load()}});
      return KW_OK;
    }
    // Views that were held back get in now; one of them may be what another one waits for.
    std::this_thread::sleep_for(std::chrono::milliseconds(kGrowPauseMs));
  }
  return Fail(error, KW_RESOURCE_EXHAUSTED, DataPath(), ": the map of ", map_bytes_.load(),
              " bytes is full and cannot grow: ", gate_.users(), " views stay open");
}

int32_t Engine::Sync(kw_error* error) {
  if (broken_ != 0) return Failed(error, "sync after a failure", broken_);
  const int result = mdb_env_sync(environment_, 1);
  if (result == 0) return KW_OK;
  broken_ = result;
  return Failed(error, "mdb_env_sync", result);
}

// Counts pages by table: what is allocated and in none of them is free. Constant time.
void Engine::RefreshStats(MDB_txn* transaction) {
  uint64_t pages = 2;  // The meta pages.
  MDB_stat stat;
  for (const MDB_dbi table : tables_) {
    if (mdb_stat(transaction, table, &stat) != 0) return;
    pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
  }
  for (const MDB_dbi internal : {MDB_dbi{0}, MDB_dbi{1}}) {  // The free list and the list of tables.
    if (mdb_stat(transaction, internal, &stat) != 0) return;
    pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
  }
  live_bytes_ = pages * page_bytes_;
}

void Engine::RefreshDiskBytes() {
  struct stat info;
  if (::fstat(data_file_, &info) == 0) disk_bytes_ = static_cast<uint64_t>(info.st_size);
}

}  // namespace keyway::storage_lmdb
