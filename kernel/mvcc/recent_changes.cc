// SPDX-License-Identifier: Apache-2.0
#include "kernel/mvcc/recent_changes.h"

#include <algorithm>
#include <utility>

namespace keyway::mvcc {

size_t RecentChanges::BytesOf(const Change& change) {
  constexpr size_t kBlockBytes = SharedBytes::kOverheadBytes + 8;
  return sizeof(Change) + change.record.size() + kBlockBytes +
         (change.prev.has_value() ? change.prev.size() + kBlockBytes : 0);
}

void RecentChanges::Append(Change change) {
  KW_DCHECK(changes_.empty() || changes_.back().revision < change.revision);
  bytes_ += BytesOf(change);
  changes_.push_back(std::move(change));
  ++untaken_;
  if (bytes_ > bytes_max_) Shrink();
}

std::vector<Change> RecentChanges::Take() {
  std::vector<Change> taken(changes_.end() - static_cast<ptrdiff_t>(untaken_), changes_.end());
  untaken_ = 0;
  return taken;
}

void RecentChanges::OnStored(int64_t main) {
  stored_main_ = std::max(stored_main_, main);
  if (bytes_ > bytes_max_) Shrink();
}

void RecentChanges::Reset(int64_t main) {
  changes_.clear();
  bytes_ = untaken_ = 0;
  stored_main_ = main;
  from_ = main + 1;
}

SharedBytes RecentChanges::Find(Revision revision) const {
  if (changes_.empty() || revision < changes_.front().revision) return {};
  auto at = std::lower_bound(changes_.begin(), changes_.end(), revision,
                             [](const Change& change, Revision r) { return change.revision < r; });
  if (at == changes_.end() || at->revision != revision) return {};
  return at->record;
}

void RecentChanges::Shrink() {
  // The blocks of the oldest changes are out of the processor's caches by now.
  constexpr size_t kLookAhead = 4;
  for (size_t dropped = 0; dropped < kDroppedMax && bytes_ > bytes_max_; ++dropped) {
    if (changes_.size() <= untaken_ || changes_.front().revision.main > stored_main_) return;
    if (changes_.size() > kLookAhead) {
      const Change& ahead = changes_[kLookAhead];
      __builtin_prefetch(ahead.record.data() - 8, 1);
      if (ahead.prev.has_value()) __builtin_prefetch(ahead.prev.data() - 8, 1);
    }
    from_ = changes_.front().revision.main + 1;
    bytes_ -= BytesOf(changes_.front());
    changes_.pop_front();
  }
}

}  // namespace keyway::mvcc
