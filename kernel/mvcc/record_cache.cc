// SPDX-License-Identifier: Apache-2.0
#include "kernel/mvcc/record_cache.h"

#include <utility>

#include "kernel/base/check.h"

namespace keyway::mvcc {

void RecordCache::Insert(Item* item, SharedBytes record, bool used) {
  KW_CHECK(record.has_value());
  size_t cost = record.size() + kOverheadBytes;
  if (cost > bytes_max_) {
    Remove(item);
    return;
  }
  if (item->cache_slot_ != Item::kNotCached) {
    bytes_ -= item->record_.size() + kOverheadBytes;
    bytes_ += cost;
    item->record_ = std::move(record);
    item->used_ = used ? 1 : 0;
    while (bytes_ > bytes_max_) EvictOne();
    return;
  }
  bool evicted = false;
  for (; bytes_ + cost > bytes_max_; evicted = true) EvictOne();
  KW_CHECK(ring_.size() < Item::kNotCached);
  item->cache_slot_ = static_cast<uint32_t>(ring_.size());
  ring_.push_back(item);
  bytes_ += cost;
  item->record_ = std::move(record);
  item->used_ = used ? 1 : 0;
  // Right behind the hand, in the slot that became free: the hand comes there last.
  if (evicted && hand_ > 0) Swap(hand_ - 1, ring_.size() - 1);
}

void RecordCache::Swap(size_t a, size_t b) {
  std::swap(ring_[a], ring_[b]);
  ring_[a]->cache_slot_ = static_cast<uint32_t>(a);
  ring_[b]->cache_slot_ = static_cast<uint32_t>(b);
}

void RecordCache::Remove(Item* item) {
  if (item->cache_slot_ == Item::kNotCached) return;
  bytes_ -= item->record_.size() + kOverheadBytes;
  item->record_ = SharedBytes();
  Item* last = ring_.back();
  ring_[item->cache_slot_] = last;
  last->cache_slot_ = item->cache_slot_;
  ring_.pop_back();
  item->cache_slot_ = Item::kNotCached;
}

void RecordCache::EvictOne() {
  KW_CHECK(!ring_.empty());
  for (size_t passed = 0;; ++passed) {
    if (hand_ >= ring_.size()) hand_ = 0;
    Item* item = ring_[hand_];
    if (item->used_ == 0 || passed == kPassedMax) {
      Remove(item);
      ++hand_;  // Over the item that took its place; Insert() gives it its own back.
      return;
    }
    item->used_ = 0;
    ++hand_;
  }
}

void RecordCache::Clear() {
  ring_ = {};
  hand_ = 0;
  bytes_ = 0;
}

}  // namespace keyway::mvcc
