// SPDX-License-Identifier: Apache-2.0
//
// Copies a store into another engine, offline.
//
// The copy is made in DIR.rewrite/store and takes its name DIR only when it was synced, opened again and
// found equal; DIR.rewrite/LOCK is held meanwhile. So a rewrite that is killed leaves DIR as it was, and
// the next one clears what it left.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "keyway/kv_store.h"
#include "store_engine.h"

namespace keyway::ctl {

// Of one table: pairs, bytes of keys and values, and CRC-32C over all lengths, keys and values in order.
struct TableSum {
  uint64_t pairs = 0, bytes = 0;
  uint32_t crc = 0;

  void Add(kw_slice key, kw_slice value);
  bool operator==(const TableSum&) const = default;
};
struct StoreSum {
  TableSum tables[KW_KV_TABLE_COUNT];

  TableSum Total() const;  // Without a crc.
};

// Runs with both engines loaded and not started. `progress` gets what was copied so far. An error text,
// or nothing and `out`.
std::string RewriteStore(StoreEngine* from, StoreEngine* to,
                         const std::function<void(const TableSum&)>& progress, StoreSum* out);

}  // namespace keyway::ctl
