// SPDX-License-Identifier: Apache-2.0
//
// StoreShadow: what the last written keys of an engine must read as (level full). It holds hashes, of a
// bounded number of keys; a key that it does not know may have any value.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "keyway/kv_store.h"

namespace keyway::check {

class StoreShadow {
 public:
  // The state of a key after the batch with this number.
  struct Known {
    uint64_t batch = 0;
    bool is_there = false;
    uint64_t hash = 0;
  };
  using Key = std::pair<uint32_t, std::string>;  // Table and key.

  // A batch is about to be written: until Commit() views may show its keys as before or after. Batches
  // are numbered from 1. [store]
  void Begin(const kw_kv_op* ops, size_t op_count);
  // It was written: views that are opened from now on must show it.
  void Commit();
  // The engine may hold anything: the batch failed.
  void Forget();
  // The last one that was committed.
  uint64_t batch() const;

  // What a view that was opened after `batch` must show for the key, if that is known.
  std::optional<Known> Find(uint32_t table, kw_slice key, uint64_t batch) const;
  // The first key of the table that comes after `from`, or is `from` and `from_is_in`, before `before`
  // (empty: no bound), and that a view opened after `batch` must show.
  std::optional<std::string> FirstBetween(uint32_t table, const std::string& from, bool from_is_in,
                                          const std::string& before, uint64_t batch) const;
  // Keys of the last batch, at most `count_max` of them, spread over it.
  std::vector<Key> KeysOfLastBatch(size_t count_max) const;

 private:
  static constexpr size_t kKeysMax = 8192;
  void Set(uint32_t table, std::string key, Known known);

  mutable std::mutex mutex_;  // Guards what follows.
  uint64_t batch_ = 0;        // Committed.
  std::map<Key, Known> known_;
  std::deque<std::pair<Key, uint64_t>> order_;  // Of setting, to forget the oldest.
};

}  // namespace keyway::check
