// SPDX-License-Identifier: Apache-2.0
#include "kernel/core/snapshot.h"

#include "kernel/base/bytes.h"
#include "kernel/base/coding.h"
#include "kernel/base/limits.h"

namespace keyway::core {

SnapshotReader::~SnapshotReader() {
  if (cursor_ != nullptr) deps_.store->cursor_close(deps_.store_plugin, cursor_);
  if (view_ != nullptr) deps_.store->view_close(deps_.store_plugin, view_);
}

bool SnapshotReader::Open() {
  kw_error failure{};
  failure.size = sizeof failure;
  if (deps_.store->view_open(deps_.store_plugin, &view_, &failure) != KW_OK) {
    error_ = failure.text;
    return false;
  }
  const kw_slice key = ToSlice(kMetaApplied);
  kw_slice value{};
  if (deps_.store->get(deps_.store_plugin, view_, kTableMeta, &key, 1, &value, &failure) != KW_OK) {
    error_ = failure.text;
    return false;
  }
  std::optional<Applied> applied;
  if (value.ptr != nullptr) applied = DecodeApplied(ToView(value));
  if (!applied.has_value()) {
    error_ = "the store holds no applied point yet";
    return false;
  }
  applied_ = *applied;
  return true;
}

bool SnapshotReader::Fill() {
  kw_error failure{};
  failure.size = sizeof failure;
  constexpr size_t kTables = sizeof kSnapshotTables / sizeof kSnapshotTables[0];
  while (items_.empty() && table_ < kTables) {
    if (cursor_ == nullptr &&
        deps_.store->cursor_open(deps_.store_plugin, view_, kSnapshotTables[table_], ToSlice({"\0", 1}),
                                 kw_slice{}, 0, &cursor_, &failure) != KW_OK) {
      error_ = failure.text;
      return false;
    }
    constexpr size_t kPairs = 64;
    kw_kv_pair pairs[kPairs];
    size_t count = 0;
    if (deps_.store->cursor_next(deps_.store_plugin, cursor_, pairs, kPairs, &count, &failure) != KW_OK) {
      error_ = failure.text;
      return false;
    }
    for (size_t i = 0; i < count; ++i) {
      std::string& item = items_.emplace_back();
      item.push_back(static_cast<char>(kSnapshotTables[table_]));
      PutBytes(&item, ToView(pairs[i].key));
      PutBytes(&item, ToView(pairs[i].value));
    }
    if (count == 0) {
      deps_.store->cursor_close(deps_.store_plugin, cursor_);
      cursor_ = nullptr;
      ++table_;
    }
  }
  return true;
}

bool SnapshotReader::Next(std::string* items, bool* last) {
  while (items->size() < chunk_bytes_) {
    if (items_.empty() && !Fill()) return false;
    if (items_.empty()) {
      *last = true;
      return true;
    }
    items->append(items_.front());
    items_.pop_front();
  }
  *last = false;
  return true;
}

}  // namespace keyway::core
