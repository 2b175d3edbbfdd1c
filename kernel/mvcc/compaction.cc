// SPDX-License-Identifier: Apache-2.0
//
// Compaction, in slices. Scheduling one makes older revisions unreadable at once; the versions that it
// removes go step by step, and no read can tell how far it has come.
#include <algorithm>

#include "kernel/base/check.h"
#include "kernel/mvcc/store.h"

namespace keyway::mvcc {

Outcome Store::ApplyCompact(int64_t revision) {
  // Nothing is ever below revision 0: compacting at it is etcd's no-op, unless there was one already.
  if (revision == 0 && compact_revision_ == 0) return {};
  if (revision <= compact_revision_) return Failure(KW_DETAIL_COMPACTED);
  if (revision > revision_) return Failure(KW_DETAIL_FUTURE_REVISION);
  compact_revision_ = revision;
  compact_stop_ = compacting_ ? compact_cursor_ : std::string();
  compact_wrapped_ = false;
  if (!compacting_) compact_cursor_.clear();
  compacting_ = true;
  return {};
}

void Store::CompactStep(size_t keys_max, std::vector<Revision>* deleted) {
  if (!compacting_) return;
  KW_CHECK(keys_max > 0);
  constexpr size_t kLookAhead = 8;
  size_t versions_left = std::max<size_t>(keys_max * 4, 64);
  std::vector<Item*> gone;

  static const std::string kFirst(1, '\0');
  std::string_view end = compact_wrapped_ ? std::string_view(compact_stop_) : kFirst;
  KeyIndex::Span span = index_.SpanOf(compact_cursor_, end);
  KeyIndex::Iterator ahead = span.begin;
  for (size_t i = 0; i < kLookAhead && ahead != span.end; ++i, ++ahead) __builtin_prefetch(*ahead);
  KeyIndex::Iterator at = span.begin;
  for (size_t visited = 0; visited < keys_max && at != span.end; ++visited, ++at) {
    if (ahead != span.end) __builtin_prefetch(*ahead++);
    size_t before = deleted->size();
    KeyIndex::Compacted done = index_.Compact(*at, compact_revision_, versions_left, deleted);
    size_t used = std::min(deleted->size() - before, versions_left);
    versions_left -= used;
    if (done == KeyIndex::Compacted::kGone) gone.push_back(*at);
    if (done == KeyIndex::Compacted::kMore) break;
  }

  if (at != span.end) {
    compact_cursor_ = std::string((*at)->key());
  } else if (!compact_wrapped_ && !compact_stop_.empty()) {
    compact_wrapped_ = true;
    compact_cursor_.clear();
  } else {
    compacting_ = false;
  }
  for (Item* item : gone) index_.Erase(item);
}

}  // namespace keyway::mvcc
