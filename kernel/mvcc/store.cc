// SPDX-License-Identifier: Apache-2.0
#include "kernel/mvcc/store.h"

#include <algorithm>

#include "kernel/base/check.h"
#include "kernel/base/mutant.h"

namespace keyway::mvcc {

Store::Store(const Options& options, LeaseKeys* leases)
    : leases_(leases), cache_(options.cache_bytes), recent_(options.recent_bytes) {
  KW_CHECK(leases != nullptr);
}

Revision Store::RestoreRecord(Revision revision, std::string_view record) {
  RecordFields fields;
  KW_CHECK(DecodeRecord(record, &fields));
  KW_CHECK(fields.mod_revision == revision.main);
  revision.crc32c = RecordChecksum(record);
  index_.Restore(fields.key, revision, fields);
  if (fields.lease != 0) restored_leases_ = true;
  revision_ = std::max(revision_, revision.main);
  return revision;
}

void Store::FinishRestore(int64_t revision, int64_t compact_revision, bool compacted) {
  KW_CHECK(revision >= revision_);
  KW_CHECK(compact_revision >= 0 && compact_revision <= revision);
  revision_ = revision;
  compact_revision_ = compact_revision;
  recent_.Reset(revision);
  compacting_ = !compacted && compact_revision > 0;
  compact_cursor_.clear();
  compact_stop_.clear();
  compact_wrapped_ = false;
  if (!restored_leases_ || mutant::Is(mutant::kLeaseKeysForgotten)) return;
  restored_leases_ = false;
  static const std::string kFirst(1, '\0');
  index_.ForEach(kFirst, kFirst, [this](Item* item) {
    if (item->lease() != 0 && !item->tombstone() && leases_->Exists(item->lease())) {
      leases_->Attach(item->lease(), item->key());
    }
    return true;
  });
}

void Store::Clear() {
  cache_.Clear();
  index_.Clear();
  recent_.Reset(1);
  provided_.clear();
  revision_ = 1;
  pending_count_ = 0;
  compact_revision_ = 0;
  compacting_ = compact_wrapped_ = false;
  compact_cursor_.clear();
  compact_stop_.clear();
  ++epoch_;
}

size_t Store::memory_bytes() const { return index_.memory_bytes() + cache_.bytes() + recent_.bytes(); }

// ---- records ----

SharedBytes Store::FindUncached(Revision revision) const {
  if (SharedBytes record = recent_.Find(revision); record.has_value()) return record;
  if (provided_.empty()) return {};
  auto at = provided_.find({revision.main, revision.sub});
  return at == provided_.end() ? SharedBytes() : at->second;
}

void Store::Provide(Revision revision, SharedBytes record) {
  KW_CHECK(record.has_value());
  CacheRead(revision, record);
  Keep(revision, std::move(record));
}

void Store::CacheRead(Revision revision, const SharedBytes& record) {
  Item* item = index_.Find(RecordKey(record.view()));
  if (item == nullptr || item->tombstone() || item->revision() != revision) return;
  cache_.Insert(item, record, /*used=*/false);
}

bool Store::IsIntact(Revision revision, std::string_view record) const {
  RecordFields fields;
  if (!DecodeRecord(record, &fields)) return false;
  const Item* item = index_.Find(fields.key);
  uint32_t crc32c = 0;
  // A compaction leaves what was made at its revision.
  if (item == nullptr || !item->FindChecksum(revision, &crc32c)) return revision.main < compact_revision_;
  return crc32c == RecordChecksum(record);
}

// ---- changes ----

void Store::FillPrev(const Item& item, bool want_prev, Change* change) const {
  if (item.revision().main == 0) return;  // New.
  // As etcd has it, the previous version is the one before the whole revision.
  VersionInfo before;
  if (!item.At(revision_, &before)) return;
  change->prev_revision = before.revision;
  if (want_prev) {
    change->prev = FindRecord(item, before.revision);
  } else if (before.revision == item.revision()) {
    change->prev = item.record();
  }
}

void Store::Put(std::string_view key, std::string_view value, int64_t lease, bool want_prev) {
  Change change;
  change.revision = NextRevision();
  Item* item = index_.FindOrAdd(key);
  item->Prefetch();
  bool existed = item->revision().main != 0 && !item->tombstone();
  int64_t old_lease = existed ? item->lease() : 0;
  change.record = EncodeRecord({
      .key = key,
      .value = value,
      .create_revision = existed ? item->create_revision() : change.revision.main,
      .mod_revision = change.revision.main,
      .version = existed ? item->version() + 1 : 1,
      .lease = lease,
  });
  change.revision.crc32c = RecordChecksum(change.record.view());

  FillPrev(*item, want_prev, &change);
  index_.Put(item, change.revision, lease);
  cache_.Insert(item, change.record, /*used=*/true);
  recent_.Append(std::move(change));
  ++pending_count_;

  if (old_lease == lease) return;
  if (old_lease != 0) leases_->Detach(old_lease, item->key());
  if (lease != 0) leases_->Attach(lease, item->key());
}

void Store::Delete(Item* item, bool want_prev, bool detach) {
  Change change;
  change.revision = NextRevision();
  change.kind = KW_EVENT_DELETE;
  FillPrev(*item, want_prev, &change);
  change.record = EncodeRecord({.key = item->key(), .mod_revision = change.revision.main});
  change.revision.crc32c = RecordChecksum(change.record.view());
  int64_t old_lease = item->lease();

  cache_.Remove(item);
  index_.Delete(item, change.revision);
  recent_.Append(std::move(change));
  ++pending_count_;

  if (detach && old_lease != 0) leases_->Detach(old_lease, item->key());
}

void Store::Commit() {
  if (pending_count_ > 0) ++revision_;
  pending_count_ = 0;
  if (!provided_.empty()) provided_.clear();
}

// ---- watches ----

Revision Store::PreviousVersion(std::string_view key, Revision revision) const {
  // A version that a newer one at or below the compaction replaces is compacted, removed or not.
  if (revision.main <= compact_revision_) return {};
  const Item* item = index_.Find(key);
  VersionInfo before;
  if (item == nullptr || !item->At(revision.main - 1, &before)) return {};
  return before.revision;
}

SharedBytes Store::FindRecordOf(std::string_view key, Revision revision) const {
  const Item* item = index_.Find(key);
  return item == nullptr ? FindUncached(revision) : FindRecord(*item, revision);
}

}  // namespace keyway::mvcc
