// SPDX-License-Identifier: Apache-2.0
//
// Source of the order of filter, sort and limit: etcd 3.7 server/etcdserver/txn/range.go.
#include "kernel/mvcc/range_scan.h"

#include <algorithm>
#include <utility>

#include "kernel/base/check.h"

namespace keyway::mvcc {
namespace {

bool IsDefaultOrder(const kw_range& range) {
  return range.sort_order == KW_ORDER_NONE ||
         (range.sort_target == KW_SORT_KEY && range.sort_order == KW_ORDER_ASCEND);
}

bool IsSorted(const kw_range& range) {
  return range.sort_target != KW_SORT_KEY || range.sort_order == KW_ORDER_DESCEND;
}

}  // namespace

bool HasFilters(const kw_range& range) {
  return range.mod_min != 0 || range.mod_max != 0 || range.create_min != 0 || range.create_max != 0;
}

bool MatchesFilters(const kw_range& range, const VersionInfo& info) {
  int64_t mod = info.revision.main, create = info.create_revision;
  return (range.mod_max == 0 || mod <= range.mod_max) && (range.mod_min == 0 || mod >= range.mod_min) &&
         (range.create_max == 0 || create <= range.create_max) &&
         (range.create_min == 0 || create >= range.create_min);
}

bool NeedsRecords(const kw_range& range) {
  if (range.flags & KW_RANGE_COUNT_ONLY) return false;
  return !(range.flags & KW_RANGE_KEYS_ONLY) || range.sort_target == KW_SORT_VALUE;
}

RangeScan::RangeScan(Store* store, const kw_range& range, int64_t revision, Reply* reply)
    : store_(store),
      range_(range),
      revision_(revision),
      reply_(reply),
      count_only_(range.flags & KW_RANGE_COUNT_ONLY),
      keys_only_(range.flags & KW_RANGE_KEYS_ONLY),
      index_only_(!NeedsRecords(range)),
      sorted_(IsSorted(range)),
      by_value_(range.sort_target == KW_SORT_VALUE),
      descend_(range.sort_order == KW_ORDER_DESCEND),
      cursor_(ToView(range.key)) {
  if (range.limit <= 0) return;
  limit_ = static_cast<uint64_t>(range.limit);
  if (!sorted_) {
    window_max_ = limit_;
  } else if (IsDefaultOrder(range) && !HasFilters(range)) {
    window_max_ = limit_ + 1;
  }
}

RangeScan::Progress RangeScan::Step(size_t keys_max) {
  KW_CHECK(missing_.empty());
  size_t budget = std::max<size_t>(keys_max, 1);
  SealRun();
  if (phase_ == Phase::kCollect) {
    size_t used = Collect(budget);
    if (ended_) phase_ = sorted_ ? Phase::kMerge : Phase::kDone;
    if (!missing_.empty()) return Progress::kBlocked;
    budget -= std::min(budget, used);
    if (phase_ == Phase::kCollect || (phase_ == Phase::kMerge && budget == 0)) return Progress::kMore;
    SealRun();
  }
  if (phase_ == Phase::kMerge) {
    Merge(budget);
    if (!missing_.empty()) return Progress::kBlocked;
  }
  return phase_ == Phase::kDone ? Progress::kDone : Progress::kMore;
}

// Visits up to `budget` keys (4 x as many when they are only counted). Returns how much it used.
size_t RangeScan::Collect(size_t budget) {
  Item* batch[kBatch];
  if (range_.end.len == 0) {
    batch[0] = store_->index().Find(cursor_);
    if (batch[0] != nullptr) CollectBatch(batch, 1);
    ended_ = true;
    return 1;
  }
  KeyIndex::Span span = store_->index().SpanOf(cursor_, ToView(range_.end));
  KeyIndex::Iterator at = span.begin;
  size_t quarters = 0;
  while (at != span.end && quarters / 4 < budget && !ended_) {
    size_t count = 0;
    size_t count_max = std::min(kBatch, full_ || count_only_ ? kBatch : budget - quarters / 4);
    for (; count < count_max && at != span.end; ++count, ++at) {
      batch[count] = *at;
      __builtin_prefetch(*at);
    }
    quarters += full_ || count_only_ ? count : count * 4;
    CollectBatch(batch, count);
  }
  if (at == span.end) ended_ = true;
  if (!ended_) cursor_.assign((*at)->key());
  return (quarters + 3) / 4;
}

void RangeScan::CollectBatch(Item* const* items, size_t count) {
  if (!full_ && !index_only_) {
    for (size_t i = 0; i < count; ++i) {
      if (items[i]->record().has_value()) __builtin_prefetch(items[i]->record().data() - 8, 1);
    }
  }
  for (size_t i = 0; i < count && !ended_; ++i) Visit(items[i]);
}

void RangeScan::Visit(Item* item) {
  VersionInfo info;
  if (!item->At(revision_, &info)) return;
  ++count_;
  if (count_only_ || full_ || !MatchesFilters(range_, info)) return;
  if (matched_ == window_max_) {
    full_ = true;
    if (range_.flags & KW_RANGE_NO_COUNT) ended_ = true;
    return;
  }
  ++matched_;
  if (sorted_) {
    AddEntry(item, info);
  } else {
    AddPlain(item, info);
  }
}

void RangeScan::AddPlain(Item* item, const VersionInfo& info) {
  if (index_only_) {
    out_.push_back(EncodeKeyOnly({.key = item->key(),
                                  .create_revision = info.create_revision,
                                  .mod_revision = info.revision.main,
                                  .version = info.version}));
    return;
  }
  SharedBytes record = store_->FindRecord(*item, info.revision);
  if (record.has_value()) {
    item->MarkUsed();
    EmitRecord(std::move(record));
    return;
  }
  missing_.push_back(info.revision);
  missing_at_.push_back(out_.size());
  out_.push_back({});
}

void RangeScan::AddEntry(Item* item, const VersionInfo& info) {
  Entry entry;
  entry.order = static_cast<uint32_t>(entries_.size());
  entry.revision = info.revision;
  switch (range_.sort_target) {
    case KW_SORT_VERSION:
      entry.number = info.version;
      break;
    case KW_SORT_CREATE:
      entry.number = info.create_revision;
      break;
    case KW_SORT_MOD:
      entry.number = info.revision.main;
      break;
    default:
      entry.number = entry.order;  // The key; or the value, which is compared itself.
  }
  if (index_only_) {
    entry.encoded = EncodeKeyOnly({.key = item->key(),
                                   .create_revision = info.create_revision,
                                   .mod_revision = info.revision.main,
                                   .version = info.version});
  } else if (SharedBytes record = store_->FindRecord(*item, info.revision); record.has_value()) {
    SetEntryRecord(&entry, std::move(record));
  } else if (by_value_) {
    missing_.push_back(info.revision);
    missing_at_.push_back(entries_.size());
  }
  entries_.push_back(std::move(entry));
}

void RangeScan::SetEntryRecord(Entry* entry, SharedBytes record) {
  if (by_value_) {
    RecordFields fields;
    KW_CHECK(DecodeRecord(record.view(), &fields));
    entry->value = ToSlice(fields.value);
  }
  entry->record = std::move(record);
}

bool RangeScan::Before(const Entry& a, const Entry& b) const {
  if (by_value_) {
    int order = ToView(a.value).compare(ToView(b.value));
    if (order != 0) return descend_ ? order > 0 : order < 0;
  } else if (a.number != b.number) {
    return descend_ ? a.number > b.number : a.number < b.number;
  }
  return a.order < b.order;
}

// Sorts what the last slice collected. Runs of slices are merged at the end, so no step sorts all.
void RangeScan::SealRun() {
  size_t begin = runs_.empty() ? 0 : runs_.back();
  if (begin == entries_.size()) return;
  std::sort(entries_.begin() + static_cast<ptrdiff_t>(begin), entries_.end(),
            [this](const Entry& a, const Entry& b) { return Before(a, b); });
  runs_.push_back(static_cast<uint32_t>(entries_.size()));
}

void RangeScan::Merge(size_t budget) {
  auto later = [this](const auto& a, const auto& b) { return Before(entries_[b.first], entries_[a.first]); };
  if (!merging_) {
    merging_ = true;
    uint32_t begin = 0;
    for (uint32_t end : runs_) {
      heads_.push_back({begin, end});
      begin = end;
    }
    std::make_heap(heads_.begin(), heads_.end(), later);
  }
  for (; budget > 0 && !heads_.empty() && out_.size() < limit_; --budget) {
    std::pop_heap(heads_.begin(), heads_.end(), later);
    auto& [next, end] = heads_.back();
    Emit(entries_[next]);
    if (++next == end) {
      heads_.pop_back();
    } else {
      std::push_heap(heads_.begin(), heads_.end(), later);
    }
  }
  if (heads_.empty() || out_.size() >= limit_) phase_ = Phase::kDone;
}

void RangeScan::Emit(const Entry& entry) {
  if (index_only_) {
    out_.push_back(entry.encoded);
  } else if (!entry.record.has_value()) {
    missing_.push_back(entry.revision);
    missing_at_.push_back(out_.size());
    out_.push_back({});
  } else if (keys_only_) {
    RecordFields fields;
    KW_CHECK(DecodeRecord(entry.record.view(), &fields));
    fields.value = {};
    out_.push_back(EncodeKeyOnly(fields));
  } else {
    EmitRecord(entry.record);
  }
}

void RangeScan::EmitRecord(SharedBytes record) {
  out_.push_back(record.slice());
  reply_->held.push_back(std::move(record));
}

kw_slice RangeScan::EncodeKeyOnly(const RecordFields& fields) {
  size_t size = RecordSize(fields);
  // In words: the arena zeroes element by element.
  char* bytes = reinterpret_cast<char*>(reply_->arena.NewArray<uint64_t>((size + 7) / 8));
  WriteRecord(fields, bytes);
  return ToSlice({bytes, size});
}

bool RangeScan::Resume(std::vector<SharedBytes> records) {
  KW_CHECK(records.size() == missing_.size());
  bool collecting_values = by_value_ && !merging_;
  for (size_t i = 0; i < records.size(); ++i) {
    RecordFields fields;
    if (!DecodeRecord(records[i].view(), &fields) || fields.mod_revision != missing_[i].main) return false;
    store_->CacheRead(missing_[i], records[i]);
    if (collecting_values) {
      SetEntryRecord(&entries_[missing_at_[i]], std::move(records[i]));
    } else {
      out_[missing_at_[i]] = records[i].slice();
      reply_->held.push_back(std::move(records[i]));
    }
  }
  missing_.clear();
  missing_at_.clear();
  return true;
}

void RangeScan::Finish(kw_op_result* result) {
  KW_CHECK(phase_ == Phase::kDone && missing_.empty());
  bool more = full_ || (sorted_ && matched_ > limit_);
  result->kind = KW_OP_RANGE;
  result->flags = more ? KW_RESULT_MORE : 0;
  result->count = range_.flags & KW_RANGE_NO_COUNT && !count_only_ ? 0 : count_;
  result->record_count = out_.size();
  kw_slice* records = reply_->arena.NewArray<kw_slice>(out_.size());
  std::copy(out_.begin(), out_.end(), records);
  result->records = records;
}

}  // namespace keyway::mvcc
