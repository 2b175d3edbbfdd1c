// SPDX-License-Identifier: Apache-2.0
//
// Views, gets and cursors. What they give out is copied: an iterator's pair is gone when it moves on, and
// keeping its blocks would keep a whole scan in memory.
#include <algorithm>
#include <memory>

#include "engine.h"

namespace keyway::storage_rocksdb {
namespace {

constexpr size_t kGetGroup = 32;

rocksdb::ReadOptions ReadOf(const ReadView& view) {
  rocksdb::ReadOptions options;
  options.snapshot = view.snapshot;
  return options;
}
const uint8_t* Bytes(const char* at) { return reinterpret_cast<const uint8_t*>(at); }
std::string TableKey(uint32_t table, std::string_view key) {
  std::string out(1, static_cast<char>(table));
  out.append(key);
  return out;
}

}  // namespace

int32_t Engine::OpenView(ReadView** out, kw_error* error) {
  auto view = std::make_unique<ReadView>();
  view->snapshot = database_->GetSnapshot();
  if (view->snapshot == nullptr) return Fail(error, KW_INTERNAL, options_.directory, ": no snapshot");
  views_open_ += 1;
  *out = view.release();
  return KW_OK;
}

void Engine::CloseView(ReadView* view) {
  database_->ReleaseSnapshot(view->snapshot);
  delete view;
  views_open_ -= 1;
}

int32_t Engine::Get(ReadView* view, uint32_t table, std::span<const kw_slice> keys, kw_slice* values,
                    kw_error* error) {
  if (table >= KW_KV_TABLE_COUNT) return Fail(error, KW_INVALID_ARGUMENT, "get: table ", table);
  view->copies.clear();
  view->pinned.clear();
  const rocksdb::ReadOptions options = ReadOf(*view);
  for (size_t at = 0; at < keys.size(); at += kGetGroup) {
    const size_t count = std::min(kGetGroup, keys.size() - at);
    std::string full_keys[kGetGroup];
    rocksdb::Slice slices[kGetGroup];
    rocksdb::PinnableSlice found[kGetGroup];
    rocksdb::Status statuses[kGetGroup];
    for (size_t i = 0; i < count; ++i) {
      full_keys[i] = TableKey(table, View(keys[at + i]));  // One that is too long is not there.
      slices[i] = full_keys[i];
    }
    database_->MultiGet(options, database_->DefaultColumnFamily(), count, slices, found, statuses);
    for (size_t i = 0; i < count; ++i) {
      kw_slice& value = values[at + i];
      value = {nullptr, 0};
      if (statuses[i].IsNotFound()) continue;
      if (!statuses[i].ok()) return Failed(error, "get", statuses[i]);
      value.len = found[i].size();
      if (value.len > kCopiedValueBytesMax) {
        value.ptr = Bytes(view->pinned.emplace_back(std::move(found[i])).data());
      } else {
        // For now the place in `copies`, plus one: they may still move.
        value.ptr = reinterpret_cast<const uint8_t*>(view->copies.size() + 1);
        view->copies.append(found[i].data(), found[i].size());
      }
    }
  }
  for (size_t i = 0; i < keys.size(); ++i) {
    if (values[i].ptr == nullptr || values[i].len > kCopiedValueBytesMax) continue;
    values[i].ptr = Bytes(view->copies.data() + (reinterpret_cast<uintptr_t>(values[i].ptr) - 1));
  }
  return KW_OK;
}

int32_t Engine::OpenCursor(ReadView* view, uint32_t table, kw_slice begin, kw_slice end, bool descending,
                           Cursor** out, kw_error* error) {
  if (table >= KW_KV_TABLE_COUNT) return Fail(error, KW_INVALID_ARGUMENT, "cursor: table ", table);
  auto cursor = std::make_unique<Cursor>();
  cursor->begin = TableKey(table, View(begin));
  cursor->end = end.len == 0 ? TableKey(table + 1, {}) : TableKey(table, View(end));
  cursor->begin_slice = cursor->begin;
  cursor->end_slice = cursor->end;
  cursor->descending = descending;
  if (cursor->begin < cursor->end) {
    rocksdb::ReadOptions options = ReadOf(*view);
    options.iterate_lower_bound = &cursor->begin_slice;
    options.iterate_upper_bound = &cursor->end_slice;
    options.fill_cache = false;  // A scan must not push out what is read by key.
    cursor->iterator.reset(database_->NewIterator(options));
  }
  *out = cursor.release();
  return KW_OK;
}

void Engine::CloseCursor(Cursor* cursor) { delete cursor; }

int32_t Engine::Next(Cursor* cursor, std::span<kw_kv_pair> pairs, size_t* count, kw_error* error) {
  *count = 0;
  cursor->copies.clear();
  rocksdb::Iterator* const iterator = cursor->iterator.get();
  if (iterator == nullptr) return KW_OK;  // No key can be in the range.
  while (*count < pairs.size() && cursor->copies.size() < kNextBytesMax) {
    if (!cursor->started) {
      cursor->descending ? iterator->SeekToLast() : iterator->SeekToFirst();
      cursor->started = true;
    } else if (iterator->Valid()) {
      cursor->descending ? iterator->Prev() : iterator->Next();
    }
    if (!iterator->Valid()) break;
    const rocksdb::Slice key = iterator->key(), value = iterator->value();
    cursor->copies.append(key.data() + 1, key.size() - 1);
    cursor->copies.append(value.data(), value.size());
    pairs[*count] = {{nullptr, key.size() - 1}, {nullptr, value.size()}};
    *count += 1;
  }
  if (!iterator->Valid() && !iterator->status().ok()) return Failed(error, "scan", iterator->status());
  const uint8_t* at = Bytes(cursor->copies.data());
  for (kw_kv_pair& pair : pairs.first(*count)) {
    pair.key.ptr = at;
    at += pair.key.len;
    pair.value.ptr = at;
    at += pair.value.len;
  }
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

}  // namespace keyway::storage_rocksdb
