// SPDX-License-Identifier: Apache-2.0
//
// The cache of newest records, bounded by bytes. The handle lies in the item itself; the cache adds 8
// bytes a record: its ring of items, over which a clock hand finds what was not read lately.
#pragma once

#include <cstdint>
#include <vector>

#include "kernel/base/bytes.h"
#include "kernel/mvcc/key_index.h"

namespace keyway::mvcc {

class RecordCache {
 public:
  explicit RecordCache(size_t bytes_max) : bytes_max_(bytes_max) {}

  // Makes `record` the cached newest record of `item`, in place of the one before. `used`: as if it had
  // been read once. It may be dropped at any later Insert(), even by this one.
  void Insert(Item* item, SharedBytes record, bool used);
  void Remove(Item* item);
  // Forgets all, without touching the items, which are gone.
  void Clear();

  size_t bytes() const { return bytes_; }
  size_t count() const { return ring_.size(); }

 private:
  // What a cached record costs beyond its bytes: the block's header, malloc's, and the ring's slot.
  static constexpr size_t kOverheadBytes = SharedBytes::kOverheadBytes + 8 + sizeof(Item*);
  // Items that the hand passes at most before it takes one that was read lately.
  static constexpr size_t kPassedMax = 32;

  void EvictOne();
  void Swap(size_t a, size_t b);

  const size_t bytes_max_;
  std::vector<Item*> ring_;
  size_t hand_ = 0;
  size_t bytes_ = 0;
};

}  // namespace keyway::mvcc
