// SPDX-License-Identifier: Apache-2.0
//
// StoreBatch: changes on their way to the engine, as one atomic write. Filled on [core], written on the
// [store] lane.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/base/bytes.h"
#include "kernel/base/mutant.h"
#include "kernel/core/store_format.h"
#include "kernel/mvcc/record.h"
#include "keyway/kv_store.h"

namespace keyway::core {

class StoreBatch {
 public:
  void Put(uint32_t table, std::string_view key, SharedBytes value) {
    Op& op = Add(KW_KV_PUT, table, key);
    bytes_ += value.size() + 32;
    op.value = std::move(value);
  }
  void Delete(uint32_t table, std::string_view key) {
    Add(KW_KV_DELETE, table, key);
    bytes_ += 32;
  }
  // Everything in the table.
  void Clear(uint32_t table) { Add(KW_KV_DELETE_RANGE, table, std::string_view("\0", 1)); }
  void PutRecord(mvcc::Revision revision, SharedBytes record) {
    char key[mvcc::kRevisionKeyBytes];
    mvcc::EncodeRevisionKey(revision, key);
    Put(kTableRevisions, {key, sizeof key}, std::move(record));
  }
  void DeleteRecord(mvcc::Revision revision) {
    char key[mvcc::kRevisionKeyBytes];
    mvcc::EncodeRevisionKey(revision, key);
    Delete(kTableRevisions, {key, sizeof key});
  }

  bool empty() const { return ops_.empty(); }
  size_t bytes() const { return bytes_; }

  // [store] Writes the batch and makes it durable. KW_OK, or a code with `error` set.
  int32_t WriteTo(kw_plugin* plugin, const kw_kv_store* store, std::string* error) const {
    std::vector<kw_kv_op> ops;
    ops.reserve(ops_.size());
    for (const Op& op : ops_) {
      ops.push_back({op.kind, op.table, ToSlice({op.key, op.key_bytes}),
                     op.kind == KW_KV_DELETE_RANGE ? kw_slice{} : op.value.slice()});
    }
    kw_error failure{};
    failure.size = sizeof failure;
    if (mutant::Is(mutant::kAppliedBeforeData) && ops.size() > 1) {
      if (int32_t code = store->write(plugin, &ops.back(), 1, &failure); code != KW_OK) return code;
      if (int32_t code = store->sync(plugin, &failure); code != KW_OK) return code;
      ops.pop_back();
    }
    int32_t code = store->write(plugin, ops.data(), ops.size(), &failure);
    if (code == KW_OK) code = store->sync(plugin, &failure);
    if (code != KW_OK) *error = failure.text;
    return code;
  }

 private:
  static constexpr size_t kKeyBytesMax = 16;
  struct Op {
    uint8_t kind = 0, table = 0, key_bytes = 0;
    char key[kKeyBytesMax];
    SharedBytes value;
  };
  Op& Add(uint32_t kind, uint32_t table, std::string_view key) {
    KW_CHECK(key.size() <= kKeyBytesMax);
    Op& op = ops_.emplace_back();
    op.kind = static_cast<uint8_t>(kind);
    op.table = static_cast<uint8_t>(table);
    op.key_bytes = static_cast<uint8_t>(key.size());
    std::memcpy(op.key, key.data(), key.size());
    return op;
  }

  std::vector<Op> ops_;
  size_t bytes_ = 0;
};

}  // namespace keyway::core
