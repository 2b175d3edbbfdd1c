// SPDX-License-Identifier: Apache-2.0
//
// The state behind Mvcc: index, cache, recent changes and the revisions; how records are found and how
// one change is made. txn_apply.cc and range_scan.cc build requests on it. Internal to kernel/mvcc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "kernel/mvcc/key_index.h"
#include "kernel/mvcc/mvcc.h"
#include "kernel/mvcc/recent_changes.h"
#include "kernel/mvcc/record_cache.h"

namespace keyway::mvcc {

class Store {
 public:
  Store(const Options& options, LeaseKeys* leases);

  // ---- restore ----
  Revision RestoreRecord(Revision revision, std::string_view record);
  void FinishRestore(int64_t revision, int64_t compact_revision, bool compacted);
  void Clear();

  // ---- state ----
  int64_t revision() const { return revision_; }
  int64_t compact_revision() const { return compact_revision_; }
  // Grows with each Clear(): what was pinned before is gone.
  uint64_t epoch() const { return epoch_; }
  size_t memory_bytes() const;
  KeyIndex& index() { return index_; }
  const KeyIndex& index() const { return index_; }
  RecentChanges& recent() { return recent_; }
  const RecentChanges& recent() const { return recent_; }
  LeaseKeys* leases() { return leases_; }

  // ---- records ----
  // Where a version's record may be in memory: the cache (only the newest), the recent changes, what
  // the caller provided. No value: it must be read from the engine.
  SharedBytes FindRecord(const Item& item, Revision revision) const {
    if (item.record().has_value() && item.revision() == revision) return item.record();
    return FindUncached(revision);
  }
  SharedBytes FindUncached(Revision revision) const;
  void Provide(Revision revision, SharedBytes record);
  // Keeps a record in memory until the next Commit().
  void Keep(Revision revision, SharedBytes record) {
    provided_[{revision.main, revision.sub}] = std::move(record);
  }
  // Takes a record that was read from the engine into the cache if it is its key's newest.
  void CacheRead(Revision revision, const SharedBytes& record);

  // See Mvcc::IsIntact().
  bool IsIntact(Revision revision, std::string_view record) const;

  // ---- changes: any number of them, then Commit() ----
  // The revision that a read between the changes of one request sees.
  int64_t pending_revision() const { return revision_ + (pending_count_ > 0 ? 1 : 0); }
  void Put(std::string_view key, std::string_view value, int64_t lease, bool want_prev);
  // `detach`: tell the leases, too.
  void Delete(Item* item, bool want_prev, bool detach);
  void Commit();

  // ---- compaction ----
  Outcome ApplyCompact(int64_t revision);
  void CompactStep(size_t keys_max, std::vector<Revision>* deleted);
  bool compacting() const { return compacting_; }

  // ---- watches ----
  Revision PreviousVersion(std::string_view key, Revision revision) const;
  SharedBytes FindRecordOf(std::string_view key, Revision revision) const;

 private:
  Revision NextRevision() const { return {revision_ + 1, pending_count_}; }
  void FillPrev(const Item& item, bool want_prev, Change* change) const;

  LeaseKeys* const leases_;
  KeyIndex index_;
  RecordCache cache_;
  RecentChanges recent_;
  absl::flat_hash_map<std::pair<int64_t, int32_t>, SharedBytes> provided_;  // Until the next Commit().
  int64_t revision_ = 1;
  int32_t pending_count_ = 0;  // Keys changed by the request that runs.
  uint64_t epoch_ = 0;
  bool restored_leases_ = false;  // A restored record had a lease.

  int64_t compact_revision_ = 0;
  bool compacting_ = false;
  // The compaction goes round: from the cursor to the last key, then from the first key to the stop.
  // A compaction that comes while one is under way only moves the stop to the cursor.
  std::string compact_cursor_, compact_stop_;
  bool compact_wrapped_ = false;
};

class Mvcc::Impl final : public Store {
 public:
  using Store::Store;
};

}  // namespace keyway::mvcc
