// SPDX-License-Identifier: Apache-2.0
//
// Batches and what makes them durable.
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <cstring>

#include "engine.h"

namespace keyway::storage_rocksdb {
namespace {

// A key as RocksDB has it, built without an allocation.
class TableKey {
 public:
  rocksdb::Slice Set(uint32_t table, kw_slice key) {
    bytes_[0] = static_cast<char>(table);
    std::memcpy(bytes_ + 1, key.ptr, key.len);
    return {bytes_, key.len + 1};
  }

 private:
  char bytes_[kKeyBytesMax + 1];
};

rocksdb::Slice ToSlice(kw_slice slice) { return {reinterpret_cast<const char*>(slice.ptr), slice.len}; }

// The end of a range in a table, exclusive. It may be longer than a key can be.
std::string EndKey(uint32_t table, kw_slice end) {
  if (end.len == 0) return std::string(1, static_cast<char>(table + 1));
  std::string key(1, static_cast<char>(table));
  key.append(reinterpret_cast<const char*>(end.ptr), end.len);
  return key;
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
  if (failure_.code != KW_OK) return FailAgain(error);
  size_t bytes = 64;
  for (const kw_kv_op& op : ops) bytes += op.key.len + op.value.len + 16;
  rocksdb::WriteBatch batch(bytes);
  rocksdb::Status status;
  TableKey key;
  for (const kw_kv_op& op : ops) {
    const rocksdb::Slice begin = key.Set(op.table, op.key);
    switch (op.kind) {
      case KW_KV_PUT:
        status = batch.Put(begin, ToSlice(op.value));
        break;
      case KW_KV_DELETE:
        status = batch.Delete(begin);
        break;
      case KW_KV_DELETE_RANGE: {
        const std::string end = EndKey(op.table, op.value);
        if (begin.compare(end) < 0) status = batch.DeleteRange(begin, end);
        break;
      }
      default:
        return Fail(error, KW_INTERNAL, "write: kind ", op.kind);  // CheckOps has seen to that.
    }
    if (!status.ok()) return Failed(error, "write", status);
  }
  rocksdb::WriteOptions options;
  options.disableWAL = !options_.use_log;
  status = database_->Write(options, &batch);
  return status.ok() ? KW_OK : FailForGood(error, "write", status);
}

int32_t Engine::Sync(kw_error* error) {
  if (failure_.code != KW_OK) return FailAgain(error);
  const uint64_t before_ns = clock_.MonoNs();
  rocksdb::Status status;
  if (options_.use_log) {
    status = database_->SyncWAL();
  } else {
    rocksdb::FlushOptions options;
    options.allow_write_stall = true;  // The only writer is here.
    status = database_->Flush(options);
  }
  commit_seconds_.ObserveNs(clock_.MonoNs() - before_ns);
  if (!status.ok()) return FailForGood(error, "sync", status);
  RefreshStats(database_.get());
  return KW_OK;
}

// RocksDB goes on by itself when a disk has room again, but what of the writes before is then in which file
// is not for us to guess (seen: a flush that succeeded afterwards and had not everything). As after any
// failed flush (fsyncgate) only opening the store again tells what it holds.
int32_t Engine::FailForGood(kw_error* error, const char* call, const rocksdb::Status& status) {
  failure_ = NoError();
  failure_.code = Failed(&failure_, call, status);
  return FailAgain(error);
}

int32_t Engine::FailAgain(kw_error* error) const {
  return FailDetail(error, failure_.code, failure_.detail, std::string_view(failure_.text));
}

void Engine::RefreshStats(rocksdb::DB* database) {
  const auto number_of = [&](const std::string& property) {
    uint64_t number = 0;
    return database->GetIntProperty(property, &number) ? number : 0;
  };
  // What is in memory is in the log too, if there is one.
  using Properties = rocksdb::DB::Properties;
  const uint64_t log_bytes = options_.use_log ? number_of(Properties::kCurSizeAllMemTables) : 0;
  const uint64_t disk_bytes = number_of(Properties::kTotalSstFilesSize) + log_bytes;
  disk_bytes_ = disk_bytes;
  live_bytes_ = std::min(number_of(Properties::kEstimateLiveDataSize) + log_bytes, disk_bytes);
}

}  // namespace keyway::storage_rocksdb
