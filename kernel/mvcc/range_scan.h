// SPDX-License-Identifier: Apache-2.0
//
// One range at one revision, in slices, into the results of a reply. Used by RangeReader and by txns.
// Internal to kernel/mvcc.
//
// Three ways through, as etcd has them:
//   plain    key order: keys are counted to the end of the range, the first `limit` that pass the
//            filters go to the reply as they come.
//   window   sort target other than the key, but no order, and no filters: the first limit + 1 keys are
//            sorted ascending by the target, then cut to the limit.
//   sorted   all keys that pass the filters are sorted, then cut to the limit.
// Equal sort values keep key order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernel/mvcc/mvcc.h"
#include "kernel/mvcc/store.h"

namespace keyway::mvcc {

// Whether a version passes the revision filters of `range`.
bool MatchesFilters(const kw_range& range, const VersionInfo& info);
bool HasFilters(const kw_range& range);
// Whether the records of the range must be read, not only the index.
bool NeedsRecords(const kw_range& range);

class RangeScan {
 public:
  using Progress = RangeReader::Progress;

  // `revision`: what to read at; not compacted, not in the future. The caller watches that it stays so.
  RangeScan(Store* store, const kw_range& range, int64_t revision, Reply* reply);
  Progress Step(size_t keys_max);
  const std::vector<Revision>& missing() const { return missing_; }
  // False if a record is lost or malformed.
  bool Resume(std::vector<SharedBytes> records);
  // After kDone.
  void Finish(kw_op_result* result);

 private:
  struct Entry {
    int64_t number = 0;  // What to sort by,
    kw_slice value{};    // or this.
    Revision revision;
    SharedBytes record;
    kw_slice encoded{};  // KEYS_ONLY: what goes to the reply.
    uint32_t order = 0;  // In key order.
  };
  enum class Phase { kCollect, kMerge, kDone };
  static constexpr size_t kBatch = 32;

  size_t Collect(size_t budget);
  void CollectBatch(Item* const* items, size_t count);
  void Visit(Item* item);
  void AddPlain(Item* item, const VersionInfo& info);
  void AddEntry(Item* item, const VersionInfo& info);
  void SetEntryRecord(Entry* entry, SharedBytes record);
  bool Before(const Entry& a, const Entry& b) const;
  void SealRun();
  void Merge(size_t budget);
  void Emit(const Entry& entry);
  void EmitRecord(SharedBytes record);
  kw_slice EncodeKeyOnly(const RecordFields& fields);

  Store* const store_;
  const kw_range range_;
  const int64_t revision_;
  Reply* const reply_;
  const bool count_only_, keys_only_, index_only_, sorted_, by_value_;
  bool descend_ = false;
  uint64_t window_max_ = ~uint64_t{0};  // Matching keys to collect.
  uint64_t limit_ = ~uint64_t{0};       // Of them, to return.

  Phase phase_ = Phase::kCollect;
  std::string cursor_;  // Next key to visit.
  int64_t count_ = 0;
  uint64_t matched_ = 0;  // Collected.
  bool full_ = false;     // The window is, and a further match is known.
  bool ended_ = false;    // Nothing more to visit.

  std::vector<Entry> entries_;
  std::vector<uint32_t> runs_;                        // Ends of the sorted runs of entries_.
  std::vector<std::pair<uint32_t, uint32_t>> heads_;  // A heap of [next, end) of the runs.
  bool merging_ = false;

  std::vector<kw_slice> out_;
  std::vector<Revision> missing_;
  std::vector<size_t> missing_at_;  // Index into entries_ (sorted by value) or into out_.
};

}  // namespace keyway::mvcc
